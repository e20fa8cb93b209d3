//! The tests: what Linux promises to a program that uses memory tagging
//! (Linux, Documentation/arch/arm64/memory-tagging-extension.rst).
//!
//! UNSAFETY: all memory is [`Memory`] that the test has mapped for itself.

use crate::linux::{self, Check, PROT_MTE, PROT_READ_WRITE};
use crate::signal::{self, Cause, Fault};
use crate::tag::{self, GRANULE, with_tag};

type Outcome = Result<(), &'static str>;

type Test = (&'static str, fn() -> Outcome);

/// All tests with their names.
pub(crate) const TESTS: [Test; 11] = [
    ("mte.fresh_tags_are_zero", fresh_tags_are_zero),
    ("mte.set_and_get", set_and_get),
    ("mte.matching_access", matching_access),
    ("mte.sync_store_fault", sync_store_fault),
    ("mte.sync_load_fault", sync_load_fault),
    ("mte.async_fault", async_fault),
    ("mte.random_tags", random_tags),
    ("mte.memory_without_tags", memory_without_tags),
    ("mte.kernel_checks_too", kernel_checks_too),
    ("mte.fork_copies_tags", fork_copies_tags),
    ("mte.every_cpu", every_cpu),
];

const PAGE: usize = 4096;
/// Enough to need many pages, and tables of more than one kind.
const LARGE: usize = 1024 * PAGE;

/// Memory of a test's own.
struct Memory {
    at: usize,
    size: usize,
}

impl Memory {
    fn new(size: usize, protection: usize) -> Result<Memory, &'static str> {
        let at = linux::map(size, protection).ok_or("mmap failed")?;
        Ok(Memory { at, size })
    }

    /// With tags and checks.
    fn tagged(size: usize) -> Result<Memory, &'static str> {
        ensure(linux::check_tags(Check::Sync), "prctl failed")?;
        Memory::new(size, PROT_READ_WRITE | PROT_MTE)
    }

    fn granules(&self) -> impl Iterator<Item = usize> + use<> {
        (self.at..self.at + self.size).step_by(GRANULE)
    }

    /// Gives its first granule a tag; returns the address with that tag and one with another.
    fn paint(&self, tag: u8) -> (usize, usize) {
        let right = with_tag(self.at, tag);
        // SAFETY: it is this memory's first granule.
        unsafe { tag::set(right) };
        (right, with_tag(self.at, tag ^ 1))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: no address of it is left.
        unsafe { linux::unmap(self.at, self.size) };
    }
}

fn ensure(holds: bool, why: &'static str) -> Outcome {
    if holds { Ok(()) } else { Err(why) }
}

fn store(address: usize, value: usize) {
    // SAFETY: all tests pass addresses of their own memory.
    unsafe { tag::store(address, value) };
}

fn load(address: usize) -> usize {
    // SAFETY: all tests pass addresses of their own memory.
    unsafe { tag::load(address, usize::MAX) }
}

/// Pages whose tags a control VM takes away under the process.
const TURNED_BACK: usize = 512 * PAGE;

/// For a machine whose control VM takes the tags of all memory away when it sees this process's, and lets
/// nobody have new ones: the next tag access is a SIGBUS, and the process lives on.
pub(crate) fn turned_back() -> Outcome {
    let memory = Memory::tagged(TURNED_BACK)?;
    for page in (memory.at..memory.at + memory.size).step_by(PAGE) {
        // SAFETY: it is a granule of this memory.
        unsafe { tag::set(with_tag(page, 5)) };
        store(with_tag(page, 5), page);
    }
    let last = with_tag(memory.at + memory.size - PAGE, 5);
    for _ in 0..100_000_000_u64 {
        let mut value = 0;
        if let Some(fault) = signal::catch(|| value = load(last))? {
            ensure(fault.cause == Cause::Bus, "a signal, but no SIGBUS")?;
            // Unchecked, the data is there; and later there are tags again.
            ensure(linux::check_tags(Check::Off), "prctl failed")?;
            ensure(load(last) == memory.at + memory.size - PAGE, "the data is gone")?;
            return ensure(linux::cpus() != 0, "the process is not as it was");
        }
    }
    Err("no SIGBUS came")
}

fn tag_at(address: usize) -> u8 {
    // SAFETY: all tests pass addresses of their own memory.
    unsafe { tag::get(address) }
}

fn fresh_tags_are_zero() -> Outcome {
    let memory = Memory::tagged(LARGE)?;
    ensure(memory.granules().all(|granule| tag_at(granule) == 0), "a fresh page has a tag")
}

fn set_and_get() -> Outcome {
    let memory = Memory::tagged(LARGE)?;
    let wanted = |granule: usize| ((granule / GRANULE) ^ (granule / PAGE)) as u8 & 15;
    for granule in memory.granules() {
        // SAFETY: it is a granule of this memory.
        unsafe { tag::set(with_tag(granule, wanted(granule))) };
    }
    ensure(memory.granules().all(|granule| tag_at(granule) == wanted(granule)), "a tag reads back wrong")
}

fn matching_access() -> Outcome {
    let memory = Memory::tagged(PAGE)?;
    let (right, _) = memory.paint(5);
    let fault = signal::catch(|| store(right, 42))?;
    ensure(fault.is_none() && load(right) == 42, "the access faulted")
}

fn sync_store_fault() -> Outcome {
    let memory = Memory::tagged(PAGE)?;
    let (right, wrong) = memory.paint(5);
    store(right, 1);
    let fault = signal::catch(|| store(wrong, 2))?;
    ensure(fault == Some(Fault { cause: Cause::Sync, address: wrong }), "no SEGV_MTESERR at the address")?;
    ensure(load(right) == 1, "the store was done")
}

fn sync_load_fault() -> Outcome {
    let memory = Memory::tagged(PAGE)?;
    let (_, wrong) = memory.paint(9);
    let mut value = 0;
    let fault = signal::catch(|| value = load(wrong))?;
    ensure(fault == Some(Fault { cause: Cause::Sync, address: wrong }), "no SEGV_MTESERR at the address")?;
    ensure(value == usize::MAX, "the load was done")
}

fn async_fault() -> Outcome {
    let memory = Memory::tagged(PAGE)?;
    let (right, wrong) = memory.paint(3);
    ensure(linux::check_tags(Check::Async), "prctl failed")?;
    let fault = signal::catch(|| {
        store(wrong, 7);
        linux::enter();
    })?;
    ensure(linux::check_tags(Check::Sync), "prctl failed")?;
    ensure(fault.is_some_and(|fault| fault.cause == Cause::Async), "no SEGV_MTEAERR")?;
    ensure(load(right) == 7, "the store was not done")
}

fn random_tags() -> Outcome {
    ensure(linux::check_tags(Check::Sync), "prctl failed")?;
    let seen = (0..256).fold(0_u16, |seen, _| seen | 1 << tag::of(tag::random(0)));
    ensure(seen & 1 == 0, "IRG made the excluded tag")?;
    ensure(seen.count_ones() > 4, "IRG is not random")
}

fn memory_without_tags() -> Outcome {
    let memory = Memory::new(PAGE, PROT_READ_WRITE)?;
    let fault = signal::catch(|| store(with_tag(memory.at, 6), 42))?;
    ensure(fault.is_none() && load(memory.at) == 42, "the access faulted")?;
    ensure(tag_at(memory.at) == 0, "it has a tag")
}

fn kernel_checks_too() -> Outcome {
    const EFAULT: isize = -14;
    let memory = Memory::tagged(PAGE)?;
    let (right, wrong) = memory.paint(12);
    let (reader, writer) = linux::pipe().ok_or("pipe failed")?;
    store(right, 99);
    ensure(linux::write(writer, wrong, 8) == EFAULT, "write from a wrong address")?;
    ensure(linux::write(writer, right, 8) == 8, "write from the right address")?;
    store(right, 0);
    // SAFETY: it is this memory.
    let wrong_read = unsafe { linux::read(reader, wrong, 8) };
    ensure(wrong_read == EFAULT, "read to a wrong address")?;
    // A read that failed may have used up what the pipe held.
    ensure(linux::write(writer, right, 8) == 8, "write from the right address")?;
    // SAFETY: it is this memory.
    let right_read = unsafe { linux::read(reader, right, 8) };
    ensure(right_read == 8, "read to the right address")
}

fn fork_copies_tags() -> Outcome {
    let memory = Memory::tagged(2 * PAGE)?;
    let (right, _) = memory.paint(11);
    let status = linux::in_child(|| {
        // The store makes the kernel copy the page, with its tags.
        store(right + 8, 1);
        u8::from(tag_at(right) != 11)
    });
    ensure(status == Some(0), "the child sees another tag")?;
    ensure(tag_at(right) == 11 && load(right + 8) == 0, "the parent's page changed")
}

fn every_cpu() -> Outcome {
    let all = linux::cpus();
    for cpu in (0..64).map(|bit| 1_u64 << bit).filter(|cpu| all & cpu != 0) {
        ensure(linux::run_on(cpu), "sched_setaffinity failed")?;
        set_and_get()?;
        sync_store_fault()?;
        async_fault()?;
    }
    ensure(linux::run_on(all), "sched_setaffinity failed")
}
