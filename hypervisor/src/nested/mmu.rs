//! L2's stage 2: which shadow a vCPU uses, and what happens when it has no translation.
//!
//! A VM with `nested` has one [`NestedMmu`]. A vCPU that enters L2 ([`Vcpu::load_l2`]) attaches to the
//! shadow for L1's VTTBR_EL2 and VTCR_EL2, and makes it the CPU's stage 2; it stays attached while it is
//! in vEL2 ([`Vcpu::load_vel2`]), so that coming back costs little. L2's stage-2 faults come to [`fault`].
//!
//! L1's tables are read with no lock held. The pool's lock is taken twice for a fault: for the number of
//! the last invalidation before L1's tables are read, and to map what was found, if that number is the
//! same still.

use super::memory::L1Memory;
use crate::arch::tlb::{self, Stale};
use crate::cpu::Local;
use crate::lock::Mutex;
use crate::machine;
use crate::mem::tables::ShadowTables;
use crate::vcpu::Vcpu;
use crate::vm::build::Means;
use crate::vm::{Stage2Registers, Vm, stop_for_fault};
use ::nested::attributes::{Own, compose};
use ::nested::fault::{Attempt, Blame, judge};
use ::nested::shadow::{Config, Key, Refused, Shadows, Tlbs};
use ::nested::stage2::{self, Access, Fault, Offered, Stop};
use ::nested::tlbi;
use addr::{BLOCK_2M, Canonical, Ipa, IpaRange, Nested, PAGE_SIZE};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use idreg::VirtualEl2;
use manifest::{MAX_VMS, VmSpec};
use spin::Once;
use trap::SysReg;
use vmsa::memory::Flush;

/// The kind of virtual EL2 that a VM has.
pub(crate) fn virtual_el2(spec: &VmSpec, means: &Means<'_>) -> Result<Option<VirtualEl2>, String> {
    let kind = match spec.nested {
        None => return Ok(None),
        Some(manifest::Nested::Vhe) => VirtualEl2::Vhe,
        Some(manifest::Nested::Nvhe) => VirtualEl2::Nvhe,
    };
    if !means.ids.has_nesting(VirtualEl2::Vhe) {
        return Err("nested needs FEAT_NV2, which this machine's CPUs do not have".into());
    }
    if !means.ids.has_nesting(kind) {
        return Err("nested = \"nvhe\" needs HCR_EL2.NV1, which this machine's CPUs do not have".into());
    }
    Ok(Some(kind))
}

/// Shadows of all VMs together: each may have a VMID.
pub(crate) const MAX_SHADOWS: usize = 128;
/// Whoever may have a VMID: VMs, then shadows.
pub(crate) const VMID_USERS: usize = MAX_VMS + MAX_SHADOWS;
/// Shadows given to VMs so far. Counted while VMs are built, on one CPU.
static SHADOWS: AtomicUsize = AtomicUsize::new(0);

/// No vCPU.
const NOBODY: usize = usize::MAX;

/// How often a fault is handled anew at once because of an invalidation meanwhile; after that, the guest
/// runs into it again.
const ATTEMPTS: usize = 2;

/// The shadow stage 2 of a VM.
pub(crate) struct NestedMmu {
    shadows: Mutex<Shadows>,
    /// What the VM's ID registers offer, from its first start on.
    offers: Once<Offers>,
    /// Who the first shadow is among the users of VMIDs.
    first: usize,
    /// Where the first shadow's root is, and bytes from one to the next.
    roots: (u64, u64),
    /// The VM's own stage 2: what L2 uses while L1's is off.
    own: Stage2Registers,
    /// The VM's id.
    vm: usize,
    /// For each shadow and CPU, the vCPU that used it there last.
    last: Vec<AtomicUsize>,
    cpus: usize,
}

/// What a VM's ID registers offer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offers {
    /// Of stage 2.
    pub(super) stage2: Offered,
    /// Of TLB maintenance.
    pub(super) tlbi: tlbi::Offered,
    /// VMIDs have 16 bits.
    vmid16: bool,
}

/// What is to be done about a stage-2 fault of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    /// L2 executes the instruction again.
    Again,
    /// L1 takes the fault, for this address.
    L1(Fault, Ipa<Nested>),
    /// The same; it is the tag access that L1 forbids.
    L1Tag(Fault, Ipa<Nested>),
    /// As if L1 had accessed this address of its own: a device, nothing, or memory that the VM may not
    /// use so.
    Own(Ipa<Canonical>),
    /// The same for the access to a tag.
    OwnTag(Ipa<Canonical>),
}

impl NestedMmu {
    /// For a VM; `own`: its own stage 2.
    pub(crate) fn new(
        vm: usize,
        spec: &VmSpec,
        own: Stage2Registers,
        means: &Means<'_>,
    ) -> Result<Self, String> {
        // Two for each vCPU, and one to begin with; not so many that forgetting all takes long.
        let slots = spec.cpus.len() + spec.cpus.len().min(8) + 1;
        let first = SHADOWS.fetch_add(slots, Ordering::Relaxed);
        if first + slots > MAX_SHADOWS {
            return Err(format!("the VMs' vCPUs with nested need more than {MAX_SHADOWS} shadows"));
        }
        let ram: u64 = spec.regions.iter().map(|region| region.ipa.size()).sum();
        // All of the VM's memory in pages, twice, within reason.
        let tables = (ram / BLOCK_2M * 2).clamp(64, 896) as usize;
        let records = (ram / PAGE_SIZE / 4).clamp(1024, 1 << 14) as usize;
        let mut config = Config {
            slots,
            memory: addr::Pa::new(0),
            tables,
            records,
            vmid16: means.vmid16,
            pa_bits: means.pa_bits,
            features: means.stage2,
        };
        let memory = ShadowTables::set_aside(config.frames(), config.root_tables());
        config.memory = memory.ok_or_else(|| {
            format!("EL2's heap has no room for shadow stage 2, {} KiB of tables", config.frames() << 2)
        })?;
        let roots = (config.memory.get(), config.root_tables() as u64 * PAGE_SIZE);
        let shadows = Shadows::new(config).ok_or("its shadow stage 2 is not possible")?;
        let last = (0..slots * means.cpus.len()).map(|_| AtomicUsize::new(NOBODY)).collect();
        let shadows = Mutex::new(shadows);
        Ok(Self {
            shadows,
            offers: Once::new(),
            first: MAX_VMS + first,
            roots,
            own,
            vm,
            last,
            cpus: means.cpus.len(),
        })
    }

    /// The VM starts: nothing of before is left. Its ID registers stay as they are from now on.
    pub(crate) fn begin(&self, id_register: impl Fn(usize) -> u64) {
        self.offers.call_once(|| {
            let id = |crm, op2| SysReg::new(3, 0, 0, crm, op2).id_index().map_or(0, &id_register);
            let (mmfr1, mmfr2) = (id(7, 1), id(7, 2));
            Offers {
                stage2: Offered::from_ids([id(7, 0), mmfr1, mmfr2], id(4, 2)),
                tlbi: tlbi::Offered::from_ids(id(6, 0), id(6, 1), mmfr2),
                vmid16: mmfr1 >> 4 & 0xf == 2,
            }
        });
        self.forget_all();
    }

    pub(super) fn offers(&self) -> &Offers {
        self.offers.get().unwrap_or_else(|| panic!("VM {} has not begun", self.vm))
    }

    /// The VMID that L1's VTTBR_EL2 names.
    pub(crate) fn guest_vmid(&self, vttbr: u64, vtcr: u64) -> u16 {
        nested::shadow::guest_vmid(vttbr, vtcr, self.offers().vmid16)
    }

    /// Attaches a vCPU to the shadow for L1's registers. `old`: the one that it is attached to.
    #[cold]
    #[inline(never)]
    fn attach(&self, old: Option<Attached>, registers: stage2::Registers, on: bool) -> Attached {
        let offers = self.offers();
        let key = Key::new(registers, on, &offers.stage2, offers.vmid16);
        let mut shadows = self.shadows.lock();
        if let Some(old) = old {
            shadows.detach(old.slot);
        }
        let slot = shadows.attach(&mut ShadowTables, &mut self.tlbs(), key);
        // Each vCPU is attached to one, and there are more.
        let slot = slot.unwrap_or_else(|| panic!("VM {} has no shadow left", self.vm));
        let (root, vtcr) = match shadows.loaded(slot).and_then(|loaded| Some((loaded.root?, loaded.vtcr))) {
            Some((root, vtcr)) => (root.get(), vtcr),
            None => (self.own.root, self.own.vtcr),
        };
        Attached { slot, registers, on, root, vtcr }
    }

    /// Makes a shadow the stage 2 of this CPU, for vCPU `vcpu`.
    ///
    /// # Safety
    /// The vCPU is attached to it, and L2 is what runs next on this CPU.
    unsafe fn load(&self, local: &Local, attached: &Attached, vcpu: usize) {
        let Attached { slot, root, vtcr, .. } = *attached;
        let vmid = local.take_vmid(self.first + slot);
        // SAFETY: the tables of the shadow, or the VM's own; the VMID is no other's. The caller's
        // promise.
        unsafe { tlb::set_stage2(root | u64::from(vmid) << 48, vtcr) };
        let last = self.last.get(slot * self.cpus + local.index);
        // Only this CPU uses its elements.
        if last.is_some_and(|last| last.load(Ordering::Relaxed) != vcpu) {
            if let Some(last) = last {
                last.store(vcpu, Ordering::Relaxed);
            }
            // As between two vCPUs of a VM: L2's ASIDs may mean something else for each.
            tlb::flush_local_stage1();
        }
    }

    fn tlbs(&self) -> ShadowTlbs<'_> {
        ShadowTlbs { mmu: self }
    }

    /// Changes the shadows.
    pub(super) fn change<R>(
        &self,
        f: impl FnOnce(&mut Shadows, &mut ShadowTables, &mut ShadowTlbs<'_>) -> R,
    ) -> R {
        f(&mut self.shadows.lock(), &mut ShadowTables, &mut self.tlbs())
    }

    /// The VM's own stage 2 has changed in `range`.
    pub(crate) fn forget_canonical(&self, range: IpaRange) {
        self.change(|shadows, mem, tlbs| shadows.forget_canonical(mem, tlbs, range));
    }

    /// The number of the last invalidation.
    pub(super) fn generation(&self) -> u64 {
        self.shadows.lock().generation()
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        self.change(|shadows, mem, tlbs| shadows.forget_all(mem, tlbs));
    }

    /// Runs `f` with the VTTBR_EL2 of each shadow that stands for L1's VMID `vmid` and that a TLB may
    /// hold something of; nobody else gets the shadow's VMID meanwhile.
    pub(super) fn for_each_vttbr(&self, vmid: u16, f: impl Fn(u64)) {
        let shadows = self.shadows.lock();
        for slot in shadows.of_vmid(vmid) {
            self.tlbs().with_vttbr(slot, &f);
        }
    }

    /// The same for the VM's own VMID: vEL2's.
    pub(super) fn with_own_vttbr(&self, f: impl Fn(u64)) {
        with_vmid(self.vm, |vmid| f(self.own.root | u64::from(vmid) << 48));
    }
}

/// The shadow that a vCPU uses.
#[derive(Debug, Default)]
pub(crate) struct Attachment {
    /// The one that it is attached to, also while it is in vEL2.
    attached: Option<Attached>,
    /// L2 runs, or runs when the vCPU is next resident.
    in_l2: bool,
}

/// A shadow, and for what a vCPU is attached to it: while it is, neither changes.
#[derive(Clone, Copy, Debug)]
struct Attached {
    slot: usize,
    /// L1's registers, and whether its stage 2 is on.
    registers: stage2::Registers,
    on: bool,
    /// VTTBR_EL2 without VMID, and VTCR_EL2, for the hardware.
    root: u64,
    vtcr: u64,
}

impl Vcpu {
    /// The shadow that L2 runs under; `None` in vEL2, and in a VM that has none.
    #[inline]
    pub(crate) fn l2(&self) -> Option<usize> {
        self.shadow.attached.as_ref().filter(|_| self.shadow.in_l2).map(|attached| attached.slot)
    }

    /// Makes L2's stage 2 that of this CPU. `on`: the virtual HCR_EL2.VM or DC.
    ///
    /// # Safety
    /// L2 of this vCPU is what runs next on this CPU.
    pub(crate) unsafe fn load_l2(&mut self, local: &Local, registers: stage2::Registers, on: bool) {
        let Some(mmu) = &self.vm.nested else { return };
        let same = |attached: &Attached| attached.registers == registers && attached.on == on;
        if !self.shadow.attached.as_ref().is_some_and(same) {
            self.shadow.attached = Some(mmu.attach(self.shadow.attached.take(), registers, on));
        }
        self.shadow.in_l2 = true;
        // SAFETY: it is L2 that runs next: the caller's promise.
        unsafe { self.reload_l2(local) };
    }

    /// Makes L2's stage 2 that of this CPU again, if it was L2 that was taken from it.
    ///
    /// # Safety
    /// The vCPU is what runs next on this CPU.
    pub(crate) unsafe fn reload_l2(&self, local: &Local) {
        if let (Some(mmu), Some(attached)) = (&self.vm.nested, &self.shadow.attached)
            && self.shadow.in_l2
        {
            // SAFETY: attached; the caller's promise.
            unsafe { mmu.load(local, attached, self.id) };
        }
    }

    /// Makes the VM's own stage 2 that of this CPU: vEL2's.
    ///
    /// # Safety
    /// vEL2 of this vCPU is what runs next on this CPU.
    pub(crate) unsafe fn load_vel2(&mut self, local: &Local) {
        self.shadow.in_l2 = false;
        let vmid = local.take_vmid(self.vm.id);
        let own = &self.vm.stage2;
        // SAFETY: the VM's own tables and VMID; the caller's promise.
        unsafe { tlb::set_stage2(own.root | u64::from(vmid) << 48, own.vtcr) };
    }

    /// The vCPU starts anew, in vEL2. It is not resident.
    pub(crate) fn reset_shadow(&mut self) {
        let Attachment { attached, .. } = core::mem::take(&mut self.shadow);
        if let (Some(mmu), Some(attached)) = (&self.vm.nested, attached) {
            mmu.shadows.lock().detach(attached.slot);
        }
    }
}

/// Runs `f` with the VMID of `user`, if it has one: it keeps it meanwhile.
pub(crate) fn with_vmid(user: usize, f: impl FnOnce(u16)) {
    let Some(machine) = machine::get() else { return };
    let vmids = machine.vmids.lock();
    let vmid = vmids.current(user);
    // The lock is every VM's at each switch between hypervisor and guest, and a VM may invalidate as often as
    // it likes: it is kept only where a VMID could become another's.
    let _kept = Some(vmids).filter(|vmids| !vmids.is_ample());
    match vmid {
        Some(vmid) => f(vmid),
        // It has nothing in any TLB; its next translations come of walks that see what was written.
        None => tlb::publish_guest(),
    }
}

/// All CPUs' TLBs, as far as they hold translations of a VM's shadows.
pub(super) struct ShadowTlbs<'a> {
    mmu: &'a NestedMmu,
}

impl ShadowTlbs<'_> {
    fn with_vttbr(&self, slot: usize, f: impl FnOnce(u64)) {
        // Of a shadow for no stage 2 at all the root is empty: nothing comes of walks from there.
        let (base, step) = self.mmu.roots;
        with_vmid(self.mmu.first + slot, |vmid| f((base + slot as u64 * step) | u64::from(vmid) << 48));
    }
}

impl Tlbs for ShadowTlbs<'_> {
    fn flush(&mut self, slot: usize, flush: Flush<Ipa<Nested>>) {
        let Flush { start, end, level } = flush;
        let stale = Stale { start, end, step: level.size() };
        self.with_vttbr(slot, |vttbr| tlb::flush_other_guest(vttbr, stale));
    }

    fn flush_all(&mut self, slot: usize) {
        self.with_vttbr(slot, tlb::flush_all_of);
    }

    fn publish(&mut self) {
        tlb::publish_guest();
    }
}

/// A stage-2 fault of L2 at `ipa`, on a vCPU that is attached to shadow `slot`: maps what is missing, or
/// says whose fault it is.
pub(crate) fn fault(
    vm: &'static Vm,
    mmu: &NestedMmu,
    slot: usize,
    ipa: Ipa<Nested>,
    attempt: Attempt,
) -> Handled {
    let write = attempt.access == Access::Write;
    for _ in 0..ATTEMPTS {
        let shadows = mmu.shadows.lock();
        let (generation, key) = (shadows.generation(), shadows.key(slot).copied());
        drop(shadows);
        let Some(key) = key.filter(Key::is_on) else {
            // L2's addresses are L1's own.
            let ipa = Ipa::new(ipa.get());
            return if attempt.tag { Handled::OwnTag(ipa) } else { Handled::Own(ipa) };
        };
        let leaf = match stage2::walk(&L1Memory(vm), key.registers(), &mmu.offers().stage2, ipa, write) {
            Ok(leaf) => leaf,
            Err(Stop::Retry) => return Handled::Again,
            Err(Stop::Fault(fault)) => return Handled::L1(fault, ipa),
        };
        let own = vm.map.lock().leaf(leaf.output);
        let own = own.map(|own| Own { pa: own.pa, attr: own.attr, size: own.level.size() });
        match (judge(attempt, &leaf, own.as_ref()), own) {
            (Blame::L1(fault), _) => return Handled::L1(fault, ipa),
            (Blame::L1Tag(fault), _) => return Handled::L1Tag(fault, ipa),
            (Blame::L0Tag, _) => return Handled::OwnTag(leaf.output),
            (Blame::Absent | Blame::L0, _) | (Blame::Nobody, None) => return Handled::Own(leaf.output),
            (Blame::Nobody, Some(own)) => {
                let Some(mapping) = compose(ipa, &leaf, &own) else { return Handled::Own(leaf.output) };
                match mmu.change(|shadows, mem, tlbs| shadows.map(mem, tlbs, slot, &mapping, generation)) {
                    Ok(()) => return Handled::Again,
                    Err(Refused::Outdated) => {}
                    // Tables and attributes were reckoned when the VM was built. Should that be wrong, it is
                    // the VM's end and nobody else's.
                    Err(Refused::Attr(_) | Refused::NoRoom) => {
                        if vm.may_report() {
                            log::warn!("VM {}: {ipa} finds no place in its shadow", vm.spec.name);
                        }
                        stop_for_fault(vm);
                        return Handled::Again;
                    }
                }
            }
        }
    }
    Handled::Again
}

/// Where L1 and the VM send an address of L2's, without changing anything: for who handles an access as
/// if L1 had made it. `None` if L1's tables give none now.
pub(crate) fn canonical(vm: &Vm, mmu: &NestedMmu, slot: usize, ipa: Ipa<Nested>) -> Option<Ipa<Canonical>> {
    let key = mmu.shadows.lock().key(slot).copied()?;
    if !key.is_on() {
        return Some(Ipa::new(ipa.get()));
    }
    let leaf = stage2::walk(&L1Memory(vm), key.registers(), &mmu.offers().stage2, ipa, false);
    leaf.ok().map(|leaf| leaf.output)
}
