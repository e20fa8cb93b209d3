//! What the hypervisor traps of its guest, and what it writes without sense.

use super::{EC_HVC, guest_code, guest_el1, need_el2, once};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;

guest_code! {
    /// WFI.
    wfi "wfi";
    /// WFE, twice: the first may find an event.
    wfe "wfe\n wfe\n wfe";
    /// SMC.
    smc "mov w0, #0x84000000\n smc #0";
    /// An ID register.
    id "mrs x0, ID_AA64PFR0_EL1";
    /// CTR_EL0.
    ctr "mrs x0, CTR_EL0";
    /// ACTLR_EL1.
    actlr "mrs x0, ACTLR_EL1";
    /// Writes a register of stage 1.
    tvm "msr CONTEXTIDR_EL1, xzr";
    /// Reads one.
    trvm "mrs x0, CONTEXTIDR_EL1";
    /// Cache maintenance.
    civac "dc civac, x1";
    /// Cache maintenance to the point of unification.
    ivau "ic ivau, x1";
    /// By set and way.
    cisw "dc cisw, xzr";
    /// TLB maintenance.
    tlbi "tlbi vmalle1";
    /// DC ZVA would write: to nowhere in the payload.
    physical_timer "mrs x0, CNTP_CVAL_EL0";
    /// The physical counter.
    physical_counter "mrs x0, CNTPCT_EL0";
    /// Debug.
    mdscr "mrs x0, MDSCR_EL1";
    /// Floating point.
    fp "fmov d0, x0";
    /// BRK.
    brk "brk #5";
    /// An SGI.
    sgi "msr ICC_SGI1R_EL1, xzr";
}

const SYSREG: u64 = 0x18;

struct Case {
    name: &'static str,
    code: u64,
    set: u64,
    ec: u64,
}

fn cases() -> [Case; 13] {
    let case = |name, code, bit: u32, ec| Case { name, code, set: 1 << bit, ec };
    [
        case("TWI", wfi(), 13, 1),
        case("TWE", wfe(), 14, 1),
        case("TSC", smc(), 19, 0x17),
        case("TID3", id(), 18, SYSREG),
        case("TID2", ctr(), 17, SYSREG),
        case("TACR", actlr(), 21, SYSREG),
        case("TVM", tvm(), 26, SYSREG),
        case("TRVM", trvm(), 30, SYSREG),
        case("TPCP", civac(), 23, SYSREG),
        case("TPU", ivau(), 24, SYSREG),
        case("TSW", cisw(), 22, SYSREG),
        case("TTLB", tlbi(), 25, SYSREG),
        case("IMO", sgi(), 4, SYSREG),
    ]
}

/// Each control of HCR_EL2 takes what it names to EL2, with PC at the instruction.
pub(super) fn guest_traps(_: &Machine) -> Outcome {
    need_el2!();
    for Case { name, code, set, ec } in cases() {
        let mut guest = Guest::new(code);
        let mark = crate::rt::mem::scratch(0);
        guest.x[1] = mark;
        let exit = once(&mut guest, set, 0);
        check_eq!(exit, Exit::Sync, "{name}: exit");
        check_eq!(guest.ec(), ec, "{name}: EC");
        check!(guest.pc >= code && guest.pc < code + 12, "{name}: PC {:#x}, code {code:#x}", guest.pc);
    }
    Ok(())
}

/// The same instructions without the control.
pub(super) fn untrapped(_: &Machine) -> Outcome {
    need_el2!();
    // WFI and WFE would wait for good.
    for Case { name, code, .. } in cases().into_iter().skip(2) {
        let mut guest = Guest::new(code);
        guest.x[1] = crate::rt::mem::scratch(0);
        let exit = once(&mut guest, 0, 0);
        check_eq!((exit, guest.ec(), guest.esr & 0xffff), (Exit::Sync, EC_HVC, 0), "{name} clear");
        if name == "TSC" {
            check_eq!(guest.x[0], 0x1_0001, "PSCI_VERSION");
        }
    }
    // The other registers that trap: CNTHCTL, MDCR, CPTR.
    for (name, code, ec) in [
        ("CNTHCTL", physical_timer(), SYSREG),
        ("CNTHCTL", physical_counter(), SYSREG),
        ("MDCR", mdscr(), SYSREG),
        ("CPTR", fp(), 7),
        ("TDE", brk(), 0x3c),
    ] {
        let mut guest = Guest::new(code);
        let (exit, open) = at_el2(|| {
            let vhe = el2::vhe();
            let (cnthctl, mdcr, cptr) = (mrs!("cnthctl_el2"), mrs!("mdcr_el2"), mrs!("cptr_el2"));
            msr!("cnthctl_el2", if vhe { cnthctl & !0xc00 } else { cnthctl & !3 });
            msr!("mdcr_el2", 1 << 9 | 1 << 8);
            msr!("cptr_el2", if vhe { cptr & !(3 << 20) } else { cptr | 1 << 10 });
            let exit = with_guest(&guest_el1(), 0, 0, || el2::enter(&mut guest));
            msr!("cptr_el2", cptr);
            msr!("mdcr_el2", mdcr);
            msr!("cnthctl_el2", cnthctl);
            let mut open = Guest::new(code);
            with_guest(&guest_el1(), 0, 0, || el2::enter(&mut open));
            (exit, open)
        });
        check_eq!((exit, guest.ec()), (Exit::Sync, ec), "{name} at {code:#x}");
        let want = if name == "TDE" { super::slot(4) } else { 0 };
        check_eq!((open.ec(), open.esr & 0xffff), (EC_HVC, want), "{name} open");
    }
    Ok(())
}

/// Whatever is in the registers of EL2 that do not trap, the guest runs or does not, and EL2 goes on.
pub(super) fn garbage(_: &Machine) -> Outcome {
    need_el2!();
    macro_rules! with {
        ($value:expr, $f:expr, $($reg:literal),*) => {{
            let old = [$(mrs!($reg)),*];
            $(msr!($reg, $value);)*
            let result = $f;
            let mut i = 0;
            $(msr!($reg, old[i]); i += 1;)*
            let _ = i;
            result
        }};
    }
    for value in [0u64, !0, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa] {
        let mut guest = Guest::new(super::counting());
        let exit = at_el2(|| {
            with_guest(&guest_el1(), 0, 0, || {
                with!(
                    value,
                    el2::enter(&mut guest),
                    "vpidr_el2",
                    "vmpidr_el2",
                    "S3_4_C1_C2_2",
                    "S3_4_C1_C1_4",
                    "S3_4_C1_C1_5",
                    "S3_4_C1_C1_6",
                    "S3_4_C3_C1_4",
                    "S3_4_C3_C1_5",
                    "hstr_el2",
                    "S3_4_C2_C2_0",
                    "S3_4_C12_C11_0",
                    "S3_4_C12_C11_7",
                    "S3_4_C12_C12_0",
                    "S3_4_C12_C12_1",
                    "S3_4_C12_C8_0",
                    "S3_4_C12_C9_0",
                    "S3_4_C5_C2_3"
                )
            })
        });
        check_eq!((exit, guest.ec(), guest.x[0]), (Exit::Sync, EC_HVC, 1), "with {value:#x}");
    }
    Ok(())
}
