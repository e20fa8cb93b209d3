//! Exceptions that enter EL1, and stepping over an instruction.

use super::*;

const ALL: PstateFeatures = PstateFeatures { pan: true, ssbs: true, mte: true, nmi: false };

fn source(pstate: u64, sctlr: u64) -> El1Context {
    El1Context { pc: 0x4000_1000, pstate, vbar: 0xffff_0000_0000_0800, sctlr, features: ALL }
}

#[test]
fn entry_vectors() {
    for (from, offset) in [(0x3c5, 0x200), (0x3c4, 0x000), (0x3c0, 0x400), (0x1d0, 0x600)] {
        let e = enter_el1(&source(from, 0), Exception::Undefined);
        assert_eq!(e.pc, 0xffff_0000_0000_0800 + offset);
        assert_eq!((e.elr, e.spsr, e.esr, e.far), (0x4000_1000, from, 0x0200_0000, None));
    }
    let odd = El1Context { vbar: u64::MAX, ..source(0x3c0, 0) };
    assert_eq!(enter_el1(&odd, Exception::Undefined).pc, 0xffff_ffff_ffff_fc00, "VBAR[10:0] is RES0");
}

#[test]
fn entry_pstate() {
    let everything = !0x1fu64;
    let new = |from, sctlr| enter_el1(&source(from, sctlr), Exception::Undefined).pstate;
    let kept = pstate::NZCV | pstate::DIT;
    let always = pstate::DAIF | pstate::EL1H | pstate::TCO;
    assert_eq!(new(0x5, 0), always | pstate::PAN);
    assert_eq!(new(0x5, 1 << 23), always, "SPAN keeps PAN");
    assert_eq!(new(5 | pstate::PAN, 1 << 23), always | pstate::PAN);
    assert_eq!(new(5, 1 << 23 | 1 << 44), always | pstate::SSBS);
    assert_eq!(new(everything | 5, 1 << 23), always | kept | pstate::PAN, "BTYPE, SS, IL, SSBS, UAO go");
    assert_eq!(new(0x10 | pstate::SS, 1 << 23), always | pstate::DIT, "AArch32 keeps DIT in bit 21");
    let none = El1Context { features: PstateFeatures::default(), ..source(5, 1 << 44) };
    assert_eq!(enter_el1(&none, Exception::Undefined).pstate, pstate::DAIF | pstate::EL1H);
    let nmi = El1Context { features: PstateFeatures { nmi: true, ..ALL }, ..source(5, 1 << 23) };
    assert_eq!(enter_el1(&nmi, Exception::Undefined).pstate, always | pstate::ALLINT);
}

#[test]
fn entry_syndromes() {
    let e = |from, exception| {
        let Entry { esr, far, .. } = enter_el1(&source(from, 0), exception);
        (esr, far)
    };
    let abort = |va, write, cm, walk| Exception::DataAbort { va, write, cm, walk };
    assert_eq!(e(5, abort(Some(7), false, false, None)), (0x9600_0010, Some(7)));
    assert_eq!(e(4, abort(Some(7), true, false, None)), (0x9600_0050, Some(7)));
    assert_eq!(e(0, abort(Some(7), true, false, None)), (0x9200_0050, Some(7)));
    assert_eq!(e(0x10, abort(Some(7), false, true, None)), (0x9200_0150, Some(7)));
    assert_eq!(e(0, abort(None, false, false, None)), (0x9200_0410, None));
    assert_eq!(e(0, abort(Some(1), false, false, Some(Level::L2))), (0x9200_0016, Some(1)));
    // Maintenance: CM and WnR, whatever was wrong; the address as it was given.
    let maintenance = |status| Exception::Maintenance { va: 0x1235, status };
    assert_eq!(e(5, maintenance(0x05)), (0x9600_0145, Some(0x1235)));
    assert_eq!(e(0, maintenance(0x0f)), (0x9200_014f, Some(0x1235)));
    assert_eq!(e(4, maintenance(0xd0)), (0x9600_0150, Some(0x1235)));
    let fetch = |va, walk| Exception::InstructionAbort { va, walk };
    assert_eq!(e(0, fetch(Some(9), None)), (0x8200_0010, Some(9)));
    assert_eq!(e(5, fetch(Some(9), Some(Level::L3))), (0x8600_0017, Some(9)));
    let reflected = SysregAccess { reg: SysReg::CCSIDR2_EL1, rt: 1, read: true };
    assert_eq!(e(5, Exception::Sysreg(reflected)), (0x6234_4021, None));
    // What is injected decodes to what was meant.
    let (syndrome, _) = e(0, abort(Some(7), true, false, None));
    assert_eq!(data(syndrome).kind(), FaultKind::SynchronousExternal);
}

/// Stage-2 faults on a walk, as EL2 sees them, and what EL1 gets: every code and level of stage 2 that
/// may be there, every level of stage 1.
#[test]
fn aborts_on_a_walk() {
    const CM_WNR_S1PTW: [u64; 6] = [0x80, 0xc0, 0x180, 0x1c0, 0x83, 0xc3];
    for level in [Level::L0, Level::L1, Level::L2, Level::L3] {
        for seen in CM_WNR_S1PTW.iter().flat_map(|bits| (4..16).map(move |fsc| bits & !0x3f | fsc)) {
            let status = 0x14 | level.get() as u64;
            let inject = |ec, from| {
                let exception = Exception::on_walk(esr(ec, seen), FAR, level);
                let entry = enter_el1(&source(from, 0), exception);
                assert_eq!(entry.far, Some(FAR));
                entry.esr
            };
            // CM and WnR are the access's; S1PTW and stage 2's status are not for EL1.
            let iss = seen & 0x140 | status | if seen & 0x100 != 0 { 0x40 } else { 0 };
            assert_eq!(inject(class::DATA_ABORT, 0), 0x9200_0000 | iss);
            assert_eq!(inject(class::DATA_ABORT, 5), 0x9600_0000 | iss);
            assert_eq!(inject(class::INSTRUCTION_ABORT, 0), 0x8200_0000 | status);
            assert_eq!(inject(class::INSTRUCTION_ABORT, 5), 0x8600_0000 | status);
        }
    }
}

#[test]
fn stepping() {
    let s = step_over(0x1000, 5 | pstate::SS | pstate::BTYPE | pstate::NZCV, true);
    assert_eq!((s.pc, s.pstate), (0x1004, 5 | pstate::NZCV));
    assert_eq!(step_over(u64::MAX - 3, 0, true).pc, 0);
    assert_eq!(step_over(0x1000, 0x10, false).pc, 0x1002);
}
