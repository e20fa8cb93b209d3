//! L1's list registers (ICH_LR<n>_EL2 in the page): what of them goes to the hardware, what the
//! hardware did to them, and the registers that describe them (IHI 0069H 12.4).

/// ICH_LR<n>_EL2.State: pending and active.
const STATE: u64 = 3 << 62;
/// HW: its end deactivates an interrupt of the distributor.
const HW: u64 = 1 << 61;
/// Group, NMI is not offered.
const GROUP: u64 = 1 << 60;
const PRIORITY: u64 = 0xff << 48;
const VINTID: u64 = 0xffff_ffff;
/// With HW 0: a maintenance interrupt at the end.
const EOI: u64 = 1 << 41;

/// Bits of ICH_HCR_EL2.
pub mod ich_hcr {
    /// Virtual CPU interface on.
    pub const EN: u64 = 1;
    /// Underflow.
    pub const UIE: u64 = 1 << 1;
    /// EOI without list register.
    pub const LRENPIE: u64 = 1 << 2;
    /// None pending.
    pub const NPIE: u64 = 1 << 3;
    /// Group enables and disables: VGrp0EIE, VGrp0DIE, VGrp1EIE, VGrp1DIE.
    pub const GROUPS: u64 = 0xf << 4;
    /// Traps: TC, TALL0, TALL1, TDIR. TSEI is for locally generated SErrors, which do not exist.
    pub const TRAPS: u64 = 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14;
    /// EOIcount.
    pub const EOICOUNT: u64 = 0x1f << 27;
}
use ich_hcr as i;

/// ICH_HCR_EL2 for the hardware while L2 runs.
#[must_use]
pub const fn hcr(l1: u64) -> u64 {
    l1 & (i::EN | i::UIE | i::LRENPIE | i::NPIE | i::GROUPS | i::TRAPS | i::EOICOUNT)
}

/// A list register for the hardware. L1's physical interrupts are L0's virtual ones, so the end of
/// one with HW comes by a maintenance interrupt instead, and [`ended`] says what to deactivate.
#[inline]
#[must_use]
pub const fn to_hardware(l1: u64) -> u64 {
    if l1 & STATE == 0 {
        return 0;
    }
    let common = l1 & (STATE | GROUP | PRIORITY | VINTID);
    if l1 & HW == 0 {
        return common | l1 & EOI;
    }
    // Pending and active at once is not allowed with HW: it is active.
    let state = if l1 & STATE == STATE { common & !(1 << 62) } else { common };
    state | EOI
}

/// L1's list register after the hardware had it as `now`.
#[inline]
#[must_use]
pub const fn from_hardware(l1: u64, now: u64) -> u64 {
    if l1 & STATE == 0 { l1 } else { l1 & !STATE | now & STATE }
}

/// The interrupt of L1's that the end of L2's interrupt deactivates.
#[inline]
#[must_use]
pub const fn ended(l1: u64, now: u64) -> Option<u32> {
    if l1 & HW != 0 && l1 & STATE != 0 && now & STATE == 0 { Some((l1 >> 32) as u32 & 0x1fff) } else { None }
}

/// Whether a list register is empty and owes no maintenance interrupt (ICH_ELRSR_EL2).
#[must_use]
pub const fn is_free(l1: u64) -> bool {
    l1 & STATE == 0 && (l1 & HW != 0 || l1 & EOI == 0)
}

/// Whether a list register is a reason for a maintenance interrupt (ICH_EISR_EL2).
#[must_use]
pub const fn owes_eoi(l1: u64) -> bool {
    l1 & STATE == 0 && l1 & HW == 0 && l1 & EOI != 0
}

/// ICH_MISR_EL2 for these list registers, ICH_HCR_EL2 and ICH_VMCR_EL2.
#[must_use]
pub fn misr(lrs: impl Iterator<Item = u64>, hcr: u64, vmcr: u64) -> u64 {
    let (mut valid, mut pending, mut eoi) = (0u32, false, false);
    for lr in lrs {
        valid = valid.saturating_add(u32::from(lr & STATE != 0));
        pending |= lr & STATE == 1 << 62;
        eoi |= owes_eoi(lr);
    }
    let (group0, group1) = (vmcr & 1 != 0, vmcr & 2 != 0);
    let when = |bit: u64, reason: bool| hcr & bit != 0 && reason;
    [
        eoi,
        when(i::UIE, valid <= 1),
        when(i::LRENPIE, hcr & i::EOICOUNT != 0),
        when(i::NPIE, !pending),
        when(1 << 4, group0),
        when(1 << 5, !group0),
        when(1 << 6, group1),
        when(1 << 7, !group1),
    ]
    .into_iter()
    .enumerate()
    .fold(0, |all, (n, set)| all | u64::from(set) << n)
}

/// Nothing is active.
const IDLE: u32 = 0xff;

/// The running priority, 0xff if idle, of the active priority registers of both groups. The CPU interface has
/// `registers` of each, 1, 2 or 4 for five, six or seven bits of preemption; the others are 0.
#[must_use]
pub fn running_priority([group0, group1]: [&[u64; 4]; 2], registers: u8) -> u32 {
    let step = 8_u32.checked_div(registers.into()).unwrap_or(8);
    let active = group0.iter().zip(group1).map(|(a, b)| (a | b) as u32);
    let mut bases = (0_u32..).step_by(32).zip(active);
    let first = bases.find(|(_, active)| *active != 0);
    first.map_or(IDLE, |(base, active)| (base | active.trailing_zeros()).saturating_mul(step))
}

/// The bits of a priority that count for preemption: those above the binary point of the group (ICH_VMCR_EL2
/// VBPR0, VBPR1, VCBPR; IHI 0069H 4.8.5).
const fn group_priority(group1: bool, vmcr: u64) -> u32 {
    const VCBPR: u64 = 1 << 4;
    let own = group1 && vmcr & VCBPR == 0;
    if own { 0xff << (vmcr >> 18 & 7) } else { 0xfe << (vmcr >> 21 & 7) }
}

/// Whether an interrupt of this priority would be taken through a virtual CPU interface with this
/// ICH_VMCR_EL2 and running priority.
#[must_use]
pub const fn would_signal(priority: u8, group1: bool, vmcr: u64, running: u32) -> bool {
    let enabled = vmcr >> (group1 as u32) & 1 != 0;
    let mask = (vmcr >> 24 & 0xff) as u32;
    let (priority, counts) = (priority as u32, group_priority(group1, vmcr));
    enabled && priority < mask && (running == IDLE || priority & counts < running & counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PENDING: u64 = 1 << 62;
    const ACTIVE: u64 = 1 << 63;

    #[test]
    fn hw_becomes_maintenance() {
        let l1 = PENDING | HW | GROUP | 0x80 << 48 | 27 << 32 | 27;
        assert_eq!(to_hardware(l1), PENDING | GROUP | 0x80 << 48 | EOI | 27);
        assert_eq!(ended(l1, 0), Some(27));
        assert_eq!(ended(l1, ACTIVE), None);
        assert_eq!(from_hardware(l1, ACTIVE), l1 & !STATE | ACTIVE);
        assert_eq!(to_hardware(l1 | ACTIVE) & STATE, ACTIVE);
    }

    #[test]
    fn reasons_for_maintenance() {
        assert_eq!(misr([0, 0].into_iter(), i::EN | i::UIE, 2), 1 << 1);
        assert_eq!(misr([PENDING | 5, PENDING | 6].into_iter(), i::EN | i::UIE | i::NPIE, 2), 0);
        assert_eq!(misr([ACTIVE | 5, 0].into_iter(), i::NPIE, 2), 1 << 3);
        assert_eq!(misr([EOI | 5, 0].into_iter(), 0, 2), 1);
        assert_eq!(misr([0].into_iter(), 1 << 6 | 1 << 27 | i::LRENPIE, 2), 1 << 6 | 1 << 2);
        assert_eq!(misr([0].into_iter(), 1 << 7, 2), 0);
        assert_eq!(misr([0].into_iter(), 1 << 7 | 1 << 5, 0), 1 << 7 | 1 << 5);
    }

    #[test]
    fn signalling() {
        let vmcr = 0xf0 << 24 | 2;
        assert!(would_signal(0x80, true, vmcr, 0xff));
        assert!(!would_signal(0x80, false, vmcr, 0xff));
        assert!(!would_signal(0xf0, true, vmcr, 0xff));
        let running = running_priority([&[0; 4], &[1 << 16, 0, 0, 0]], 1);
        assert!(!would_signal(0x80, true, vmcr, running));
        assert!(would_signal(0x78, true, vmcr, running));
    }

    #[test]
    fn running_priorities_have_as_many_bits_as_the_interface() {
        let of =
            |group0: [u64; 4], group1: [u64; 4], registers| running_priority([&group0, &group1], registers);
        for registers in [1, 2, 4] {
            assert_eq!(of([0; 4], [0; 4], registers), 0xff);
            assert_eq!(of([0; 4], [1, 0, 0, 0], registers), 0);
        }
        assert_eq!(of([1 << 20, 0, 0, 0], [1 << 16, 0, 0, 0], 1), 0x80);
        assert_eq!(of([0, 1, 0, 0], [0, 1 << 3, 0, 0], 2), 0x80);
        assert_eq!(of([1 << 31, 0, 0, 0], [0, 1 << 3, 0, 0], 2), 0x7c);
        assert_eq!(of([0, 0, 1 << 1, 0], [0, 0, 0, 1], 4), 0x82);
        assert_eq!(of([0; 4], [0, 0, 0, 1 << 31], 4), 0xfe);
        assert!((0..=255).all(|n| of([n; 4], [!n; 4], n as u8) <= 0x7fff), "whatever there is");
    }

    #[test]
    fn binary_points_say_who_preempts() {
        let signals = |priority, group1, bpr0: u64, bpr1: u64, common: u64| {
            let vmcr = 0xff << 24 | bpr0 << 21 | bpr1 << 18 | common << 4 | 3;
            would_signal(priority, group1, vmcr, 0x80)
        };
        // Group 0 has one bit less above the same binary point.
        for (priority, group1, bpr, expected) in [
            (0x78, true, 3, true),
            (0x78, true, 4, true),
            (0x7f, true, 7, true),
            (0x80, true, 3, false),
            (0x78, false, 2, true),
            (0x40, false, 6, true),
            (0x40, false, 7, false),
            (0x00, false, 7, false),
        ] {
            assert_eq!(signals(priority, group1, bpr, bpr, 0), expected, "{priority:#x} {group1} {bpr}");
        }
        assert!(signals(0x40, true, 7, 3, 0) && !signals(0x40, true, 7, 3, 1), "VCBPR");
        // Within one group priority nothing preempts.
        let vmcr = 0xff << 24 | 6 << 18 | 3;
        assert!(!would_signal(0x40, true, vmcr, 0x60) && would_signal(0x3f, true, vmcr, 0x60));
        assert!(would_signal(0xf8, true, vmcr, IDLE));
    }

    proptest! {
        /// Nothing of L1's reaches the hardware but what a list register is for.
        #[test]
        fn only_known_bits(l1: u64, now: u64) {
            let real = to_hardware(l1);
            prop_assert_eq!(real & HW, 0);
            prop_assert_eq!(real & !(STATE | GROUP | PRIORITY | VINTID | EOI), 0);
            prop_assert_eq!(from_hardware(l1, now) & !STATE, l1 & !STATE);
            prop_assert_eq!(hcr(l1) & (1 << 8 | 1 << 9 | 1 << 13 | 1 << 15), 0);
        }
    }
}
