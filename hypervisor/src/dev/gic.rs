//! The physical GICv3: distributor and redistributors, by the `arm-gic` crate. The CPU interface is in
//! [`arch::gic`](crate::arch::gic), because its registers are on the exit path.
//!
//! UNSAFETY: claims the registers, once, at start.

use crate::lock::Mutex;
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicDistributor, GicRedistributor};
use arm_gic::{IntId, Trigger, UniqueMmioPointer};
use core::ptr::NonNull;

/// SGI by which one CPU makes another look at its requests.
pub(crate) const KICK: u32 = 0;

/// INTID of the first PPI.
const FIRST_PPI: u32 = 16;
/// INTID of the first SPI.
const FIRST_SPI: u32 = 32;
/// GICD_ICPENDR0, and GICR_ICPENDR0 behind the SGI frame's start (IHI 0069 12.9, 12.11); so for the others.
const ICPENDR0: u64 = 0x280;
const ISACTIVER0: u64 = 0x300;
const ICACTIVER0: u64 = 0x380;
/// Size of a frame: the SGI frame lies behind the RD frame.
const FRAME: u64 = 0x1_0000;

/// The distributor, while the machine is built.
static DISTRIBUTOR: Mutex<Option<GicDistributor<'static>>> = Mutex::new(None);

/// Claims and configures the distributor: all SPIs in group 1, level, masked, idle.
///
/// # Safety
/// `gicd` must be the mapped distributor, used by nobody else.
pub(crate) unsafe fn init_distributor(gicd: addr::Pa) -> Result<(), &'static str> {
    let registers = NonNull::new(gicd.get() as *mut Gicd).ok_or("the GIC distributor is at address 0")?;
    // SAFETY: the caller's promise.
    let mut distributor = GicDistributor::new(unsafe { UniqueMmioPointer::new(registers) });
    distributor.enable_all_interrupts(false);
    distributor.configure_default_settings();
    for word in 1..=u64::from(distributor.typer().num_spis().div_ceil(32)) {
        // SAFETY: the caller's promise; GICD_TYPER says that there is such a word.
        unsafe { make_idle(gicd.get() + 4 * word) };
    }
    *DISTRIBUTOR.lock() = Some(distributor);
    Ok(())
}

/// Ends what firmware left pending or active of 32 masked interrupts; an active one would never come again.
///
/// # Safety
/// `word` must be the start of the mapped distributor or of a mapped SGI frame, plus the offset of a word of bits.
unsafe fn make_idle(word: u64) {
    for register in [word + ICPENDR0, word + ICACTIVER0] {
        // SAFETY: the caller's promise.
        unsafe { (register as *mut u32).write_volatile(!0) };
    }
}

/// Routes an SPI to the CPU with this affinity and unmasks it.
pub(crate) fn enable_spi(intid: u32, affinity: u64, edge: bool) -> Result<(), &'static str> {
    let mut guard = DISTRIBUTOR.lock();
    let distributor = guard.as_mut().ok_or("the distributor is not set up")?;
    let spi = intid.checked_sub(FIRST_SPI).ok_or("not an SPI")?;
    if spi >= distributor.typer().num_spis() {
        return Err("the GIC has no such SPI");
    }
    let id = IntId::spi(spi);
    let trigger = if edge { Trigger::Edge } else { Trigger::Level };
    distributor.set_trigger(id, trigger).map_err(|_| "its trigger cannot be set")?;
    distributor.set_routing(id, Some(affinity)).map_err(|_| "it cannot be routed")?;
    distributor.enable_interrupt(id, true).map_err(|_| "it cannot be enabled")
}

/// A CPU's redistributor, awake, with the PPIs and SGIs that the hypervisor uses unmasked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Redistributor {
    sgi_frame: u64,
}

impl Redistributor {
    /// Finds this CPU's redistributor by its affinity and sets it up.
    ///
    /// # Safety
    /// `regions` must be the mapped redistributor regions of the machine, in which redistributors are
    /// `stride` bytes apart, or as far as their registers say.
    pub(crate) unsafe fn claim(
        regions: &[addr::PaRange],
        stride: Option<u64>,
        affinity: u64,
        ppis: &[u32],
    ) -> Result<Self, &'static str> {
        let found = regions.iter().find_map(|region| find(region, stride, affinity));
        let rd_frame = found.ok_or("no GIC redistributor has this CPU's affinity")?;
        let registers =
            NonNull::new(rd_frame as *mut GicrSgi).ok_or("its GIC redistributor is at address 0")?;
        // SAFETY: `find` saw that both frames lie in the mapped region; only this CPU has this affinity.
        let mut frame = GicRedistributor::new(unsafe { UniqueMmioPointer::new(registers) });
        if !matches!(frame.pidr2().arch_rev(), 3 | 4) {
            return Err("its GIC redistributor is neither of version 3 nor of version 4");
        }
        // An error means that it is awake already.
        let _ = frame.mark_core_awake();
        frame.configure_default_settings();
        let sgi_frame = rd_frame + FRAME;
        // SAFETY: this CPU's SGI frame, in a mapped region.
        unsafe { make_idle(sgi_frame) };
        let mut enable = |id| frame.enable_interrupt(id, true).map_err(|_| "a PPI cannot be enabled");
        enable(IntId::sgi(KICK))?;
        for ppi in ppis {
            enable(IntId::ppi(ppi.checked_sub(FIRST_PPI).ok_or("not a PPI")?))?;
        }
        Ok(Self { sgi_frame })
    }

    /// Makes a PPI active at the physical GIC, or not: it follows the vCPU that has it pending or in
    /// service.
    pub(crate) fn set_active(self, intid: u32, active: bool) {
        let register = self.sgi_frame + if active { ISACTIVER0 } else { ICACTIVER0 };
        // SAFETY: a register of this CPU's own redistributor, found and mapped in `claim`.
        unsafe { (register as *mut u32).write_volatile(1 << (intid & 31)) };
        // Read back, so that the write has arrived before a timer is turned on or off.
        // SAFETY: as above.
        unsafe { (register as *const u32).read_volatile() };
    }
}

/// Where the redistributor with this affinity starts, if that one and all before it lie in the region:
/// the region's size is the device tree's word, the distances and the end are the registers'.
fn find(region: &addr::PaRange, stride: Option<u64>, affinity: u64) -> Option<u64> {
    const TYPER: u64 = 8;
    let mut at = region.start().get();
    while at.checked_add(2 * FRAME)? <= region.end().get() {
        // SAFETY: GICR_TYPER of a redistributor within the mapped region.
        let typer = unsafe { ((at + TYPER) as *const u64).read_volatile() };
        if (typer >> 32 & 0xff_ffff) | (typer >> 56) << 32 == affinity {
            return Some(at);
        }
        // Last.
        if typer & 0x10 != 0 {
            return None;
        }
        // VLPIS: a GICv4 redistributor has two frames more.
        let frames = if typer & 2 != 0 { 4 } else { 2 };
        at = at.checked_add(stride.unwrap_or(frames * FRAME))?;
    }
    None
}
