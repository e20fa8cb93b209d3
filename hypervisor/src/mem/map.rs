//! EL2's own map: memory at its physical address as far as EL2 needs it (image, device tree, heap,
//! bundle, device registers), stacks with guard pages, and the CPUs' windows. No guest memory stands
//! in it.

use crate::arch::entry::image;
use crate::arch::mmu::Regime;
use crate::arch::tlb;
use crate::mem::tables::OwnTables;
use addr::{BLOCK_2M, PAGE_SIZE, Pa, PaRange, Va};
use alloc::alloc::{Layout, alloc};
use spin::mutex::SpinMutex as Mutex;
use vmsa::descriptor::Level;
use vmsa::memory::TableMemory;
use vmsa::memory::Unused;
use vmsa::stage1::{self, Memory, Perm, Stage1, VaRange};

/// Most CPUs that there are stacks and windows for.
pub(crate) const MAX_CPUS: usize = 64;

/// Stacks: [`STACK_SPACE`] for each CPU, of which the upper part is mapped. Above all RAM that this
/// hypervisor accepts; physical memory that reaches up to here is refused.
pub(crate) const STACKS: u64 = 0xff00_0000_0000;
/// Distance of two CPUs' stacks.
const STACK_SPACE: u64 = 128 << 10;
/// Size of a stack.
const STACK: u64 = 32 << 10;
/// Size of the stack that exceptions of EL2 itself use.
const PANIC_STACK: u64 = 8 << 10;
/// Page windows: one page for each CPU, then a second one for each.
const PAGE_WINDOWS: u64 = 0xff40_0000_0000;
/// Block windows: 2 MiB for each CPU, in the gigabyte that the page windows begin.
const BLOCK_WINDOWS: u64 = PAGE_WINDOWS + BLOCK_2M;

/// EL2's tables: apart from [`STAGE1`], so that they are all zero and take no room in the image.
static TABLES: Mutex<OwnTables> = Mutex::new(OwnTables::new());

/// EL2's tables and where they start.
struct Map<'a> {
    tables: &'a mut OwnTables,
    stage1: &'a mut Option<Stage1>,
}

static STAGE1: Mutex<Option<Stage1>> = Mutex::new(None);

/// Runs `f` with the map locked.
fn with_map<R>(f: impl FnOnce(&mut Map<'_>) -> R) -> R {
    f(&mut Map { stage1: &mut STAGE1.lock(), tables: &mut TABLES.lock() })
}

/// Why a mapping failed, in words for a refusal.
type MapResult = Result<(), &'static str>;

fn identity(range: PaRange) -> Option<VaRange> {
    let start = range.start().get() & !(PAGE_SIZE - 1);
    let end = range.end().get().checked_next_multiple_of(PAGE_SIZE)?;
    VaRange::new(Va::new(start), end - start)
}

impl Map<'_> {
    fn add(&mut self, va: VaRange, pa: Pa, perm: Perm, memory: Memory) -> MapResult {
        let Some(stage1) = self.stage1 else { return Err("EL2 has no tables yet") };
        stage1.map(self.tables, &mut Unused, va, pa, perm, memory).map_err(|e| match e {
            vmsa::tree::MapError::OutOfTables => "EL2's own tables are exhausted",
            vmsa::tree::MapError::Mapped(_) => "two parts of EL2's map overlap",
            vmsa::tree::MapError::Misaligned
            | vmsa::tree::MapError::InputTooHigh
            | vmsa::tree::MapError::OutputTooHigh
            | vmsa::tree::MapError::Unmapped(_)
            | vmsa::tree::MapError::Attr(_) => "an address is beyond what the machine can map",
        })
    }

    fn add_identity(&mut self, range: PaRange, perm: Perm, memory: Memory) -> MapResult {
        let va = identity(range).ok_or("an address range wraps")?;
        self.add(va, Pa::new(va.start().get()), perm, memory)
    }

    /// Address of the descriptor that maps `va` at level 2 or 3, walking down from the root.
    fn entry(&self, va: u64, level: Level) -> Option<Pa> {
        let mut table = self.stage1.as_ref()?.ttbr() & 0xffff_ffff_f000;
        for at in [Level::Zero, Level::One, Level::Two, Level::Three] {
            let entry = Pa::new(table + (va >> at.shift() & 0x1ff) * 8);
            if at == level {
                return Some(entry);
            }
            let descriptor = self.tables.read(entry);
            if descriptor & 3 != 3 {
                return None;
            }
            table = descriptor & 0xffff_ffff_f000;
        }
        None
    }
}

/// Builds the first map: the image with W^X, the device tree, the UART. Runs with the MMU off, on one
/// CPU.
///
/// The lock is taken although exclusives need the MMU on: `try_lock` compiles to one compare-and-
/// swap, so this function goes around it.
///
/// # Safety
/// Nobody else may touch the map: one CPU, before the MMU is on.
pub(crate) unsafe fn build_first(
    pa_bits: u8,
    tree: PaRange,
    uart: Option<PaRange>,
) -> Result<Regime, &'static str> {
    // SAFETY: the caller's promise stands in for the lock.
    let tables = unsafe { &mut *TABLES.as_mut_ptr() };
    // SAFETY: as above.
    let stage1 = unsafe { &mut *STAGE1.as_mut_ptr() };
    *stage1 = Stage1::new(tables, pa_bits);
    let mut map = Map { tables, stage1 };
    let (text, rodata, data, end) = (image::start(), image::rodata(), image::data(), image::end());
    let between = |a: Pa, b: Pa| PaRange::new(a, b.get() - a.get()).ok_or("the image wraps");
    map.add_identity(between(text, rodata)?, Perm::Execute, Memory::Normal)?;
    map.add_identity(between(rodata, data)?, Perm::ReadOnly, Memory::Normal)?;
    // The boot stack's guard page stays unmapped.
    let guard = image::boot_stack_guard();
    map.add_identity(between(data, guard)?, Perm::ReadWrite, Memory::Normal)?;
    map.add_identity(between(Pa::new(guard.get() + PAGE_SIZE), end)?, Perm::ReadWrite, Memory::Normal)?;
    map.add_identity(tree, Perm::ReadOnly, Memory::Normal)?;
    if let Some(uart) = uart {
        map.add_identity(uart, Perm::ReadWrite, Memory::Device)?;
    }
    let ttbr0 = map.stage1.as_ref().ok_or("EL2 has no tables")?.ttbr();
    let tcr = stage1::tcr(pa_bits).ok_or("the CPU's physical address size is unknown")?;
    Ok(Regime { ttbr0, tcr, mair: stage1::MAIR })
}

/// Adds physical memory at its own address.
pub(crate) fn add(range: PaRange, perm: Perm, memory: Memory) -> MapResult {
    with_map(|map| map.add_identity(range, perm, memory))?;
    tlb::publish_el2();
    Ok(())
}

/// A CPU's stacks, mapped with guard pages below: tops of the stack and of the panic stack.
pub(crate) fn add_stacks(cpu: usize) -> Result<(u64, u64), &'static str> {
    let base = STACKS + cpu as u64 * STACK_SPACE;
    let map_one = |top: u64, size: u64| {
        let layout = Layout::from_size_align(size as usize, PAGE_SIZE as usize).map_err(|_| "a stack")?;
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return Err("no memory for a stack");
        }
        let va = VaRange::new(Va::new(top - size), size).ok_or("a stack wraps")?;
        with_map(|map| map.add(va, Pa::new(memory.addr() as u64), Perm::ReadWrite, Memory::Normal))
    };
    let (stack, panic_stack) = (base + STACK_SPACE, base + STACK_SPACE / 2);
    map_one(stack, STACK)?;
    map_one(panic_stack, PANIC_STACK)?;
    tlb::publish_el2();
    Ok((stack, panic_stack))
}

/// Whether a frame record of 16 bytes at `address` can be read: it is in a stack.
pub(crate) fn is_stack(address: u64) -> bool {
    let boot = image::boot_stack_guard().get() + PAGE_SIZE..image::bss_end().get() - 15;
    if boot.contains(&address) {
        return true;
    }
    let Some(offset) = address.checked_sub(STACKS) else { return false };
    let in_space = offset % STACK_SPACE;
    let stack = STACK_SPACE - STACK..STACK_SPACE - 15;
    let panic_stack = STACK_SPACE / 2 - PANIC_STACK..STACK_SPACE / 2 - 15;
    offset < STACK_SPACE * MAX_CPUS as u64 && (stack.contains(&in_space) || panic_stack.contains(&in_space))
}

/// One window's slot: the descriptor of its virtual address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowSlot {
    va: u64,
    entry: Pa,
    level: Level,
}

impl WindowSlot {
    /// Its virtual address.
    #[inline(always)]
    pub(crate) fn va(&self) -> Va {
        Va::new(self.va)
    }

    /// Maps it to `pa`, aligned to its size.
    #[inline(always)]
    pub(crate) fn set(&self, pa: Pa, memory: Memory) {
        self.write(stage1::leaf(pa, Perm::ReadWrite, memory, self.level));
    }

    /// Unmaps it; the TLB entry is the caller's to flush.
    #[inline(always)]
    pub(crate) fn clear(&self) {
        self.write(0);
    }

    #[inline(always)]
    fn write(&self, descriptor: u64) {
        // SAFETY: a descriptor in EL2's own pool of tables, which `entry` found; only this CPU uses
        // this slot, and the walker reads whole words.
        unsafe { core::ptr::write_volatile(self.entry.get() as *mut u64, descriptor) };
    }
}

/// Where the windows' descriptors are, once `prepare_windows` ran.
static WINDOWS: spin::Once<(Pa, Pa)> = spin::Once::new();

/// Makes the tables of the windows.
pub(crate) fn prepare_windows() -> MapResult {
    // Mapping one page creates the level-3 table, and with it the level-2 table whose further
    // entries are the block windows.
    let va = VaRange::new(Va::new(PAGE_WINDOWS), PAGE_SIZE).ok_or("a window wraps")?;
    let (page, block) = with_map(|map| {
        map.add(va, image::start(), Perm::ReadOnly, Memory::Normal)?;
        let page = map.entry(PAGE_WINDOWS, Level::Three).ok_or("no table for the windows")?;
        let block = map.entry(BLOCK_WINDOWS, Level::Two).ok_or("no table for the windows")?;
        // The mapping was only a way to the tables.
        map.tables.write(page, 0);
        Ok::<_, &str>((page, block))
    })?;
    tlb::flush_el2();
    WINDOWS.call_once(|| (page, block));
    Ok(())
}

/// Which of a CPU's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowPlace {
    /// A page.
    First,
    /// Another page, to copy to while the first one is in use.
    Second,
    /// 2 MiB.
    Block,
}

/// One of this CPU's windows.
#[inline(always)]
pub(crate) fn window_slot(cpu: usize, place: WindowPlace) -> Option<WindowSlot> {
    let (pages, blocks) = *WINDOWS.get()?;
    let cpu = cpu.min(MAX_CPUS - 1) as u64;
    let page = match place {
        WindowPlace::First => cpu,
        WindowPlace::Second => MAX_CPUS as u64 + cpu,
        WindowPlace::Block => {
            return Some(WindowSlot {
                va: BLOCK_WINDOWS + cpu * BLOCK_2M,
                entry: Pa::new(blocks.get() + cpu * 8),
                level: Level::Two,
            });
        }
    };
    Some(WindowSlot {
        va: PAGE_WINDOWS + page * PAGE_SIZE,
        entry: Pa::new(pages.get() + page * 8),
        level: Level::Three,
    })
}
