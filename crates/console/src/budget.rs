//! How many lines somebody may cause: a few at once, and one more each second. The machine's UART is slow,
//! and lines of the hypervisor's own wait for it.

/// Lines at once.
const BURST: u64 = 16;

/// Whether a line may be printed at `now`: if so, the new value of `until`, which is the time when all lines
/// so far are paid for, and 0 at first. Times are in counts, of which a second has `second`.
#[inline]
#[must_use]
pub const fn spend(until: u64, now: u64, second: u64) -> Option<u64> {
    let from = if until > now { until } else { now };
    if from.wrapping_sub(now) > second.saturating_mul(BURST - 1) {
        None
    } else {
        Some(from.saturating_add(second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_few_at_once_then_one_a_second() {
        let (mut until, mut printed) = (0, 0);
        for tenth in 0..1000 {
            if let Some(new) = spend(until, 5000 + tenth * 100, 1000) {
                (until, printed) = (new, printed + 1);
            }
            assert_eq!(printed, (tenth + 1).min(BURST + tenth / 10), "after {tenth} tenths");
        }
        // Who was quiet for long has the same few, and no more.
        let mut later = 0;
        while let Some(new) = spend(until, 10_000_000, 1000) {
            (until, later) = (new, later + 1);
        }
        assert_eq!(later, BURST);
    }

    proptest! {
        #[test]
        fn never_wraps(until: u64, now: u64, second: u64) {
            if let Some(new) = spend(until, now, second) {
                prop_assert!(new >= until && new >= now);
            }
        }
    }
}
