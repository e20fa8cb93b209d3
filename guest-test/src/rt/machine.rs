//! What the device tree says of the machine.

use super::cpu;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

/// Most regions and memory ranges kept.
const MAX_REGIONS: usize = 32;

/// A region outside the `memory` nodes: memory that is not ordinary RAM, or a device.
#[derive(Clone, Copy)]
pub(crate) struct Region {
    /// Its name in the manifest.
    pub(crate) name: &'static str,
    /// First IPA.
    pub(crate) start: u64,
    /// Size in bytes.
    pub(crate) size: u64,
    /// The VM may not write it.
    pub(crate) read_only: bool,
    /// Device memory.
    pub(crate) device: bool,
    /// `backed`, `none` or `lazy`.
    pub(crate) tags: &'static str,
    /// INTID of a device's first interrupt.
    pub(crate) interrupt: Option<u32>,
}

/// The machine.
pub(crate) struct Machine {
    /// Where the tree is.
    pub(crate) tree: u64,
    /// Kernel command line.
    pub(crate) bootargs: &'static str,
    /// Entropy: `rng-seed` and `kaslr-seed`, empty if there is none.
    pub(crate) seeds: [&'static [u8]; 2],
    /// MPIDR of each CPU; index 0 is the one that booted.
    pub(crate) cpus: [u64; cpu::MAX],
    /// How many.
    pub(crate) cpu_count: usize,
    /// PSCI is called by SMC.
    pub(crate) psci_smc: bool,
    /// Memory ranges, start and size.
    pub(crate) memory: [(u64, u64); MAX_REGIONS],
    /// How many.
    pub(crate) memory_count: usize,
    /// Regions.
    pub(crate) regions: [Option<Region>; MAX_REGIONS],
    /// INTID of the event interrupt, for a control VM.
    pub(crate) control: Option<u32>,
    /// Distributor and redistributors, start and size.
    pub(crate) gic: [(u64, u64); 2],
}

fn string(node: &FdtNode<'static>, name: &str) -> Option<&'static str> {
    node.property(name)?.value_as::<&'static str>().ok()
}

fn ranges(node: FdtNode<'static>) -> impl Iterator<Item = (u64, u64)> {
    let reg = node.reg().ok().flatten();
    reg.into_iter().flatten().filter_map(|r| Some((r.address::<u64>().ok()?, r.size::<u64>().ok()?)))
}

impl Machine {
    /// Reads the tree at `tree`.
    pub(crate) fn new(tree: u64) -> Self {
        assert!(tree != 0 && tree.is_multiple_of(8), "no device tree in x0: {tree:#x}");
        // SAFETY: the boot protocol puts a device tree there and nothing writes it; a wrong magic
        // ends the parse.
        let parsed = unsafe { Fdt::from_raw(tree as *const u8) };
        let fdt: Fdt<'static> = match parsed {
            Ok(fdt) => fdt,
            Err(e) => panic!("device tree: {e}"),
        };
        let mut machine = Self {
            tree,
            bootargs: "",
            seeds: [&[]; 2],
            cpus: [0; cpu::MAX],
            cpu_count: 0,
            psci_smc: false,
            memory: [(0, 0); MAX_REGIONS],
            memory_count: 0,
            regions: [None; MAX_REGIONS],
            control: None,
            gic: [(0, 0); 2],
        };
        for node in fdt.root().children() {
            machine.top(node);
        }
        for slot in 0..MAX_REGIONS {
            let read_only = machine.regions[slot].is_some_and(|r| machine.lists("ro", r.name));
            if let Some(region) = &mut machine.regions[slot] {
                region.read_only = read_only;
            }
        }
        machine
    }

    fn top(&mut self, node: FdtNode<'static>) {
        if node.name_without_address() == "chosen" {
            self.bootargs = string(&node, "bootargs").unwrap_or("");
            let bytes = |name| node.property(name).and_then(|p| p.value_as::<&'static [u8]>().ok());
            self.seeds = ["rng-seed", "kaslr-seed"].map(|name| bytes(name).unwrap_or_default());
        } else if node.name_without_address() == "memory" {
            for range in ranges(node) {
                self.memory[self.memory_count] = range;
                self.memory_count += 1;
            }
        } else if node.name_without_address() == "cpus" {
            for cpu in node.children().filter(|c| c.name_without_address() == "cpu") {
                if let Some(id) = ranges_of_cpu(cpu) {
                    self.cpus[self.cpu_count] = id;
                    self.cpu_count += 1;
                }
            }
        } else if node.is_compatible("arm,psci-1.0") {
            self.psci_smc = string(&node, "method") == Some("smc");
        } else if node.is_compatible("arm,gic-v3") {
            for (slot, range) in self.gic.iter_mut().zip(ranges(node)) {
                *slot = range;
            }
        } else if node.is_compatible("tagvisor,control") {
            self.control = spi(&node);
        } else {
            self.region(node);
            for child in node.children() {
                if child.is_compatible("tagvisor,control") {
                    self.control = spi(&child);
                } else {
                    self.region(child);
                }
            }
        }
    }

    /// Keeps a region of memory or a device of the machine underneath. The tree does not say which
    /// regions are read-only; `ro=NAME,NAME` on the command line does.
    fn region(&mut self, node: FdtNode<'static>) {
        let device = node.is_compatible("tagvisor,device");
        if !device && !node.is_compatible("tagvisor,region") {
            return;
        }
        let Some((start, size)) = ranges(node).next() else { return };
        // A device has no name but its node's.
        let name = string(&node, "region-name").unwrap_or(node.name_without_address());
        let tags = string(&node, "tags").unwrap_or("none");
        if let Some(slot) = self.regions.iter_mut().find(|r| r.is_none()) {
            let interrupt = spi(&node);
            *slot = Some(Region { name, start, size, read_only: false, device, tags, interrupt });
        }
    }

    /// The memory nodes.
    pub(crate) fn memory(&self) -> &[(u64, u64)] {
        &self.memory[..self.memory_count]
    }

    /// The region called `name`.
    pub(crate) fn region_called(&self, name: &str) -> Option<&Region> {
        self.regions().find(|region| region.name == name)
    }

    /// The regions.
    pub(crate) fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().flatten()
    }

    /// The value of `key=` on the command line.
    pub(crate) fn option(&self, key: &str) -> Option<&'static str> {
        self.bootargs.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Whether `key=` lists `name`.
    pub(crate) fn lists(&self, key: &str, name: &str) -> bool {
        self.option(key).is_some_and(|names| names.split(',').any(|n| n == name))
    }

    /// The number behind `key=`.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.option(key)?.parse().ok()
    }

    /// The MPIDR of each CPU but the first.
    pub(crate) fn secondaries(&self) -> impl Iterator<Item = (usize, u64)> {
        self.cpus[..self.cpu_count].iter().copied().enumerate().skip(1)
    }

    /// An IPA below 64 GiB at which there is nothing: behind all memory and regions.
    pub(crate) fn absent(&self) -> u64 {
        let memory = self.memory().iter().map(|&(start, size)| start + size);
        let regions = self.regions().map(|r| r.start + r.size);
        memory.chain(regions).max().unwrap_or(0).next_multiple_of(1 << 21) + (64 << 20)
    }
}

fn ranges_of_cpu(cpu: FdtNode<'static>) -> Option<u64> {
    let value: &[u8] = cpu.property("reg")?.value_as().ok()?;
    Some(value.iter().fold(0, |id, byte| (id << 8) | u64::from(*byte)))
}

/// INTID of a node's only interrupt, which is an SPI.
fn spi(node: &FdtNode<'static>) -> Option<u32> {
    let cells: [u32; 3] = node.property("interrupts")?.value_as().ok()?;
    (cells[0] == 0).then(|| cells[1] + 32)
}
