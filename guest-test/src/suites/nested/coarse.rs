//! All other traps, control by control and access by access.

use super::access::{Access, guest_at, is_nobodys};
use super::{EC_HVC, guest_el1, need_el2};
use crate::harness::{Outcome, check, check_eq};
use crate::rt::el2::{self, Exit, Guest, at_el2, with_guest};
use crate::rt::machine::Machine;
use crate::rt::sysreg;

/// Rows `control,bit,value,R or W,name,op0,op1,CRn,CRm,op2`: what a bit with this value traps.
const TRAPS: &str = include_str!("../../../../crates/nested/tests/coarse.csv");
const EC_SYSREG: u64 = 0x18;
/// HCR_EL2.IMO, which makes the GIC's interface the hypervisor's.
const IMO: u64 = 1 << 4;

struct Row {
    control: &'static str,
    bit: u32,
    value: bool,
    name: &'static str,
    access: Access,
}

fn rows() -> impl Iterator<Item = Row> {
    TRAPS.lines().filter_map(|line| {
        let mut fields = line.split(',');
        let control = fields.next()?;
        let bit = fields.next()?.parse().ok()?;
        let value = fields.next()? == "1";
        let read = fields.next()? == "R";
        let name = fields.next()?;
        Some(Row { control, bit, value, name, access: Access::parse(read, fields)? })
    })
}

/// Runs the guest; if `row` says so, with its bit.
fn under(row: Option<&Row>, code: u64) -> (Exit, Guest) {
    let mut guest = guest_at(code);
    let (control, mask, value) = row.map_or(("", 0, false), |row| (row.control, 1u64 << row.bit, row.value));
    let put = |old: u64, mask: u64| if value { old | mask } else { old & !mask };
    let (mut set, mut clear) = (0, 0);
    if control == "HCR" {
        if value { set = mask } else { clear = mask }
    } else if control == "ICH_HCR" {
        set = IMO;
    }
    let exit = at_el2(|| {
        let (mdcr, cnthctl, ich) = (mrs!("mdcr_el2"), mrs!("cnthctl_el2"), mrs!("S3_4_C12_C11_0"));
        let cptr = mrs!("cptr_el2");
        if control == "MDCR" {
            msr!("mdcr_el2", put(mdcr, mask));
        } else if control == "CPTR" {
            msr!("cptr_el2", put(cptr, mask));
        } else if control == "CNTHCTL" {
            // With VHE the two oldest bits are elsewhere.
            let moved = if el2::vhe() && mask < 4 { mask << 10 } else { mask };
            msr!("cnthctl_el2", put(cnthctl, moved));
        } else if control == "ICH_HCR" {
            msr!("S3_4_C12_C11_0", put(ich, mask));
        }
        let exit = with_guest(&guest_el1(), set, clear, || el2::enter(&mut guest));
        msr!("mdcr_el2", mdcr);
        msr!("cptr_el2", cptr);
        msr!("cnthctl_el2", cnthctl);
        msr!("S3_4_C12_C11_0", ich);
        exit
    });
    (exit, guest)
}

/// Whether a row is about a feature that the CPU has.
fn is_offered(row: &Row) -> bool {
    let (evt, ecv, fgt) = (
        sysreg::field(mrs!("id_aa64mmfr2_el1"), 56),
        sysreg::field(mrs!("id_aa64mmfr0_el1"), 60),
        sysreg::field(mrs!("id_aa64mmfr0_el1"), 56),
    );
    match (row.control, row.bit) {
        ("HCR", 49 | 50 | 52) => evt >= 1,
        ("HCR", 54 | 55) => evt >= 2,
        ("MDCR", 27) => fgt >= 1,
        ("CNTHCTL", 13 | 14) => ecv >= 1,
        _ => true,
    }
}

/// Each bit takes each access that it is about to EL2, with the right syndrome; without it none comes.
pub(super) fn coarse_traps(_: &Machine) -> Outcome {
    need_el2!();
    let (mut trapped, mut undefined) = (0, 0);
    for row in rows().filter(is_offered) {
        let Row { control, bit, name, access, .. } = row;
        let other = Access { read: true, ..access };
        let readable = access.encoding[0] != 1 && rows().any(|row| row.access == other);
        // A read that traps as well is not what the row is about.
        let (code, at) = access.assemble(readable && control != "MDCR" && control != "CNTHCTL" && bit != 20);
        let (exit, open) = under(None, code);
        check_eq!((exit, open.ec()), (Exit::Sync, EC_HVC), "{name} without {control} bit {bit}: exit, EC");
        let (exit, guest) = under(Some(&row), code);
        // HCR_EL2.TIDCP traps whatever an implementation does not have.
        if is_nobodys(&access, &open) && bit != 20 {
            check_eq!(
                (exit, guest.ec()),
                (Exit::Sync, EC_HVC),
                "{name}, undefined, with {control} bit {bit}"
            );
            undefined += 1;
            continue;
        }
        check_eq!((exit, guest.ec()), (Exit::Sync, EC_SYSREG), "{name} with {control} bit {bit}: exit, EC");
        // What is written may have been read before, and that may trap.
        check!(guest.pc == at || guest.pc == code, "{name}: ELR_EL2 {:#x}, code {code:#x}", guest.pc);
        let iss = if guest.pc == at { access.iss() } else { other.iss() };
        check_eq!(guest.esr & 0x1ff_ffff, iss, "{name}: ISS");
        trapped += 1;
    }
    println!("# {trapped} accesses trapped, {undefined} are undefined");
    check!(trapped > 250, "only {trapped} accesses exist");
    Ok(())
}
