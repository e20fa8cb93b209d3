//! Whose trap is it, and which register: any access under any controls of L1's.

use crate::input::Input;
use nested::controls::{L1Hcr, hcr};
use nested::fine::FineTraps;
use nested::registers::lookup;
use nested::route::Controls;
use trap::SysregAccess;

pub(crate) fn run(mut input: Input<'_>) -> u64 {
    let vhe = input.bit();
    let mut controls = Controls {
        hcr: L1Hcr::new(input.word(), vhe),
        mdcr: input.word(),
        cptr: input.word(),
        cnthctl: input.word(),
        ich_hcr: input.word(),
        hcrx: input.word(),
        fine: FineTraps {
            read: input.word(),
            write: input.word(),
            instruction: input.word(),
            debug_read: input.word(),
            debug_write: input.word(),
        },
        mte: input.bit(),
    };
    // What the hypervisor traps for itself is not L1's, who traps nothing.
    let nothing = Controls::only(L1Hcr::new(hcr::APK | hcr::API | hcr::ATA, vhe));
    let mut shape = 0_u64;
    while !input.is_empty() {
        let access = SysregAccess::new(input.word());
        let register = lookup(access.reg, vhe);
        let claimed = controls.claim(access);
        assert_eq!(claimed, controls.claim(access));
        assert!(!nothing.claim(access), "{access:?}");
        shape = shape.wrapping_mul(31) ^ (u64::from(claimed) * 2 + u64::from(register.is_some()));
        controls.hcr = L1Hcr::new(controls.hcr.get().rotate_left(7), vhe);
    }
    shape % 251
}
