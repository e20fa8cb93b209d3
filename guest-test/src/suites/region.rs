//! Regions that are not ordinary RAM, on a VM whose manifest has them. The command line says what
//! the device tree does not: `ro=` read-only ones, `content=` one with the file `region.txt`,
//! `fresh=` those that nobody wrote yet, `inject=` those that answer a tag access with an external abort, `untagged=` those where tags
//! read as zero because the machine maps them non-cacheable, `stop=` one where a tag access ends the
//! VM.

use crate::harness::{Outcome, Stop, check, check_eq, skip, suite};
use crate::rt::exception::{EC_DABT_EL1, FSC_EXTERNAL, Fault, expect_fault};
use crate::rt::machine::{Machine, Region};
use crate::rt::mem::{read8, read64, try_read64, write64};
use crate::rt::mmu::tagged;
use crate::rt::{mte, timer};
use core::fmt::Write;

suite!(
    "region",
    false,
    [
        in_the_tree,
        memory_nodes,
        content,
        fresh,
        plain_accesses,
        tag_access_injects,
        checked_access_injects,
        tags_read_as_zero,
        untagged_costs_no_exit,
        tag_access_stops,
    ]
);

/// The regions that `key=` names, and `memory` for the second memory node.
fn named(machine: &Machine, key: &'static str) -> Result<impl Iterator<Item = Region>, Stop> {
    if machine.option(key).is_none() {
        skip!("no {key}=");
    }
    let memory = machine.memory().get(1).map(|&(start, size)| Region {
        name: "memory",
        start,
        size,
        read_only: false,
        device: false,
        tags: "lazy",
        interrupt: None,
    });
    let all = machine.regions().copied().chain(memory);
    Ok(all.filter(move |r| machine.lists(key, r.name)))
}

/// `regions=NAME:TAGS,...` is what the tree has outside of its memory nodes.
fn in_the_tree(machine: &Machine) -> Outcome {
    let Some(wanted) = machine.option("regions") else { skip!("no regions=") };
    for entry in wanted.split(',') {
        let (name, tags) = entry.split_once(':').unwrap_or((entry, "none"));
        check_eq!(machine.region_called(name).map(|r| r.tags), Some(tags), "tags of region {name}");
    }
    check_eq!(machine.regions().count(), wanted.split(',').count(), "regions in the tree");
    Ok(())
}

/// `memory=N` memory nodes, and no region lies in one.
fn memory_nodes(machine: &Machine) -> Outcome {
    let Some(wanted) = machine.number("memory") else { skip!("no memory=") };
    check_eq!(machine.memory().len() as u64, wanted, "memory nodes");
    for &(start, size) in machine.memory() {
        for region in machine.regions() {
            let apart = region.start >= start + size || start >= region.start + region.size;
            check!(apart, "region {} lies in the memory at {start:#x}", region.name);
        }
    }
    Ok(())
}

const LINES: u64 = 160;
const LINE: u64 = 33;

/// A line of `region.txt`.
struct Line([u8; LINE as usize], usize);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0[self.1..self.1 + text.len()].copy_from_slice(text.as_bytes());
        self.1 += text.len();
        Ok(())
    }
}

/// The file from the region's start on, zero behind it.
fn content(machine: &Machine) -> Outcome {
    for region in named(machine, "content")? {
        for n in 0..LINES {
            let mut line = Line([0; LINE as usize], 0);
            check!(writeln!(line, "line {n:03} of the region's content").is_ok(), "the line is too long");
            for (i, want) in line.0.iter().enumerate() {
                let at = region.start + n * LINE + i as u64;
                check_eq!(read8(at), *want, "region {} at {at:#x}", region.name);
            }
        }
        for at in (region.start + LINES * LINE..region.start + region.size).step_by(8) {
            check_eq!(read64(at), 0, "region {} behind the file, at {at:#x}", region.name);
        }
    }
    Ok(())
}

/// Regions that nobody wrote yet hold zeroes.
fn fresh(machine: &Machine) -> Outcome {
    for region in named(machine, "fresh")? {
        for at in (region.start..region.start + region.size).step_by(64) {
            check_eq!(read64(at), 0, "region {} at {at:#x}", region.name);
        }
    }
    Ok(())
}

/// Whether tags are allowed does not matter to whoever does not use them.
fn plain_accesses(machine: &Machine) -> Outcome {
    // What other VMs use at the same time is left as it is.
    let mut found = false;
    for region in machine.regions().filter(|r| !r.device) {
        found = true;
        for offset in [0, region.size / 2, region.size - 8] {
            let at = region.start + offset;
            check!(try_read64(at).is_ok(), "a load from {at:#x} in {} aborts", region.name);
            // Through a Tagged mapping, but without checks.
            let tagged_load = mte::level() < 2 || try_read64(tagged(at)).is_ok();
            check!(tagged_load, "an unchecked load from {at:#x} in {} aborts", region.name);
            if !region.read_only && !machine.lists("share", region.name) {
                write64(at, 0x1234_5678 + offset);
                check_eq!(read64(at), 0x1234_5678 + offset, "content of {} at {at:#x}", region.name);
                write64(at, 0);
            }
        }
    }
    if !found {
        skip!("no region");
    }
    Ok(())
}

fn external(fault: Option<Fault>, what: &str, region: &Region) -> Outcome {
    let Some(fault) = fault else {
        check!(false, "{what} in {}: no abort", region.name);
        return Ok(());
    };
    check_eq!(
        (fault.ec(), fault.fsc()),
        (EC_DABT_EL1, FSC_EXTERNAL),
        "EC and DFSC of {what} in {}",
        region.name
    );
    Ok(())
}

/// Each instruction that stores or loads a tag.
fn tag_access_injects(machine: &Machine) -> Outcome {
    for region in named(machine, "inject")? {
        for offset in [0, region.size - 4096] {
            let va = tagged(region.start + offset);
            external(expect_fault(|| mte::stg(mte::with_tag(va, 3))), "STG", &region)?;
            external(expect_fault(|| mte::st2g(mte::with_tag(va, 3))), "ST2G", &region)?;
            external(expect_fault(|| mte::stzg(mte::with_tag(va, 3))), "STZG", &region)?;
            external(expect_fault(|| mte::stgm(va, 0x3333)), "STGM", &region)?;
            external(expect_fault(|| mte::dc_gva(va)), "DC GVA", &region)?;
            let load = expect_fault(|| {
                mte::ldg(va);
            });
            external(load, "LDG", &region)?;
            let load = expect_fault(|| {
                mte::ldgm(va);
            });
            external(load, "LDGM", &region)?;
        }
    }
    Ok(())
}

/// With tag checks on, each load and store through a Tagged mapping reads a tag.
fn checked_access_injects(machine: &Machine) -> Outcome {
    for region in named(machine, "inject")? {
        let va = tagged(region.start + 512);
        mte::set_tco(false);
        for mode in 1..=2 {
            mte::set_checks(mode, 0);
            let load = expect_fault(|| {
                read64(va);
            });
            let store = expect_fault(|| write64(va, 7));
            mte::set_checks(0, 0);
            external(load, "a checked load", &region)?;
            external(store, "a checked store", &region)?;
            check_eq!(read64(region.start + 512), 0, "content of {} after a store that failed", region.name);
        }
        mte::set_checks(1, 0);
        mte::set_tco(true);
        let overridden = expect_fault(|| write64(va, 0));
        mte::set_tco(false);
        mte::set_checks(0, 0);
        check!(overridden.is_none(), "a store with PSTATE.TCO in {} aborts", region.name);
    }
    Ok(())
}

/// Non-cacheable memory has no tags: they read as zero, and stores of them do nothing.
fn tags_read_as_zero(machine: &Machine) -> Outcome {
    for region in named(machine, "untagged")? {
        let va = tagged(region.start + 128);
        mte::stg(mte::with_tag(va, 9));
        check_eq!(mte::ldg(va), 0, "tag in {}", region.name);
        mte::set_tco(false);
        mte::set_checks(1, 0);
        let fault = expect_fault(|| write64(mte::with_tag(va, 5), 0));
        mte::set_checks(0, 0);
        check!(fault.is_none(), "a checked store in {} faults: {fault:x?}", region.name);
    }
    Ok(())
}

/// Where time counts instructions (`counted=on`), accesses to memory without tags take as many as those to
/// RAM: nothing of them exits.
fn untagged_costs_no_exit(machine: &Machine) -> Outcome {
    const ACCESSES: u64 = 4096;
    if machine.option("counted").is_none() {
        skip!("no counted=");
    }
    #[inline(never)]
    fn count(from: u64) -> u64 {
        let begin = timer::now();
        for n in 0..ACCESSES / 2 {
            write64(from + n * 8, n);
            read64(from + n * 8);
        }
        timer::now() - begin
    }
    let (start, size) = machine.memory()[0];
    for region in named(machine, "untagged")? {
        let both = [start + size - (1 << 20), region.start];
        // Nothing is new to TLBs the second time.
        let _ = both.map(count);
        let [ram, untagged] = both.map(count);
        println!("# {ACCESSES} accesses to {}: {untagged} counts, to RAM: {ram}", region.name);
        check!(untagged.abs_diff(ram) <= ram / 1000, "{untagged} counts in {}, {ram} in RAM", region.name);
        check!(ram >= ACCESSES / 64, "{ram} counts for {ACCESSES} accesses");
    }
    Ok(())
}

/// Nothing behind this runs: the VM ends.
fn tag_access_stops(machine: &Machine) -> Outcome {
    for region in named(machine, "stop")? {
        mte::stg(mte::with_tag(tagged(region.start), 3));
        check!(false, "the VM still runs after a tag access to {}", region.name);
    }
    Ok(())
}
