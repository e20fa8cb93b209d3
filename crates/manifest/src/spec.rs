//! What a machine runs, after parsing and validation: plain values, no strings to interpret.
//!
//! People write TOML; `cargo xtask bundle` lays it out (where kernel, initrd and device tree of
//! each VM go) and writes `manifest.dtb`; the hypervisor reads that into these types and checks all
//! of it again, because a bundle may come from anywhere.

use addr::{Canonical, Ipa, IpaRange, Pa, PaRange};
use alloc::string::String;
use alloc::vec::Vec;

/// Most VMs of one machine.
pub const MAX_VMS: usize = 32;
/// Most vCPUs of one VM.
pub const MAX_VCPUS: usize = 16;
/// Most regions of one VM.
pub const MAX_REGIONS: usize = 32;
/// Most ID register fields that a VM's entry can give.
pub const MAX_CPU_FIELDS: usize = 255;
/// Longest vector of the architecture, in bits.
pub const MAX_VECTOR: u16 = 2048;
/// Longest name of a VM or region, in bytes of `[a-z0-9_-]`.
pub const MAX_NAME: usize = 15;

/// The whole machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// Physical memory that has tag storage.
    pub taggable: Taggable,
    /// Physical memory that is the storage of other memory's tags: nobody may reach it as data.
    pub tag_storage: Vec<PaRange>,
    /// The VMs; their index is the VM id of hypercalls.
    pub vms: Vec<VmSpec>,
}

/// Physical memory that has tag storage, as the manifest claims; a probe must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taggable {
    /// None of it.
    None,
    /// All of it.
    All,
    /// These ranges.
    Ranges(Vec<PaRange>),
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSpec {
    /// Unique name.
    pub name: String,
    /// Physical CPU (index in the machine's device tree) of each vCPU; its length is the number of
    /// vCPUs, 1 to [`MAX_VCPUS`].
    pub cpus: Vec<u16>,
    /// Memory, sorted by IPA, page-aligned, without overlaps among each other or with the
    /// emulated devices ([`layout`](crate::layout)).
    pub regions: Vec<RegionSpec>,
    /// What runs first.
    pub kernel: KernelSpec,
    /// Initial RAM disk.
    pub initrd: Option<Placed>,
    /// Where the generated device tree goes: an 8-byte-aligned IPA with
    /// [`DTB_SIZE`](crate::layout::DTB_SIZE) bytes of RAM behind it that nothing else uses.
    pub dtb: Ipa<Canonical>,
    /// Kernel command line (`/chosen/bootargs`).
    pub cmdline: String,
    /// Whether the guest has FEAT_MTE2.
    pub mte: bool,
    /// Whether it has SVE.
    pub sve: Sve,
    /// Its longest vectors, in bits: a multiple of 128 up to [`MAX_VECTOR`]; the machine's without.
    pub sve_vl: Option<u16>,
    /// Whether it starts at virtual EL2 and may host guests of its own.
    pub nested: Option<Nested>,
    /// Scheduling priority: higher runs first; equal ones share by time slice.
    pub priority: u8,
    /// Which VMs it may control.
    pub control: Control,
    /// Whether it starts at boot.
    pub autostart: bool,
    /// Whether it runs in the background: the machine ends when all others have stopped, and its own
    /// end is not judged.
    pub background: bool,
    /// Whether a control VM may look at its memory by virtual addresses.
    pub debug: bool,
    /// What an SError that its accesses caused does.
    pub on_serror: OnSError,
    /// Most pages of 4 KiB that `lazy` regions may turn tagged; `None` is no limit.
    pub tag_quota: Option<u64>,
    /// What it is to see of its CPUs; all that it may without.
    pub cpu: CpuSpec,
    /// How much of a `lazy` region turns tagged at a time.
    pub lazy_unit: LazyUnit,
}

/// Values of ID register fields that a VM is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSpec {
    /// The fields, at most [`MAX_CPU_FIELDS`].
    pub fields: Vec<CpuField>,
    /// What sentences call each of them, one line each.
    pub names: String,
}

/// A field of an ID register and the value that it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuField {
    /// Index of the register, as crate `idreg` counts.
    pub register: u8,
    /// Lowest bit of the field.
    pub lsb: u8,
    /// The value.
    pub value: u8,
}

/// Whether a VM has the Scalable Vector Extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sve {
    /// It has none.
    No,
    /// It has what the machine has.
    IfPresent,
    /// It has, and is refused on a machine without.
    Yes,
}

/// How much of a `lazy` region turns tagged at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LazyUnit {
    /// 4 KiB.
    Page,
    /// 2 MiB.
    Block,
}

impl LazyUnit {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Page => addr::PAGE_SIZE,
            Self::Block => addr::BLOCK_2M,
        }
    }
}

/// Which kind of hypervisor a VM at virtual EL2 may be: HCR_EL2.E2H is fixed for each VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nested {
    /// HCR_EL2.E2H is 1: a hypervisor with host extensions, such as Linux.
    Vhe,
    /// HCR_EL2.E2H is 0: one without, such as this one.
    Nvhe,
}

/// Which VMs a VM may control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// None: an ordinary VM.
    None,
    /// All others.
    All,
    /// These, by index in [`MachineSpec::vms`].
    Vms(Vec<u16>),
}

/// The kernel: a flat image (gzip and ELF are unpacked when the bundle is made).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSpec {
    /// Name in the bundle and place in the VM.
    pub image: Placed,
    /// First instruction.
    pub entry: Ipa<Canonical>,
}

/// A file of the bundle and where its first byte goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Name in the bundle.
    pub file: String,
    /// Where it goes.
    pub at: Ipa<Canonical>,
}

/// A region of a VM's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Name, unique within the VM.
    pub name: String,
    /// Where the VM sees it.
    pub ipa: IpaRange,
    /// What it is.
    pub kind: RegionKind,
    /// Initial content from the bundle, at the region's start; the rest is zero.
    pub file: Option<String>,
    /// Whether tags may be stored in it.
    pub tags: Tags,
    /// What a tag access does where tags may not be stored.
    pub on_tag_access: OnTagAccess,
    /// What happens on a machine without FEAT_MTE_PERM.
    pub without_mte_perm: WithoutMtePerm,
}

/// What a region is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// The VM's own memory, readable, writable, executable.
    Ram,
    /// The VM's own memory that it cannot write.
    ReadOnly {
        /// What cache maintenance that needs write permission does.
        cmo: Cmo,
    },
    /// Memory of the same share name in several VMs; all have the same size.
    Shared {
        /// Common name.
        share: String,
    },
    /// Device memory of the machine.
    Device {
        /// Where it is.
        pa: Pa,
        /// How it is mapped.
        memory_type: DeviceMemory,
        /// Interrupts that it raises.
        interrupts: Vec<DeviceInterrupt>,
    },
}

/// How device memory is mapped at stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMemory {
    /// Device-nGnRE.
    Device,
    /// Normal non-cacheable.
    NonCacheable,
    /// Normal write-back (without tags: `tags = "none"`).
    WriteBack,
}

/// A physical SPI given to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInterrupt {
    /// INTID at the physical GIC, 32 to 1019.
    pub physical: u32,
    /// INTID that the VM sees, 32 to 1019.
    pub guest: u32,
    /// Edge-triggered instead of level-sensitive.
    pub edge: bool,
}

/// Whether tags may be stored in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// Tag storage from the start, zeroed.
    Backed,
    /// Never.
    None,
    /// From the first tag access on, as far as the quota goes.
    Lazy,
}

/// What a tag access does where tags may not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTagAccess {
    /// The VM stops with a report.
    Stop,
    /// The guest gets a synchronous external abort.
    Inject,
    /// The control VM decides.
    Report,
}

/// What DC IVAC and its tag forms do to a read-only region; all other maintenance is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmo {
    /// The line is cleaned and invalidated.
    Emulate,
    /// The guest gets a synchronous external abort: they need write permission (DDI 0487, D7.5.9).
    Architectural,
}

/// What a region with `tags = "none"` becomes on a machine without FEAT_MTE_PERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutMtePerm {
    /// The manifest is refused.
    Refuse,
    /// Normal non-cacheable, which has no tags.
    NonCacheable,
}

/// What an SError charged to a VM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSError {
    /// The guest gets a virtual SError.
    Inject,
    /// The VM stops.
    Stop,
}
