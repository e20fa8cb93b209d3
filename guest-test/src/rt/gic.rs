//! GICv3: the distributor, the redistributors, the CPU interface. Group 1 only, affinity routing.

use super::mem::{read8, read32, read64, write8, write32, write64};
use super::{cpu, timer};
use core::arch::asm;

/// The distributor.
pub(crate) const GICD: u64 = 0x0800_0000;
/// The first redistributor.
pub(crate) const GICR: u64 = 0x080a_0000;
/// Size of a redistributor.
pub(crate) const GICR_STRIDE: u64 = 0x2_0000;
/// GICD_CTLR.
pub(crate) const CTLR: u64 = 0x0;
/// GICD_TYPER.
pub(crate) const TYPER: u64 = 0x4;
/// GICD_IIDR.
pub(crate) const IIDR: u64 = 0x8;
/// GICD_PIDR2 and GICR_PIDR2.
pub(crate) const PIDR2: u64 = 0xffe8;
/// GICR_TYPER.
pub(crate) const GICR_TYPER: u64 = 0x8;
const GICR_WAKER: u64 = 0x14;
const IGROUPR: u64 = 0x80;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ISACTIVER: u64 = 0x300;
const ICACTIVER: u64 = 0x380;
const IPRIORITYR: u64 = 0x400;
const ICFGR: u64 = 0xc00;
const IROUTER: u64 = 0x6000;
const SGI_FRAME: u64 = 0x1_0000;
/// GICD_CTLR: affinity routing and group 1. With one security state, ARE is bit 4.
const CTLR_ENABLE: u32 = (1 << 4) | (1 << 1);
const CTLR_RWP: u32 = 1 << 31;
/// INTIDs from here on are no interrupts: spurious, or of another kind.
pub(crate) const SPECIAL: u32 = 1020;
/// What IAR1 answers if nothing is pending with sufficient priority.
pub(crate) const SPURIOUS: u32 = 1023;
/// Priority that interrupts have after [`init`].
pub(crate) const PRIORITY: u8 = 0x80;

/// This CPU's redistributor.
pub(crate) fn redistributor() -> u64 {
    redistributor_of(cpu::affinity())
}

/// The redistributor of the CPU with this MPIDR.
pub(crate) fn redistributor_of(mpidr: u64) -> u64 {
    let affinity = (mpidr & 0xff_ffff) | (mpidr >> 8 & 0xff00_0000);
    let mut frame = GICR;
    for _ in 0..cpu::MAX {
        let typer = read64(frame + GICR_TYPER);
        if typer >> 32 == affinity {
            return frame;
        }
        if typer & (1 << 4) != 0 {
            break;
        }
        frame += GICR_STRIDE;
    }
    panic!("no redistributor has affinity {affinity:#x}");
}

/// Where the registers of `intid` are: its bank, for SGIs and PPIs this CPU's.
fn bank(intid: u32) -> u64 {
    if intid < 32 { redistributor() + SGI_FRAME } else { GICD }
}

fn bit_register(base: u64, intid: u32) -> (u64, u32) {
    (bank(intid) + base + u64::from(intid / 32) * 4, 1 << (intid % 32))
}

fn write_bit(base: u64, intid: u32) {
    let (register, bit) = bit_register(base, intid);
    write32(register, bit);
}

fn read_bit(base: u64, intid: u32) -> bool {
    let (register, bit) = bit_register(base, intid);
    read32(register) & bit != 0
}

/// Waits until writes to the distributor have taken effect.
fn sync() {
    timer::wait(timer::SECOND, || read32(GICD + CTLR) & CTLR_RWP == 0);
    timer::wait(timer::SECOND, || read32(redistributor()) & (1 << 3) == 0);
}

/// Enables `intid`.
pub(crate) fn enable(intid: u32) {
    write_bit(ISENABLER, intid);
}
/// Disables `intid` and waits until it is.
pub(crate) fn disable(intid: u32) {
    write_bit(ICENABLER, intid);
    sync();
}
/// Whether `intid` is enabled.
pub(crate) fn enabled(intid: u32) -> bool {
    read_bit(ISENABLER, intid)
}
/// Makes `intid` pending.
pub(crate) fn set_pending(intid: u32) {
    write_bit(ISPENDR, intid);
}
/// Clears the pending latch of `intid`.
pub(crate) fn clear_pending(intid: u32) {
    write_bit(ICPENDR, intid);
}
/// Whether `intid` is pending.
pub(crate) fn pending(intid: u32) -> bool {
    read_bit(ISPENDR, intid)
}
/// Makes `intid` active.
pub(crate) fn set_active(intid: u32) {
    write_bit(ISACTIVER, intid);
}
/// Makes `intid` inactive.
pub(crate) fn clear_active(intid: u32) {
    write_bit(ICACTIVER, intid);
}
/// Whether `intid` is active.
pub(crate) fn active(intid: u32) -> bool {
    read_bit(ISACTIVER, intid)
}
/// Sets the priority of `intid`.
pub(crate) fn set_priority(intid: u32, priority: u8) {
    write8(bank(intid) + IPRIORITYR + u64::from(intid), priority);
}
/// The priority of `intid`.
pub(crate) fn priority(intid: u32) -> u8 {
    read8(bank(intid) + IPRIORITYR + u64::from(intid))
}
/// The word of priorities that holds `intid`'s.
pub(crate) fn priority_word(intid: u32) -> u32 {
    read32(bank(intid) + IPRIORITYR + u64::from(intid & !3))
}

/// Puts an interrupt into group 1, or 0.
pub(crate) fn set_group(intid: u32, group1: bool) {
    let (at, bit) = bit_register(IGROUPR, intid);
    let old = read32(at);
    write32(at, if group1 { old | bit } else { old & !bit });
}

/// Makes `intid` edge-triggered or level-sensitive.
pub(crate) fn set_edge(intid: u32, edge: bool) {
    let register = bank(intid) + ICFGR + u64::from(intid / 16) * 4;
    let bit = 2 << (intid % 16 * 2);
    let old = read32(register);
    write32(register, if edge { old | bit } else { old & !bit });
}
/// Whether `intid` is edge-triggered.
pub(crate) fn edge(intid: u32) -> bool {
    read32(bank(intid) + ICFGR + u64::from(intid / 16) * 4) & (2 << (intid % 16 * 2)) != 0
}
/// Sends SPI `intid` to the CPU with this MPIDR.
pub(crate) fn route(intid: u32, mpidr: u64) {
    write64(GICD + IROUTER + u64::from(intid) * 8, mpidr & 0xff_00ff_ffff);
}
/// Where SPI `intid` goes.
pub(crate) fn routed(intid: u32) -> u64 {
    read64(GICD + IROUTER + u64::from(intid) * 8)
}

/// Number of INTIDs that the distributor has for SGIs, PPIs and SPIs.
pub(crate) fn intids() -> u32 {
    ((read32(GICD + TYPER) & 0x1f) + 1) * 32
}

/// Sets up the distributor and this CPU: everything in group 1, disabled, idle, one priority.
pub(crate) fn init() {
    write32(GICD + CTLR, CTLR_ENABLE);
    sync();
    let last = intids().min(1020);
    for word in (32..last).step_by(32).map(|i| u64::from(i / 32) * 4) {
        write32(GICD + ICENABLER + word, !0);
        write32(GICD + ICPENDR + word, !0);
        write32(GICD + ICACTIVER + word, !0);
        write32(GICD + IGROUPR + word, !0);
    }
    for intid in (32..last).step_by(4) {
        write32(GICD + IPRIORITYR + u64::from(intid), u32::from_ne_bytes([PRIORITY; 4]));
    }
    for intid in (32..last).step_by(16) {
        write32(GICD + ICFGR + u64::from(intid / 4), 0);
    }
    sync();
    init_cpu(cpu::index());
}

/// Sets up this CPU's redistributor and CPU interface. Its SGIs are enabled.
pub(crate) fn init_cpu(_index: usize) {
    let frame = redistributor();
    write32(frame + GICR_WAKER, read32(frame + GICR_WAKER) & !2);
    timer::wait(timer::SECOND, || read32(frame + GICR_WAKER) & 4 == 0);
    let sgi = frame + SGI_FRAME;
    write32(sgi + ICENABLER, !0);
    write32(sgi + ICPENDR, !0);
    write32(sgi + ICACTIVER, !0);
    write32(sgi + IGROUPR, !0);
    for intid in (0..32).step_by(4) {
        write32(sgi + IPRIORITYR + intid, u32::from_ne_bytes([PRIORITY; 4]));
    }
    write32(sgi + ISENABLER, 0xffff);
    sync();
    msr!("icc_sre_el1", mrs!("icc_sre_el1") | 7);
    reset_interface();
}

/// The CPU interface: no priority masked, no binary point, EOImode 0, nothing running, group 1 on.
pub(crate) fn reset_interface() {
    msr!("icc_ap1r0_el1", 0);
    msr!("icc_ctlr_el1", 0);
    msr!("icc_pmr_el1", 0xff);
    msr!("icc_bpr1_el1", 0);
    msr!("icc_igrpen1_el1", 1);
}

/// Acknowledges the highest pending interrupt.
pub(crate) fn acknowledge() -> u32 {
    let intid = mrs!("icc_iar1_el1");
    // SAFETY: a barrier: the acknowledge takes effect before what follows.
    unsafe { asm!("dsb sy", options(nostack)) };
    intid as u32 & 0xff_ffff
}

/// Waits until there is an interrupt to acknowledge.
pub(crate) fn acknowledge_soon() -> u32 {
    let mut intid = SPURIOUS;
    timer::wait(timer::PATIENCE, || {
        intid = acknowledge();
        intid < SPECIAL
    });
    intid
}

/// Whether nothing can be acknowledged for a while.
pub(crate) fn quiet() -> bool {
    !timer::wait(timer::SECOND / 200, || mrs!("icc_hppir1_el1") as u32 & 0xff_ffff != SPURIOUS)
}

/// End of interrupt.
pub(crate) fn end(intid: u32) {
    msr!("icc_eoir1_el1", u64::from(intid));
}

/// Deactivates, in EOImode 1.
pub(crate) fn deactivate(intid: u32) {
    msr!("icc_dir_el1", u64::from(intid));
}

/// Sends SGI `intid` to the CPU with this MPIDR.
pub(crate) fn send(intid: u32, mpidr: u64) {
    write_sgi1r(sgi(intid, mpidr));
}

/// The same by ICC_SGI0R_EL1, or ICC_ASGI1R_EL1.
pub(crate) fn send_group_0(intid: u32, mpidr: u64, asgi1r: bool) {
    // SAFETY: a barrier, as for ICC_SGI1R_EL1.
    unsafe { asm!("dsb ish", options(nostack)) };
    if asgi1r {
        msr!("icc_asgi1r_el1", sgi(intid, mpidr));
    } else {
        msr!("icc_sgi0r_el1", sgi(intid, mpidr));
    }
}

/// ICC_SGI*R_EL1 for one CPU.
fn sgi(intid: u32, mpidr: u64) -> u64 {
    let aff = |n: u32| (mpidr >> (8 * n)) & 0xff;
    let aff3 = (mpidr >> 32) & 0xff;
    let target = 1u64 << (aff(0) % 16);
    let range = aff(0) / 16;
    (aff3 << 48) | (range << 44) | (aff(2) << 32) | (u64::from(intid) << 24) | (aff(1) << 16) | target
}

/// Sends SGI `intid` to all CPUs but this.
pub(crate) fn send_others(intid: u32) {
    write_sgi1r((1 << 40) | (u64::from(intid) << 24));
}

fn write_sgi1r(value: u64) {
    // SAFETY: a barrier, so that the receiver sees what was stored before.
    unsafe { asm!("dsb ish", options(nostack)) };
    msr!("icc_sgi1r_el1", value);
}
