//! Every form of DC and IC, and a way to execute it that sees all it may change.

use crate::harness::{Message, Stop};
use crate::rt::exception::{EC_SVC, Fault, expect_fault};
use crate::rt::sysreg::field;
use crate::rt::{el0, mem, mte};
use core::arch::{asm, global_asm};

/// A maintenance instruction by address.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) name: &'static str,
    /// The instruction with x0.
    pub(super) word: u32,
    /// It needs write permission, and is UNDEFINED at EL0.
    pub(super) writes: bool,
    /// It names allocation tags.
    pub(super) tags: bool,
    /// What ID_AA64ISAR1_EL1.DPB it needs.
    pub(super) persistence: u64,
}

const fn sys(op1: u32, crm: u32, op2: u32) -> u32 {
    0xd508_0000 | op1 << 16 | 7 << 12 | crm << 8 | op2 << 5
}

macro_rules! forms {
    ($($name:literal $op1:literal $crm:literal $op2:literal;)*) => {
        &[$(Form {
            name: $name,
            word: sys($op1, $crm, $op2),
            writes: $op1 == 0,
            tags: $op2 != 1,
            persistence: if $crm == 12 { 1 } else if $crm == 13 { 2 } else { 0 },
        }),*]
    };
}

/// op1, CRm, op2; CRn is 7.
pub(super) static BY_ADDRESS: &[Form] = forms! {
    "DC IVAC" 0 6 1;
    "DC IGVAC" 0 6 3;
    "DC IGDVAC" 0 6 5;
    "DC CVAC" 3 10 1;
    "DC CGVAC" 3 10 3;
    "DC CGDVAC" 3 10 5;
    "DC CVAU" 3 11 1;
    "DC CVAP" 3 12 1;
    "DC CGVAP" 3 12 3;
    "DC CGDVAP" 3 12 5;
    "DC CVADP" 3 13 1;
    "DC CGVADP" 3 13 3;
    "DC CGDVADP" 3 13 5;
    "DC CIVAC" 3 14 1;
    "DC CIGVAC" 3 14 3;
    "DC CIGDVAC" 3 14 5;
    "IC IVAU" 3 5 1;
};

/// DC ISW, CSW and CISW with their tag forms; the register names a set and a way.
pub(super) static SET_WAY: [(&str, u32); 9] = [
    ("DC ISW", sys(0, 6, 2)),
    ("DC IGSW", sys(0, 6, 4)),
    ("DC IGDSW", sys(0, 6, 6)),
    ("DC CSW", sys(0, 10, 2)),
    ("DC CGSW", sys(0, 10, 4)),
    ("DC CGDSW", sys(0, 10, 6)),
    ("DC CISW", sys(0, 14, 2)),
    ("DC CIGSW", sys(0, 14, 4)),
    ("DC CIGDSW", sys(0, 14, 6)),
];

/// DC ZVA and its tag forms, which store; whether it names tags.
pub(super) static ZEROING: [(&str, u32, bool); 3] =
    [("DC ZVA", sys(3, 4, 1), false), ("DC GVA", sys(3, 4, 3), true), ("DC GZVA", sys(3, 4, 4), true)];

/// IC IALLU and IC IALLUIS, whose register is ignored.
pub(super) static ALL_FETCHES: [(&str, u32); 2] = [("IC IALLU", sys(0, 5, 0)), ("IC IALLUIS", sys(0, 1, 0))];

/// The forms by address that this VM has, and those with tags that it may have: without MTE they are
/// undefined or do nothing, as the CPU likes.
pub(super) fn present() -> impl Iterator<Item = &'static Form> {
    let dpb = field(mrs!("id_aa64isar1_el1"), 0);
    BY_ADDRESS.iter().filter(move |form| form.persistence <= dpb)
}

impl Form {
    /// Whether `fault` is what a VM without MTE may get of a tag form.
    pub(super) fn may_be_undefined(&self, fault: Option<Fault>) -> bool {
        self.tags && mte::level() < 2 && fault.is_some_and(|f| f.undefined())
    }
}

/// How an instruction is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    El1,
    /// With SCTLR_EL1.M and C off around it.
    El1MmuOff,
    El0,
}

/// The page that code is written to.
const CODE: usize = 20;
const AT_EL1: u64 = 0;
const AT_EL0: u64 = 64;
const MMU_OFF: u64 = 128;
const RET: u32 = 0xd65f_03c0;
const SVC: u32 = 0xd400_0661;
/// NZCV in the instruction's surroundings.
const FLAGS: u64 = 0b1010 << 28;

unsafe extern "C" {
    fn cmo_call(registers: *mut u64, code: u64) -> u64;
    static cmo_mmu_off: u32;
    static cmo_mmu_off_hole: u32;
    static cmo_mmu_off_end: u32;
}

/// Lets instructions be fetched that were just written to `va`.
fn publish(va: u64) {
    // SAFETY: maintenance of a scratch page.
    unsafe {
        asm!("dc cvac, {a}", "dsb ish", "ic ivau, {a}", "dsb ish", "isb", a = in(reg) va, options(nostack))
    };
}

/// Writes the code around `word`; returns where it starts and where the instruction is.
pub(super) fn assemble(way: Way, word: u32) -> (u64, u64) {
    let page = mem::scratch(CODE);
    match way {
        Way::El1 | Way::El0 => {
            let (at, end) = if way == Way::El1 { (page + AT_EL1, RET) } else { (page + AT_EL0, SVC) };
            mem::write32(at, word);
            mem::write32(at + 4, end);
            publish(at);
            (at, at)
        }
        Way::El1MmuOff => {
            let at = page + MMU_OFF;
            let template = &raw const cmo_mmu_off as u64;
            let hole = &raw const cmo_mmu_off_hole as u64 - template;
            let size = &raw const cmo_mmu_off_end as u64 - template;
            for offset in (0..size).step_by(4) {
                let there = if offset == hole { word } else { mem::read32(template + offset) };
                mem::write32(at + offset, there);
                publish(at + offset);
            }
            (at, at + hole)
        }
    }
}

/// Executes `word` with `va` in a register of its own choice; no other register, no flag, and not
/// PAR_EL1 may change. Returns the fault, if there is one.
pub(super) fn execute(way: Way, word: u32, va: u64) -> Result<Option<Fault>, Stop> {
    // Each instruction with another register; x16 and x17 serve the code that turns the MMU off.
    let rt = (word >> 5 & 0xff) as usize % 15;
    let (code, at) = assemble(way, word | rt as u32);
    let mut x = [0; 31];
    for (n, value) in x.iter_mut().enumerate() {
        *value = 0x5a00_0000_0000_0000 | (n as u64) << 8 | 0x33;
    }
    x[rt] = va;
    let before = x;
    msr!("par_el1", 0x0000_0000_4567_8000);
    let par = mrs!("par_el1");
    let fault = if way == Way::El0 {
        let left = el0::run_at(code, &x);
        x = left.x;
        (left.ec() != EC_SVC).then_some(Fault { esr: left.esr, far: left.far, elr: at, spsr: left.spsr })
    } else {
        let mut flags = FLAGS;
        // SAFETY: the code there is the instruction and a return; a fault skips the instruction.
        let fault = expect_fault(|| flags = unsafe { cmo_call(x.as_mut_ptr(), code) });
        fail_unless(flags == FLAGS, format_args!("NZCV is {flags:#x} after {word:#x}"))?;
        fault
    };
    fail_unless(mrs!("par_el1") == par, format_args!("PAR_EL1 changes by {word:#x}"))?;
    for n in 0..31 {
        let scratch = way == Way::El1MmuOff && matches!(n, 16 | 17) || way != Way::El0 && n == 30;
        let same = scratch || x[n] == before[n];
        fail_unless(same, format_args!("x{n} becomes {:#x} by {word:#x}", x[n]))?;
    }
    if let Some(fault) = fault {
        fail_unless(fault.elr == at, format_args!("a fault at {:#x}, not at {word:#x}", fault.elr))?;
    }
    Ok(fault)
}

fn fail_unless(condition: bool, what: core::fmt::Arguments<'_>) -> Result<(), Stop> {
    if condition { Ok(()) } else { Err(Stop::Fail(Message::new(what))) }
}

global_asm!(
    r#"
    .text
    // x0 = x0 to x29, x1 = code: calls it with these, and stores what they are then. Returns NZCV.
    .globl  cmo_call
cmo_call:
"#,
    push_callee_saved!("112"),
    r#"
    str     x0, [sp, #96]
    mov     x29, x0
    mov     x30, x1
    mov     x2, #0xa0000000
    msr     nzcv, x2
"#,
    load_x0_to_x29!("x29"),
    r#"
    blr     x30
    ldr     x30, [sp, #96]
"#,
    store_x0_to_x29!("x30"),
    r#"
    mrs     x0, nzcv
"#,
    pop_callee_saved!("112"),
    r#"
    ret

    // Copied to a scratch page, where the hole becomes the instruction. SCTLR_EL1.M and C are bits 0 and 2.
    .globl  cmo_mmu_off, cmo_mmu_off_hole, cmo_mmu_off_end
cmo_mmu_off:
    mrs     x16, SCTLR_EL1
    and     x17, x16, #~1
    and     x17, x17, #~4
    dsb     sy
    msr     SCTLR_EL1, x17
    isb
cmo_mmu_off_hole:
    nop
    msr     SCTLR_EL1, x16
    isb
    ret
cmo_mmu_off_end:
"#
);
