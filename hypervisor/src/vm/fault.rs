//! Tag faults: an access to a tag of memory that has none. Lazy memory gets tags if it may; otherwise the
//! region's `on-tag-access` decides, and what happened is counted, kept for FAULT_INFO, and logged.

use super::events::{Event, post};
use super::lazy::Change;
use super::{Vm, stop_for_fault};
use crate::arch::syndrome;
use crate::arch::translate::For;
use crate::cpu::Local;
use crate::exit::{Outcome, abort, maintenance};
use crate::lock::Hot;
use crate::log;
use crate::nested::abort::guest_ipa;
use crate::vcpu::apply::{GuestFault, Resume};
use crate::vcpu::{Activity, Vcpu, request};
use abi::hypercall::{Error, EventKind, FaultDecision, FaultState};
use addr::{Canonical, Ipa, PAGE_SIZE, Va};
use alloc::vec::Vec;
use manifest::{OnTagAccess, Tags};
use tags::access::Access;
use trap::TagFault;

/// Bytes of the largest access: LD4D of four SVE vectors. One that begins on a page with tags can fault on
/// the next.
const LARGEST_ACCESS: u64 = 4 * 256;

/// The page at which a vCPU's last tag fault found nothing wrong, and the number of the change after which
/// that was so. Another vCPU may have given it tags behind the fault, so the access is repeated. If it
/// faults once more, and nothing has changed since, it is for what lies behind that page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Innocent(Option<(u64, u64)>);

impl Innocent {
    /// Notes a page, by its address at one stage, and the number of the last change there; whether the same
    /// was noted last.
    pub(crate) fn again(&mut self, page: u64, change: u64) -> bool {
        let now = Self(Some((page & !(PAGE_SIZE - 1), change)));
        core::mem::replace(self, now) == now
    }
}

/// The last fault of a vCPU that its region's policy decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// Whether the vCPU waits.
    pub(crate) state: FaultState,
    /// ELR_EL2.
    pub(crate) pc: u64,
    /// FAR_EL2.
    pub(crate) va: u64,
    /// Where the tag would have been.
    pub(crate) ipa: u64,
    /// Number of the region.
    pub(crate) region: usize,
    /// What was wanted.
    pub(crate) access: Access,
    /// What was decided; `None` while the vCPU waits.
    pub(crate) decision: Option<FaultDecision>,
    /// ESR_EL2.
    pub(crate) esr: u64,
}

impl Record {
    const NONE: Self = Self {
        state: FaultState::Past,
        pc: 0,
        va: 0,
        ipa: 0,
        region: 0,
        access: Access::ReadOrChecked,
        decision: None,
        esr: 0,
    };
}

/// Faults of a region by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RegionCounts {
    /// The VM stopped.
    pub(crate) stopped: u64,
    /// External aborts.
    pub(crate) injected: u64,
    /// A control VM was asked.
    pub(crate) reported: u64,
    /// Tag writes among all of these.
    pub(crate) tag_writes: u64,
}

/// A VM's tag faults since its start.
#[derive(Debug)]
pub(crate) struct Faults {
    /// The last of each vCPU, and how many it had.
    vcpus: Vec<(Record, u64)>,
    regions: Vec<RegionCounts>,
}

impl Faults {
    /// None yet.
    pub(crate) fn new(vcpus: usize, regions: usize) -> Self {
        let none = (Record::NONE, 0);
        Self { vcpus: alloc::vec![none; vcpus], regions: alloc::vec![RegionCounts::default(); regions] }
    }

    /// A new start.
    pub(crate) fn forget(&mut self) {
        self.vcpus.fill((Record::NONE, 0));
        self.regions.fill(RegionCounts::default());
    }

    /// The last fault of a vCPU, and how many it had. `None` if there is no such vCPU.
    pub(crate) fn last(&self, vcpu: usize) -> Option<(Option<Record>, u64)> {
        let (last, count) = self.vcpus.get(vcpu)?;
        Some(((*count != 0).then_some(*last), *count))
    }

    /// A region's counts.
    pub(crate) fn of_region(&self, region: usize) -> RegionCounts {
        self.regions.get(region).copied().unwrap_or_default()
    }

    /// The sums over all regions.
    pub(crate) fn of_all(&self) -> RegionCounts {
        let sum = |count: fn(&RegionCounts) -> u64| {
            self.regions.iter().fold(0, |all: u64, region| all.saturating_add(count(region)))
        };
        RegionCounts {
            stopped: sum(|r| r.stopped),
            injected: sum(|r| r.injected),
            reported: sum(|r| r.reported),
            tag_writes: sum(|r| r.tag_writes),
        }
    }

    #[inline(always)]
    fn add(&mut self, vcpu: usize, record: &Record, policy: OnTagAccess) {
        if let Some((last, count)) = self.vcpus.get_mut(vcpu) {
            // Field by field: all are in registers, and a copy of the whole would be a call.
            last.state = record.state;
            last.pc = record.pc;
            last.va = record.va;
            last.ipa = record.ipa;
            last.region = record.region;
            last.access = record.access;
            last.decision = record.decision;
            last.esr = record.esr;
            *count = count.saturating_add(1);
        }
        if let Some(region) = self.regions.get_mut(record.region) {
            let count = match policy {
                OnTagAccess::Stop => &mut region.stopped,
                OnTagAccess::Inject => &mut region.injected,
                OnTagAccess::Report => &mut region.reported,
            };
            *count = count.saturating_add(1);
            region.tag_writes =
                region.tag_writes.saturating_add(u64::from(record.access == Access::TagWrite));
        }
    }

    /// The decision about a vCPU that waits; false if none waits.
    fn decide(&mut self, vcpu: usize, decision: FaultDecision) -> bool {
        let waiting = self.vcpus.get_mut(vcpu).map(|(last, _)| last);
        let Some(record) = waiting.filter(|r| r.state == FaultState::Waiting) else { return false };
        record.state = FaultState::Past;
        record.decision = Some(decision);
        true
    }
}

/// A tag access to NoTagAccess memory.
pub(crate) fn tag_access(vcpu: &mut Vcpu, local: &Local, fault: &TagFault) -> Outcome {
    // HPFAR_EL2 is not valid for this fault, and stage 1 has allowed the access already. If the guest's
    // tables changed meanwhile, it runs into that by itself.
    let kind = For::exited(fault.access == trap::TagAccess::Write);
    let mut ipa = match guest_ipa(vcpu, fault.va, kind) {
        Ok(ipa) => ipa,
        Err(why) => return abort::without_address(vcpu, fault.va, why),
    };
    let mut page = tags_at(vcpu.vm, ipa);
    if page == PageTags::There
        && let Some(there) = beyond(vcpu, fault.va, ipa, kind)
    {
        ipa = there;
        page = tags_at(vcpu.vm, ipa);
    }
    match page {
        PageTags::There | PageTags::Given => Ok(Resume::Here),
        PageTags::Refused(region) => refused(vcpu, local, fault, ipa, region),
    }
}

/// The first address of the next page, if an access to `va` can reach it.
pub(crate) fn next_page(va: Va) -> Option<Va> {
    let left = PAGE_SIZE - va.get() % PAGE_SIZE;
    (left < LARGEST_ACCESS).then(|| va.checked_add(left)).flatten()
}

/// What a tag access to a page comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PageTags {
    /// It had tags already.
    There,
    /// It has them now, or will have: the guest repeats the access before anyone is blamed.
    Given,
    /// It may have none; the number of its region.
    Refused(usize),
}

/// Gives lazy memory tags if it may have them.
#[inline(always)]
fn tags_at(vm: &Vm, ipa: Ipa<Canonical>) -> PageTags {
    let regions = &vm.spec.regions;
    let Some(number) = regions.iter().position(|r| r.ipa.contains(ipa)) else { return PageTags::There };
    match regions.get(number).map_or(Tags::Backed, |r| r.tags) {
        Tags::None => PageTags::Refused(number),
        Tags::Backed => PageTags::There,
        Tags::Lazy => match vm.map.lock_hot().promote(ipa) {
            Change::Done(false) => PageTags::There,
            Change::Done(true) | Change::Underway => PageTags::Given,
            Change::Refused => PageTags::Refused(number),
        },
    }
}

/// Where an access to `va` goes on behind the page of `ipa`, which has tags: `None` if it may have had none
/// before the access.
#[cold]
#[inline(never)]
fn beyond(vcpu: &mut Vcpu, va: Va, ipa: Ipa<Canonical>, kind: For) -> Option<Ipa<Canonical>> {
    let next = next_page(va)?;
    // A page that loses its tags and has them again is promoted again.
    let change = vcpu.vm.map.lock_hot().lazy.ledger.counts().promoted;
    if !vcpu.innocent.again(ipa.get(), change) {
        return None;
    }
    guest_ipa(vcpu, next, kind).ok()
}

/// The region's policy decides.
#[inline(always)]
fn refused(vcpu: &mut Vcpu, local: &Local, fault: &TagFault, ipa: Ipa<Canonical>, region: usize) -> Outcome {
    let vm = vcpu.vm;
    let policy = vm.spec.regions.get(region).map_or(OnTagAccess::Stop, |r| r.on_tag_access);
    let logged = vm.is_report_due();
    let mut access = Access::from_syndrome(fault.access == trap::TagAccess::Write);
    // The instruction says more, where somebody wants to know.
    if logged || policy != OnTagAccess::Inject {
        access = maintenance::instruction(vcpu).ok().and_then(Access::of).unwrap_or(access);
    }
    let (state, decision) = match policy {
        OnTagAccess::Stop => (FaultState::Past, Some(FaultDecision::Stop)),
        OnTagAccess::Inject => (FaultState::Past, Some(FaultDecision::Inject)),
        OnTagAccess::Report => (FaultState::Waiting, None),
    };
    let (pc, va, esr) = (syndrome::elr(), fault.va.get(), fault.esr());
    let record = Record { state, pc, va, ipa: ipa.get(), region, access, decision, esr };
    vm.faults.lock_hot().add(vcpu.id, &record, policy);
    if logged {
        log(vcpu, policy);
    }
    match policy {
        OnTagAccess::Inject => Err(GuestFault::ExternalDataAbort),
        OnTagAccess::Stop => {
            stop_for_fault(vm);
            Ok(Resume::Leave)
        }
        OnTagAccess::Report => {
            // Until FAULT_DECIDE or a stop. A decision that comes at once is a request that waits.
            vcpu.activity = Activity::Faulted;
            let event = Event { kind: EventKind::TagFault, vm: vm.id, detail: vcpu.id as u64 };
            post(local.machine, event);
            Ok(Resume::Leave)
        }
    }
}

#[cold]
#[inline(never)]
fn log(vcpu: &Vcpu, policy: OnTagAccess) {
    let (name, id) = vcpu.name();
    let Some((Some(record), _)) = vcpu.vm.faults.lock().last(id) else { return };
    if !vcpu.vm.may_print_report() {
        return;
    }
    log::warn!(
        "{name}/{id}: {} without tag storage: PC {:#x}, VA {:#x}, IPA {:#x}, region {}: {}",
        record.access.name(),
        record.pc,
        record.va,
        record.ipa,
        vcpu.vm.spec.regions.get(record.region).map_or("", |r| &r.name),
        match policy {
            OnTagAccess::Stop => "stopped",
            OnTagAccess::Inject => "external abort",
            OnTagAccess::Report => "waits for a decision",
        }
    );
}

impl Vm {
    /// A vCPU stops: nobody decides about its fault any more.
    pub(crate) fn end_wait(&self, vcpu: usize) {
        self.faults.lock().decide(vcpu, FaultDecision::Stop);
    }

    /// FAULT_DECIDE.
    pub(crate) fn decide_fault(&'static self, vcpu: usize, decision: FaultDecision) -> Result<(), Error> {
        if vcpu >= self.vcpus.len() {
            return Err(Error::Invalid);
        }
        if !self.faults.lock().decide(vcpu, decision) {
            return Err(Error::Empty);
        }
        match decision {
            FaultDecision::Stop => stop_for_fault(self),
            FaultDecision::Retry | FaultDecision::Inject => self.ask(vcpu, request::DECIDED, false),
        }
        Ok(())
    }
}

/// What an external abort that a control VM decided reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingAbort {
    /// ESR_EL2 of the fault.
    pub(crate) esr: u64,
    /// FAR_EL2 of the fault.
    pub(crate) far: u64,
}

impl Vcpu {
    /// A control VM has decided how it goes on.
    pub(crate) fn go_on_after_fault(&mut self) {
        let Some((Some(record), _)) = self.vm.faults.lock().last(self.id) else { return };
        if !matches!(self.activity, Activity::Faulted) || record.state != FaultState::Past {
            return;
        }
        self.activity = Activity::Ready;
        if record.decision == Some(FaultDecision::Inject) {
            self.pending_abort = Some(PendingAbort { esr: record.esr, far: record.va });
            // It is looked at where the vCPU is brought up to date.
            self.sync_due = true;
        }
    }
}
