//! The physical GICv3: distributor and redistributors, by the `arm-gic` crate. The CPU interface is in
//! [`arch::gic`](crate::arch::gic), because its registers are on the exit path.
//!
//! UNSAFETY: claims the registers, once, at start.

use crate::lock::Mutex;
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicDistributor, GicRedistributor, GicRedistributorIterator};
use arm_gic::{IntId, Trigger, UniqueMmioPointer};
use core::ptr::NonNull;

/// SGI by which one CPU makes another look at its requests.
pub(crate) const KICK: u32 = 0;

/// INTID of the first PPI.
const FIRST_PPI: u32 = 16;
/// INTID of the first SPI.
const FIRST_SPI: u32 = 32;
/// GICR_ISACTIVER0 behind the SGI frame's start (IHI 0069 12.11).
const ISACTIVER0: u64 = 0x300;
/// GICR_ICACTIVER0.
const ICACTIVER0: u64 = 0x380;
/// The SGI frame behind the RD frame.
const SGI_FRAME: u64 = 0x1_0000;

/// The distributor, while the machine is built.
static DISTRIBUTOR: Mutex<Option<GicDistributor<'static>>> = Mutex::new(None);

/// Claims and configures the distributor: all SPIs in group 1, level, masked.
///
/// # Safety
/// `gicd` must be the mapped distributor, used by nobody else.
pub(crate) unsafe fn init_distributor(gicd: addr::Pa) -> Result<(), &'static str> {
    let registers = NonNull::new(gicd.get() as *mut Gicd).ok_or("the GIC distributor is at address 0")?;
    // SAFETY: the caller's promise.
    let mut distributor = GicDistributor::new(unsafe { UniqueMmioPointer::new(registers) });
    distributor.enable_all_interrupts(false);
    distributor.configure_default_settings();
    *DISTRIBUTOR.lock() = Some(distributor);
    Ok(())
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
    /// `regions` must be the mapped redistributor regions of the machine.
    pub(crate) unsafe fn claim(
        regions: &[addr::PaRange],
        affinity: u64,
        ppis: &[u32],
    ) -> Result<Self, &'static str> {
        for region in regions {
            let Some(base) = NonNull::new(region.start().get() as *mut GicrSgi) else { continue };
            // SAFETY: the caller's promise.
            let frames = unsafe { GicRedistributorIterator::new(base) };
            let frames = frames.map_err(|_| "the GIC redistributors have an unknown layout")?;
            for mut frame in frames {
                if frame.typer().core_mpidr() == affinity {
                    return Self::set_up(&mut frame, region, affinity, ppis);
                }
            }
        }
        Err("no GIC redistributor has this CPU's affinity")
    }

    fn set_up(
        frame: &mut GicRedistributor<'_>,
        region: &addr::PaRange,
        affinity: u64,
        ppis: &[u32],
    ) -> Result<Self, &'static str> {
        // An error means that it is awake already.
        let _ = frame.mark_core_awake();
        frame.configure_default_settings();
        let mut enable = |id| frame.enable_interrupt(id, true).map_err(|_| "a PPI cannot be enabled");
        enable(IntId::sgi(KICK))?;
        for ppi in ppis {
            enable(IntId::ppi(ppi.checked_sub(FIRST_PPI).ok_or("not a PPI")?))?;
        }
        let sgi_frame =
            find_sgi_frame(region, affinity).ok_or("the GIC redistributor is not in its region")?;
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

/// The SGI frame of the redistributor with this affinity.
fn find_sgi_frame(region: &addr::PaRange, affinity: u64) -> Option<u64> {
    const TYPER: u64 = 8;
    let mut at = region.start().get();
    while at < region.end().get() {
        // SAFETY: GICR_TYPER of a redistributor within the mapped region.
        let typer = unsafe { ((at + TYPER) as *const u64).read_volatile() };
        let aff = (typer >> 32 & 0xff_ffff) | (typer >> 56) << 32;
        if aff == affinity {
            return Some(at + SGI_FRAME);
        }
        // VLPIS: a GICv4 redistributor has two frames more.
        at += if typer & 2 != 0 { 0x4_0000 } else { 0x2_0000 };
        if typer & 0x10 != 0 {
            return None;
        }
    }
    None
}
