//! Code for a guest that is one access to a system register or one system instruction, by its encoding.

use crate::rt::el2::Guest;
use crate::rt::mem::{scratch, write64};
use crate::rt::mte;
use core::arch::asm;

/// An access of a guest's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    /// MRS.
    pub(super) read: bool,
    /// op0, op1, CRn, CRm, op2.
    pub(super) encoding: [u32; 5],
}

impl Access {
    /// From the columns of a table.
    pub(super) fn parse<'a>(read: bool, mut fields: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut encoding = [0; 5];
        for field in &mut encoding {
            *field = fields.next()?.parse().ok()?;
        }
        Some(Self { read, encoding })
    }

    /// The register that it names: x1 has an address for instructions, x2 is for values.
    const fn rt(&self) -> u32 {
        if self.encoding[0] == 1 { 1 } else { 2 }
    }

    const fn instruction(&self) -> u32 {
        let [op0, op1, crn, crm, op2] = self.encoding;
        let direction = (self.read as u32) << 21;
        0xd500_0000 | direction | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | self.rt()
    }

    /// The syndrome of its trap.
    pub(super) const fn iss(&self) -> u64 {
        let [op0, op1, crn, crm, op2] = self.encoding;
        (op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | self.rt() << 5 | crm << 1 | self.read as u32) as u64
    }

    /// Puts it onto a page as code. What is written to a register that is `readable` is what was read.
    /// Returns where the code begins, and the address of the access.
    pub(super) fn assemble(&self, readable: bool) -> (u64, u64) {
        const HVC: u64 = 0xd400_0002;
        const NOP: u64 = 0xd503_201f;
        let reading = Self { read: true, ..*self };
        let first = if !self.read && readable { reading.instruction().into() } else { NOP };
        let page = scratch(20);
        write64(page, first | u64::from(self.instruction()) << 32);
        write64(page + 8, HVC | HVC << 32);
        // SAFETY: maintenance of what was written as code.
        unsafe {
            asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) page, options(nostack))
        };
        (page, page + 4)
    }
}

/// Whether this is undefined for the guest, which `open` executed without traps: it is nobody's to trap then. Maintenance of tags is undefined without FEAT_MTE, but may be carried out.
pub(super) fn is_nobodys(access: &Access, open: &Guest) -> bool {
    let [op0, _, crn, crm, op2] = access.encoding;
    let of_tags = op0 == 1 && crn == 7 && matches!(crm, 4 | 6 | 10 | 12..=14) && op2 >= 3;
    is_undefined(open) || of_tags && mte::level() < 2
}

/// A guest that executes code of [`Access::assemble`].
pub(super) fn guest_at(code: u64) -> Guest {
    let mut guest = Guest::new(code);
    guest.x[1] = scratch(21);
    guest
}

/// Whether what it executed was undefined for the guest: unknown reason, or FEAT_IDST.
fn is_undefined(guest: &Guest) -> bool {
    guest.esr & 0xffff == super::slot(4) && matches!(guest.x[11] >> 26, 0 | 0x18)
}
