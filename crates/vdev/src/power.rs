//! PSCI power states of one VM's vCPUs (Arm DEN0022, 1.1), as a table.
//!
//! [`PowerTable`] says what CPU_ON, CPU_OFF and AFFINITY_INFO answer and which vCPU must be woken.
//! The vCPU that wakes takes its entry with [`PowerTable::started`]. vCPU *n* has MPIDR_EL1.Aff0 =
//! *n* and all other affinity fields 0. Which calls exist is [`psci_features`](crate::smccc::psci_features).

use abi::psci;

/// Most vCPUs of one VM: as many as Aff0 can name to ICC_SGI1R_EL1 without range selection.
pub const MAX_VCPUS: usize = 16;

/// Bits of CPU_ON's target_cpu argument that must be zero: 63:40 and 31:24.
const MPIDR_RES0: u64 = !0xFF_00FF_FFFF;

/// What a vCPU is doing, in PSCI's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Off: CPU_ON wakes it.
    Off,
    /// CPU_ON has been answered, but the vCPU has not begun.
    OnPending(Start),
    /// Running, or runnable.
    On,
    /// Waits in CPU_SUSPEND; on, as far as anyone else can tell.
    Suspended,
}

/// Where a vCPU begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// PC.
    pub entry: u64,
    /// x0.
    pub context: u64,
}

/// Why CPU_ON or AFFINITY_INFO refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Refusal {
    /// No such vCPU, reserved bits set, or no such affinity level.
    InvalidParameters = psci::INVALID_PARAMETERS,
    /// The vCPU is on.
    AlreadyOn = psci::ALREADY_ON,
    /// Someone else has just turned it on.
    OnPending = psci::ON_PENDING,
    /// The entry is not RAM of the VM, or not aligned to an instruction.
    InvalidAddress = psci::INVALID_ADDRESS,
}

impl Refusal {
    /// The value of x0.
    #[must_use]
    pub const fn code(self) -> i64 {
        self as i64
    }
}

/// Power state of each vCPU of one VM.
#[derive(Clone, Debug)]
pub struct PowerTable {
    states: [Power; MAX_VCPUS],
    count: usize,
}

impl PowerTable {
    /// A VM with `count` vCPUs (at most [`MAX_VCPUS`] are kept) at its start: vCPU 0 is about to
    /// begin as `boot` says, the others are off.
    #[must_use]
    pub fn new(count: usize, boot: Start) -> Self {
        let mut table = Self { states: [Power::Off; MAX_VCPUS], count: count.min(MAX_VCPUS) };
        table.set(0, Power::OnPending(boot));
        table
    }

    /// Number of vCPUs.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// State of a vCPU; one that does not exist is off.
    #[must_use]
    pub fn state(&self, vcpu: usize) -> Power {
        self.vcpus().get(vcpu).copied().unwrap_or(Power::Off)
    }

    /// CPU_ON: on success, the vCPU to wake. `is_ram` tells whether an IPA is RAM of the VM.
    /// A CPU that is on wins over a wrong address, which the specification leaves open.
    pub fn cpu_on(
        &mut self,
        target_mpidr: u64,
        start: Start,
        is_ram: impl FnOnce(u64) -> bool,
    ) -> Result<usize, Refusal> {
        let vcpu = self.vcpu_of(target_mpidr).ok_or(Refusal::InvalidParameters)?;
        match self.state(vcpu) {
            Power::Off => {}
            Power::OnPending(_) => return Err(Refusal::OnPending),
            Power::On | Power::Suspended => return Err(Refusal::AlreadyOn),
        }
        if !start.entry.is_multiple_of(4) || !is_ram(start.entry) {
            return Err(Refusal::InvalidAddress);
        }
        self.set(vcpu, Power::OnPending(start));
        Ok(vcpu)
    }

    /// A vCPU begins: where, if it was turned on. Afterwards it is on.
    pub fn started(&mut self, vcpu: usize) -> Option<Start> {
        match self.state(vcpu) {
            Power::OnPending(start) => {
                self.set(vcpu, Power::On);
                Some(start)
            }
            Power::Off | Power::On | Power::Suspended => None,
        }
    }

    /// CPU_OFF, called by `vcpu`: how many vCPUs are not off now. 0 means that nothing can
    /// ever turn one on again.
    pub fn cpu_off(&mut self, vcpu: usize) -> usize {
        self.set(vcpu, Power::Off);
        self.vcpus().iter().filter(|&&state| state != Power::Off).count()
    }

    /// CPU_SUSPEND begins; no effect unless the vCPU is on.
    pub fn suspend(&mut self, vcpu: usize) {
        if self.state(vcpu) == Power::On {
            self.set(vcpu, Power::Suspended);
        }
    }

    /// CPU_SUSPEND ends; no effect unless the vCPU is suspended.
    pub fn resume(&mut self, vcpu: usize) {
        if self.state(vcpu) == Power::Suspended {
            self.set(vcpu, Power::On);
        }
    }

    /// AFFINITY_INFO. Levels 1 to 3 ask about all vCPUs whose higher affinity fields match.
    pub fn affinity_info(&self, target_mpidr: u64, lowest_level: u64) -> Result<u64, Refusal> {
        if target_mpidr & MPIDR_RES0 != 0 {
            return Err(Refusal::InvalidParameters);
        }
        // All vCPUs share Aff3 to Aff1 = 0, so a level above 0 matches all of them or none.
        let compared = match lowest_level {
            0 => {
                let vcpu = self.vcpu_of(target_mpidr).ok_or(Refusal::InvalidParameters)?;
                return Ok(affinity(self.state(vcpu)));
            }
            1 => 0xFF_00FF_FF00,
            2 => 0xFF_00FF_0000,
            3 => 0xFF_0000_0000,
            _ => return Err(Refusal::InvalidParameters),
        };
        if target_mpidr & compared != 0 {
            return Err(Refusal::InvalidParameters);
        }
        let some = |info| self.vcpus().iter().any(|&state| affinity(state) == info);
        Ok([psci::AFFINITY_ON, psci::AFFINITY_ON_PENDING]
            .into_iter()
            .find(|&info| some(info))
            .unwrap_or(psci::AFFINITY_OFF))
    }

    /// The vCPU that a target_cpu argument names.
    fn vcpu_of(&self, mpidr: u64) -> Option<usize> {
        usize::try_from(mpidr).ok().filter(|&vcpu| vcpu < self.count)
    }

    fn vcpus(&self) -> &[Power] {
        self.states.get(..self.count).unwrap_or_default()
    }

    fn set(&mut self, vcpu: usize, state: Power) {
        if let Some(slot) = self.states.get_mut(..self.count).and_then(|all| all.get_mut(vcpu)) {
            *slot = state;
        }
    }
}

const fn affinity(state: Power) -> u64 {
    match state {
        Power::Off => psci::AFFINITY_OFF,
        Power::OnPending(_) => psci::AFFINITY_ON_PENDING,
        Power::On | Power::Suspended => psci::AFFINITY_ON,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOT: Start = Start { entry: 0x4008_0000, context: 0x4400_0000 };
    const NEXT: Start = Start { entry: 0x4010_0000, context: 7 };

    fn ram(ipa: u64) -> bool {
        (0x4000_0000..0x8000_0000).contains(&ipa)
    }

    fn booted(count: usize) -> PowerTable {
        let mut table = PowerTable::new(count, BOOT);
        assert_eq!(table.started(0), Some(BOOT));
        table
    }

    #[test]
    fn life_of_a_vcpu() {
        let mut t = booted(2);
        assert_eq!(t.count(), 2);
        assert_eq!(t.state(1), Power::Off);
        assert_eq!(t.affinity_info(1, 0), Ok(1));
        assert_eq!(t.started(1), None);
        assert_eq!(t.cpu_on(1, NEXT, ram), Ok(1));
        assert_eq!(t.state(1), Power::OnPending(NEXT));
        assert_eq!(t.affinity_info(1, 0), Ok(2));
        assert_eq!(t.cpu_on(1, BOOT, ram), Err(Refusal::OnPending));
        assert_eq!(t.started(1), Some(NEXT));
        assert_eq!(t.started(1), None);
        assert_eq!(t.affinity_info(1, 0), Ok(0));
        assert_eq!(t.cpu_on(1, NEXT, ram), Err(Refusal::AlreadyOn));
        assert_eq!(t.cpu_on(0, NEXT, ram), Err(Refusal::AlreadyOn));
        t.suspend(1);
        assert_eq!(t.state(1), Power::Suspended);
        assert_eq!(t.affinity_info(1, 0), Ok(0));
        assert_eq!(t.cpu_on(1, NEXT, ram), Err(Refusal::AlreadyOn));
        t.resume(1);
        assert_eq!(t.state(1), Power::On);
        assert_eq!(t.cpu_off(1), 1);
        assert_eq!(t.cpu_on(1, BOOT, ram), Ok(1));
        assert_eq!(t.cpu_off(0), 1, "a pending vCPU still comes");
        assert_eq!(t.started(1), Some(BOOT));
        assert_eq!(t.cpu_off(1), 0);
    }

    #[test]
    fn suspend_and_resume_touch_only_their_states() {
        let mut t = booted(3);
        t.suspend(1);
        assert_eq!(t.state(1), Power::Off);
        t.resume(0);
        assert_eq!(t.state(0), Power::On);
        t.resume(9);
        t.suspend(9);
        assert_eq!(t.state(9), Power::Off);
    }

    #[test]
    fn wrong_targets() {
        let mut t = booted(2);
        for target in [2, 15, 16, 255, 0x100, 0x1_0000, 1 << 24, 1 << 30, 1 << 31, 1 << 32, 1 << 40, u64::MAX]
        {
            assert_eq!(t.cpu_on(target, NEXT, ram), Err(Refusal::InvalidParameters), "{target:#x}");
            assert_eq!(t.affinity_info(target, 0), Err(Refusal::InvalidParameters), "{target:#x}");
        }
        for bit in 8..64 {
            assert_eq!(t.cpu_on(1 | 1 << bit, NEXT, ram), Err(Refusal::InvalidParameters));
        }
        assert_eq!(t.state(1), Power::Off);
    }

    #[test]
    fn wrong_entries() {
        let mut t = booted(2);
        for entry in [0, 0x3FFF_FFFC, 0x8000_0000, u64::MAX, 0x4000_0001, 0x4000_0002] {
            let start = Start { entry, context: 0 };
            assert_eq!(t.cpu_on(1, start, ram), Err(Refusal::InvalidAddress), "{entry:#x}");
            assert_eq!(t.cpu_on(0, start, ram), Err(Refusal::AlreadyOn));
        }
        assert_eq!(t.state(1), Power::Off);
    }

    #[test]
    fn affinity_levels() {
        let mut t = booted(4);
        for level in 1..=3 {
            assert_eq!(t.affinity_info(0, level), Ok(0));
            assert_eq!(t.affinity_info(0xFF, level), Ok(0), "Aff0 is ignored");
            assert_eq!(t.affinity_info(1 << 31, level), Err(Refusal::InvalidParameters));
            assert_eq!(t.affinity_info(1 << 32, level), Err(Refusal::InvalidParameters));
        }
        assert_eq!(t.affinity_info(0x100, 1), Err(Refusal::InvalidParameters));
        assert_eq!(t.affinity_info(0x100, 2), Ok(0));
        assert_eq!(t.affinity_info(0x1_0000, 2), Err(Refusal::InvalidParameters));
        assert_eq!(t.affinity_info(0x1_FF00, 3), Ok(0));
        for level in [4, 5, u64::MAX, 1 << 32] {
            assert_eq!(t.affinity_info(0, level), Err(Refusal::InvalidParameters));
        }
        assert_eq!(t.cpu_on(3, NEXT, ram), Ok(3));
        assert_eq!(t.cpu_off(0), 1);
        assert_eq!(t.affinity_info(0, 1), Ok(2));
        assert_eq!(t.cpu_off(3), 0);
        assert_eq!(t.affinity_info(0, 1), Ok(1));
    }

    #[test]
    fn codes() {
        let all = [
            (Refusal::InvalidParameters, -2),
            (Refusal::AlreadyOn, -4),
            (Refusal::OnPending, -5),
            (Refusal::InvalidAddress, -9),
        ];
        for (refusal, code) in all {
            assert_eq!(refusal.code(), code);
        }
    }

    proptest! {
        #[test]
        fn every_vcpu_number_works(count in 0_usize..40, target in any::<u64>(), level in 0_u64..6) {
            let mut t = PowerTable::new(count, BOOT);
            prop_assert_eq!(t.count(), count.min(MAX_VCPUS));
            for vcpu in 0..t.count() {
                let expected = if vcpu == 0 { Err(Refusal::OnPending) } else { Ok(vcpu) };
                prop_assert_eq!(t.cpu_on(vcpu as u64, NEXT, ram), expected);
            }
            let _ = t.affinity_info(target, level);
            let _ = t.cpu_on(target, NEXT, ram);
            let _ = t.cpu_off(usize::try_from(target).unwrap_or(0));
        }
    }
}
