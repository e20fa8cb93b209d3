//! Synthetic syndromes, and those that QEMU 11.1.3 was measured to report.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test that meets another variant fails")]

use core::cell::Cell;
use std::collections::BTreeSet;
use std::vec::Vec;

use addr::{Ipa, Va};
use proptest::prelude::*;

use super::*;
use crate::inject::{El1Context, Entry, Exception, PstateFeatures, enter_el1, pstate, step_over};

mod entry;

/// Fault registers that count how often they are read.
#[derive(Default)]
struct Regs {
    far: u64,
    hpfar: u64,
    far_reads: Cell<u32>,
    hpfar_reads: Cell<u32>,
}

impl Regs {
    fn new(far: u64, hpfar: u64) -> Self {
        Self { far, hpfar, ..Self::default() }
    }
}

impl FaultRegisters for Regs {
    fn far(&self) -> u64 {
        self.far_reads.set(self.far_reads.get() + 1);
        self.far
    }
    fn hpfar(&self) -> u64 {
        self.hpfar_reads.set(self.hpfar_reads.get() + 1);
        self.hpfar
    }
}

const FAR: u64 = 0x0500_0001_0000_3123;
const HPFAR: u64 = 0x8000_0000_0050_0030;

fn exit(esr: u64) -> Exit {
    decode(esr, &Regs::new(FAR, HPFAR))
}

fn data(esr: u64) -> DataAbort {
    match exit(esr) {
        Exit::DataAbort(a) => a,
        other => panic!("{esr:#x} is {other:?}"),
    }
}

fn access(esr: u64) -> SysregAccess {
    match exit(esr) {
        Exit::Sysreg(a) | Exit::SystemInstruction(a) => a,
        other => panic!("{esr:#x} is {other:?}"),
    }
}

fn esr(ec: u8, iss: u64) -> u64 {
    u64::from(ec) << 26 | 1 << 25 | iss
}

#[test]
fn measured_cache_maintenance() {
    for (syndrome, reg) in [
        (0x6212_1c0c, SysReg::DC_IVAC),
        (0x6212_dc14, SysReg::DC_CVAC),
        (0x6212_dc1c, SysReg::DC_CIVAC),
        (0x6212_dc18, SysReg::DC_CVAP),
        (0x6212_dc1a, SysReg::DC_CVADP),
        (0x6216_1c0c, SysReg::DC_IGVAC),
        (0x621a_1c0c, SysReg::DC_IGDVAC),
        (0x6216_dc14, SysReg::DC_CGVAC),
        (0x621a_dc14, SysReg::DC_CGDVAC),
        (0x6216_dc1c, SysReg::DC_CIGVAC),
        (0x621a_dc1c, SysReg::DC_CIGDVAC),
        (0x6216_dc18, SysReg::DC_CGVAP),
        (0x621a_dc18, SysReg::DC_CGDVAP),
        (0x6216_dc1a, SysReg::DC_CGVADP),
        (0x6212_dc16, SysReg::DC_CVAU),
        (0x6212_dc0a, SysReg::IC_IVAU),
        (0x6210_1fea, SysReg::IC_IALLU),
        (0x6210_1fe2, SysReg::IC_IALLUIS),
        (0x6214_1d2c, SysReg::DC_ISW),
        (0x6214_1d34, SysReg::DC_CSW),
        (0x6214_1d3c, SysReg::DC_CISW),
        (0x6218_1d2c, SysReg::DC_IGSW),
        (0x621c_1d34, SysReg::DC_CGDSW),
        (0x621c_1d3c, SysReg::DC_CIGDSW),
        (0x6212_dc08, SysReg::DC_ZVA),
        (0x6216_dc08, SysReg::DC_GVA),
        (0x6218_dc08, SysReg::DC_GZVA),
    ] {
        let a = access(syndrome);
        assert_eq!(a.reg, reg, "{syndrome:#x}");
        assert!(!a.read);
        assert!(matches!(exit(syndrome), Exit::SystemInstruction(_)));
    }
}

#[test]
fn measured_registers() {
    for (syndrome, reg, read) in [
        (0x623a_0401, SysReg::RGSR_EL1, true),
        (0x623c_0401, SysReg::GCR_EL1, true),
        (0x6230_140d, SysReg::TFSR_EL1, true),
        (0x6232_140d, SysReg::TFSRE0_EL1, true),
        (0x6238_4001, SysReg::GMID_EL1, true),
        (0x623c_0001, SysReg::REVIDR_EL1, true),
        (0x623e_4001, SysReg::AIDR_EL1, true),
        (0x6232_c001, SysReg::CTR_EL0, true),
        (0x6230_4001, SysReg::CCSIDR_EL1, true),
        (0x6232_4001, SysReg::CLIDR_EL1, true),
        (0x6230_8001, SysReg::CSSELR_EL1, true),
        (0x6232_0be0, SysReg::TTBR1_EL1, false),
        (0x6230_0401, SysReg::SCTLR_EL1, true),
        (0x6232_0401, SysReg::ACTLR_EL1, true),
        (0x623e_2809, SysReg::LORID_EL1, true),
        (0x6230_1407, SysReg::ERRIDR_EL1, true),
        (0x6230_0803, SysReg::new(3, 0, 2, 1, 0), true),
        (0x6232_f801, SysReg::CNTPCT_EL0, true),
        (0x6232_f805, SysReg::CNTP_CTL_EL0, true),
        (0x6234_f801, SysReg::CNTVCT_EL0, true),
        (0x6230_e419, SysReg::PMCR_EL0, true),
        (0x623a_3136, SysReg::ICC_SGI1R_EL1, false),
        (0x6230_3019, SysReg::ICC_IAR1_EL1, true),
        (0x6230_112c, SysReg::ICC_PMR_EL1, false),
        (0x6231_1001, SysReg::new(3, 4, 4, 0, 0), true),
        (0x6234_4021, SysReg::CCSIDR2_EL1, true),
    ] {
        let a = access(syndrome);
        assert_eq!((a.reg, a.read), (reg, read), "{syndrome:#x}");
        assert!(matches!(exit(syndrome), Exit::Sysreg(_)));
    }
    assert_eq!(access(0x6232_0be0).rt, 31);
}

#[test]
fn id_space() {
    assert_eq!(access(0x6230_0009).reg.id_index(), Some(24));
    assert_eq!(access(0x6232_0009).reg.id_index(), Some(25));
    let mut seen = BTreeSet::new();
    for encoding in (0..1u32 << 16).step_by(if cfg!(miri) { 997 } else { 1 }) {
        let reg = SysReg::new(
            encoding >> 14,
            encoding >> 11 & 7,
            encoding >> 7 & 15,
            encoding >> 3 & 15,
            encoding & 7,
        );
        let inside = reg.op0() == 3 && reg.op1() == 0 && reg.crn() == 0 && (1..=7).contains(&reg.crm());
        let expected = inside.then(|| (reg.crm() as usize - 1) * 8 + reg.op2() as usize);
        assert_eq!(reg.id_index(), expected, "{reg}");
        assert!(seen.insert(reg), "{reg} twice");
        let a = SysregAccess { reg, rt: 17, read: true };
        assert_eq!(SysregAccess::new(esr(class::SYSREG, a.iss())), a);
        assert_eq!(matches!(exit(esr(class::SYSREG, a.iss())), Exit::Sysreg(_)), reg.op0() >= 2);
    }
}

#[test]
fn names_are_unique() {
    let set: BTreeSet<SysReg> = crate::sysreg::NAMED.iter().map(|n| n.1).collect();
    assert_eq!(set.len(), crate::sysreg::NAMED.len());
    assert_eq!(SysReg::DC_IVAC.name(), Some("DC_IVAC"));
    assert_eq!(SysReg::new(3, 7, 15, 15, 7).name(), None);
    assert_eq!(std::format!("{}", SysReg::CTR_EL0), "S3_3_C0_C0_1");
}

#[test]
fn measured_instructions() {
    assert_eq!(exit(0x5e00_0000), Exit::Smc { imm: 0 });
    assert_eq!(exit(esr(class::HVC, 0x1234)), Exit::Hvc { imm: 0x1234 });
    let wait = |kind, deadline| Exit::Wfx(Wait { kind, deadline });
    assert_eq!(exit(0x07e0_0000), wait(WaitKind::Interrupt, None));
    assert_eq!(exit(0x07e0_0001), wait(WaitKind::Event, None));
    assert_eq!(exit(esr(class::WFX, 0b110 | 9 << 5)), wait(WaitKind::InterruptTimeout, Some(9)));
    assert_eq!(exit(esr(class::WFX, 0b111 | 31 << 5)), wait(WaitKind::EventTimeout, Some(31)));
    assert_eq!(exit(esr(class::WFX, 0b011)), wait(WaitKind::EventTimeout, None));
    assert_eq!(exit(0x1fe0_0000), Exit::Fp);
    assert_eq!(exit(0x6600_0000), Exit::Sve);
    assert_eq!(exit(0x2600_0000), Exit::PAuth);
    assert_eq!(exit(0x6a00_0000), Exit::Eret(EretKind::Plain));
    assert_eq!(exit(0x6a00_0002), Exit::Eret(EretKind::KeyA));
    assert_eq!(exit(0x6a00_0003), Exit::Eret(EretKind::KeyB));
    assert_eq!(exit(esr(class::SME, 3)), Exit::Sme { reason: 3 });
    assert_eq!(exit(esr(class::LS64, 2)), Exit::Ls64);
    assert_eq!(exit(esr(class::LS64, 3)), Exit::Unknown { ec: 0x0a, esr: esr(0x0a, 3) });
    assert_eq!(exit(esr(class::BTI, 1)), Exit::Bti);
    assert_eq!(exit(esr(class::ILLEGAL_STATE, 0)), Exit::IllegalState);
    assert_eq!(exit(esr(class::PC_ALIGNMENT, 0)), Exit::PcAlignment { va: Va::new(FAR) });
    assert_eq!(exit(esr(class::SP_ALIGNMENT, 0)), Exit::SpAlignment);
    assert_eq!(exit(esr(class::MOPS, 0)), Exit::MopsFault);
    assert_eq!(exit(esr(class::GCS, 0)), Exit::Gcs);
    assert_eq!(exit(esr(class::BREAKPOINT, 0x22)), Exit::Debug(DebugException::Breakpoint));
    assert_eq!(exit(esr(class::STEP, 0x22)), Exit::Debug(DebugException::Step));
    assert_eq!(
        exit(esr(class::WATCHPOINT, 0x22)),
        Exit::Debug(DebugException::Watchpoint { va: Va::new(FAR) })
    );
    assert_eq!(exit(esr(class::BRK, 0xf000)), Exit::Debug(DebugException::Brk { imm: 0xf000 }));
}

#[test]
fn aarch32_classes() {
    for ec in [0x03, 0x04, 0x05, 0x06, 0x08, 0x0c, 0x11, 0x12, 0x13, 0x28, 0x38, 0x3a] {
        assert_eq!(exit(esr(ec, 0)), Exit::AArch32 { ec });
    }
    assert_eq!(exit(0x9100_8005), Exit::AArch32 { ec: 0x24 }, "a 16-bit load");
    for ec in [0x00, 0x02, 0x0b, 0x0f, 0x10, 0x14, 0x15, 0x1b, 0x1c, 0x1e, 0x1f, 0x21, 0x25, 0x2c, 0x2f, 0x3d]
    {
        assert_eq!(exit(esr(ec, 5)), Exit::Unknown { ec, esr: esr(ec, 5) });
    }
}

#[test]
fn measured_tag_faults() {
    // QEMU: DFSC 0. Architecture: permission fault. Checked loads and stores may have ISV.
    for (syndrome, kind) in [
        (0x0000_0200_9200_0040, TagAccess::Write),
        (0x0000_0200_9200_0000, TagAccess::ReadOrChecked),
        (0x0000_0200_9200_004f, TagAccess::Write),
        (0x0000_0200_9200_000f, TagAccess::ReadOrChecked),
        (0x0000_0200_93c9_800f, TagAccess::ReadOrChecked),
    ] {
        let regs = Regs::new(0x0700_0001_0000_0000, 0xdead0);
        let Exit::TagFault(t) = decode(syndrome, &regs) else { panic!("{syndrome:#x}") };
        assert_eq!((t.va, t.access, t.esr()), (Va::new(0x0700_0001_0000_0000), kind, syndrome));
        assert_eq!(regs.hpfar_reads.get(), 0);
    }
    // Read-only and NoTagAccess: the write permission comes first, and [41] is 0.
    let plain = data(0x9200_004f);
    assert_eq!((plain.kind(), plain.write(), plain.ipa), (FaultKind::Permission(Level::L3), true, None));
}

#[test]
fn measured_data_aborts() {
    let ldr = data(0x93c0_8005);
    assert_eq!(ldr.kind(), FaultKind::Translation(Level::L1));
    assert!(ldr.isv() && ldr.sf() && !ldr.write() && !ldr.sign_extend() && !ldr.acquire_release());
    assert_eq!((ldr.size(), ldr.rt()), (AccessSize::Double, 0));
    assert_eq!((ldr.ipa, ldr.va), (Some(Ipa::new(0x5000_3123)), Va::new(FAR)));
    let ldrb = data(0x9300_0005);
    assert_eq!((ldrb.size(), ldrb.sf(), ldrb.rt()), (AccessSize::Byte, false, 0));
    let strh = data(0x9345_0045);
    assert_eq!((strh.size(), strh.rt(), strh.write()), (AccessSize::Half, 5, true));
    let str_ro = data(0x93c9_804f);
    assert_eq!((str_ro.kind(), str_ro.rt(), str_ro.write()), (FaultKind::Permission(Level::L3), 9, true));
    assert_eq!(str_ro.ipa, None);
    let walk = data(0x9200_0087);
    assert!(walk.s1ptw() && !walk.isv());
    assert_eq!(walk.ipa, Some(Ipa::new(0x5000_3000)), "a walk's offset is not the access's");
    assert_eq!(data(0x9200_008c).ipa, Some(Ipa::new(0x5000_3000)), "permission fault of a walk");
    let af = data(0x93c0_800b);
    assert_eq!((af.kind(), af.ipa.is_some()), (FaultKind::AccessFlag(Level::L3), true));
    let Exit::InstructionAbort(fetch) = exit(0x8200_000f) else { panic!() };
    assert_eq!((fetch.kind(), fetch.ipa), (FaultKind::Permission(Level::L3), None));
}

#[test]
fn cache_maintenance_is_never_a_write() {
    for wnr in [0, 1 << 6] {
        let a = data(esr(class::DATA_ABORT, 1 << 8 | wnr | 0x0f));
        assert!(a.cm() && !a.write());
        assert_eq!(a.wnr(), wnr != 0);
    }
}

/// Every status code, with and without S1PTW: HPFAR is read exactly when it is valid.
#[test]
fn status_codes() {
    for fsc in 0..64u8 {
        for s1ptw in [false, true] {
            for ec in [class::DATA_ABORT, class::INSTRUCTION_ABORT] {
                let regs = Regs::new(FAR, HPFAR);
                let syndrome = esr(ec, u64::from(fsc) | u64::from(s1ptw) << 7);
                let ipa = match decode(syndrome, &regs) {
                    Exit::DataAbort(a) => a.ipa,
                    Exit::InstructionAbort(a) => a.ipa,
                    other => panic!("{other:?}"),
                };
                let valid = match fsc {
                    0x00..=0x0b | 0x29..=0x2c => true,
                    0x0c..=0x0f => s1ptw,
                    _ => false,
                };
                assert_eq!(ipa.is_some(), valid, "{fsc:#x}");
                assert_eq!(regs.hpfar_reads.get(), u32::from(valid));
                assert_eq!(regs.far_reads.get(), 1);
            }
        }
    }
    use FaultKind as F;
    for (fsc, kind) in [
        (0x2c, F::AddressSize(Level::MinusTwo)),
        (0x29, F::AddressSize(Level::MinusOne)),
        (0x00, F::AddressSize(Level::L0)),
        (0x2a, F::Translation(Level::MinusTwo)),
        (0x2b, F::Translation(Level::MinusOne)),
        (0x07, F::Translation(Level::L3)),
        (0x10, F::SynchronousExternal),
        (0x11, F::TagCheck),
        (0x12, F::ExternalOnWalk(Level::MinusTwo)),
        (0x13, F::ExternalOnWalk(Level::MinusOne)),
        (0x16, F::ExternalOnWalk(Level::L2)),
        (0x18, F::Parity),
        (0x1b, F::ParityOnWalk(Level::MinusOne)),
        (0x1d, F::ParityOnWalk(Level::L1)),
        (0x21, F::Alignment),
        (0x22, F::GranuleProtectionOnWalk(Level::MinusTwo)),
        (0x23, F::GranuleProtectionOnWalk(Level::MinusOne)),
        (0x27, F::GranuleProtectionOnWalk(Level::L3)),
        (0x28, F::GranuleProtection),
        (0x30, F::TlbConflict),
        (0x31, F::UnsupportedAtomicUpdate),
        (0x34, F::Other(0x34)),
        (0x35, F::UnsupportedExclusive),
        (0x3f, F::Other(0x3f)),
    ] {
        assert_eq!(F::from_fsc(fsc), kind, "{fsc:#x}");
    }
    assert!(F::ExternalOnWalk(Level::L0).is_external() && !F::Translation(Level::L0).is_external());
    assert_eq!((Level::MinusTwo.get(), Level::L3.get()), (-2, 3));
}

/// FIPA is [47:4]; NS and the RES0 bits around it do not reach the address.
#[test]
fn hpfar_field() {
    assert_eq!(fault_ipa(u64::MAX, 0), Ipa::new(0x00ff_ffff_ffff_f000));
    assert_eq!(fault_ipa(0x8000_0000_0050_003f, u64::MAX), Ipa::new(0x5000_3fff));
}

#[test]
fn loads_extend() {
    let load = |sas: u64, sse: u64, sf: u64| {
        data(esr(class::DATA_ABORT, 1 << 24 | sas << 22 | sse << 21 | sf << 15 | 5))
    };
    const V: u64 = 0xfedc_ba98_8765_8281;
    assert_eq!(load(0, 0, 0).extend(V), 0x81);
    assert_eq!(load(0, 1, 0).extend(V), 0xffff_ff81);
    assert_eq!(load(0, 1, 1).extend(V), 0xffff_ffff_ffff_ff81);
    assert_eq!(load(1, 0, 1).extend(V), 0x8281);
    assert_eq!(load(1, 1, 0).extend(V), 0xffff_8281);
    assert_eq!(load(2, 0, 0).extend(V), 0x8765_8281);
    assert_eq!(load(2, 1, 1).extend(V), 0xffff_ffff_8765_8281);
    assert_eq!(load(3, 0, 1).extend(V), V);
    for (sas, bytes) in [(0, 1), (1, 2), (2, 4), (3, 8)] {
        let a = load(sas, 0, 1);
        assert_eq!(a.size().bytes(), bytes);
        assert_eq!(a.truncate(u64::MAX), a.size().mask());
        assert_eq!(a.size().mask().count_ones() as u64, bytes * 8);
    }
}

#[test]
fn serror_kinds() {
    let kind = |iss: u64, ras| SError::from_esr(esr(class::SERROR, iss), ras).kind;
    for (aet, expected) in [
        (0b000, SErrorKind::Uncontainable),
        (0b001, SErrorKind::Unrecoverable),
        (0b010, SErrorKind::Restartable),
        (0b011, SErrorKind::Recoverable),
        (0b100, SErrorKind::Uncontainable),
        (0b101, SErrorKind::Uncontainable),
        (0b110, SErrorKind::Corrected),
        (0b111, SErrorKind::Uncontainable),
    ] {
        assert_eq!(kind(aet << 10 | 0x11, true), expected);
        assert_eq!(kind(aet << 10 | 0x11, false), SErrorKind::Uncategorized);
        assert_eq!(kind(aet << 10, true), SErrorKind::Uncategorized);
        assert_eq!(kind(1 << 24 | aet << 10 | 0x11, true), SErrorKind::ImpDef);
    }
    let recoverable = SError::from_esr(0xbe00_0e11, true);
    assert_eq!(recoverable.consequence(true), Consequence::Inject);
    assert_eq!(recoverable.consequence(false), Consequence::Stop);
    assert!(recoverable.ea());
    assert_eq!(recoverable.vsesr(true), 0x0e11);
    assert_eq!(recoverable.vsesr(false), 1 << 24);
    let secret = SError::from_esr(0xbf12_3456, true);
    assert_eq!(secret.consequence(true), Consequence::Stop, "its syndrome does not say how far it spread");
    for (aet, inject) in [(0, false), (0, true), (4, true), (5, true), (7, true)] {
        let uncontained = SError::from_esr(0xbe00_0011 | aet << 10, true);
        assert_eq!(uncontained.consequence(inject), Consequence::End, "AET {aet}");
    }
    assert_eq!(secret.vsesr(true), 1 << 24, "an implementation-defined syndrome is not passed on");
    assert_eq!(SError::from_disr(0x0e11), None);
    assert_eq!(SError::from_disr(1 << 31 | 0x0e11).map(|e| e.kind), Some(SErrorKind::Recoverable));
    assert_eq!(SError::from_disr(recoverable.disr(true)), Some(recoverable));
}

/// The bit positions agree with another reading of the manual.
#[test]
fn oracle() {
    use arm_sysregs::el1::registers::{DisrEl1, SctlrEl1};
    use arm_sysregs::el2::registers::{EsrEl2, HpfarEl2, SpsrEl2};
    assert_eq!(u64::from(exception_class(u64::MAX)), EsrEl2::EC_MASK);
    assert_eq!(exception_class(1 << EsrEl2::EC_SHIFT), 1);
    assert_eq!(EsrEl2::IL.bits(), 1 << 25);
    assert_eq!(fault_ipa(HpfarEl2::NS.bits(), 0), Ipa::new(0));
    assert_eq!(SctlrEl1::SPAN.bits(), 1 << 23);
    assert_eq!(SctlrEl1::DSSBS.bits(), 1 << 44);
    assert_eq!(DisrEl1::A.bits(), 1 << 31);
    assert_eq!(
        (SpsrEl2::TCO | SpsrEl2::PAN | SpsrEl2::SS | SpsrEl2::ALLINT).bits(),
        pstate::TCO | pstate::PAN | pstate::SS | pstate::ALLINT
    );
}

/// All classes with every low ISS pattern of a table of dense and sparse values.
#[test]
fn total_over_classes() {
    let mut patterns: Vec<u64> = (0..0x1000).collect();
    patterns.extend((0..64).map(|n| 1u64 << n));
    patterns.extend((0..64).map(|n| !(1u64 << n)));
    for ec in 0..64u64 {
        for p in &patterns {
            let syndrome = p & !(0x3f << 26) | ec << 26;
            let e = exit(syndrome);
            if let Exit::Unknown { ec: reported, esr } = e {
                assert_eq!((u64::from(reported), esr), (ec, syndrome));
            }
        }
    }
}

proptest! {
    #[test]
    fn total(esr: u64, far: u64, hpfar: u64, value: u64) {
        let regs = Regs::new(far, hpfar);
        let e = decode(esr, &regs);
        if let Exit::DataAbort(a) = e {
            let _ = (a.kind(), a.size(), a.extend(value), a.truncate(value));
            prop_assert!(!bit(esr, 41));
            prop_assert!(!(a.cm() && a.write()));
        }
        let _ = SError::from_esr(esr, value & 1 != 0).vsesr(value & 2 != 0);
        let reads = regs.far_reads.get() + regs.hpfar_reads.get();
        prop_assert!(reads == 0 || matches!(exception_class(esr), 0x20 | 0x22 | 0x24 | 0x34));
    }
}
