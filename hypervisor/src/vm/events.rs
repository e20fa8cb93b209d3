//! Events for control VMs: a short queue, and the SPI that announces them.

use super::Vm;
use crate::machine::Machine;
use abi::hypercall::EventKind;
use manifest::Control;
use manifest::layout::EVENT_INTID;

/// Events that wait at most.
const CAPACITY: usize = 32;

/// What happened to a VM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// What.
    pub(crate) kind: EventKind,
    /// To which VM.
    pub(crate) vm: usize,
    /// More of it.
    pub(crate) detail: u64,
}

/// Events that a control VM has not read yet.
#[derive(Debug)]
pub(crate) struct Events {
    queue: [Option<Event>; CAPACITY],
    first: usize,
    count: usize,
    lost: u64,
}

impl Events {
    /// None.
    pub(crate) const fn new() -> Self {
        Self { queue: [None; CAPACITY], first: 0, count: 0, lost: 0 }
    }

    fn push(&mut self, event: Event) {
        if self.count == CAPACITY {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        if let Some(slot) = self.queue.get_mut((self.first + self.count) % CAPACITY) {
            *slot = Some(event);
            self.count += 1;
        }
    }

    /// Takes the oldest event, and how many were lost so far.
    pub(crate) fn next(&mut self) -> Option<(Event, u64)> {
        let event = self.queue.get_mut(self.first)?.take()?;
        self.first = (self.first + 1) % CAPACITY;
        self.count -= 1;
        Some((event, self.lost))
    }
}

impl Vm {
    /// Whether this VM may control `other`.
    pub(crate) fn controls(&self, other: usize) -> bool {
        controls(self.id, &self.spec.control, other)
    }
}

/// Whether VM `id`, of which the manifest says `control`, may control `other`.
pub(crate) fn controls(id: usize, control: &Control, other: usize) -> bool {
    match control {
        Control::None => false,
        Control::All => other != id,
        Control::Vms(vms) => vms.iter().any(|v| usize::from(*v) == other),
    }
}

/// Tells all control VMs of `event.vm`.
pub(crate) fn post(machine: &Machine, event: Event) {
    for vm in machine.vms.iter().filter(|vm| vm.controls(event.vm)) {
        vm.events.lock().push(event);
        let kick = vm.vgic.lock().pulse(0, EVENT_INTID);
        vm.kick(kick, None);
    }
}
