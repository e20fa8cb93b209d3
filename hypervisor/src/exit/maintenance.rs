//! A guest's cache maintenance, as far as EL2 gets to see it: trapped, or after a stage-2 fault. What
//! becomes of it, `cmo::guest` decides; here is where it is, and how it is done.
//!
//! Neither road touches what the guest sees of a translation: PAR_EL1 is kept, FAR_EL1 and ESR_EL1 are
//! written only with a fault that is its own.

use super::Outcome;
use crate::arch::translate::{self, For, NoAddress};
use crate::arch::{cache, syndrome};
use crate::cpu::Local;
use crate::lock::Hot;
use crate::mem::window;
use crate::nested;
use crate::nested::abort::guest_ipa;
use crate::vcpu::apply::{GuestFault, Resume};
use crate::vcpu::{Activity, Vcpu};
use crate::vm::map::GuestMap;
use crate::vm::{Vm, dirty};
use addr::{Canonical, Ipa, IpaRange, Pa, PaRange, Va};
use cmo::guest::{Action, Demand, Found, Place, Policy, after_fault, carry_out, demand, needs_no_sweep};
use cmo::{Kind, Line, Operation, Sweep};
use idreg::Reg;
use manifest::{Cmo, RegionKind, Tags};
use trap::{DataAbort, SysregAccess};
use vmsa::attr::S2Memory;
use vmsa::walk::{self, Access, GuestMemory, Lookups, Privilege};

/// ESR_ELx.DFSC of a synchronous external abort.
const EXTERNAL: u8 = 0x10;
/// The same on a walk, at level 0.
const EXTERNAL_ON_WALK: u8 = 0x14;

/// A trapped instruction. Its address has not been translated: the guest's own stage 1 comes first.
#[inline(always)]
pub(crate) fn trapped(vcpu: &mut Vcpu, local: &Local, access: SysregAccess, operation: Operation) -> Outcome {
    let el0 = syndrome::spsr() & 0b1100 == 0;
    let (el0, write) =
        match demand(operation, el0, vcpu.ids.field(Reg::Pfr1, 8), || syndrome::el1_vectors().1) {
            Demand::Undefined => return Err(GuestFault::Undefined),
            Demand::Trap => return Err(GuestFault::Sysreg(access)),
            Demand::Sweep => return Ok(sweep(vcpu)),
            Demand::ForgetInstructions => return Ok(forget_instructions()),
            Demand::Translate { el0, write } => (el0, write),
        };
    let va = Va::new(vcpu.regs.get(access.rt));
    if vcpu.vm.nested.is_some() && vcpu.l2().is_some() {
        return trapped_in_l2(vcpu, local, operation, va, (el0, write));
    }
    let way = match (el0, write) {
        (false, false) => For::El1Read,
        (false, true) => For::El1Write,
        (true, false) => For::El0Read,
        (true, true) => For::El0Write,
    };
    match translate::guest_ipa(va, way) {
        Ok(ipa) => carry_out_at(vcpu.vm, operation, ipa),
        Err(why) => own_fault(vcpu, va, way, why),
    }
}

/// The same of L2, whose address goes through L1's stage 2 as well.
#[cold]
#[inline(never)]
fn trapped_in_l2(
    vcpu: &mut Vcpu,
    local: &Local,
    operation: Operation,
    va: Va,
    (el0, write): (bool, bool),
) -> Outcome {
    match nested::abort::maintained(vcpu, local, va, el0, write) {
        Ok(ipa) => carry_out_at(vcpu.vm, operation, ipa),
        Err(outcome) => outcome,
    }
}

#[inline(always)]
fn carry_out_at(vm: &Vm, operation: Operation, ipa: Ipa<Canonical>) -> Outcome {
    let target = Target::at(vm, ipa);
    let action = carry_out(operation, target.place);
    if action == Action::ExternalAbort {
        return Err(GuestFault::Maintenance(EXTERNAL));
    }
    target.apply(action)
}

/// Stage 1 gives a trapped instruction no address: the guest learns why as it would have without the trap.
#[cold]
#[inline(never)]
fn own_fault(vcpu: &Vcpu, va: Va, way: For, why: NoAddress) -> Outcome {
    let level = match why {
        NoAddress::Fault(fault) if !fault.stage2 => return Err(GuestFault::Maintenance(fault.status)),
        NoAddress::Fault(_) => {
            // Stage 2 on behalf of the walk. The level in the answer is that of stage 2.
            let (privilege, access) = match way {
                For::El0Read => (Privilege::El0, Access::Read),
                For::El0Write => (Privilege::El0, Access::Write),
                For::El1Read => (Privilege::El1, Access::Read),
                For::El1Write => (Privilege::El1, Access::Write),
            };
            let look = || walk::lookups(vcpu, &translate::regime(), va, privilege, access);
            let seen = look();
            // Its map may have been changing: ask again while it does not.
            let mut map = vcpu.vm.map.lock_hot();
            let again = translate::guest_ipa(va, way);
            let faults = matches!(again, Err(NoAddress::Fault(fault)) if fault.stage2);
            let again = !faults || passes(vcpu.vm, &mut map, &seen);
            drop(map);
            if again || look() != seen {
                return Ok(Resume::Here);
            }
            seen.level
        }
        NoAddress::ExternalAbort(level) => level.get() as u8,
    };
    Err(GuestFault::Maintenance(EXTERNAL_ON_WALK | level & 3))
}

/// Whether stage 2 forbids what a walk `looked` at for a while only: a table is in lazy memory on the move,
/// or the dirty log keeps hardware from setting a flag in the leaf.
fn passes(vm: &Vm, map: &mut GuestMap, looked: &Lookups) -> bool {
    use crate::vm::map::Access::Read;
    let mut tables = looked.entries.into_iter().flatten();
    let on_the_move = |table| !map.allows(table, Read) && map.is_there(table, Read);
    tables.clone().any(on_the_move) || tables.next().is_some_and(|leaf| dirty::table_update(vm, map, leaf))
}

/// A data abort that may be of maintenance, at an address that no device answers; `None` if it is to be
/// handled like any other. Called for aborts with CM, and for loads that have no syndrome.
#[cold]
#[inline(never)]
pub(crate) fn faulted(vcpu: &Vcpu, abort: &DataAbort) -> Option<Outcome> {
    // Without a place: is it about maintenance at all?
    if after_fault(abort, Place::Absent, Found::NotRead) == Action::Access {
        return None;
    }
    let ipa = match abort.ipa {
        Some(ipa) => ipa,
        // Stage 1 has allowed it already; any translation finds the page.
        None => match guest_ipa(vcpu, abort.va, For::exited(false)) {
            Ok(ipa) => ipa,
            Err(why) => return Some(super::abort::without_address(vcpu, abort.va, why)),
        },
    };
    let target = Target::at(vcpu.vm, ipa);
    let mut action = after_fault(abort, target.place, Found::NotRead);
    if action == Action::Fetch {
        let found = match instruction(vcpu) {
            Ok(word) => Operation::from_instruction(word).map_or(Found::Other, Found::This),
            Err(NoInstruction::Gone) => return Some(Ok(Resume::Here)),
            Err(NoInstruction::Unreadable) => Found::Unreadable,
        };
        action = after_fault(abort, target.place, found);
    }
    (action != Action::Access).then(|| target.apply(action))
}

/// Why there is no instruction at the guest's PC.
pub(crate) enum NoInstruction {
    /// The guest may not execute there any more: it will run into that by itself.
    Gone,
    /// EL2 reads nothing there: the guest executes from a device.
    Unreadable,
}

/// The instruction at the guest's PC, read through its own stage 1 by its right to execute it, and only
/// from memory.
///
/// # Errors
/// Why there is none.
pub(crate) fn instruction(vcpu: &Vcpu) -> Result<u32, NoInstruction> {
    let pc = syndrome::elr();
    let el0 = syndrome::spsr() & 0b1100 == 0;
    let privilege = if el0 { Privilege::El0 } else { Privilege::El1 };
    let found = walk::translate(vcpu, &translate::regime(), Va::new(pc), privilege, Access::Execute);
    let ipa = found.ok().and_then(|found| vcpu.own_address(found.ipa)).ok_or(NoInstruction::Gone)?;
    let both = vcpu.vm.read_u64(ipa.align_down(8)).ok_or(NoInstruction::Unreadable)?;
    Ok(if pc & 4 == 0 { both as u32 } else { (both >> 32) as u32 })
}

/// Where maintenance hits.
struct Target<'a> {
    place: Place,
    memory: Memory<'a>,
}

/// The memory behind an address, and how EL2 reaches it.
#[derive(Clone, Copy)]
enum Memory<'a> {
    None,
    Fixed(Pa, Kind),
    /// Shared or lazy: it may go or move, or be of another type, unless the map is locked.
    Changing(&'a Vm, Ipa<Canonical>),
}

impl<'a> Target<'a> {
    const NOTHING: Self = Self { place: Place::Absent, memory: Memory::None };

    /// What the VM has at `ipa`.
    fn at(vm: &'a Vm, ipa: Ipa<Canonical>) -> Self {
        let Some(index) = vm.spec.regions.iter().position(|region| region.ipa.contains(ipa)) else {
            return Self::NOTHING;
        };
        let (Some(region), Some(backing)) = (vm.spec.regions.get(index), vm.backing.get(index)) else {
            return Self::NOTHING;
        };
        let place = match &region.kind {
            RegionKind::Device { .. } if backing.kind == Kind::NonCacheable => Place::Device,
            RegionKind::Ram | RegionKind::Shared { .. } | RegionKind::Device { .. } => Place::Writable,
            RegionKind::ReadOnly { cmo: Cmo::Emulate } => Place::ReadOnly(Policy::Emulate),
            RegionKind::ReadOnly { cmo: Cmo::Architectural } => Place::ReadOnly(Policy::Architectural),
        };
        let changes = matches!(region.kind, RegionKind::Shared { .. }) || region.tags == Tags::Lazy;
        let memory = if changes {
            vm.map.lock_hot().leaf(ipa).map(|_| Memory::Changing(vm, ipa))
        } else {
            by_pieces(&backing.pieces, region.ipa, ipa).map(|pa| Memory::Fixed(pa, backing.kind))
        };
        memory.map_or(Self::NOTHING, |memory| Self { place, memory })
    }

    fn apply(&self, action: Action) -> Outcome {
        match action {
            Action::Perform(line) => {
                self.memory.maintain(line);
                Ok(Resume::Next)
            }
            Action::Skip => Ok(Resume::Next),
            Action::ForgetInstructions => Ok(forget_instructions()),
            Action::Retry | Action::Fetch => Ok(Resume::Here),
            Action::ExternalAbort | Action::Access => Err(GuestFault::ExternalDataAbort),
        }
    }
}

impl Memory<'_> {
    /// Maintains the line there, if there still is one.
    fn maintain(self, line: Line) {
        let done = match self {
            Memory::Fixed(pa, kind) => window::maintain(pa, kind, line),
            Memory::Changing(vm, ipa) => {
                let map = vm.map.lock_hot();
                leaf_memory(vm, &map, ipa).is_none_or(|(memory, kind)| {
                    let inside = ipa.get() & (memory.size() - 1);
                    window::maintain(Pa::new(memory.start().get() + inside), kind, line)
                })
            }
            Memory::None => true,
        };
        assert!(done, "no window for a guest's line");
    }
}

/// The memory behind an address of a region that stays as it was built.
fn by_pieces(pieces: &[PaRange], region: IpaRange, ipa: Ipa<Canonical>) -> Option<Pa> {
    let mut offset = ipa.offset_from(region.start())?;
    for piece in pieces {
        match offset.checked_sub(piece.size()) {
            None => return piece.start().checked_add(offset),
            Some(beyond) => offset = beyond,
        }
    }
    None
}

/// The leaf that `map`, stage 2 of `vm`, has at an address: its memory, and how EL2 reaches it.
fn leaf_memory(vm: &Vm, map: &GuestMap, ipa: Ipa<Canonical>) -> Option<(PaRange, Kind)> {
    let leaf = map.leaf(ipa)?;
    let kind = match leaf.attr.memory {
        S2Memory::WriteBack if vm.spec.mte => Kind::Tagged,
        S2Memory::WriteBack | S2Memory::WriteBackNoTag => Kind::WriteBack,
        S2Memory::NonCacheable | S2Memory::DeviceNGnRE | S2Memory::DeviceNGnRnE => Kind::NonCacheable,
    };
    let size = leaf.level.size();
    Some((PaRange::new(leaf.pa.align_down(size), size)?, kind))
}

fn forget_instructions() -> Resume {
    cache::publish_instructions();
    Resume::Next
}

/// Maintenance by set and way: the vCPU sweeps all its VM's memory before it goes on.
fn sweep(vcpu: &Vcpu) -> Resume {
    let forced = vcpu.traps.as_ref().is_some_and(|traps| traps.hcr & idreg::closing::hcr::FWB != 0);
    if needs_no_sweep(forced, vcpu.ids.ctr()) { Resume::Next } else { Resume::Sweep }
}

impl Vcpu {
    /// Does one step of a sweep; after the last the vCPU goes on.
    pub(crate) fn sweep_step(&mut self, at: Sweep) {
        let vm = self.vm;
        // Nothing moves away under the window.
        let map = vm.map.lock_hot();
        let step = at.step(|n| vm.spec.regions.get(n).map(|r| r.ipa), |ipa| leaf_memory(vm, &map, ipa));
        self.activity = match step {
            Some((chunk, next)) => {
                let done = chunk.is_none_or(window::clean_invalidate);
                assert!(done, "no window for a VM's memory");
                Activity::Sweeping(next)
            }
            None => Activity::Ready,
        };
    }
}
