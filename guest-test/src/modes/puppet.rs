//! A VM that does what another one tells it through shared memory, the region called `mail`: for tests of
//! calls on VMs that run. [`Puppet`] is the other end.

use crate::harness::{Message, Outcome, Stop, check};
use crate::rt::machine::Machine;
use crate::rt::mem::{self, read64, write64};
use crate::rt::timer::{self, PATIENCE};
use crate::rt::{cpu, exception, mmu, mte};
use crate::suites::control::find;

/// Offsets in the mail: what is asked, and what is answered.
const ASKED: u64 = 0;
const WORDS: u64 = 8;
const DONE: u64 = 64;
const RESULT: u64 = 72;
/// Between the mails of puppets with different `box=`.
const BOX: u64 = 256;

/// What a puppet can do to `from..to`, and what it answers.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Act {
    /// Ends its VM.
    Leave,
    /// STG with this tag on each granule.
    Tag,
    /// Granules whose tag is not this one.
    CountOtherTags,
    /// Fills with words of this pattern and their address.
    Fill,
    /// Words that are not so.
    CountOtherWords,
    /// Words that are not this one.
    CountNot,
    /// Reads and writes each granule by an address with this tag, checked; how many accesses fault.
    Checked,
    /// Every instruction that stores a tag, on each granule, with this tag.
    StoreEveryWay,
    /// Its ID_AA64PFR1_EL1.MTE.
    Level,
    /// DC IVAC on each line; how many fault.
    Invalidate,
    /// Makes the first two pages tables of the upper half, which map a gigabyte by one block without access
    /// flag.
    Tables,
    /// By these tables, hardware setting the flag: DC IVAC (0) or a load (1) in the same page; the flag,
    /// plus 2 if there is a fault.
    ByTables,
}

const ACTS: [Act; 12] = [
    Act::Leave,
    Act::Tag,
    Act::CountOtherTags,
    Act::Fill,
    Act::CountOtherWords,
    Act::CountNot,
    Act::Checked,
    Act::StoreEveryWay,
    Act::Level,
    Act::Invalidate,
    Act::Tables,
    Act::ByTables,
];

/// Does what it is told until it is told to leave.
pub(crate) fn run(machine: &Machine) -> Outcome {
    let Some(mail) = machine.region_called("mail") else {
        check!(false, "no region is called mail");
        return Ok(());
    };
    let mail = mail.start + BOX * machine.number("box").unwrap_or(0);
    if mte::level() >= 2 {
        mte::set_checks(1, 1);
    }
    write64(mail + RESULT, 0);
    mem::barrier();
    // Whatever an earlier life left is not for this one.
    let mut seen = read64(mail + ASKED);
    write64(mail + DONE, seen);
    loop {
        let asked = read64(mail + ASKED);
        if asked == seen {
            cpu::relax();
            continue;
        }
        mem::barrier();
        seen = asked;
        let word = |n: u64| read64(mail + WORDS + 8 * n);
        let Some(act) = ACTS.get(word(0) as usize) else { continue };
        let result = perform(*act, word(1), word(2), word(3));
        write64(mail + RESULT, result);
        mem::barrier();
        write64(mail + DONE, seen);
        if matches!(act, Act::Leave) {
            return Ok(());
        }
    }
}

fn perform(act: Act, from: u64, to: u64, value: u64) -> u64 {
    let granules = || (from..to).step_by(16);
    let words = || (from..to).step_by(8);
    let tagged = |pa| mte::with_tag(mmu::tagged(pa), value);
    let count = |bad: usize| bad as u64;
    match act {
        Act::Leave => 0,
        Act::Tag => {
            granules().for_each(|pa| mte::stg(tagged(pa)));
            0
        }
        Act::CountOtherTags => count(granules().filter(|&pa| mte::ldg(mmu::tagged(pa)) != value).count()),
        Act::Fill => {
            words().for_each(|pa| write64(pa, pa ^ value));
            0
        }
        Act::CountOtherWords => count(words().filter(|&pa| read64(pa) != pa ^ value).count()),
        Act::CountNot => count(words().filter(|&pa| read64(pa) != value).count()),
        Act::Checked => {
            let faults =
                |pa: u64| exception::expect_fault(|| write64(tagged(pa), read64(tagged(pa)))).is_some();
            count(granules().filter(|&pa| faults(pa)).count())
        }
        Act::StoreEveryWay => {
            let ways: [fn(u64); 7] =
                [mte::stg, mte::st2g, mte::stzg, mte::stz2g, mte::stgp, mte::dc_gva, mte::dc_gzva];
            for (pa, way) in granules().zip(ways.iter().cycle()) {
                // Where they do not exist, they are undefined or do nothing.
                let _ = exception::expect_fault(|| way(tagged(pa)));
            }
            let _ = exception::expect_fault(|| mte::stgm(mmu::tagged(from), 0x1111_1111_1111_1111 * value));
            let _ = exception::expect_fault(|| mte::stzgm(mmu::tagged(from) + 256, value));
            0
        }
        Act::Level => mte::level(),
        Act::Invalidate => {
            let faults = |&va: &u64| exception::expect_fault(|| dc_ivac(va)).is_some();
            count((from..to).step_by(64).filter(faults).count())
        }
        Act::Tables => {
            (from..from + 0x2000).step_by(8).for_each(|entry| write64(entry, 0));
            write64(from, (from + 0x1000) | 0b11);
            write64(from + 0x1000, mmu::TABLE.0[(from >> 30) as usize] & !ACCESS_FLAG);
            0
        }
        Act::ByTables => {
            const UPPER: u64 = 0xffff << 48;
            let va = UPPER + from % (1 << 30);
            mmu::set_upper(Some(from));
            let fault = exception::expect_fault(|| match value {
                0 => dc_ivac(va),
                _ => drop(read64(va)),
            });
            mmu::set_upper(None);
            read64(from + 0x1000) / ACCESS_FLAG % 2 + 2 * u64::from(fault.is_some())
        }
    }
}

/// Of a leaf.
const ACCESS_FLAG: u64 = 1 << 10;

fn dc_ivac(va: u64) {
    // SAFETY: maintenance; a fault is expected where it is called.
    unsafe { core::arch::asm!("dc ivac, {a}", a = in(reg) va, options(nostack)) };
}

/// The end that tells.
#[derive(Clone, Copy)]
pub(crate) struct Puppet {
    /// The VM.
    pub(crate) vm: u64,
    mail: u64,
}

impl Puppet {
    /// The VM of this name with the mail `number`. `None` without it.
    pub(crate) fn find(machine: &Machine, name: &str, number: u64) -> Option<Self> {
        let mail = machine.region_called("mail")?;
        Some(Self { vm: find(name)?, mail: mail.start + BOX * number })
    }

    /// Tells it and waits for the answer.
    pub(crate) fn tell(&self, act: Act, from: u64, to: u64, value: u64) -> Result<u64, Stop> {
        self.begin(act, from, to, value);
        self.answer()
    }

    /// Tells it.
    pub(crate) fn begin(&self, act: Act, from: u64, to: u64, value: u64) {
        for (n, word) in (0..).zip([act as u64, from, to, value]) {
            write64(self.mail + WORDS + 8 * n, word);
        }
        mem::barrier();
        write64(self.mail + ASKED, read64(self.mail + ASKED) + 1);
    }

    /// Whether it is done with what it was told last.
    pub(crate) fn is_done(&self) -> bool {
        read64(self.mail + DONE) == read64(self.mail + ASKED)
    }

    /// Its answer.
    pub(crate) fn answer(&self) -> Result<u64, Stop> {
        if !timer::wait(PATIENCE, || self.is_done()) {
            return Err(Stop::Fail(Message::new(format_args!("VM {} does not answer", self.vm))));
        }
        mem::barrier();
        Ok(read64(self.mail + RESULT))
    }

    /// Tells it and fails unless the answer is 0.
    pub(crate) fn must(&self, act: Act, from: u64, to: u64, value: u64) -> Outcome {
        let bad = self.tell(act, from, to, value)?;
        check!(bad == 0, "act {} of VM {} on {from:#x}..{to:#x}: {bad}", act as u64, self.vm);
        Ok(())
    }
}
