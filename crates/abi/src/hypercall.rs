//! Vendor-specific hypervisor service of SMCCC (DEN0028 6.2): calls of this hypervisor.
//!
//! A guest discovers them by [`UID`] and [`REVISION`], then by [`FEATURES`]. All but these three
//! are for control VMs; anyone else gets [`Error::Denied`]. x0 is 0 or an [`Error`]; other results
//! follow from x1.

/// Vendor-specific hypervisor call UID: the 128-bit id in w0..w3.
pub const UID: u32 = 0x8600_FF01;
/// Vendor-specific hypervisor service revision: major in x0, minor in x1.
pub const REVISION: u32 = 0x8600_FF03;
/// Which calls exist: x1 = bitmap of the low byte of the function ids from [`FEATURES`] on.
pub const FEATURES: u32 = 0xC600_0000;
/// VM_LIST(x1 = first VM): x1 = number of VMs of the machine, x2 = bitmap of the VMs from x1 on
/// (bit 0 = the first) that the caller may control.
pub const VM_LIST: u32 = 0xC600_0001;
/// VM_INFO(x1 = VM): x1 = [`VmState`], x2 and x3 = name (16 bytes, little-endian, zero-padded),
/// x4 = number of vCPUs, x5 = number of starts so far, x6 = RAM in bytes.
pub const VM_INFO: u32 = 0xC600_0002;
/// VM_START(x1 = VM): a stopped VM starts from its first state. Returns when the start has begun.
pub const VM_START: u32 = 0xC600_0003;
/// VM_STOP(x1 = VM): returns when the stop has begun; an [`EventKind::Stopped`] follows.
pub const VM_STOP: u32 = 0xC600_0004;
/// VM_RESTART(x1 = VM): stop if it runs, then start.
pub const VM_RESTART: u32 = 0xC600_0005;
/// EVENT_NEXT(): takes the caller's oldest event: x1 = [`EventKind`], x2 = VM, x3 = detail, x4 =
/// number of events lost because the queue was full. [`Error::Empty`] if there is none.
pub const EVENT_NEXT: u32 = 0xC600_0006;
/// IDREG_GET(x1 = VM, x2 = register): x1 = what the VM reads, or will read. A register is op0, op1, CRn,
/// CRm, op2 in 2, 3, 4, 4 and 3 bits, as bits 20:5 of an MRS have them.
pub const IDREG_GET: u32 = 0xC600_0007;
/// IDREG_SET(x1 = VM, x2 = register, x3 = value): before the VM first runs, all fields of a register at
/// once. [`Error::Invalid`]: x1 = lowest bit of the field that is wrong (64: there is no such VM or
/// register), x2 = its value as asked, x3 = the value that is allowed, x4 = an [`IdregBound`].
/// [`Error::Busy`]: the VM has run, and the value is another.
pub const IDREG_SET: u32 = 0xC600_0008;
/// IDREG_MASK(x1 = VM, x2 = register, x3 = 0): x1 = the fields that may have other values than at first.
pub const IDREG_MASK: u32 = 0xC600_0009;

/// What a field allows beside the value that IDREG_SET names: x4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum IdregBound {
    /// Nothing.
    Only = 0,
    /// Less.
    AtMost = 1,
    /// More.
    AtLeast = 2,
    /// The value that says "not implemented".
    OrAbsent = 3,
}

/// The UID's four words, w0 to w3: 6d0d7461-6776-4973-8f72-2d656c322d31.
pub const UID_WORDS: [u32; 4] = [0x6174_0d6d, 0x7349_7667, 0x652d_728f, 0x312d_326c];
/// The service's revision: major, minor.
pub const REVISION_VALUE: (u64, u64) = (1, 0);

/// Why a call failed: x0, as a signed 64-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Error {
    /// No such call.
    NotSupported = -1,
    /// An argument is wrong: no such VM, say.
    Invalid = -2,
    /// The caller may not do this.
    Denied = -3,
    /// Not in this state: starting a VM that runs, say.
    Busy = -4,
    /// Nothing there.
    Empty = -5,
}

/// State of a VM, x1 of VM_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum VmState {
    /// Not running; VM_START starts it.
    Stopped = 0,
    /// Memory is being prepared.
    Starting = 1,
    /// Running.
    Running = 2,
    /// Its vCPUs are being taken off their CPUs.
    Stopping = 3,
}

/// What happened, x1 of EVENT_NEXT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum EventKind {
    /// A VM stopped; detail is a [`StopCause`].
    Stopped = 1,
    /// A VM's first instruction is about to run; detail is 0.
    Started = 2,
}

/// Why a VM stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum StopCause {
    /// PSCI SYSTEM_OFF.
    SystemOff = 1,
    /// PSCI SYSTEM_RESET or SYSTEM_RESET2: the VM starts again by itself.
    SystemReset = 2,
    /// A control VM or the console asked.
    Request = 3,
    /// A fault that the VM's manifest answers with a stop.
    Fault = 4,
}
