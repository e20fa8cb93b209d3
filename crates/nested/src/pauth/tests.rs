use super::*;
use proptest::prelude::*;

/// 48 bits below, 39 above; the top byte ignored below.
const TCR: u64 = 16 | 25 << 16 | 1 << 37;

fn layout(address: u64) -> Layout {
    Layout::new(TCR, true, address)
}

/// A signed address (AddPAC): the code in its place, from level 3 on by exclusive or.
fn sign(layout: Layout, level: u8, address: u64, code: u64) -> u64 {
    let original = layout.original(address);
    if level >= 3 { original ^ code & layout.code } else { original & !layout.code | code & layout.code }
}

#[test]
fn codes_are_where_tcr_says() {
    assert_eq!(Layout::new(TCR, true, 0), Layout { code: 0x007f_0000_0000_0000, tbi: true });
    assert_eq!(Layout::new(TCR, true, !0), Layout { code: 0xff7f_ff80_0000_0000, tbi: false });
    // Without VHE there is one range, bit 55 or not; TBID takes TBI back for instructions.
    assert_eq!(Layout::new(TCR, false, !0), Layout { code: 0x007f_0000_0000_0000, tbi: true });
    assert_eq!(Layout::new(TCR | 1 << 51, false, 0).code, 0xff7f_0000_0000_0000);
    // Sizes beyond what there is.
    assert_eq!(Layout::new(63 | 1 << 37, false, 0).code, 0x007f_ffff_ffff_0000);
    assert_eq!(Layout::new(1 << 37, false, 0).code, 0x007f_0000_0000_0000);
}

#[test]
fn levels() {
    // QEMU's `max`: an algorithm of its own, FEAT_FPACCOMBINE; QARMA5 and QARMA3.
    assert_eq!(level(0x0111_2111_1021_1502, 0x1120_0000_0011_0012), Some(5));
    assert_eq!((level(1 << 24 | 1 << 4, 0), level(0, 3 << 12 | 1 << 8)), (Some(1), Some(3)));
    // None, another algorithm for PACGA, two at once.
    assert_eq!(
        (level(0, 0), level(1 << 28 | 1 << 4, 0), level(1 << 28 | 1 << 24 | 1 << 4 | 1 << 8, 0)),
        (None, None, None)
    );
}

#[test]
fn wrong_codes_before_fpac() {
    let (l, address) = (layout(0x4000_1000), 0x4000_1000);
    let signed = sign(l, 1, address, 0x1234_5678_0000_0000);
    let wrong = |level, key| authenticate(l, level, key, signed, 0x1235_5678_0000_0000);
    // Bits 54:53 with TBI, 62:61 without.
    assert_eq!((wrong(1, Key::A), wrong(1, Key::B)), (Ok(address | 1 << 53), Ok(address | 1 << 54)));
    let l = layout(1 << 55);
    let signed = sign(l, 1, !0xfff, 0xab34_5678_0000_0000);
    assert_eq!(authenticate(l, 1, Key::A, signed, 0), Ok(!0xfff & !(1 << 62)));
    assert_eq!(wrong(5, Key::B), Err(Fault));
    assert_eq!((Key::A.syndrome(), Key::B.syndrome()), (0x7200_0000, 0x7200_0001));
}

proptest! {
    /// The right code gives the address back; any other code that differs where it is looked at does not.
    #[test]
    fn round_trip(address: u64, code: u64, flip in 0u32..64, level in 1u8..=5, low in 16u64..=32, tbi: bool) {
        let l = Layout::new(low | low << 16 | u64::from(tbi) << 37 | u64::from(tbi) << 38, true, address);
        let original = l.original(address);
        let signed = sign(l, level, address, code);
        prop_assert_eq!(authenticate(l, level, Key::A, signed, code), Ok(original));
        let bit = 1 << flip;
        if bit & l.code >> 32 << 32 != 0 {
            let result = authenticate(l, level, Key::A, signed, code ^ bit);
            prop_assert_eq!(result.is_err(), level >= 5);
            prop_assert_ne!(result, Ok(original));
        }
    }
}
