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
/// x4 = number of vCPUs, x5 = number of starts so far, x6 = RAM in bytes, x7 = exits so far of all its
/// vCPUs, without interrupts. Any VM may ask about [`SELF`].
pub const VM_INFO: u32 = 0xC600_0002;
/// The caller's own VM, in x1 of [`VM_INFO`].
pub const SELF: u64 = u64::MAX;
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

/// FAULT_INFO(x1 = VM, x2 = vCPU): the last tag fault of a vCPU since its VM's start that the region's
/// `on-tag-access` decided: x1 = [`FaultState`], x2 = PC, x3 = VA, x4 = IPA, x5 = region, x6 = access (0 tag
/// read or checked access, 1 tag read, 2 tag write, 3 checked read, 4 checked write), x7 =
/// [`FaultDecision`] that was taken or 0, x8 = ESR_EL2, x9 = number of such faults. [`Error::Empty`] if
/// there was none.
pub const FAULT_INFO: u32 = 0xC600_000A;
/// FAULT_DECIDE(x1 = VM, x2 = vCPU, x3 = [`FaultDecision`]): lets a vCPU go on whose fault waits for a
/// decision. [`Error::Empty`] if none waits.
pub const FAULT_DECIDE: u32 = 0xC600_000B;
/// TAG_STATS(x1 = VM, x2 = region or [`ALL_REGIONS`]): pages of 4 KiB throughout.
/// For all: x1 = number of regions, x2 = lazy unit, x3 = quota or `u64::MAX` for none, x4 = counted against
/// it now, x5 = turned tagged so far, x6 = turned back so far, x7 = tag accesses refused because the quota
/// was used up, x8 to x11 = the sums over all regions of what x5 to x8 are for a region.
/// For a region (numbered in the order of their addresses): x1 = IPA, x2 = pages, x3 = 0 backed, 1 none, 2
/// lazy, x4 = pages that the guest may tag now, x5 = faults that stopped the VM, x6 = that were injected,
/// x7 = that were reported, x8 = tag writes among these, since the VM's start.
pub const TAG_STATS: u32 = 0xC600_000C;
/// TAG_DEMOTE(x1 = VM, x2 = IPA, x3 = bytes, x4 = 0 or [`DEMOTE_SAVE`], x5 = buffer): takes the tags of the
/// lazy memory from x2 on away, and its quota; data stays. x1 = bytes that are done (call again from there: a
/// call does not do much at a time), x2 = pages turned back by this call.
pub const TAG_DEMOTE: u32 = 0xC600_000D;
/// Flag of TAG_DEMOTE: the tags of a page that is turned back go to the caller's buffer, 128 bytes for each
/// page of the range; no tag store of the guest's is lost between.
pub const DEMOTE_SAVE: u64 = 1;

/// TAG_QUOTA(x1 = VM, x2 = pages): limits the lazy memory that may be tagged to this many pages, at most to
/// what the manifest says. What is tagged already stays. x1 = the limit before, as in TAG_STATS.
pub const TAG_QUOTA: u32 = 0xC600_000E;

/// x2 of TAG_STATS: the VM as a whole.
pub const ALL_REGIONS: u64 = u64::MAX;

/// TAGS_COPY(x1 = VM, x2 = IPA, x3 = bytes, x4 = IPA of the caller's buffer, x5 = flags, x6 = x7 = 0):
/// allocation tags, whole pages. As all calls from here on it returns x1 = bytes of the guest's that are
/// done, x2 = [`CopyEnd`], x3 = bytes of the buffer that were used. x0 is 0 if anything is done.
pub const TAGS_COPY: u32 = 0xC600_0010;
/// TAGS_MAP(x1 = VM, x2 = IPA, x3 = bytes, x4 = buffer, x5 = 0 or [`MAP_TAGGED`]): a bit for each page that
/// has a tag other than 0.
pub const TAGS_MAP: u32 = 0xC600_0011;
/// Flag of TAGS_MAP: a bit for each page that the guest was ever allowed to tag, since its tags were zeroed
/// by a start or TAG_DEMOTE.
pub const MAP_TAGGED: u64 = 1;
/// MEMORY_COPY(x1 = VM, x2 = IPA, x3 = bytes, x4 = buffer, x5 = flags): data of all of a VM's memory.
pub const MEMORY_COPY: u32 = 0xC600_0012;
/// DIRTY_LOG(x1 = VM, x2 = [`DirtyOp`], x3 = IPA, x4 = bytes, x5 = buffer): which pages were written.
pub const DIRTY_LOG: u32 = 0xC600_0013;
/// DEBUG_COPY(x1 = VM, x2 = vCPU, x3 = VA, x4 = bytes, x5 = buffer, x6 = flags): data by the vCPU's stage 1.
pub const DEBUG_COPY: u32 = 0xC600_0014;
/// MIGRATE_COPY(x1 = VM, x2 = IPA, x3 = bytes, x4 = buffer, x5 = bytes of it, x6 = flags): data and tags.
pub const MIGRATE_COPY: u32 = 0xC600_0015;
/// DEVICE_COPY(x1 = VM, x2 = IPA, x3 = bytes, x4 = buffer, x5 = flags): data as a device's DMA would.
pub const DEVICE_COPY: u32 = 0xC600_0016;

/// Flag of all copies: from the guest to the buffer; without it, from the buffer to the guest.
pub const COPY_FROM_GUEST: u64 = 1;
/// Flag of TAGS_COPY: the buffer is packed.
pub const COPY_PACKED: u64 = 1 << 1;
/// Flag of MIGRATE_COPY from the guest: only pages that the dirty log has.
pub const COPY_DIRTY: u64 = 1 << 1;

/// Why a copy ended, x2 of all copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum CopyEnd {
    /// All of it is done.
    Complete = 0,
    /// Enough for one call: go on behind what is done.
    More = 1,
    /// No region of the VM is there.
    NoRegion = 2,
    /// A device is there.
    Device = 3,
    /// It cannot be written in this way.
    ReadOnly = 4,
    /// The memory cannot have tags, or its quota of lazy tags is used up.
    NoTags = 5,
    /// The caller's buffer is not memory of kind `ram`, or too short.
    Buffer = 6,
    /// The memory is being moved at the moment: try again.
    Moving = 7,
    /// The buffer holds what no copy from a guest could have written.
    Stream = 8,
    /// The virtual address leads nowhere.
    Unmapped = 9,
}

impl CopyEnd {
    /// What x0 says if nothing was done; `None` if that is no error.
    #[must_use]
    pub const fn error(self) -> Option<Error> {
        match self {
            Self::Complete | Self::More => None,
            Self::NoRegion | Self::Device | Self::ReadOnly | Self::Buffer | Self::Unmapped => {
                Some(Error::Fault)
            }
            Self::NoTags => Some(Error::NoTags),
            Self::Moving => Some(Error::Busy),
            Self::Stream => Some(Error::Invalid),
        }
    }
}

/// x2 of DIRTY_LOG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum DirtyOp {
    /// Ends the log.
    Stop = 0,
    /// Begins it, or a new round of it: the memory is clean.
    Start = 1,
    /// Which pages were written: a bit for each.
    Get = 2,
    /// The same; they are clean from now on.
    GetAndClear = 3,
}

impl DirtyOp {
    /// By its number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Stop),
            1 => Some(Self::Start),
            2 => Some(Self::Get),
            3 => Some(Self::GetAndClear),
            _ => None,
        }
    }
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
    /// Memory is not there, or may not be used so.
    Fault = -6,
    /// Memory that cannot have tags.
    NoTags = -7,
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
    /// A tag fault of a vCPU waits for FAULT_DECIDE; detail is the vCPU.
    TagFault = 3,
}

/// What became of a tag fault, x1 of FAULT_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum FaultState {
    /// It is over.
    Past = 1,
    /// The vCPU waits for a decision.
    Waiting = 2,
}

/// How a vCPU goes on after a tag fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum FaultDecision {
    /// It repeats the access: tags may be there now.
    Retry = 1,
    /// It takes a synchronous external abort.
    Inject = 2,
    /// Its VM stops.
    Stop = 3,
}

impl FaultDecision {
    /// By its number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Retry),
            2 => Some(Self::Inject),
            3 => Some(Self::Stop),
            _ => None,
        }
    }
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
