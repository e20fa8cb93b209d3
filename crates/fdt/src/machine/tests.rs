use super::*;
use crate::{UartKind, Width, early};
use dtoolkit::ToPropertyValue;
use dtoolkit::fdt::Fdt;
use dtoolkit::memreserve::MemoryReservation;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use proptest::prelude::*;
use std::{format, vec};

mod mutated;

/// QEMU 11.1.3, `-machine virt,virtualization=on,gic-version=3,mte=on,dtb-randomness=off -smp 4
/// -m 1G`, dumped by `dumpdtb=` and packed.
const QEMU: &[u8] = include_bytes!("../../tests/data/qemu-virt-11.1.dtb");

fn range(start: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(start), size).unwrap()
}

fn qemu() -> DeviceTree {
    DeviceTree::from_fdt(&Fdt::new(QEMU).unwrap())
}

fn set(tree: &mut DeviceTree, path: &str, name: &str, value: impl ToPropertyValue) {
    let property = DeviceTreeProperty::new(name, value).unwrap();
    tree.find_node_mut(path).unwrap().add_property(property);
}

fn unset(tree: &mut DeviceTree, path: &str, name: &str) {
    tree.find_node_mut(path).unwrap().remove_property(name).unwrap();
}

fn add(tree: &mut DeviceTree, path: &str, name: &str) {
    tree.find_node_mut(path).unwrap().add_child(DeviceTreeNode::new(name).unwrap());
}

fn edited(edit: impl FnOnce(&mut DeviceTree)) -> Result<Machine, Error> {
    let mut tree = qemu();
    edit(&mut tree);
    read(&tree.to_dtb())
}

fn sentence(edit: impl FnOnce(&mut DeviceTree)) -> String {
    edited(edit).unwrap_err().to_string()
}

#[test]
fn the_tree_of_qemu_is_read() {
    let machine = read(QEMU).unwrap();
    let cpu = |mpidr| Cpu { mpidr, enabled: true };
    let uart = Uart {
        kind: UartKind::Pl011,
        base: range(0x900_0000, 0x1000),
        intid: Some(33),
        clock: Some(24_000_000),
    };
    let want = Machine {
        memory: vec![range(0x4000_0000, 0x4000_0000)],
        reserved: vec![],
        tag_storage: vec![],
        untaggable: vec![],
        cpus: vec![cpu(0), cpu(1), cpu(2), cpu(3)],
        psci: Some(Conduit::Smc),
        gic: Gic {
            version: GicVersion::V3,
            gicd: range(0x800_0000, 0x1_0000),
            gicr: vec![range(0x80a_0000, 0xf6_0000)],
            stride: None,
            maintenance_intid: Some(25),
        },
        timer: Timer {
            hyp_physical_intid: 26,
            virtual_intid: 27,
            physical_intid: 30,
            hyp_virtual_intid: Some(28),
        },
        uart: Some(uart),
        initrd: None,
        bootargs: String::new(),
        dtb_size: QEMU.len(),
    };
    assert_eq!(machine, want);
    assert_eq!(early::uart(QEMU), Some(Uart { intid: None, clock: None, ..uart }));
    assert_eq!(crate::total_size(&QEMU[..8]), Some(QEMU.len()));
    assert_eq!(crate::total_size(&QEMU[1..]), None);
    let mut padded = QEMU.to_vec();
    padded.extend([0xff; 100]);
    assert_eq!(read(&padded), Ok(want));
}

#[test]
fn chosen_is_read() {
    let machine = edited(|t| {
        set(t, "/chosen", "bootargs", "log=debug fwb=off");
        set(t, "/chosen", "linux,initrd-start", 0x4400_0000u32);
        set(t, "/chosen", "linux,initrd-end", 0x4400_1234u64);
    })
    .unwrap();
    assert_eq!(machine.bootargs, "log=debug fwb=off");
    assert_eq!(machine.initrd, Some(range(0x4400_0000, 0x1234)));
    let text = sentence(|t| set(t, "/chosen", "linux,initrd-end", 1u32));
    assert_eq!(text, "device tree: /chosen: property `linux,initrd-start` is missing");
    let text = sentence(|t| {
        set(t, "/chosen", "linux,initrd-start", 2u32);
        set(t, "/chosen", "linux,initrd-end", 1u32);
    });
    assert_eq!(text, "device tree: /chosen: property `linux,initrd-end` is below `linux,initrd-start`");
    let text = sentence(|t| set(t, "/chosen", "bootargs", *b"\xff\0"));
    assert!(text.contains("/chosen: property `bootargs`"), "{text}");
}

#[test]
fn memory_is_sorted_and_merged() {
    let machine = edited(|t| {
        set(t, "/memory@40000000", "reg", [0u32, 0x6000_0000, 0, 0x1000_0000, 0, 0, 0, 0]);
        for (name, reg) in
            [("memory@0", [1u32, 0, 0, 0x1000]), ("memory@5", [0, 0x5000_0000, 0, 0x1000_0000])]
        {
            add(t, "/", name);
            set(t, &format!("/{name}"), "device_type", "memory");
            set(t, &format!("/{name}"), "reg", reg);
        }
        add(t, "/", "memory@6");
        set(t, "/memory@6", "device_type", "memory");
        set(t, "/memory@6", "status", "disabled");
        set(t, "/memory@6", "reg", [2u32, 0, 0, 0x1000]);
    });
    assert_eq!(machine.unwrap().memory, [range(0x5000_0000, 0x2000_0000), range(1 << 32, 0x1000)]);
    let text = sentence(|t| set(t, "/memory@40000000", "reg", [u32::MAX, u32::MAX, 0, 2]));
    assert!(text.starts_with("device tree: /memory@40000000: property `reg` wraps"), "{text}");
    let text = sentence(|t| set(t, "/memory@40000000", "reg", [0u32, 0, 0]));
    assert!(text.contains("`reg` does not fit the cell counts"), "{text}");
    assert_eq!(sentence(|t| unset(t, "/memory@40000000", "reg")), "device tree: there is no memory");
}

#[test]
fn tag_storage_is_reserved_and_memory_without_is_told() {
    let storage = |t: &mut DeviceTree, parent: &str, name: &str, reg: [u32; 4]| {
        add(t, parent, name);
        let path = format!("{}/{name}", parent.trim_end_matches('/'));
        set(t, &path, "compatible", "arm,mte-tag-storage");
        set(t, &path, "reg", reg);
    };
    let machine = edited(|t| {
        storage(t, "/", "tag-storage@4e000000", [0, 0x4e00_0000, 0, 0x200_0000]);
        add(t, "/", "reserved-memory");
        set(t, "/reserved-memory", "#address-cells", 2u32);
        set(t, "/reserved-memory", "#size-cells", 2u32);
        set(t, "/reserved-memory", "ranges", [0u8; 0]);
        storage(t, "/reserved-memory", "tags@5e000000", [0, 0x5e00_0000, 0, 0x200_0000]);
        storage(t, "/", "tag-storage@1", [0, 0x1000, 0, 0x1000]);
        set(t, "/tag-storage@1", "status", "disabled");
        add(t, "/", "memory@100000000");
        set(t, "/memory@100000000", "device_type", "memory");
        set(t, "/memory@100000000", "reg", [1u32, 0, 0, 0x1000]);
        set(t, "/memory@100000000", "arm,no-mte", [0u8; 0]);
    })
    .unwrap();
    assert_eq!(machine.reserved, [range(0x4e00_0000, 0x200_0000), range(0x5e00_0000, 0x200_0000)]);
    assert_eq!(machine.tag_storage, machine.reserved);
    assert_eq!(machine.untaggable, [range(1 << 32, 0x1000)]);
    assert_eq!(machine.memory, [range(0x4000_0000, 0x4000_0000), range(1 << 32, 0x1000)]);
    let text = sentence(|t| storage(t, "/", "tag-storage@2", [u32::MAX, u32::MAX, 0, 2]));
    assert!(text.starts_with("device tree: /tag-storage@2: property `reg` wraps"), "{text}");
}

#[test]
fn reserved_memory_comes_from_both_places() {
    let machine = edited(|t| {
        t.memory_reservations.push(MemoryReservation::new(0x4800_0000, 0x1000));
        add(t, "/", "reserved-memory");
        set(t, "/reserved-memory", "#address-cells", 1u32);
        set(t, "/reserved-memory", "#size-cells", 1u32);
        set(t, "/reserved-memory", "ranges", [0u8; 0]);
        add(t, "/reserved-memory", "secure@50000000");
        set(t, "/reserved-memory/secure@50000000", "reg", [0x5000_0000u32, 0x1000, 0x4000_0000, 0x2000]);
        add(t, "/reserved-memory", "anywhere");
        set(t, "/reserved-memory/anywhere", "size", 0x1000u32);
    });
    let want = [range(0x4000_0000, 0x2000), range(0x4800_0000, 0x1000), range(0x5000_0000, 0x1000)];
    assert_eq!(machine.unwrap().reserved, want);
    let text = sentence(|t| t.memory_reservations.push(MemoryReservation::new(u64::MAX, 2)));
    assert!(text.contains("reservation block"), "{text}");
}

#[test]
fn cpus_are_checked() {
    let machine = edited(|t| {
        set(t, "/cpus", "#address-cells", 2u32);
        for i in 0..4u32 {
            set(t, &format!("/cpus/cpu@{i}"), "reg", [1u32, i << 8]);
        }
        set(t, "/cpus/cpu@3", "status", "disabled");
    })
    .unwrap();
    assert_eq!(machine.cpus[3], Cpu { mpidr: 1 << 32 | 3 << 8, enabled: false });
    let text = sentence(|t| set(t, "/cpus/cpu@2", "reg", 1u32));
    assert_eq!(text, "device tree: /cpus: property `reg` of two CPUs is the same");
    let text = sentence(|t| set(t, "/cpus/cpu@2", "reg", 0x8000_0002u32));
    assert!(text.contains("/cpus/cpu@2: property `reg` has bits outside"), "{text}");
    let text = sentence(|t| unset(t, "/cpus/cpu@1", "reg"));
    assert_eq!(text, "device tree: /cpus/cpu@1: property `reg` is missing");
}

#[test]
fn psci_may_be_absent_or_hvc() {
    assert_eq!(edited(|t| set(t, "/psci", "method", "hvc")).unwrap().psci, Some(Conduit::Hvc));
    assert_eq!(edited(|t| set(t, "/psci", "compatible", "arm,psci")).unwrap().psci, None);
    let text = sentence(|t| set(t, "/psci", "method", "svc"));
    assert_eq!(text, "device tree: /psci: property `method` is neither `smc` nor `hvc`");
}

#[test]
fn the_gic_may_differ() {
    let gic = "/intc@8000000";
    let machine = edited(|t| {
        set(t, gic, "#redistributor-regions", 2u32);
        set(t, gic, "redistributor-stride", 0x4_0000u64);
        set(t, gic, "reg", [0u32, 1 << 16, 0, 1 << 16, 0, 2 << 16, 0, 1 << 16, 0, 4 << 16, 0, 1 << 16]);
    });
    let found = machine.unwrap().gic;
    assert_eq!(found.gicr, [range(2 << 16, 1 << 16), range(4 << 16, 1 << 16)]);
    assert_eq!(found.stride, Some(0x4_0000));
    for stride in [0x1_0000u64, 0x2_8000, 1] {
        let text = sentence(|t| set(t, gic, "redistributor-stride", stride));
        assert!(text.contains("`redistributor-stride` is not a multiple of 64 KiB, at least two"), "{text}");
    }
    let at = |gicd: u32, gicr: u32| {
        move |t: &mut DeviceTree| {
            set(t, gic, "reg", [0u32, gicd, 0, 1 << 16, 0, gicr, 0, 1 << 17]);
        }
    };
    for odd in [at((1 << 16) + 4, 2 << 16), at(1 << 16, (2 << 16) + 4)] {
        let text = sentence(odd);
        assert!(text.contains("property `reg` has an address that is not on 64 KiB"), "{text}");
    }
    let text = sentence(|t| set(t, gic, "#redistributor-regions", 3u32));
    assert!(text.contains("/intc@8000000: property `reg` has too few entries"), "{text}");
    for name in ["arm,gic-400", "arm,cortex-a15-gic"] {
        let found = edited(|t| set(t, gic, "compatible", name)).unwrap().gic;
        assert_eq!((found.version, found.gicr.len()), (GicVersion::V2, 0));
    }
    let text = sentence(|t| set(t, gic, "compatible", "acme,pic"));
    assert_eq!(text, "device tree: there is no interrupt controller that is a GIC");
}

#[test]
fn interrupts_find_the_gic() {
    let timer = |t: &Timer| (t.hyp_physical_intid, t.virtual_intid, t.physical_intid, t.hyp_virtual_intid);
    let named = edited(|t| {
        set(t, "/timer", "interrupt-names", &["virt", "hyp-phys", "phys"][..]);
        set(t, "/timer", "interrupts", [1u32, 2, 4, 1, 3, 4, 1, 4, 4]);
    });
    assert_eq!(timer(&named.unwrap().timer), (19, 18, 20, None));
    let gic = 0x8005u32;
    let extended = edited(|t| {
        add(t, "/", "other");
        set(t, "/other", "phandle", 7u32);
        set(t, "/other", "#interrupt-cells", 1u32);
        unset(t, "/pl011@9000000", "interrupts");
        set(t, "/pl011@9000000", "interrupts-extended", [7u32, 1]);
        let list = [7u32, 1, gic, 1, 14, 4, gic, 1, 11, 4, gic, 3, 0, 4];
        set(t, "/timer", "interrupts-extended", list);
    })
    .unwrap();
    assert_eq!(timer(&extended.timer), (1056, 27, 30, None));
    assert_eq!(extended.uart.unwrap().intid, None);
    let elsewhere = edited(|t| set(t, "/pl011@9000000", "interrupt-parent", 0x8006u32));
    assert_eq!(elsewhere.unwrap().uart.unwrap().intid, None);
    let text = sentence(|t| set(t, "/timer", "interrupt-parent", 0x8006u32));
    assert_eq!(text, "device tree: /timer: property `interrupts` has no EL2 physical timer at the GIC");
    let text = sentence(|t| set(t, "/pl011@9000000", "interrupts", [0u32, 988, 4]));
    assert!(text.contains("`interrupts` names no interrupt of a GIC"), "{text}");
    let text = sentence(|t| set(t, "/timer", "interrupts-extended", [9u32, 1]));
    assert!(text.contains("`interrupts-extended` names a node that does not exist"), "{text}");
}

/// Moves the console to a 16550 behind two buses.
fn behind_buses(t: &mut DeviceTree) {
    add(t, "/", "soc");
    set(t, "/soc", "#address-cells", 1u32);
    set(t, "/soc", "#size-cells", 1u32);
    set(t, "/soc", "ranges", [0x7e00_0000u32, 1, 0xfe00_0000, 0x180_0000, 0, 0, 0x1000_0000, 0x100]);
    add(t, "/soc", "bus@7e000000");
    set(t, "/soc/bus@7e000000", "#address-cells", 1u32);
    set(t, "/soc/bus@7e000000", "#size-cells", 1u32);
    set(t, "/soc/bus@7e000000", "ranges", [0u8; 0]);
    add(t, "/soc/bus@7e000000", "serial@7e201000");
    let uart = "/soc/bus@7e000000/serial@7e201000";
    set(t, uart, "compatible", &["acme,uart", "snps,dw-apb-uart"][..]);
    set(t, uart, "reg", [0x7e20_1000u32, 0x100]);
    set(t, uart, "interrupts", [0u32, 5, 4]);
    set(t, uart, "reg-shift", 2u32);
    set(t, uart, "reg-io-width", 4u32);
    set(t, uart, "clock-frequency", 1_843_200u32);
    set(t, "/aliases", "serial1", uart);
    set(t, "/aliases", "bus", "/soc");
    set(t, "/chosen", "stdout-path", "serial1:115200n8");
}

#[test]
fn a_16550_behind_buses_is_found() {
    let want = Uart {
        kind: UartKind::Ns16550 { shift: 2, width: Width::Word },
        base: range(0x1_fe20_1000, 0x100),
        intid: Some(37),
        clock: Some(1_843_200),
    };
    assert_eq!(edited(behind_buses).unwrap().uart, Some(want));
    for path in ["/soc/bus@7e000000/serial:9600", "bus/bus/serial@7e201000", "serial1"] {
        let found = edited(|t| {
            behind_buses(t);
            set(t, "/chosen", "stdout-path", path);
        });
        assert_eq!(found.unwrap().uart, Some(want), "{path}");
    }
    let sentence = |edit: fn(&mut DeviceTree)| {
        sentence(|t| {
            behind_buses(t);
            edit(t);
        })
    };
    let text = sentence(|t| unset(t, "/soc/bus@7e000000", "ranges"));
    assert!(text.contains("/soc/bus@7e000000: property `ranges` is missing"), "{text}");
    let text = sentence(|t| set(t, "/soc", "ranges", [0u32, 1, 0xfe00_0000, 0x180_0000]));
    assert_eq!(text, "device tree: /soc: property `ranges` does not cover a device below");
    let text = sentence(|t| set(t, "/soc", "ranges", [0u32; 3]));
    assert_eq!(text, "device tree: /soc: property `ranges` does not fit the cell counts");
    let text = sentence(|t| set(t, "/soc", "#address-cells", 3u32));
    assert_eq!(text, "device tree: /soc: property `#address-cells` is more than 2");
}

#[test]
fn registers_of_a_16550_lie_as_the_tree_says() {
    const UART: &str = "/soc/bus@7e000000/serial@7e201000";
    let found = |name: &str, cells: &[(&str, u32)]| {
        edited(|t| {
            behind_buses(t);
            set(t, UART, "compatible", name);
            unset(t, UART, "reg-shift");
            unset(t, UART, "reg-io-width");
            cells.iter().for_each(|(name, value)| set(t, UART, name, *value));
        })
        .map(|machine| machine.uart.map(|uart| (uart.kind, uart.base)))
        .map_err(|error| error.to_string())
    };
    let kind = |shift, width| UartKind::Ns16550 { shift, width };
    let all = range(0x1_fe20_1000, 0x100);
    for name in ["ns8250", "ns16450", "ns16550", "ns16550a", "ns16750", "nvidia,tegra20-uart"] {
        assert_eq!(found(name, &[]), Ok(Some((kind(0, Width::Byte), all))), "{name}");
    }
    assert_eq!(found("mrvl,mmp-uart", &[]), Ok(None), "it has a bit that turns it off");
    let half = [("reg-shift", 1), ("reg-io-width", 2)];
    assert_eq!(found("ns16550a", &half), Ok(Some((kind(1, Width::Half), all))));
    let spread = [("reg-shift", 3), ("reg-io-width", 4), ("reg-offset", 0xc0)];
    let upper = range(0x1_fe20_10c0, 0x40);
    assert_eq!(found("ns16550a", &spread), Ok(Some((kind(3, Width::Word), upper))));
    for (cells, says) in [
        (&[("reg-shift", 1), ("reg-io-width", 4)][..], "`reg-io-width` is more than `reg-shift` leaves"),
        (&[("reg-io-width", 2)], "`reg-io-width` is more than `reg-shift` leaves"),
        (&[("reg-io-width", 8)], "`reg-io-width` is not 1, 2 or 4"),
        (&[("reg-shift", 4)], "`reg-shift` is more than 3"),
        (&[("reg-shift", 2), ("reg-offset", 0xe4)], "`reg` has no room for a 16550's registers"),
        (&[("reg-offset", u32::MAX)], "`reg` has no room for a 16550's registers"),
        (
            &[("reg-shift", 2), ("reg-io-width", 4), ("reg-offset", 2)],
            "`reg` is not aligned to `reg-io-width`",
        ),
        (&[("big-endian", 0)], "`big-endian` asks for an order of bytes that is not supported"),
    ] {
        let text = found("ns16550a", cells).unwrap_err();
        assert!(text.contains(UART) && text.contains(says), "{cells:?}: {text}");
    }
}

#[test]
fn the_console_may_be_absent() {
    assert_eq!(edited(|t| unset(t, "/chosen", "stdout-path")).unwrap().uart, None);
    assert_eq!(edited(|t| set(t, "/pl011@9000000", "compatible", "acme,uart")).unwrap().uart, None);
    let text = sentence(|t| set(t, "/chosen", "stdout-path", "serial9"));
    assert_eq!(text, "device tree: /chosen: property `stdout-path` names a node that does not exist");
}

#[test]
fn depth_and_length_are_limited() {
    let nested = |levels: usize| {
        edited(|t| {
            let mut node = DeviceTreeNode::new("n").unwrap();
            for _ in 1..levels {
                let mut outer = DeviceTreeNode::new("n").unwrap();
                outer.add_child(node);
                node = outer;
            }
            // Before the GIC, so that the search passes it.
            let mut root = DeviceTree::new().root;
            root.add_child(node);
            t.root.children_mut().for_each(|child| root.add_child(child.clone()));
            t.root = root;
        })
    };
    let text = |result: Result<Machine, Error>| result.unwrap_err().to_string();
    assert!(text(nested(17)).contains("is nested deeper than 16 nodes"));
    assert!(!text(nested(16)).contains("nested"));
    let long = sentence(|t| set(t, "/chosen", "rng-seed", vec![0u8; 2 << 20]));
    assert_eq!(long, "device tree: it is longer than 2 MiB");
}

#[test]
fn counts_are_limited() {
    let ranges = |count: u32| {
        edited(|t| {
            let reg: Vec<u32> = (0..count).flat_map(|i| [1, i << 16, 0, 0x1000]).collect();
            set(t, "/memory@40000000", "reg", reg);
        })
    };
    assert_eq!(ranges(1024).unwrap().memory.len(), 1024);
    let text = ranges(1025).unwrap_err().to_string();
    assert!(text.contains("brings the number of such ranges above 1024"), "{text}");
    let reservations = |count: u64| {
        edited(|t| {
            let entries = (0..count).map(|i| MemoryReservation::new(i << 16, 0x1000));
            t.memory_reservations.extend(entries);
        })
    };
    assert_eq!(reservations(1024).unwrap().reserved.len(), 1024);
    let text = reservations(1025).unwrap_err().to_string();
    let want = "property `(memory reservation block)` brings the number of such ranges above 1024";
    assert!(text.contains(want), "{text}");
    let cpus = |count: u32| {
        edited(|t| {
            for i in 4..count {
                add(t, "/cpus", &format!("cpu@{i}"));
                set(t, &format!("/cpus/cpu@{i}"), "device_type", "cpu");
                set(t, &format!("/cpus/cpu@{i}"), "reg", i);
            }
        })
    };
    assert_eq!(cpus(1024).unwrap().cpus.len(), 1024);
    assert!(
        cpus(1025).unwrap_err().to_string().contains("/cpus/cpu@1024: property `reg` is that of the 1025th")
    );
}

/// A structure block of `depth` nodes inside each other, as bytes: the model would recurse.
#[test]
fn a_bottomless_tree_needs_little_stack() {
    let depth = 80_000u32;
    let mut structure = vec![0u8, 0, 0, 1, 0, 0, 0, 0];
    (0..depth).for_each(|_| structure.extend([0, 0, 0, 1, b'n', 0, 0, 0]));
    (0..=depth).for_each(|_| structure.extend([0, 0, 0, 2]));
    structure.extend([0, 0, 0, 9]);
    let length = u32::try_from(structure.len()).unwrap();
    let header = [0xd00d_feed, 56 + length, 56, 56 + length, 40, 17, 16, 0, 0, length, 0, 0, 0, 0];
    let mut dtb: Vec<u8> = header.iter().flat_map(|word: &u32| word.to_be_bytes()).collect();
    dtb.extend(structure);
    let small = std::thread::Builder::new().stack_size(128 << 10);
    let result = small.spawn(move || (early::uart(&dtb), read(&dtb))).unwrap().join().unwrap();
    assert_eq!(result.0, None);
    assert!(result.1.unwrap_err().to_string().contains("nested deeper"));
}

#[test]
fn names_may_be_longer_than_they_ought() {
    let name = "snps,dis-u2-freeclk-exists-quirk";
    assert_eq!(name.len(), 32);
    let property = |name: &str| DeviceTreeProperty::new_unchecked(name, 1u32);
    let named = |name: &str| edited(|t| t.find_node_mut("/chosen").unwrap().add_property(property(name)));
    assert_eq!(named(name).unwrap().cpus, read(QEMU).unwrap().cpus);
    let node = |name: &str| edited(|t| t.root.add_child(DeviceTreeNode::new_unchecked(name)));
    node("a-node-of-a-name-that-nobody-would-type-twice@1").unwrap();
    named(&"n".repeat(255)).unwrap();
    node(&"n".repeat(255)).unwrap();
    for bad in ["n".repeat(256), "a b".into(), "a/b".into(), "\u{e9}".into()] {
        let text = named(&bad).unwrap_err().to_string();
        assert!(text.starts_with("device tree: it has a property with a bad name (offset 0x"), "{text}");
        let text = node(&bad).unwrap_err().to_string();
        assert!(text.starts_with("device tree: it has a node with a bad name (offset 0x"), "{text}");
    }
}
