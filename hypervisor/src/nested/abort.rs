//! Aborts of L2: stage 2 has no translation, or one that forbids the access.
//!
//! The shadow is filled, or L1 gets the fault that its own stage 2 would have given; and what L1 allows
//! but the VM itself has not is handled as if L1 had accessed it: an emulated device, the region's
//! policy, an external abort.

use super::mmu::{self, Handled};
use super::take;
use crate::arch::syndrome;
use crate::arch::translate::{self, For, NoAddress};
use crate::cpu::Local;
use crate::exit::{Outcome, abort};
use crate::vcpu::Vcpu;
use crate::vcpu::apply::{GuestFault, Resume};
use crate::vm::fault::next_page;
use ::nested::controls::hcr;
use ::nested::fault::Attempt;
use ::nested::stage2::{self, Access, Fault};
use addr::{Canonical, Ipa, Nested, Va};
use trap::{DataAbort, FaultKind, InstructionAbort, TagAccess, TagFault};
use vmsa::par;
use vmsa::walk::{self, GuestMemory, Regime, Stage1Fault};

/// What becomes of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// As for any VM, with the VM's own address in HPFAR_EL2.
    L0,
    /// It is handled: how L2 goes on.
    Done(Outcome),
    /// L1 takes it, with this ESR_EL2 and HPFAR_EL2. FAR_EL2 is the hardware's.
    L1 {
        /// ESR_EL2: the hardware's, with status and level of L1's own walk.
        esr: u64,
        /// HPFAR_EL2.
        hpfar: u64,
    },
}

/// ISS.ISV and what is valid with it.
const INSTRUCTION_SYNDROME: u64 = 0x7ff << 14;
/// ISS.DFSC, IFSC.
const STATUS: u64 = 0x3f;
/// ISS2.TagAccess.
const TAG_ACCESS: u64 = 1 << 41;

/// L1 takes `fault` for the address `ipa`, where the hardware said `esr`.
fn reflect(esr: u64, fault: Fault, ipa: Ipa<Nested>) -> Reply {
    let mut esr = esr & !STATUS | u64::from(fault.status_code());
    if fault.kind == stage2::FaultKind::External {
        // Such an abort does not describe the instruction.
        esr &= !INSTRUCTION_SYNDROME;
    }
    Reply::L1 { esr, hpfar: ipa.get() >> 12 << 4 }
}

/// Whether stage 2 itself faulted, rather than the bus.
fn is_stage_2(kind: FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::Translation(_)
            | FaultKind::AccessFlag(_)
            | FaultKind::Permission(_)
            | FaultKind::AddressSize(_)
    )
}

impl Vcpu {
    /// The VM's address for what stage 1 of the running guest gives: the same, unless L2 runs. `None` if
    /// L1's tables give none.
    #[inline(always)]
    pub(crate) fn own_address(&self, ipa: Ipa<Canonical>) -> Option<Ipa<Canonical>> {
        if self.vm.nested.is_some() { self.address_of_l2(ipa) } else { Some(ipa) }
    }

    /// This is a walk of L2's, and may not read Device memory (L1's HCR_EL2.PTW).
    fn protects(&self, walk: bool) -> bool {
        walk && self.nested.as_ref().is_some_and(|n| n.hcr().has(hcr::PTW))
    }

    #[inline(never)]
    fn address_of_l2(&self, ipa: Ipa<Canonical>) -> Option<Ipa<Canonical>> {
        let (Some(nested), Some(slot)) = (&self.vm.nested, self.l2()) else { return Some(ipa) };
        mmu::canonical(self.vm, nested, slot, Ipa::new(ipa.get()))
    }
}

/// Memory as stage 1 of the running guest has it.
impl GuestMemory for Vcpu {
    fn read_u64(&self, ipa: Ipa<Canonical>) -> Option<u64> {
        self.vm.read_u64(self.own_address(ipa)?)
    }
}

/// The VM's address behind `va`, as [`translate::guest_ipa`]; if it is L2 that runs, behind both of L1's
/// stages.
#[inline(always)]
pub(crate) fn guest_ipa(vcpu: &Vcpu, va: Va, access: For) -> Result<Ipa<Canonical>, NoAddress> {
    let ipa = translate::guest_ipa(va, access)?;
    // L1's tables changed meanwhile: L2 runs into that by itself.
    let changed = NoAddress::Fault(par::Fault { status: 0b000100, stage2: true });
    vcpu.own_address(ipa).ok_or(changed)
}

/// L2's address behind `va`, which stage 1 of L2 has just translated.
fn address(vcpu: &Vcpu, va: Va, access: For) -> Result<Ipa<Nested>, Reply> {
    match translate::guest_ipa(va, access) {
        Ok(ipa) => Ok(Ipa::new(ipa.get())),
        Err(why) => Err(Reply::Done(abort::without_address(vcpu, va, why))),
    }
}

/// What L1 allows is between L0 and the VM: as if L1 had accessed `own`.
fn own_fault(own: Ipa<Canonical>) -> Reply {
    // SAFETY: the resident vCPU has exited with an abort, which is handled next.
    unsafe { syndrome::set_hpfar(own.get() >> 12 << 4) };
    Reply::L0
}

/// Where L2's cache maintenance at `va` hits, which trapped before any translation: through L2's own
/// stage 1, then L1's stage 2, each asked as the hardware would have. L2's tables are read in software,
/// since a shadow that lacks them says nothing of them. `write`: it needs write permission at stage 1.
///
/// # Errors
/// How L2 goes on instead: it takes a fault of its own stage 1, or L1 one of its stage 2.
#[cold]
#[inline(never)]
pub(crate) fn maintained(
    vcpu: &mut Vcpu,
    local: &Local,
    va: Va,
    el0: bool,
    write: bool,
) -> Result<Ipa<Canonical>, Outcome> {
    let vm = vcpu.vm;
    let (Some(mmu), Some(slot)) = (&vm.nested, vcpu.l2()) else { return Err(Ok(Resume::Here)) };
    // PSTATE.PAN does not count (DDI 0487, D7.5.9.1).
    let regime = Regime { pan: false, ..translate::regime() };
    let privilege = if el0 { walk::Privilege::El0 } else { walk::Privilege::El1 };
    let access = if write { walk::Access::Write } else { walk::Access::Read };
    let (ipa, table) = match walk::translate(vcpu, &regime, va, privilege, access) {
        Ok(found) => (found.ipa, None),
        Err(fault @ Stage1Fault { kind: walk::FaultKind::TableRead(entry), .. }) => (entry, Some(fault)),
        Err(fault) => return Err(Err(GuestFault::Maintenance(fault.status_code()))),
    };
    let l2s = Ipa::new(ipa.get());
    // At EL0 SCTLR_EL1.CMOW may ask for write permission, which is stage 1's alone.
    let access = if write && !el0 && table.is_none() { Access::Write } else { Access::Read };
    let protected = vcpu.protects(table.is_some());
    match (mmu::fault(vm, mmu, slot, l2s, Attempt { access, tag: false, protected }), table) {
        // At EL1 nothing but an invalidation needs a permission.
        (Handled::L1(Fault { kind: stage2::FaultKind::Permission, .. }, _), None) if !write && !el0 => {}
        (Handled::L1(fault, _) | Handled::L1Tag(fault, _), table) => {
            if let Reply::L1 { esr, hpfar } = reflect(maintenance_esr(table.is_some()), fault, l2s) {
                vcpu.shared.exits.aborts.bump();
                take::stage2(vcpu, local, esr, va.get(), hpfar);
            }
            return Err(Ok(Resume::Here));
        }
        (Handled::Own(own) | Handled::OwnTag(own), None) => return Ok(own),
        (Handled::Again, None) => {}
        // L1 allows the walk: the table can be read by now, or the bus does not answer.
        (Handled::Again | Handled::Own(_) | Handled::OwnTag(_), Some(fault)) => {
            let again = vcpu.read_u64(ipa).is_some();
            let external = GuestFault::Maintenance(fault.status_code());
            return Err(if again { Ok(Resume::Here) } else { Err(external) });
        }
    }
    mmu::canonical(vm, mmu, slot, l2s).ok_or(Ok(Resume::Here))
}

/// ESR_EL2 of a stage-2 fault of cache maintenance, without its status: what hardware would have said
/// that does not trap the instruction first.
fn maintenance_esr(on_walk: bool) -> u64 {
    const IL: u64 = 1 << 25;
    const CM_WNR: u64 = 1 << 8 | 1 << 6;
    u64::from(trap::class::DATA_ABORT) << 26 | IL | CM_WNR | u64::from(on_walk) << 7
}

/// A data abort of L2, which is not about tags.
pub(crate) fn data(vcpu: &Vcpu, abort: DataAbort) -> Reply {
    let (Some(nested), Some(slot)) = (&vcpu.vm.nested, vcpu.l2()) else {
        return Reply::L0;
    };
    if !is_stage_2(abort.kind()) {
        return Reply::L0;
    }
    let el0 = syndrome::spsr() & 0b1100 == 0;
    let attempt = Attempt::of_data(&abort, el0, vcpu.protects(abort.s1ptw()));
    let write = attempt.access == Access::Write;
    let ipa = match abort.ipa {
        Some(ipa) => Ipa::new(ipa.get()),
        None => match address(vcpu, abort.va, For::exited(write && !abort.cm())) {
            Ok(ipa) => ipa,
            Err(reply) => return reply,
        },
    };
    match mmu::fault(vcpu.vm, nested, slot, ipa, attempt) {
        Handled::Again => Reply::Done(Ok(Resume::Here)),
        Handled::L1(fault, ipa) => reflect(abort.esr(), fault, ipa),
        Handled::L1Tag(fault, ipa) => reflect(abort.esr() | TAG_ACCESS, fault, ipa),
        Handled::Own(own) | Handled::OwnTag(own) => own_fault(own),
    }
}

/// An instruction abort of L2.
pub(crate) fn instruction(vcpu: &Vcpu, abort: InstructionAbort) -> Reply {
    let (Some(nested), Some(slot)) = (&vcpu.vm.nested, vcpu.l2()) else {
        return Reply::L0;
    };
    if !is_stage_2(abort.kind()) {
        return Reply::L0;
    }
    let el0 = syndrome::spsr() & 0b1100 == 0;
    let ipa = match abort.ipa {
        Some(ipa) => Ipa::new(ipa.get()),
        // No AT instruction asks for a fetch: memory may be for execution only. If the tables changed
        // meanwhile, L2 runs into that by itself.
        None => {
            let privilege = if el0 { walk::Privilege::El0 } else { walk::Privilege::El1 };
            match walk::translate(vcpu, &translate::regime(), abort.va, privilege, walk::Access::Execute) {
                Ok(found) => Ipa::new(found.ipa.get()),
                Err(_) => return Reply::Done(Ok(Resume::Here)),
            }
        }
    };
    let attempt = Attempt::of_fetch(&abort, el0, vcpu.protects(abort.s1ptw()));
    match mmu::fault(vcpu.vm, nested, slot, ipa, attempt) {
        Handled::Again => Reply::Done(Ok(Resume::Here)),
        Handled::L1(fault, ipa) | Handled::L1Tag(fault, ipa) => reflect(abort.esr(), fault, ipa),
        Handled::Own(own) | Handled::OwnTag(own) => own_fault(own),
    }
}

/// A tag access of L2 where a stage 2 forbids it.
pub(crate) fn tag(vcpu: &mut Vcpu, fault: &TagFault) -> Reply {
    let (Some(nested), Some(slot)) = (&vcpu.vm.nested, vcpu.l2()) else {
        return Reply::L0;
    };
    let write = fault.access == TagAccess::Write;
    let way = For::exited(write);
    let ipa = match address(vcpu, fault.va, way) {
        Ok(ipa) => ipa,
        Err(reply) => return reply,
    };
    let access = if write { Access::Write } else { Access::Read };
    let attempt = Attempt { access, tag: true, protected: false };
    let change = nested.generation();
    let mut handled = mmu::fault(vcpu.vm, nested, slot, ipa, attempt);
    // That is also what a page comes to whose tags another vCPU, or L1, has allowed meanwhile.
    if handled == Handled::Again
        && let Some(next) = next_page(fault.va)
        && vcpu.innocent_l2.again(ipa.get(), change)
        && let Ok(next) = address(vcpu, next, way)
    {
        // The page had tags before the access, which goes on to one that may have none.
        handled = mmu::fault(vcpu.vm, nested, slot, next, attempt);
    }
    match handled {
        Handled::Again => Reply::Done(Ok(Resume::Here)),
        Handled::L1Tag(denied, ipa) => reflect(fault.esr() | TAG_ACCESS, denied, ipa),
        // A permission that L1 does not grant at all comes before tags.
        Handled::L1(denied, ipa) => reflect(fault.esr() & !TAG_ACCESS, denied, ipa),
        Handled::Own(_) | Handled::OwnTag(_) => Reply::L0,
    }
}
