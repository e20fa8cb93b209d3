use super::*;
use crate::machine;
use crate::tree::Tree;
use addr::{Ipa, Pa};
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use manifest::{Cmo, DeviceMemory, KernelSpec, OnSError, OnTagAccess, Placed, WithoutMtePerm};
use proptest::prelude::*;
use std::process::{Command, Stdio};
use std::string::ToString;
use std::vec;

/// The tree of [`example`] as text. After a change that is meant, write what the test prints here.
const GOLDEN: &str = include_str!("../../tests/data/guest.dts");

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn region(name: &str, start: u64, size: u64, kind: RegionKind, tags: Tags) -> RegionSpec {
    RegionSpec {
        name: name.into(),
        ipa: range(start, size),
        kind,
        file: None,
        tags,
        on_tag_access: OnTagAccess::Stop,
        without_mte_perm: WithoutMtePerm::Refuse,
    }
}

fn device_kind(guest: u32, edge: bool) -> RegionKind {
    let interrupts = vec![DeviceInterrupt { physical: 40, guest, edge }];
    RegionKind::Device { pa: Pa::new(0x0901_0000), memory_type: DeviceMemory::Device, interrupts }
}

fn placed(at: u64) -> Placed {
    Placed { file: "file".into(), at: Ipa::new(at) }
}

/// A control VM with every kind of region.
fn example() -> VmSpec {
    let shared = RegionKind::Shared { share: "ring".into() };
    VmSpec {
        name: "linux".into(),
        cpus: vec![0, 1],
        regions: vec![
            region("rtc", 0x0a00_0000, 0x1000, device_kind(35, false), Tags::None),
            region("ram", 0x4000_0000, 0x2000_0000, RegionKind::Ram, Tags::Backed),
            region("plain", 0x6000_0000, 0x1000_0000, RegionKind::Ram, Tags::None),
            region("rom", 0x7000_0000, 0x1000, RegionKind::ReadOnly { cmo: Cmo::Emulate }, Tags::None),
            region("ring", 0x1_0000_0000, 0x10_0000, shared, Tags::None),
            region("more", 0x2_0000_0000, 0x4000_0000, RegionKind::Ram, Tags::Lazy),
        ],
        kernel: KernelSpec { image: placed(0x4020_0000), entry: Ipa::new(0x4020_0000) },
        initrd: Some(placed(0x4800_0000)),
        dtb: Ipa::new(0x4000_0000),
        cmdline: "console=ttyAMA0 quiet".into(),
        mte: true,
        priority: 0,
        control: Control::All,
        autostart: true,
        background: false,
        debug: true,
        on_serror: OnSError::Stop,
        tag_quota: None,
        cpu: manifest::CpuSpec::default(),
        lazy_unit: manifest::LazyUnit::Page,
        sve: manifest::Sve::IfPresent,
        sve_vl: None,
        nested: None,
    }
}

fn facts(spec: &VmSpec) -> GuestTree<'_> {
    GuestTree {
        spec,
        initrd: Some(range(0x4800_0000, 0x12_3456)),
        rng_seed: Some([0xa5; 32]),
        kaslr_seed: Some(0x1122_3344_5566_7788),
        psci: Conduit::Hvc,
    }
}

fn refusal(edit: impl FnOnce(&mut VmSpec)) -> String {
    let mut spec = example();
    edit(&mut spec);
    write(&facts(&spec)).unwrap_err().to_string()
}

fn children(dtb: &[u8], path: &str) -> Vec<String> {
    let node = Fdt::new(dtb).unwrap().find_node(path);
    node.map(|node| node.children().map(|child| child.name().to_string()).collect()).unwrap_or_default()
}

#[test]
fn the_text_is_as_expected() {
    let spec = example();
    let dtb = write(&facts(&spec)).unwrap().dtb;
    let text = Fdt::new(&dtb).unwrap().to_string();
    assert!(text == GOLDEN, "the tree is now:\n{text}");
}

#[test]
fn seeds_are_where_it_says() {
    let spec = example();
    let Written { mut dtb, seeds } = write(&facts(&spec)).unwrap();
    for seed in seeds {
        dtb[seed].fill(0x77);
    }
    let other =
        GuestTree { rng_seed: Some([0x77; 32]), kaslr_seed: Some(0x7777_7777_7777_7777), ..facts(&spec) };
    assert_eq!(dtb, write(&other).unwrap().dtb);
    assert_eq!(write(&GuestTree { rng_seed: None, kaslr_seed: None, ..other }).unwrap().seeds, []);
}

/// The reader of machines understands it: a hypervisor that runs as a guest reads such a tree.
#[test]
fn it_reads_back() {
    let spec = example();
    let machine = machine::read(&write(&facts(&spec)).unwrap().dtb).unwrap();
    let ranges = |list: &[addr::PaRange]| -> Vec<(u64, u64)> {
        list.iter().map(|range| (range.start().get(), range.size())).collect()
    };
    assert_eq!(ranges(&machine.memory), [(0x4000_0000, 0x2000_0000), (0x2_0000_0000, 0x4000_0000)]);
    let reserved = [(0x6000_0000, 0x1000_1000), (0x1_0000_0000, 0x10_0000)];
    assert_eq!(ranges(&machine.reserved), reserved);
    assert_eq!(machine.cpus.iter().map(|cpu| cpu.mpidr).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(machine.psci, Some(Conduit::Hvc));
    assert_eq!(ranges(&[machine.gic.gicd]), [(0x800_0000, 0x1_0000)]);
    assert_eq!(ranges(&machine.gic.gicr), [(0x80a_0000, 0x4_0000)]);
    assert_eq!((machine.timer.virtual_intid, machine.timer.physical_intid), (VTIMER_INTID, PTIMER_INTID));
    let uart = machine.uart.unwrap();
    assert_eq!((uart.base.start().get(), uart.intid), (UART.start().get(), Some(UART_INTID)));
    assert_eq!(uart.clock, Some(UART_CLOCK));
    assert_eq!(ranges(&[machine.initrd.unwrap()]), [(0x4800_0000, 0x12_3456)]);
    assert_eq!(machine.bootargs, spec.cmdline);
}

#[test]
fn all_ram_is_memory_without_mte() {
    let mut spec = example();
    spec.mte = false;
    let dtb = write(&facts(&spec)).unwrap().dtb;
    assert!(children(&dtb, "/").contains(&"memory@60000000".into()));
    assert_eq!(children(&dtb, "/reserved-memory"), ["rom@70000000", "ring@100000000"]);
}

#[test]
fn absent_facts_leave_no_trace() {
    let mut spec = example();
    spec.control = Control::None;
    spec.regions.retain(|region| region.name == "ram");
    let vm = GuestTree { initrd: None, rng_seed: None, kaslr_seed: None, psci: Conduit::Smc, ..facts(&spec) };
    let dtb = write(&vm).unwrap().dtb;
    let nodes =
        ["chosen", "psci", "cpus", "timer", "intc@8000000", "clk", "pl011@9000000", "memory@40000000"];
    assert_eq!(children(&dtb, "/"), nodes);
    let chosen = Fdt::new(&dtb).unwrap().find_node("/chosen").unwrap();
    assert_eq!(chosen.properties().count(), 2);
    let psci = Fdt::new(&dtb).unwrap().find_node("/psci").unwrap();
    assert_eq!(psci.property("method").unwrap().value(), b"smc\0");
}

#[test]
fn a_hypervisor_has_all_timers_and_maintenance() {
    let mut spec = example();
    spec.nested = Some(manifest::Nested::Nvhe);
    let dtb = write(&GuestTree { psci: Conduit::Smc, ..facts(&spec) }).unwrap().dtb;
    let tree = Fdt::new(&dtb).unwrap();
    let interrupts = |path: &str| -> Vec<u8> {
        let value = tree.find_node(path).unwrap();
        let value = value.property("interrupts").unwrap().value().to_vec();
        value.chunks(12).map(|specifier| specifier[7]).collect()
    };
    assert_eq!(interrupts("/timer"), [13, 14, 11, 10, 12]);
    assert_eq!(interrupts("/intc@8000000"), [9]);
}

#[test]
fn refusals_name_the_entry() {
    assert_eq!(
        refusal(|vm| vm.regions[0].kind = device_kind(31, true)),
        "VM `linux`: region `rtc`: interrupt 31 is not an SPI (32 to 1019)"
    );
    let text = refusal(|vm| vm.regions[0].kind = device_kind(1020, true));
    assert!(text.contains("interrupt 1020 is not an SPI"), "{text}");
    assert_eq!(refusal(|vm| vm.cmdline = "a\0b".into()), "VM `linux`: its command line has a NUL inside");
    let text = refusal(|vm| vm.cmdline = "x".repeat(0x1_0000));
    assert!(
        text.starts_with("VM `linux`: its device tree needs 6") && text.ends_with("of at most 65536 bytes")
    );
    let text = refusal(|vm| vm.regions[3].name = "no name".into());
    assert!(text.contains("'no name'"), "{text}");
}

/// The reference compiler accepts it. Does nothing where `dtc` is not installed.
#[test]
fn dtc_accepts_it() {
    let spec = example();
    let dtb = write(&facts(&spec)).unwrap().dtb;
    let mut dtc = Command::new("dtc");
    dtc.args(["-I", "dtb", "-O", "dtb"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut dtc) = dtc.spawn() else {
        std::eprintln!("dtc is not installed");
        return;
    };
    std::io::Write::write_all(&mut dtc.stdin.take().unwrap(), &dtb).unwrap();
    let output = dtc.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(Fdt::new(&output.stdout).unwrap().to_string(), GOLDEN);
}

proptest! {
    #[test]
    fn any_spec_is_written_or_refused(
        cpus in 0usize..40,
        mte in any::<bool>(),
        names in prop::collection::vec("[a-z0-9_@ -]{0,40}", 0..8),
        kinds in prop::collection::vec((0u8..4, 0u8..3, any::<u32>(), any::<(u32, u32)>()), 8),
        cmdline in ".*",
        initrd in prop::option::of(any::<(u32, u32)>()),
    ) {
        let mut spec = example();
        spec.cpus = vec![0; cpus];
        spec.mte = mte;
        spec.cmdline = cmdline;
        spec.regions = names.iter().zip(kinds).map(|(name, (kind, tags, intid, (start, size)))| {
            let kind = match kind {
                0 => RegionKind::Ram,
                1 => RegionKind::ReadOnly { cmo: Cmo::Emulate },
                2 => RegionKind::Shared { share: name.clone() },
                _ => device_kind(intid % 1200, intid & 1 != 0),
            };
            let tags = [Tags::Backed, Tags::None, Tags::Lazy][usize::from(tags)];
            region(name, start.into(), size.into(), kind, tags)
        }).collect();
        let initrd = initrd.map(|(start, size)| range(start.into(), size.into()));
        match write(&GuestTree { initrd, ..facts(&spec) }) {
            Ok(Written { dtb, .. }) => prop_assert!(Tree::open(&dtb).is_ok() && dtb.len() <= 0x1_0000),
            Err(error) => prop_assert!(error.to_string().starts_with("VM `linux`: ")),
        }
    }
}
