//! Getting a VM's memory ready for a start: what is zeroed and copied, and the steps of doing so. Their
//! order is [`Preparation`]'s.
//!
//! The steps are short compared to a time slice, on vCPU 0's turn and in its priority, so a large VM
//! that starts delays nobody.

use super::Vm;
use crate::arch::{cache, cpu, tlb};
use crate::bundle;
use crate::machine;
use crate::mem::window::{self, Window};
use crate::nested::mmu::with_vmid;
use crate::vcpu::{Activity, Vcpu};
use addr::{Canonical, Ipa};
pub(crate) use cmo::Preparation;
use cmo::{Chunk, Contents, Item, Region, Work};
use core::ops::Range;

impl Contents for Vm {
    fn region(&self, n: usize) -> Option<Region<'_>> {
        let (region, backing) = (self.spec.regions.get(n)?, self.backing.get(n)?);
        let owned = backing.prepared_at_start;
        Some(Region { ipa: region.ipa, pieces: &backing.pieces, kind: backing.kind, owned })
    }

    fn item(&self, n: usize) -> Option<Item> {
        let (at, data) = self.initial(n)?;
        Some(Item { at, size: data.len() as u64 })
    }
}

impl Vm {
    /// The `n`-th thing to copy, and where it goes.
    fn initial(&self, n: usize) -> Option<(Ipa<Canonical>, &[u8])> {
        let spec = &self.spec;
        let file = |name: &str| bundle::file(name).unwrap_or(&[]);
        Some(match n {
            0 => (spec.kernel.image.at, file(&spec.kernel.image.file)),
            TREE => (spec.dtb, &self.tree.dtb),
            2 => match &spec.initrd {
                Some(initrd) => (initrd.at, file(&initrd.file)),
                None => (spec.dtb, &[]),
            },
            _ => {
                let region = spec.regions.get(n.checked_sub(3)?)?;
                let owned = self.backing.get(n.checked_sub(3)?)?.prepared_at_start;
                (region.ipa.start(), region.file.as_deref().filter(|_| owned).map_or(&[], file))
            }
        })
    }

    /// Writes new entropy over the seeds in `part` of the device tree, which is where the window is. What
    /// there is none for at the moment stays as it was at boot.
    fn write_seeds(&self, window: &Window<'_>, part: Range<usize>) -> bool {
        let present = machine::get().is_some_and(|machine| machine.host.rng);
        for seed in &self.tree.seeds {
            let (start, end) = (seed.start.max(part.start), seed.end.min(part.end));
            for at in (start..end).step_by(8) {
                // RNDR may be asked too often for a moment.
                let Some(random) = (0..16).find_map(|_| cpu::random(present)) else { return true };
                let bytes = random.to_le_bytes();
                if !window.write((at - part.start) as u64, bytes.get(..end - at).unwrap_or(&bytes)) {
                    return false;
                }
            }
        }
        true
    }

    /// Does one step; says where the next one goes on.
    fn step(&self, at: Preparation) -> Preparation {
        let (work, next) = at.step(self);
        match work {
            Work::Zero(chunk) => zero(chunk),
            Work::Copy { item, from, to } => {
                let data = self.initial(item).and_then(|(_, data)| data.get(from as usize..));
                let now = data.and_then(|d| d.get(..to.memory.size() as usize)).unwrap_or(&[]);
                let written = window::fill_data(to, |w| {
                    if item == TREE {
                        w.write(0, now) && self.write_seeds(w, from as usize..from as usize + now.len())
                    } else {
                        w.write(0, now)
                    }
                });
                assert_eq!(written, Some(true), "no window for a VM's memory");
            }
            // The manifest's check placed every item inside the VM's memory.
            Work::Misplaced { item } => panic!("item {item} of VM {} lies outside of it", self.spec.name),
            Work::PublishInstructions => {
                cache::publish_instructions();
                // The VM starts with its MMU off: nothing of an earlier life may translate for it. Others
                // keep theirs, so that a VM that resets itself again and again does not slow them down.
                with_vmid(self.id, |vmid| tlb::flush_all_of(self.stage2.root | u64::from(vmid) << 48));
            }
            Work::Nothing => {}
        }
        next
    }
}

/// Which item the device tree is.
const TREE: usize = 1;

/// Zeroes whole pages, and their tags if guests see them.
pub(crate) fn zero(chunk: Chunk) {
    assert_eq!(window::fill(chunk, |w| w.zero()), Some(true), "no window for a VM's memory");
}

impl Vcpu {
    /// Does one step of its VM's preparation; after the last, the VM begins. `preparing`: counts spent
    /// on such steps so far, for the log.
    pub(crate) fn prepare_step(&mut self, preparing: u64) {
        let Activity::Preparing(at) = self.activity else { return };
        // Copies that began before the start end soon; no others begin.
        if self.vm.life.lock().copies != 0 {
            return;
        }
        // Tags of an earlier life go first, a few at a time.
        if self.vm.map.lock().bring_home() {
            return;
        }
        let next = self.vm.step(at);
        self.activity = Activity::Preparing(next);
        if let (true, Some(machine)) = (next.is_done(), machine::get()) {
            self.begin(machine, preparing);
        }
    }
}
