//! Tag instructions, one function each, on addresses in the tagged windows.

use super::sysreg::field;
use core::arch::asm;

/// ID_AA64PFR1_EL1.MTE: 0 and 1 without memory tags, 2 with, 3 with asymmetric checks.
pub(crate) fn level() -> u64 {
    field(mrs!("id_aa64pfr1_el1"), 8)
}

/// `va` with logical tag `tag`.
pub(crate) const fn with_tag(va: u64, tag: u64) -> u64 {
    (va & !(0xf << 56)) | (tag << 56)
}

/// The logical tag of `va`.
pub(crate) const fn tag_of(va: u64) -> u64 {
    (va >> 56) & 0xf
}

macro_rules! stores {
    ($($(#[$doc:meta])* $name:ident $instruction:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name(va: u64) {
            // SAFETY: callers pass scratch or foreign memory, which holds no Rust object.
            unsafe { asm!(".arch_extension memtag", $instruction, a = in(reg) va, options(nostack)) };
        }
    )*};
}

stores! {
    /// STG: tags a granule.
    stg "stg {a}, [{a}]";
    /// ST2G: tags two granules.
    st2g "st2g {a}, [{a}]";
    /// STZG: tags and zeroes a granule.
    stzg "stzg {a}, [{a}]";
    /// STZ2G: tags and zeroes two granules.
    stz2g "stz2g {a}, [{a}]";
    /// STGP: tags a granule and stores a pair (of zeroes).
    stgp "stgp xzr, xzr, [{a}]";
    /// DC GVA: tags a block.
    dc_gva "dc gva, {a}";
    /// DC GZVA: tags and zeroes a block.
    dc_gzva "dc gzva, {a}";
    /// DC ZVA: zeroes a block, checked.
    dc_zva "dc zva, {a}";
}

/// LDG: the allocation tag of the granule at `va`.
pub(crate) fn ldg(va: u64) -> u64 {
    let mut value = va;
    // SAFETY: a tag load.
    unsafe {
        asm!(".arch_extension memtag", "ldg {v}, [{a}]", v = inout(reg) value, a = in(reg) va, options(nostack))
    };
    tag_of(value)
}

/// LDGM: the tags of a block.
pub(crate) fn ldgm(va: u64) -> u64 {
    let value;
    // SAFETY: a tag load.
    unsafe {
        asm!(".arch_extension memtag", "ldgm {v}, [{a}]", v = out(reg) value, a = in(reg) va, options(nostack))
    };
    value
}

/// STGM: stores the tags of a block.
pub(crate) fn stgm(va: u64, tags: u64) {
    // SAFETY: as for the other stores.
    unsafe {
        asm!(".arch_extension memtag", "stgm {v}, [{a}]", v = in(reg) tags, a = in(reg) va, options(nostack))
    };
}

/// STZGM: gives a block one tag and zeroes it.
pub(crate) fn stzgm(va: u64, tag: u64) {
    // SAFETY: as for the other stores.
    unsafe {
        asm!(".arch_extension memtag", "stzgm {v}, [{a}]", v = in(reg) tag, a = in(reg) va, options(nostack))
    };
}

/// IRG: `va` with a random tag out of those that neither `exclude` nor GCR_EL1 excludes.
pub(crate) fn irg(va: u64, exclude: u64) -> u64 {
    let value;
    // SAFETY: changes a register.
    unsafe {
        asm!(".arch_extension memtag", "irg {v}, {a}, {x}", v = out(reg) value, a = in(reg) va, x = in(reg) exclude, options(nostack))
    };
    value
}

/// ADDG #32, #3.
pub(crate) fn addg_32_3(va: u64) -> u64 {
    let value;
    // SAFETY: changes a register.
    unsafe {
        asm!(".arch_extension memtag", "addg {v}, {a}, #32, #3", v = out(reg) value, a = in(reg) va, options(nostack))
    };
    value
}

/// SUBP: difference of two addresses without their tags.
pub(crate) fn subp(a: u64, b: u64) -> i64 {
    let value: i64;
    // SAFETY: changes a register.
    unsafe {
        asm!(".arch_extension memtag", "subp {v}, {a}, {b}", v = out(reg) value, a = in(reg) a, b = in(reg) b, options(nostack))
    };
    value
}

/// PSTATE.TCO: tag checks are overridden.
pub(crate) fn set_tco(on: bool) {
    msr!("tco", u64::from(on) << 25);
}

/// PSTATE.TCO.
pub(crate) fn tco() -> bool {
    mrs!("tco") & (1 << 25) != 0
}

const TCF_SHIFT: u32 = 40;
const TCF0_SHIFT: u32 = 38;

/// What a failed tag check does at EL1 and EL0: SCTLR_EL1.TCF and TCF0 (0 nothing, 1 synchronous,
/// 2 asynchronous, 3 asynchronous for stores).
pub(crate) fn set_checks(el1: u64, el0: u64) {
    let other = mrs!("sctlr_el1") & !((3 << TCF_SHIFT) | (3 << TCF0_SHIFT));
    msr!("sctlr_el1", other | (el1 << TCF_SHIFT) | (el0 << TCF0_SHIFT));
}
