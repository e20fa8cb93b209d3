//! VMIDs: which one tags a VM's translations in the TLBs of the CPUs it runs on.
//!
//! There may be more VMs than VMIDs (8 bits on some CPUs). A VM keeps its VMID until all have been
//! given away once; then a new *generation* begins: all translations are forgotten, and every VM gets
//! a VMID anew when it next runs. VMs that are running at that moment keep theirs, since their CPUs
//! go on using it.

/// What a VM that takes a CPU gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "without the flush, the VM may see another's translations"]
pub struct Assignment {
    /// VMID, never 0.
    pub vmid: u16,
    /// Forget the translations of all VMIDs on all CPUs before it is used: TLBI ALLE1IS.
    pub flush: bool,
}

/// Generation and VMID of a VM; generation 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Tag {
    generation: u64,
    vmid: u16,
}

/// VMIDs of `VMS` VMs on `CPUS` CPUs. To be kept under a lock.
#[derive(Clone, Debug)]
pub struct Vmids<const VMS: usize, const CPUS: usize> {
    /// VMIDs are 1 to this.
    last: u16,
    next: u16,
    generation: u64,
    tags: [Tag; VMS],
    /// The VM that each CPU runs.
    running: [Option<usize>; CPUS],
}

impl<const VMS: usize, const CPUS: usize> Vmids<VMS, CPUS> {
    /// VMIDs 1 to `last`; `None` unless there is one more than CPUs, so that a VM can always get one.
    #[must_use]
    pub const fn new(last: u16) -> Option<Self> {
        if (last as usize) <= CPUS {
            return None;
        }
        let none = Tag { generation: 0, vmid: 0 };
        Some(Self { last, next: 1, generation: 1, tags: [none; VMS], running: [None; CPUS] })
    }

    /// `vm` takes `cpu`; `None` if there is no such VM or CPU.
    pub fn take(&mut self, cpu: usize, vm: usize) -> Option<Assignment> {
        // The CPU's last VM runs there no more: its VMID need not survive a new generation.
        *self.running.get_mut(cpu)? = None;
        let tag = *self.tags.get(vm)?;
        let (vmid, flush) = if tag.generation == self.generation {
            (tag.vmid, false)
        } else if let Some(vmid) = self.free() {
            (vmid, false)
        } else {
            self.roll_over();
            // The VM may run elsewhere and so have kept its VMID.
            let tag = *self.tags.get(vm)?;
            let kept = (tag.generation == self.generation).then_some(tag.vmid);
            (kept.or_else(|| self.free())?, true)
        };
        *self.tags.get_mut(vm)? = Tag { generation: self.generation, vmid };
        *self.running.get_mut(cpu)? = Some(vm);
        Some(Assignment { vmid, flush })
    }

    /// The VMID whose translations are `vm`'s, as long as the lock is held; `None` if no TLB holds any
    /// of them: it has not run in this generation.
    #[must_use]
    pub fn current(&self, vm: usize) -> Option<u16> {
        let tag = self.tags.get(vm)?;
        (tag.generation == self.generation).then_some(tag.vmid)
    }

    /// Whether there are as many VMIDs as VMs, so that none is ever given to another VM.
    #[must_use]
    pub const fn is_ample(&self) -> bool {
        self.last as usize >= VMS
    }

    /// The next VMID that nobody has in this generation.
    fn free(&mut self) -> Option<u16> {
        while self.next <= self.last {
            let vmid = self.next;
            self.next = self.next.wrapping_add(1);
            if !self.tags.iter().any(|t| t.generation == self.generation && t.vmid == vmid) {
                return Some(vmid);
            }
        }
        None
    }

    fn roll_over(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.next = 1;
        for vm in self.running.into_iter().flatten() {
            if let Some(tag) = self.tags.get_mut(vm) {
                tag.generation = self.generation;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::vec::Vec;

    #[test]
    fn a_vm_keeps_its_vmid() {
        let mut vmids = Vmids::<4, 2>::new(3).unwrap();
        let first = vmids.take(0, 2).unwrap();
        assert_eq!(first, Assignment { vmid: 1, flush: false });
        assert_eq!(vmids.take(1, 2), Some(first));
        assert_eq!(vmids.take(0, 3).unwrap().vmid, 2);
        assert_eq!(vmids.take(0, 2), Some(first));
        assert_eq!((vmids.current(2), vmids.current(3)), (Some(1), Some(2)));
        assert_eq!((vmids.current(0), vmids.current(4)), (None, None));
    }

    #[test]
    fn ample_vmids_stay() {
        let mut vmids = Vmids::<4, 2>::new(4).unwrap();
        assert!(vmids.is_ample() && !Vmids::<4, 2>::new(3).unwrap().is_ample());
        let first: Vec<_> = (0..4).map(|vm| vmids.take(0, vm)).collect();
        assert_eq!((0..4).map(|vm| vmids.take(1, vm)).collect::<Vec<_>>(), first);
        assert!(first.iter().flatten().all(|a| !a.flush));
    }

    #[test]
    fn too_few_or_nobody() {
        assert!(Vmids::<4, 2>::new(2).is_none());
        let mut vmids = Vmids::<2, 1>::new(255).unwrap();
        assert_eq!(vmids.take(1, 0), None);
        assert_eq!(vmids.take(0, 2), None);
    }

    #[test]
    fn running_vms_keep_theirs_over_a_roll_over() {
        let mut vmids = Vmids::<5, 2>::new(3).unwrap();
        let on_cpu_1 = vmids.take(1, 4).unwrap();
        for vm in [0, 1] {
            assert!(!vmids.take(0, vm).unwrap().flush);
        }
        let after = vmids.take(0, 2).unwrap();
        assert!(after.flush && after.vmid != on_cpu_1.vmid);
        assert_eq!(vmids.take(1, 4).unwrap().vmid, on_cpu_1.vmid);
    }

    proptest! {
        /// Three VMIDs, two CPUs, six VMs: two running VMs never share one, and none comes to a
        /// second VM unless all translations were forgotten in between.
        #[test]
        fn never_two_meanings(turns in prop::collection::vec((0usize..2, 0usize..6), 1..if cfg!(miri) { 20 } else { 200 })) {
            let mut vmids = Vmids::<6, 2>::new(3).unwrap();
            let mut running = [None::<(usize, u16)>; 2];
            let mut in_tlbs: HashMap<u16, usize> = HashMap::new();
            for (cpu, vm) in turns {
                let a = vmids.take(cpu, vm).unwrap();
                prop_assert!((1..=3).contains(&a.vmid));
                running[cpu] = Some((vm, a.vmid));
                if a.flush {
                    in_tlbs.clear();
                    // What runs fills the TLBs again.
                    in_tlbs.extend(running.iter().flatten().map(|(vm, vmid)| (*vmid, *vm)));
                }
                prop_assert_eq!(*in_tlbs.entry(a.vmid).or_insert(vm), vm);
                // What is in a TLB can be found, and only under its VM's own VMID.
                for (vmid, vm) in &in_tlbs {
                    prop_assert_eq!(vmids.current(*vm), Some(*vmid));
                }
                let both: Vec<_> = running.iter().flatten().collect();
                if let [(a, x), (b, y)] = both[..] {
                    prop_assert!((a == b) == (x == y));
                }
            }
        }
    }
}
