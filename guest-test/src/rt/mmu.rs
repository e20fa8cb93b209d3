//! Stage 1: one constant table of 1 GiB blocks. The same physical memory appears in several windows
//! of the address space, each with other attributes; an address picks its attributes by its window.
//!
//! Windows are aliases of one memory as Normal write-back, with and without tags: not a mismatch
//! (Arm ARM B2.11). The device and non-cacheable windows serve memory that is used in no other way.

/// Size of a window: IPAs up to 64 GiB can be reached.
pub(crate) const WINDOW: u64 = 64 << 30;
const GIB: u64 = 1 << 30;
const BLOCK: u64 = 0b01;
const AF: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 3 << 8;
const EL0: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const NORMAL: u64 = 0 << 2;
const DEVICE: u64 = 1 << 2;
const TAGGED: u64 = 2 << 2;
const NON_CACHEABLE: u64 = 3 << 2;

/// MAIR_EL1 with tags: Normal WB, Device-nGnRE, Normal Tagged, Normal NC.
pub(crate) const MAIR_TAGGED: u64 = 0x44_f0_04_ff;
/// The same for a CPU without FEAT_MTE2, where 0xf0 is reserved.
pub(crate) const MAIR_UNTAGGED: u64 = 0x44_ff_04_ff;
/// TCR_EL1 without IPS: 39 bits from TTBR0, 4 KiB granule, cacheable walks, TBI0, no TTBR1.
pub(crate) const TCR: u64 = 25 | (1 << 8) | (1 << 10) | (3 << 12) | (1 << 23) | (2 << 30) | (1 << 37);
/// SCTLR_EL1: M, C, I, SA, SA0, WFx and cache instructions at EL0, RES1 bits, no tag checks yet.
pub(crate) const SCTLR: u64 = 1
    | (1 << 2)
    | (1 << 3)
    | (1 << 4)
    | (1 << 12)
    | (1 << 14)
    | (1 << 15)
    | (1 << 16)
    | (1 << 18)
    | (1 << 26)
    | 0x30d0_0800;
/// SCTLR_EL1.ATA and ATA0: EL1 and EL0 may access tags.
pub(crate) const SCTLR_ATA: u64 = (1 << 43) | (1 << 42);

/// SCTLR_EL1 with everything off.
pub(crate) const SCTLR_OFF: u64 = 0x30d0_0980;
/// TCR_EL2 with E2H 0, without PS: as [`TCR`].
pub(crate) const TCR_EL2: u64 = 25 | (1 << 8) | (1 << 10) | (3 << 12) | (1 << 20) | (1 << 31) | (1 << 23);
/// SCTLR_EL2 with E2H 0: M, C, I, SA and RES1 bits.
pub(crate) const SCTLR_EL2: u64 = 0x30c5_0830 | 1 | (1 << 2) | (1 << 3) | (1 << 12);

/// A translation table of 512 descriptors.
#[repr(C, align(4096))]
pub(crate) struct Table(pub(crate) [u64; 512]);

const fn windows() -> Table {
    let common = AF | INNER_SHAREABLE | BLOCK;
    let attributes = [
        NORMAL | UXN,
        DEVICE | UXN | PXN,
        TAGGED | UXN | PXN,
        TAGGED | EL0 | UXN | PXN,
        NORMAL | EL0 | READ_ONLY | PXN,
        NON_CACHEABLE | UXN | PXN,
    ];
    let mut table = [0; 512];
    let mut i = 0;
    while i < attributes.len() * 64 {
        table[i] = ((i as u64 % 64) * GIB) | attributes[i / 64] | common;
        i += 1;
    }
    // The first GiB holds the devices of the machine layout.
    table[0] = DEVICE | UXN | PXN | common;
    Table(table)
}

/// The table of every CPU.
#[unsafe(no_mangle)]
pub(crate) static TABLE: Table = windows();

/// The table of EL2 without VHE: one privilege level, whose XN is bit 54, and AP[1] is 1.
const fn el2_windows() -> Table {
    let Table(mut table) = windows();
    let mut i = 0;
    while i < table.len() {
        if table[i] != 0 {
            let executable = table[i] & PXN == 0;
            table[i] = table[i] & !(UXN | PXN) | EL0 | if executable { 0 } else { UXN };
        }
        i += 1;
    }
    Table(table)
}

/// The table of every CPU's EL2.
#[unsafe(no_mangle)]
pub(crate) static EL2_TABLE: Table = el2_windows();

/// Where `pa` is mapped as Device-nGnRE.
pub(crate) const fn device(pa: u64) -> u64 {
    pa + WINDOW
}
/// Where `pa` is mapped Normal write-back Tagged, for EL1.
pub(crate) const fn tagged(pa: u64) -> u64 {
    pa + 2 * WINDOW
}
/// Where `pa` is mapped Normal write-back Tagged, for EL1 and EL0.
pub(crate) const fn user(pa: u64) -> u64 {
    pa + 3 * WINDOW
}
/// Where `pa` is mapped read-only and executable, for EL0.
pub(crate) const fn user_code(pa: u64) -> u64 {
    pa + 4 * WINDOW
}
/// Where `pa` is mapped Normal non-cacheable.
pub(crate) const fn non_cacheable(pa: u64) -> u64 {
    pa + 5 * WINDOW
}

/// Replaces MAIR_EL1 and drops what the TLB knew of the old one.
pub(crate) fn set_mair(mair: u64) {
    // SAFETY: both values in use keep index 0, which maps all of Rust's memory, as it is.
    unsafe {
        core::arch::asm!("msr mair_el1, {0}", "isb", "tlbi vmalle1", "dsb nsh", "isb", in(reg) mair, options(nostack))
    };
}

/// TCR_EL1 for the upper half: 48 bits, cacheable walks, hardware sets the access flag (FEAT_HAFDBS).
const UPPER: u64 = (16 << 16) | (1 << 24) | (1 << 26) | (3 << 28) | HA;
const HA: u64 = 1 << 39;
/// TCR_EL1.EPD1: the upper half has no tables.
const EPD1: u64 = 1 << 23;

/// Makes `root`, a table of level 0, the upper half of this CPU's address space, or takes it away.
pub(crate) fn set_upper(root: Option<u64>) {
    let off = mrs!("tcr_el1") & !UPPER & !(0x3f << 16) | EPD1;
    let ha = if super::sysreg::field(mrs!("id_aa64mmfr1_el1"), 0) == 0 { HA } else { 0 };
    let tcr = if root.is_some() { off & !EPD1 | UPPER & !ha } else { off };
    // SAFETY: Rust's memory is in the lower half, which these bits leave as it is.
    unsafe {
        core::arch::asm!("msr tcr_el1, {0}", "msr ttbr1_el1, {1}", "isb", "tlbi vmalle1", "dsb nsh", "isb",
            in(reg) tcr, in(reg) root.unwrap_or(0), options(nostack))
    };
}
