//! HVC and SMC: PSCI, SMCCC architecture calls, TRNG, hypercalls.

use super::{Outcome, control, copy, idregs, tags};
use crate::arch::cpu;
use crate::cpu::Local;
use crate::firmware::{self, Workaround};
use crate::log;
use crate::vcpu::apply::Resume;
use crate::vcpu::{Activity, Vcpu, request};
use crate::vm::reach::Purpose;
use abi::hypercall::{self, StopCause};
use abi::{psci, smccc};
use vdev::power::Start;
use vdev::smccc::{self as calls, Call, Convention, Mitigation, signed};

/// HVC: the return address is the next instruction.
#[inline(always)]
pub(crate) fn hvc(vcpu: &mut Vcpu, local: &mut Local, imm: u16) -> Outcome {
    vcpu.shared.exits.calls.bump();
    Ok(call(vcpu, local, imm).unwrap_or(Resume::Here))
}

/// SMC, trapped: the return address is the SMC itself. Answered like HVC; nothing of a guest reaches
/// the firmware.
#[inline(never)]
pub(crate) fn smc(vcpu: &mut Vcpu, local: &mut Local, imm: u16) -> Outcome {
    vcpu.shared.exits.calls.bump();
    Ok(match call(vcpu, local, imm) {
        None => Resume::Next,
        Some(Resume::WaitHere) => Resume::Wait,
        Some(other) => other,
    })
}

/// Answers in x0 and up; `None` if the guest simply goes on.
#[inline(always)]
fn call(vcpu: &mut Vcpu, local: &mut Local, imm: u16) -> Option<Resume> {
    let x0 = vcpu.regs.get(0);
    // Only HVC #0 and SMC #0 are SMCCC calls (DEN0028 2.9).
    let call = if imm == 0 { calls::decode(x0) } else { Call::Unknown };
    if call == Call::PsciVersion {
        vcpu.regs.set(0, psci::VERSION_1_1);
        return None;
    }
    other(vcpu, local, call)
}

#[inline(never)]
fn other(vcpu: &mut Vcpu, local: &mut Local, call: Call) -> Option<Resume> {
    local.check_tags("call");
    let x0 = vcpu.regs.get(0);
    let [x1, x2, x3] = calls::args(x0, [vcpu.regs.get(1), vcpu.regs.get(2), vcpu.regs.get(3)]);
    let function = calls::function_id(x1);
    let rng = local.host.rng;
    let result = match call {
        Call::PsciVersion => psci::VERSION_1_1,
        Call::CpuOn => cpu_on(vcpu, x1, Start { entry: x2, context: x3 }),
        Call::CpuOff => return Some(cpu_off(vcpu)),
        Call::CpuSuspend => {
            vcpu.regs.set(0, 0);
            vcpu.vm.power.lock().suspend(vcpu.id);
            return Some(Resume::WaitHere);
        }
        Call::AffinityInfo => match vcpu.vm.power.lock().affinity_info(x1, x2) {
            Ok(info) => info,
            Err(refusal) => signed(refusal.code()),
        },
        Call::MigrateInfoType => psci::TRUSTED_OS_NOT_PRESENT,
        Call::SystemOff => {
            vcpu.vm.request_stop(StopCause::SystemOff, false);
            return Some(Resume::Leave);
        }
        Call::SystemReset => {
            vcpu.vm.request_stop(StopCause::SystemReset, true);
            return Some(Resume::Leave);
        }
        // Only SYSTEM_WARM_RESET (0) is architected, and it resets all that a VM has.
        Call::SystemReset2 if x1 == 0 => {
            vcpu.vm.request_stop(StopCause::SystemReset, true);
            return Some(Resume::Leave);
        }
        Call::SystemReset2 => signed(psci::INVALID_PARAMETERS),
        Call::PsciFeatures => signed(calls::psci_features(function)),
        Call::SmcccVersion => smccc::VERSION_1_2,
        Call::ArchFeatures => signed(calls::arch_features(function, &local.host.mitigations)),
        Call::ArchWorkaround1 => work_around(local.host.mitigations.workaround_1, Workaround::One),
        Call::ArchWorkaround2 => {
            work_around(local.host.mitigations.workaround_2, Workaround::Two(x1 as u32 != 0))
        }
        Call::ArchWorkaround3 => work_around(local.host.mitigations.workaround_3, Workaround::Three),
        Call::TrngVersion => calls::trng_version(rng),
        Call::TrngFeatures => signed(calls::trng_features(function, rng)),
        Call::TrngGetUuid => return results(vcpu, &calls::trng_uuid(rng)),
        Call::TrngRnd if rng => {
            let words = calls::trng_rnd(Convention::of(x0), x1, || cpu::random(rng));
            return results(vcpu, &words);
        }
        Call::HypUid => return results(vcpu, &calls::hyp_uid()),
        Call::HypRevision => {
            let (major, minor) = hypercall::REVISION_VALUE;
            return results(vcpu, &[major, minor]);
        }
        Call::HypFeatures => return results(vcpu, &calls::hyp_features()),
        Call::VmList => return control::list(vcpu, local, x1),
        Call::VmInfo => return control::info(vcpu, local, x1),
        Call::VmStart => return control::start(vcpu, local, x1),
        Call::VmStop => control::stop(vcpu, local, x1),
        Call::VmRestart => control::restart(vcpu, local, x1),
        Call::EventNext => return control::event_next(vcpu),
        Call::IdregGet => return idregs::get(vcpu, local, x1, x2),
        Call::IdregSet => return idregs::set(vcpu, local, x1, x2, x3),
        Call::IdregMask => return idregs::mask(vcpu, local, x1, x2, x3),
        Call::FaultInfo => return tags::fault_info(vcpu, local, x1, x2),
        Call::FaultDecide => tags::fault_decide(vcpu, local, x1, x2, x3),
        Call::TagStats => return tags::stats(vcpu, local, x1, x2),
        Call::TagQuota => return tags::quota(vcpu, local, x1, x2),
        Call::TagDemote => return tags::demote(vcpu, local),
        Call::TagsCopy => return copy::tags(vcpu, local),
        Call::TagsMap => return copy::tags_map(vcpu, local),
        Call::MemoryCopy => return copy::data(vcpu, local, Purpose::Whole),
        Call::DirtyLog => return copy::dirty_log(vcpu, local),
        Call::DebugCopy => return copy::debug(vcpu, local),
        Call::MigrateCopy => return copy::migrate(vcpu, local),
        Call::DeviceCopy => return copy::data(vcpu, local, Purpose::Device),
        Call::ArchSocId | Call::TrngRnd | Call::Unknown => signed(smccc::NOT_SUPPORTED),
    };
    vcpu.regs.set(0, result);
    None
}

/// Writes x0 and up.
pub(super) fn results(vcpu: &mut Vcpu, values: &[u64]) -> Option<Resume> {
    for (n, value) in (0..).zip(values) {
        vcpu.regs.set(n, *value);
    }
    None
}

/// A workaround call: firmware's where a CPU needs it, nothing where none does.
fn work_around(answer: Mitigation, call: Workaround) -> u64 {
    match answer {
        Mitigation::Needed => {
            firmware::work_around(call);
            0
        }
        Mitigation::Unaffected => 0,
        Mitigation::Unknown | Mitigation::NotRequired => signed(smccc::NOT_SUPPORTED),
    }
}

fn cpu_on(vcpu: &Vcpu, target: u64, start: Start) -> u64 {
    let vm = vcpu.vm;
    let answer = vm.power.lock().cpu_on(target, start, |ipa| vm.is_ram(ipa));
    match answer {
        Ok(target) => {
            vm.ask(target, request::POWER_ON, false);
            0
        }
        Err(refusal) => signed(refusal.code()),
    }
}

fn cpu_off(vcpu: &mut Vcpu) -> Resume {
    let left = vcpu.vm.power.lock().cpu_off(vcpu.id);
    vcpu.activity = Activity::Off;
    if left == 0 {
        if vcpu.vm.may_report() {
            log::warn!("{}: its last vCPU turned itself off: stopped", vcpu.vm.spec.name);
        }
        vcpu.vm.request_stop(StopCause::Fault, false);
    }
    Resume::Leave
}
