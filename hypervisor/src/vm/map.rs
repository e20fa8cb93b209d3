//! A VM's stage 2 while it runs: the one way to change its leaves.
//!
//! `vm.map.lock()` gives a [`GuestMap`]. Its changes are those of `vmsa`: planned, then committed with
//! break-before-make, blocks split and joined as needed, and when a change returns, no CPU translates
//! by what was before, although the VM's vCPUs may run meanwhile. Tables for that are the VM's own,
//! set aside when it was built.
//!
//! While a leaf is broken, an access to it exits with a translation fault. Who handles a stage-2 fault
//! asks [`GuestMap::is_there`] under the lock before anyone is blamed: if the access is fine now, the
//! guest repeats it.

use super::lazy::{Change, LazyMemory};
use crate::arch::tlb;
use crate::machine;
use crate::mem::tables::StageTwoTables;
use crate::nested::mmu::with_vmid;
use addr::{Canonical, Ipa, IpaRange, Pa};
use tags::dirty::DirtyLog;
use vmsa::attr::{S2Attr, S2Features, S2Memory};
use vmsa::descriptor::Level;
use vmsa::memory::{Flush, Tlb, Unused};
use vmsa::stage2::{Geometry, Stage2};
use vmsa::tree::MapError;

/// Why a map did not change.
pub(crate) type Refusal = MapError<Ipa<Canonical>>;

/// What a guest wants to do to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Load, or a walk of its own tables.
    Read,
    /// Store.
    Write,
    /// Instruction fetch.
    Execute,
}

/// A leaf, as far as it is about one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    /// Where the address leads.
    pub(crate) pa: Pa,
    /// What the guest may do there.
    pub(crate) attr: S2Attr,
    /// Level of the descriptor: whether it is a page or a block.
    pub(crate) level: Level,
}

/// The tables of a VM's own memory, canonical IPA to physical address.
#[derive(Debug)]
pub(crate) struct GuestMap {
    /// The VM's id.
    vm: usize,
    stage2: Stage2,
    tables: StageTwoTables,
    /// Memory that gets tags on demand.
    pub(crate) lazy: LazyMemory,
    /// Which pages were written.
    pub(crate) dirty: DirtyLog,
}

impl GuestMap {
    /// An empty map with `tables` tables set aside. `None` without memory for them.
    pub(crate) fn new(
        vm: usize,
        geometry: Geometry,
        features: S2Features,
        tables: usize,
        lazy: LazyMemory,
    ) -> Option<Self> {
        let mut tables = StageTwoTables::new(tables)?;
        let stage2 = Stage2::new(&mut tables, geometry, features)?;
        Some(Self { vm, stage2, tables, lazy, dirty: DirtyLog::new() })
    }

    /// Maps `range` before the VM has run: no TLB knows of it.
    pub(crate) fn map_unused(&mut self, range: IpaRange, pa: Pa, attr: S2Attr) -> Result<(), Refusal> {
        self.stage2.map(&mut self.tables, &mut Unused, range, pa, attr)
    }

    /// VTTBR_EL2 without the VMID.
    pub(crate) fn root(&self) -> u64 {
        self.stage2.vttbr(0)
    }

    /// Bytes of tables in use, and set aside.
    pub(crate) fn table_bytes(&self) -> (usize, usize) {
        self.tables.bytes()
    }

    /// The leaf of `ipa`; `None` where nothing is mapped.
    pub(crate) fn leaf(&self, ipa: Ipa<Canonical>) -> Option<Leaf> {
        let (pa, attr, level) = self.stage2.walk(&self.tables, ipa)?;
        Some(Leaf { pa, attr, level })
    }

    /// Whether the guest may do this now, tags aside.
    pub(crate) fn allows(&self, ipa: Ipa<Canonical>, access: Access) -> bool {
        self.leaf(ipa).is_some_and(|leaf| match access {
            Access::Read => leaf.attr.read,
            Access::Write => leaf.attr.write,
            Access::Execute => leaf.attr.exec.el1(),
        })
    }

    /// Whether what gave a translation fault is there now, for this access, or will be: a change of lazy
    /// memory is carried on.
    pub(crate) fn is_there(&mut self, ipa: Ipa<Canonical>, access: Access) -> bool {
        self.allows(ipa, access) || matches!(self.settle(ipa), Change::Done(true) | Change::Underway)
    }

    /// Gives all of `range`, which is mapped, another memory type; who may do what stays, page by page.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub(crate) fn retype(&mut self, range: IpaRange, memory: S2Memory) -> Result<(), Refusal> {
        let mut tlb = self.tlb();
        self.stage2.retype(&mut self.tables, &mut tlb, range, memory)
    }

    /// Allows or forbids stores to a page, or to several of which none is lazy memory on the move: that is
    /// mapped like that afterwards.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub(crate) fn set_writable(&mut self, page: IpaRange, writable: bool) -> Result<(), Refusal> {
        if self.lazy.ledger.is_broken(page.start()) {
            self.lazy.ledger.set_writable(page.start(), writable);
            return Ok(());
        }
        let mut tlb = self.tlb();
        self.stage2.plan_writable(&mut self.tables, page, writable).map(|plan| plan.commit(&mut tlb))
    }

    /// Unmaps `range`. Mapping it again needs no more tables than there are.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub(crate) fn unmap(&mut self, range: IpaRange) -> Result<(), Refusal> {
        let mut tlb = self.tlb();
        self.stage2.unmap(&mut self.tables, &mut tlb, range)
    }

    /// Maps `range`, which is unmapped, to memory from `pa` on.
    ///
    /// # Errors
    /// Any [`MapError`]; nothing has changed then.
    pub(crate) fn map(&mut self, range: IpaRange, pa: Pa, attr: S2Attr) -> Result<(), Refusal> {
        let mut tlb = self.tlb();
        self.stage2.map(&mut self.tables, &mut tlb, range, pa, attr)
    }

    fn tlb(&self) -> GuestTlb {
        GuestTlb { vm: self.vm, root: self.root() }
    }
}

/// All CPUs' TLBs, as far as they hold translations of one VM.
struct GuestTlb {
    vm: usize,
    root: u64,
}

impl Tlb<Ipa<Canonical>> for GuestTlb {
    fn flush(&mut self, flush: Flush<Ipa<Canonical>>) {
        let Flush { start, end, level } = flush;
        let stale = tlb::Stale { start, end, step: level.size() };
        let Some(machine) = machine::get() else { return };
        let nested = machine.vms.get(self.vm).and_then(|vm| vm.nested.as_ref());
        // The resident VM's VMID is in VTTBR_EL2, and it keeps it while it is resident. A hypervisor's
        // guest may have the same tables under another VMID there.
        if nested.is_none() && tlb::is_resident(self.root) {
            tlb::flush_resident_guest(stale);
            return;
        }
        with_vmid(self.vm, |vmid| tlb::flush_other_guest(self.root | u64::from(vmid) << 48, stale));
        if let (Some(nested), Some(range)) = (nested, IpaRange::new(start, end.get() - start.get())) {
            nested.forget_canonical(range);
        }
    }

    fn publish(&mut self) {
        tlb::publish_guest();
    }
}
