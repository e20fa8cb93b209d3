//! Where kernel, initial RAM disk and device tree of a VM go.
//!
//! Linux wants its Image 2 MiB-aligned plus `text_offset`, its device tree 8-byte aligned, and the
//! initial RAM disk within the same naturally aligned 32 GiB (`booting.rst`, sections 2 to 4). All
//! go into one region of RAM, the kernel first, so that it is close to the region's start.

use crate::kernel::{Form, Kernel};
use addr::{BLOCK_2M, Ipa, IpaRange, PAGE_SIZE};
use manifest::layout::DTB_SIZE;

/// A region of RAM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ram {
    /// Where it is.
    pub(crate) range: IpaRange,
    /// Bytes at its start that its file fills.
    pub(crate) used: u64,
}

/// Where everything goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) kernel: Ipa<addr::Canonical>,
    pub(crate) entry: Ipa<addr::Canonical>,
    pub(crate) dtb: Ipa<addr::Canonical>,
    pub(crate) initrd: Option<Ipa<addr::Canonical>>,
}

/// Finds a place for everything, or says what does not fit. `offset` is where a raw kernel goes in
/// its region.
pub(crate) fn place(
    ram: &[Ram],
    kernel: &Kernel,
    offset: u64,
    initrd: Option<u64>,
) -> Result<Places, String> {
    let first = ram.iter().min_by_key(|r| r.range.start()).ok_or("has no region of kind \"ram\" to go to")?;
    let size = crate::size(&kernel.bytes);
    let wraps = "does not fit in the address space";
    let (ram, start, end, entry) = match kernel.form {
        Form::Image { text_offset, memory } => {
            let free = first.range.start().get().checked_add(first.used).ok_or(wraps)?;
            let base = free.checked_next_multiple_of(BLOCK_2M).ok_or(wraps)?;
            let start = base.checked_add(text_offset).ok_or(wraps)?;
            (first, start, start.checked_add(memory).ok_or(wraps)?, start)
        }
        Form::Raw => {
            let start = first.range.start().get().checked_add(offset).ok_or(wraps)?;
            (first, start, start.checked_add(size).ok_or(wraps)?, start)
        }
        Form::Elf { start, end, entry } => {
            let holder = ram.iter().find(|r| r.range.contains(Ipa::new(start))).unwrap_or(first);
            (holder, start, end, entry)
        }
    };
    let range = ram.range;
    let shown = format!("{:#x} - {:#x}", range.start().get(), range.end().get());
    if start < range.start().get() || end > range.end().get() {
        return Err(format!("({start:#x} - {end:#x}) does not fit in the VM's RAM ({shown})"));
    }

    let mut free = Free { range, taken: vec![(range.start().get(), ram.used), (start, end - start)] };
    // A raw kernel does not say what memory follows it, so the rest of its 2 MiB is left to it if
    // there is room elsewhere.
    let behind = end.checked_next_multiple_of(BLOCK_2M).unwrap_or(end);
    let mut find = |what: &str, size: u64, align: u64, from: u64| {
        let at = [from, end, range.start().get()].iter().find_map(|&from| free.find(size, align, from));
        let at = at.ok_or_else(|| {
            format!(
                "({start:#x} - {end:#x}) leaves no room in the VM's RAM ({shown}) for {size} bytes of {what}"
            )
        })?;
        free.taken.push((at, size));
        Ok::<_, String>(at)
    };
    let dtb = find("device tree", DTB_SIZE, DTB_SIZE, behind)?;
    let initrd = initrd.map(|size| find("initrd", size, PAGE_SIZE, dtb)).transpose()?;
    Ok(Places {
        kernel: Ipa::new(start),
        entry: Ipa::new(entry),
        dtb: Ipa::new(dtb),
        initrd: initrd.map(Ipa::new),
    })
}

/// What is left of a region.
struct Free {
    range: IpaRange,
    /// Start and size of what is not.
    taken: Vec<(u64, u64)>,
}

impl Free {
    /// The lowest aligned address from `from` on with `size` free bytes.
    fn find(&self, size: u64, align: u64, from: u64) -> Option<u64> {
        let mut at = from.checked_next_multiple_of(align)?;
        loop {
            let end = at.checked_add(size)?;
            if end > self.range.end().get() {
                return None;
            }
            let hit = self.taken.iter().find(|&&(start, len)| at < start.saturating_add(len) && start < end);
            match hit {
                Some(&(start, len)) => at = start.checked_add(len)?.checked_next_multiple_of(align)?,
                None => return Some(at),
            }
        }
    }
}

#[cfg(test)]
mod tests;
