//! Calls into the machine's firmware, by the conduit that the device tree names: PSCI, and what SMCCC
//! says and does about speculation.

use core::sync::atomic::{AtomicU8, Ordering};
use errata::mitigation::{Answer, Answers, Speculation};
use fdt::Conduit;
use idreg::{HostIds, Reg};
use smccc::{Call, Hvc, Smc, arch, psci};
use vdev::smccc::{Mitigation, Mitigations};

const NONE: u8 = 0;
const SMC: u8 = 1;
const HVC: u8 = 2;

/// Written once at start; read on any CPU, also by a panic. Relaxed: it orders nothing.
static CONDUIT: AtomicU8 = AtomicU8::new(NONE);

/// Names the conduit.
pub(crate) fn set_conduit(conduit: Option<Conduit>) {
    let value = match conduit {
        Some(Conduit::Smc) => SMC,
        Some(Conduit::Hvc) => HVC,
        None => NONE,
    };
    CONDUIT.store(value, Ordering::Relaxed);
}

/// Turns a CPU on at `entry` with `context` in x0.
pub(crate) fn cpu_on(affinity: u64, entry: u64, context: u64) -> Result<(), psci::error::Error> {
    match CONDUIT.load(Ordering::Relaxed) {
        SMC => psci::cpu_on::<Smc>(affinity, entry, context),
        HVC => psci::cpu_on::<Hvc>(affinity, entry, context),
        _ => Err(psci::error::Error::NotSupported),
    }
}

/// Turns the machine off, or stops this CPU if firmware doesn't.
pub(crate) fn power_off() -> ! {
    let _ = match CONDUIT.load(Ordering::Relaxed) {
        SMC => psci::system_off::<Smc>(),
        HVC => psci::system_off::<Hvc>(),
        _ => Ok(()),
    };
    crate::arch::cpu::halt()
}

/// What firmware answers on this CPU about the three workaround calls.
pub(crate) fn mitigations() -> Answers {
    match CONDUIT.load(Ordering::Relaxed) {
        SMC => ask_mitigations::<Smc>(),
        HVC => ask_mitigations::<Hvc>(),
        _ => Answers::UNKNOWN,
    }
}

/// ARCH_FEATURES exists from SMCCC 1.1 on, whose version PSCI 1.0 announces (DEN0028, "Discovery").
fn ask_mitigations<C: Call>() -> Answers {
    let psci = psci::version::<C>().is_ok_and(|v| v.major >= 1);
    let announced = psci && psci::psci_features::<C>(arch::SMCCC_VERSION).is_ok();
    if !announced || !arch::version::<C>().is_ok_and(|v| (v.major, v.minor) >= (1, 1)) {
        return Answers::UNKNOWN;
    }
    let ask = |function| match arch::features::<C>(function) {
        Ok(x0) => Answer::from_firmware(x0.into()),
        Err(why) => Answer::from_firmware(i32::from(why).into()),
    };
    Answers {
        workaround_1: ask(arch::SMCCC_ARCH_WORKAROUND_1),
        workaround_2: ask(arch::SMCCC_ARCH_WORKAROUND_2),
        workaround_3: ask(arch::SMCCC_ARCH_WORKAROUND_3),
    }
}

/// What guests are told about the calls, by the ID registers of all CPUs and firmware's answers on each.
pub(crate) fn told_to_guests(ids: &HostIds, answers: impl Iterator<Item = Answers>) -> Mitigations {
    let field = |reg, lsb| ids.field(reg, lsb) as u8;
    let cpus =
        Speculation { csv2: field(Reg::Pfr0, 56), ssbs: field(Reg::Pfr1, 4), ecbhb: field(Reg::Mmfr1, 60) };
    let answers = answers.reduce(Answers::combine).unwrap_or(Answers::UNKNOWN).for_guests(cpus);
    let told = |answer| match answer {
        Answer::Needed => Mitigation::Needed,
        Answer::Unaffected => Mitigation::Unaffected,
        Answer::Unknown => Mitigation::Unknown,
        Answer::NotRequired => Mitigation::NotRequired,
    };
    Mitigations {
        workaround_1: told(answers.workaround_1),
        workaround_2: told(answers.workaround_2),
        workaround_3: told(answers.workaround_3),
    }
}

/// A workaround call of a guest that this machine's CPUs need.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Workaround {
    /// ARCH_WORKAROUND_1.
    One,
    /// ARCH_WORKAROUND_2 with what the guest asks for. A CPU's state is that of all its VMs: a guest may
    /// turn the mitigation on, and is not heeded when it turns it off.
    Two(bool),
    /// ARCH_WORKAROUND_3.
    Three,
}

/// Has firmware do a workaround on this CPU. Only for one that it answered for.
pub(crate) fn work_around(call: Workaround) {
    match CONDUIT.load(Ordering::Relaxed) {
        SMC => forward::<Smc>(call),
        HVC => forward::<Hvc>(call),
        _ => {}
    }
}

fn forward<C: Call>(call: Workaround) {
    let _ = match call {
        Workaround::One => arch::arch_workaround_1::<C>(),
        Workaround::Two(true) => arch::arch_workaround_2::<C>(true),
        Workaround::Two(false) => Ok(()),
        Workaround::Three => arch::arch_workaround_3::<C>(),
    };
}
