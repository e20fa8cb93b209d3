//! The generic timers: the guest's EL1 pair, and EL2's own for time slices and deadlines.

use super::sysreg::{instruction, mrs, msr};
use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTHP_CTL_EL2, CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTPCT_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0,
    CNTVOFF_EL2,
};
use tock_registers::interfaces::{Readable, Writeable};

/// CNTx_CTL.ENABLE.
const ENABLE: u64 = 1;
/// CNTx_CTL.IMASK.
const IMASK: u64 = 2;

/// EL1 virtual and physical timers of a vCPU that is not resident.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TimerState {
    cntv_ctl: u64,
    cntv_cval: u64,
    cntp_ctl: u64,
    cntp_cval: u64,
}

impl TimerState {
    /// Reads both timers, and turns them off so that they don't fire for the next vCPU.
    pub(crate) fn save(&mut self) {
        self.cntv_ctl = CNTV_CTL_EL0.get();
        self.cntv_cval = CNTV_CVAL_EL0.get();
        self.cntp_ctl = CNTP_CTL_EL0.get();
        self.cntp_cval = CNTP_CVAL_EL0.get();
        CNTV_CTL_EL0.set(0);
        CNTP_CTL_EL0.set(0);
        instruction!("isb");
    }

    /// Writes both timers and the virtual offset.
    ///
    /// # Safety
    /// The vCPU must be the one that is entered next.
    pub(crate) unsafe fn load(&self, cntvoff: u64) {
        CNTVOFF_EL2.set(cntvoff);
        CNTV_CVAL_EL0.set(self.cntv_cval);
        CNTP_CVAL_EL0.set(self.cntp_cval);
        // The comparators are in place before the timers are enabled.
        instruction!("isb");
        CNTV_CTL_EL0.set(self.cntv_ctl);
        CNTP_CTL_EL0.set(self.cntp_ctl);
    }

    /// When the earlier of the two raises its interrupt, as a value of the physical counter; `now` if it
    /// is due. `offsets`: of the virtual and the physical counter.
    pub(crate) fn deadline(&self, offsets: [u64; 2], now: u64) -> Option<u64> {
        let armed = |ctl: u64| ctl & (ENABLE | IMASK) == ENABLE;
        let left = |cval: u64, offset: u64| cval.saturating_sub(now.wrapping_sub(offset));
        let [cntvoff, cntpoff] = offsets;
        let v = armed(self.cntv_ctl).then(|| left(self.cntv_cval, cntvoff));
        let p = armed(self.cntp_ctl).then(|| left(self.cntp_cval, cntpoff));
        let left = match (v, p) {
            (Some(v), Some(p)) => Some(v.min(p)),
            (v, p) => v.or(p),
        };
        left.map(|counts| now.saturating_add(counts))
    }
}

/// Whether the lines of the resident vCPU's virtual and physical timer are high.
pub(crate) fn lines() -> [bool; 2] {
    const STATUS: u64 = 4;
    let high = |ctl: u64| ctl & (ENABLE | IMASK | STATUS) == ENABLE | STATUS;
    [high(CNTV_CTL_EL0.get()), high(CNTP_CTL_EL0.get())]
}

/// CTL and CVAL of the resident vCPU's virtual and physical timer.
pub(crate) fn registers() -> [(u64, u64); 2] {
    [(CNTV_CTL_EL0.get(), CNTV_CVAL_EL0.get()), (CNTP_CTL_EL0.get(), CNTP_CVAL_EL0.get())]
}

/// Gives the resident vCPU's virtual and physical timer other registers, and the virtual counter an
/// offset.
///
/// # Safety
/// The vCPU must be entered next.
pub(crate) unsafe fn set_registers([v, p]: [(u64, u64); 2], cntvoff: u64) {
    CNTV_CTL_EL0.set(0);
    CNTP_CTL_EL0.set(0);
    CNTVOFF_EL2.set(cntvoff);
    CNTV_CVAL_EL0.set(v.1);
    CNTP_CVAL_EL0.set(p.1);
    if (v.0 | p.0) & ENABLE != 0 {
        // The comparators are in place before the timers are enabled.
        instruction!("isb");
        CNTV_CTL_EL0.set(v.0);
        CNTP_CTL_EL0.set(p.0);
    }
}

/// CNTPOFF_EL2, which counts while CNTHCTL_EL2.ECV is set. For CPUs with FEAT_ECV_POFF.
///
/// # Safety
/// The vCPU whose offset it is must be entered next.
pub(crate) unsafe fn set_physical_offset(cntpoff: u64) {
    msr!("S3_4_C14_C0_6", cntpoff);
}

/// Whether this CPU has FEAT_ECV.
pub(crate) fn has_ecv() -> bool {
    mrs!("id_aa64mmfr0_el1") >> 60 != 0
}

/// Lets EL2's own timer fire at `deadline` if it would not fire before.
pub(crate) fn advance_alarm(deadline: u64) {
    if CNTHP_CTL_EL2.get() & ENABLE == 0 || mrs!("cnthp_cval_el2") > deadline {
        set_alarm(Some(deadline));
    }
}

/// The physical counter.
#[inline]
pub(crate) fn now() -> u64 {
    instruction!("isb");
    CNTPCT_EL0.get()
}

/// The physical counter, approximately: other instructions may be executed before it.
#[inline(always)]
pub(crate) fn count() -> u64 {
    CNTPCT_EL0.get()
}

/// Counts per second, as firmware announced it.
pub(crate) fn frequency() -> u64 {
    CNTFRQ_EL0.get()
}

/// Lets EL2's own timer (CNTHP) fire at `deadline`, or never.
pub(crate) fn set_alarm(deadline: Option<u64>) {
    match deadline {
        Some(at) => {
            msr!("cnthp_cval_el2", at);
            CNTHP_CTL_EL2.set(ENABLE);
        }
        None => msr!("cnthp_ctl_el2", 0),
    }
    instruction!("isb");
}
