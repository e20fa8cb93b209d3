//! Every encoding against the names, and instruction words as an assembler makes them.

use super::*;
use Content::{Both, Data, Tags};
use How::{Clean, CleanInvalidate, Invalidate};
use std::vec::Vec;

const fn by_address(how: How, content: Content) -> Operation {
    Operation::Line(Line { how, content })
}

/// Register, instruction word with Rt = 0 as LLVM's assembler makes it, meaning.
#[rustfmt::skip]
const NAMED: &[(SysReg, u32, Operation)] = &[
    (SysReg::IC_IALLUIS, 0xd508_7100, Operation::AllFetches),
    (SysReg::IC_IALLU, 0xd508_7500, Operation::AllFetches),
    (SysReg::IC_IVAU, 0xd50b_7520, Operation::Fetch),
    (SysReg::DC_IVAC, 0xd508_7620, by_address(Invalidate, Data)),
    (SysReg::DC_IGVAC, 0xd508_7660, by_address(Invalidate, Tags)),
    (SysReg::DC_IGDVAC, 0xd508_76a0, by_address(Invalidate, Both)),
    (SysReg::DC_CVAC, 0xd50b_7a20, by_address(Clean(Point::Coherency), Data)),
    (SysReg::DC_CGVAC, 0xd50b_7a60, by_address(Clean(Point::Coherency), Tags)),
    (SysReg::DC_CGDVAC, 0xd50b_7aa0, by_address(Clean(Point::Coherency), Both)),
    (SysReg::DC_CVAU, 0xd50b_7b20, by_address(Clean(Point::Unification), Data)),
    (SysReg::DC_CVAP, 0xd50b_7c20, by_address(Clean(Point::Persistence), Data)),
    (SysReg::DC_CGVAP, 0xd50b_7c60, by_address(Clean(Point::Persistence), Tags)),
    (SysReg::DC_CGDVAP, 0xd50b_7ca0, by_address(Clean(Point::Persistence), Both)),
    (SysReg::DC_CVADP, 0xd50b_7d20, by_address(Clean(Point::DeepPersistence), Data)),
    (SysReg::DC_CGVADP, 0xd50b_7d60, by_address(Clean(Point::DeepPersistence), Tags)),
    (SysReg::DC_CGDVADP, 0xd50b_7da0, by_address(Clean(Point::DeepPersistence), Both)),
    (SysReg::DC_CIVAC, 0xd50b_7e20, by_address(CleanInvalidate, Data)),
    (SysReg::DC_CIGVAC, 0xd50b_7e60, by_address(CleanInvalidate, Tags)),
    (SysReg::DC_CIGDVAC, 0xd50b_7ea0, by_address(CleanInvalidate, Both)),
    (SysReg::DC_ZVA, 0xd50b_7420, Operation::Zero),
    (SysReg::DC_GVA, 0xd50b_7460, Operation::Zero),
    (SysReg::DC_GZVA, 0xd50b_7480, Operation::Zero),
    (SysReg::DC_ISW, 0xd508_7640, Operation::SetWay(Data)),
    (SysReg::DC_IGSW, 0xd508_7680, Operation::SetWay(Tags)),
    (SysReg::DC_IGDSW, 0xd508_76c0, Operation::SetWay(Both)),
    (SysReg::DC_CSW, 0xd508_7a40, Operation::SetWay(Data)),
    (SysReg::DC_CGSW, 0xd508_7a80, Operation::SetWay(Tags)),
    (SysReg::DC_CGDSW, 0xd508_7ac0, Operation::SetWay(Both)),
    (SysReg::DC_CISW, 0xd508_7e40, Operation::SetWay(Data)),
    (SysReg::DC_CIGSW, 0xd508_7e80, Operation::SetWay(Tags)),
    (SysReg::DC_CIGDSW, 0xd508_7ec0, Operation::SetWay(Both)),
];

/// AT S1E1R, S1E1W, S1E0R, S1E0W, S1E1RP, S1E1WP, S1E1A.
const TRANSLATIONS: [u32; 7] =
    [0xd508_7800, 0xd508_7820, 0xd508_7840, 0xd508_7860, 0xd508_7900, 0xd508_7920, 0xd508_7940];

#[test]
fn every_name() {
    for &(reg, word, operation) in NAMED {
        assert_eq!(Operation::from_encoding(reg), Some(operation), "{reg}");
        // Any register holds the address.
        for rt in 0..32 {
            assert_eq!(Operation::from_instruction(word | rt), Some(operation), "{reg}");
        }
    }
    for word in TRANSLATIONS {
        assert_eq!(Operation::from_instruction(word | 7), Some(Operation::Translate));
    }
}

/// Of all encodings of system instructions only those with a name, and AT, mean something.
#[test]
fn dc_ivac() {
    let operation = Operation::from_encoding(SysReg::DC_IVAC);
    assert_eq!(operation, Some(Operation::Line(Line::INVALIDATE)));
}

#[test]
fn nothing_else() {
    let all = (0..8).flat_map(|op1| (0..16).flat_map(move |crm| (0..8).map(move |op2| (op1, crm, op2))));
    let mut meanings = Vec::new();
    for (op1, crm, op2) in all {
        for crn in (0..16).filter(|crn| *crn != 7) {
            assert_eq!(Operation::from_encoding(SysReg::new(1, op1, crn, crm, op2)), None);
        }
        for op0 in [0, 2, 3] {
            assert_eq!(Operation::from_encoding(SysReg::new(op0, op1, 7, crm, op2)), None);
        }
        let reg = SysReg::new(1, op1, 7, crm, op2);
        match Operation::from_encoding(reg) {
            Some(Operation::Translate) => assert!(matches!(crm, 8 | 9), "{reg}"),
            Some(_) => meanings.push(reg),
            None => assert!(!NAMED.iter().any(|row| row.0 == reg), "{reg}"),
        }
    }
    assert_eq!(meanings.len(), NAMED.len());
}

#[test]
fn other_instructions() {
    // NOP, RET, MRS of PAR_EL1, TLBI VMALLE1, STR, SYSL with CRn 7, zero.
    for word in [0xd503_201f, 0xd65f_03c0, 0xd538_7400, 0xd508_871f, 0xf900_0020, 0xd528_7620, 0] {
        assert_eq!(Operation::from_instruction(word), None, "{word:#x}");
    }
    // DC CIVAPS (FEAT_PoPS), which has no name here.
    assert_eq!(Operation::from_instruction(0xd508_7f20), Some(Operation::Line(Line::THOROUGH)));
}
