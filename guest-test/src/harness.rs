//! Runs tests and reports them: KTAP on the UART, then power off.

use crate::rt::machine::Machine;
use crate::rt::{cpu, gic, irq, mte, smccc, timer};
use crate::{modes, suites};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Why a test did not pass.
pub(crate) enum Stop {
    /// It makes no sense here.
    Skip(Message),
    /// Something is wrong.
    Fail(Message),
}

/// What a test returns.
pub(crate) type Outcome = Result<(), Stop>;
/// A test.
pub(crate) type Test = (&'static str, fn(&Machine) -> Outcome);

/// The tests of one file.
pub(crate) struct Suite {
    /// Its name on the command line and in the report.
    pub(crate) name: &'static str,
    /// Its tests, in their order.
    pub(crate) tests: &'static [Test],
    /// Whether `suite=all` includes it.
    pub(crate) ordinary: bool,
}

/// A formatted message, cut at its capacity.
pub(crate) struct Message {
    text: [u8; 112],
    len: u8,
}

impl Message {
    /// Formats.
    pub(crate) fn new(args: fmt::Arguments<'_>) -> Self {
        let mut message = Self { text: [0; 112], len: 0 };
        // A message that is too long is cut: that is all that can fail.
        let _ = message.write_fmt(args);
        message
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.text[..usize::from(self.len)]).unwrap_or("?")
    }
}

impl Write for Message {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes().map(|b| if b.is_ascii() { b } else { b'?' }) {
            let Some(slot) = self.text.get_mut(usize::from(self.len)) else { return Err(fmt::Error) };
            *slot = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Ends the test as skipped.
macro_rules! skip {
    ($($arg:tt)*) => {
        return Err($crate::harness::Stop::Skip($crate::harness::Message::new(format_args!($($arg)*))))
    };
}

/// Ends the test as failed unless the condition holds.
macro_rules! check {
    ($condition:expr, $($arg:tt)*) => {
        if !$condition {
            return Err($crate::harness::Stop::Fail($crate::harness::Message::new(format_args!($($arg)*))));
        }
    };
}

/// Ends the test as failed unless both are equal.
macro_rules! check_eq {
    ($got:expr, $want:expr, $($arg:tt)*) => {{
        let (got, want) = ($got, $want);
        check!(got == want, "{}: got {:x?}, want {:x?}", format_args!($($arg)*), got, want);
    }};
}

/// A suite out of functions of the same file: `suite!("name", ordinary, [first, second])`.
macro_rules! suite {
    ($name:literal, $ordinary:literal, [$($test:ident),* $(,)?]) => {
        /// This file's tests.
        pub(crate) static SUITE: $crate::harness::Suite = $crate::harness::Suite {
            name: $name,
            tests: &[$((stringify!($test), $test)),*],
            ordinary: $ordinary,
        };
    };
}
pub(crate) use {check, check_eq, skip, suite};

static CURRENT: AtomicU32 = AtomicU32::new(0);

/// Rust's first function on the boot CPU.
pub(crate) fn main(tree: u64) -> ! {
    let machine = Machine::new(tree);
    gic::init();
    println!(
        "# guest-test: {} CPUs, MIDR {:#x}, bootargs \"{}\"",
        machine.cpu_count,
        mrs!("midr_el1"),
        machine.bootargs
    );
    match machine.option("mode") {
        None => {
            let passed = run_suites(&machine);
            live_again(&machine, passed);
        }
        Some(mode) => modes::run(mode, &machine),
    }
    smccc::system_off()
}

/// Reports one test of a plan.
pub(crate) fn report(number: u32, suite: &str, name: &str, outcome: &Outcome) {
    match outcome {
        Ok(()) => println!("ok {number} {suite}.{name}"),
        Err(Stop::Skip(reason)) => println!("ok {number} {suite}.{name} # SKIP {}", reason.as_str()),
        Err(Stop::Fail(message)) => println!("not ok {number} {suite}.{name} # {}", message.as_str()),
    }
}

/// Resets the machine if all is well and it is to have more lives: `lives=` in all.
fn live_again(machine: &Machine, passed: bool) {
    let Some(lives) = machine.number("lives") else { return };
    let starts = smccc::call(abi::hypercall::VM_INFO, abi::hypercall::SELF, 0, 0)[5];
    if passed && starts < lives {
        smccc::call(abi::psci::SYSTEM_RESET, 0, 0, 0);
    }
    println!("# {starts} lives");
}

/// Runs what the command line asks for; whether all of it passed.
fn run_suites(machine: &Machine) -> bool {
    let wanted = machine.option("suite").unwrap_or("all");
    let only = machine.option("test");
    let selected =
        |suite: &Suite| wanted.split(',').any(|w| w == suite.name || (w == "all" && suite.ordinary));
    let tests = || {
        suites::ALL
            .iter()
            .filter(|s| selected(s))
            .flat_map(|s| s.tests.iter().map(move |t| (s.name, t)))
            .filter(|(_, t)| only.is_none_or(|names| names.split(',').any(|name| name == t.0)))
    };
    println!("KTAP version 1");
    println!("1..{}", tests().count());
    let mut passed = true;
    for (number, (suite, &(name, test))) in (1..).zip(tests()) {
        CURRENT.store(number, Relaxed);
        let omitted = machine.lists("omit", name);
        let outcome = if omitted { leave_out() } else { test(machine) };
        clean_up(machine);
        report(number, suite, name, &outcome);
        passed &= !matches!(outcome, Err(Stop::Fail(_)));
    }
    passed
}

/// The outcome of a test that the command line names by `omit`.
fn leave_out() -> Outcome {
    skip!("omitted")
}

/// Brings the machine back to where a test may start.
fn clean_up(machine: &Machine) {
    irq::reset();
    timer::off();
    gic::reset_interface();
    gic::init();
    if mte::level() >= 2 {
        mte::set_checks(0, 0);
        mte::set_tco(false);
    }
    for (index, mpidr) in machine.secondaries() {
        if cpu::get(index).online.load(Relaxed) && !cpu::stop(index, mpidr) {
            println!("# CPU {index} does not stop");
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("# CPU {}: {info}", cpu::index());
    println!("not ok {} panic", CURRENT.load(Relaxed));
    smccc::system_off()
}
