use super::*;
use crate::write;
use alloc::string::ToString;
use dtoolkit::model::{DeviceTree, DeviceTreeProperty};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn word<T: Named + core::fmt::Debug>() -> impl Strategy<Value = T> {
    select(T::NAMES).prop_map(|(_, v)| v)
}

fn text() -> impl Strategy<Value = String> {
    "[ -~]{0,20}"
}

fn placed_at() -> impl Strategy<Value = Placed> {
    (text(), any::<u64>()).prop_map(|(file, at)| Placed { file, at: Ipa::new(at) })
}

fn device_interrupt() -> impl Strategy<Value = DeviceInterrupt> {
    (any::<u32>(), any::<u32>(), any::<bool>()).prop_map(|(physical, guest, edge)| DeviceInterrupt {
        physical,
        guest,
        edge,
    })
}

fn region_kind() -> impl Strategy<Value = RegionKind> {
    prop_oneof![
        Just(RegionKind::Ram),
        word::<Cmo>().prop_map(|cmo| RegionKind::ReadOnly { cmo }),
        text().prop_map(|share| RegionKind::Shared { share }),
        (any::<u64>(), word::<DeviceMemory>(), vec(device_interrupt(), 0..4)).prop_map(
            |(pa, memory_type, interrupts)| RegionKind::Device { pa: Pa::new(pa), memory_type, interrupts }
        ),
    ]
}

fn region_spec() -> impl Strategy<Value = RegionSpec> {
    let words = (word::<Tags>(), word::<OnTagAccess>(), word::<WithoutMtePerm>());
    let ipa = (any::<u32>(), any::<u32>())
        .prop_map(|(start, size)| IpaRange::new(Ipa::new(start.into()), size.into()).unwrap());
    (text(), ipa, region_kind(), option::of(text()), words).prop_map(
        |(name, ipa, kind, file, (tags, on_tag_access, without_mte_perm))| RegionSpec {
            name,
            ipa,
            kind,
            file,
            tags,
            on_tag_access,
            without_mte_perm,
        },
    )
}

fn vm_spec() -> impl Strategy<Value = VmSpec> {
    let control =
        prop_oneof![Just(Control::None), Just(Control::All), vec(any::<u16>(), 0..4).prop_map(Control::Vms)];
    let kernel =
        (placed_at(), any::<u64>()).prop_map(|(image, entry)| KernelSpec { image, entry: Ipa::new(entry) });
    (
        (text(), vec(any::<u16>(), 0..=MAX_VCPUS), vec(region_spec(), 0..5), kernel),
        (option::of(placed_at()), any::<u64>(), text(), any::<bool>(), any::<u8>()),
        (
            control,
            any::<(bool, bool, bool)>(),
            word::<OnSError>(),
            option::of(any::<u64>()),
            (
                option::of(word::<Nested>()),
                word::<LazyUnit>(),
                cpu_spec(),
                word::<Sve>(),
                option::of(any::<u16>()),
            ),
        ),
    )
        .prop_map(|((name, cpus, regions, kernel), (initrd, dtb, cmdline, mte, priority), rest)| {
            let (control, (autostart, background, debug), on_serror, tag_quota, rest) = rest;
            let (nested, lazy_unit, cpu, sve, sve_vl) = rest;
            let dtb = Ipa::new(dtb);
            VmSpec {
                name,
                cpus,
                regions,
                kernel,
                initrd,
                dtb,
                cmdline,
                mte,
                sve,
                sve_vl,
                nested,
                priority,
                control,
                autostart,
                background,
                debug,
                on_serror,
                tag_quota,
                cpu,
                lazy_unit,
            }
        })
}

fn cpu_spec() -> impl Strategy<Value = CpuSpec> {
    vec((any::<[u8; 3]>(), "[ -~]{1,20}"), 0..5).prop_map(|fields| CpuSpec {
        fields: fields.iter().map(|&([register, lsb, value], _)| CpuField { register, lsb, value }).collect(),
        names: fields.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join("\n"),
    })
}

fn machine_spec() -> impl Strategy<Value = MachineSpec> {
    let range = || {
        (any::<u32>(), any::<u32>())
            .prop_map(|(pa, size)| PaRange::new(Pa::new(pa.into()), size.into()).unwrap())
    };
    let taggable =
        prop_oneof![Just(Taggable::None), Just(Taggable::All), vec(range(), 0..4).prop_map(Taggable::Ranges)];
    (taggable, vec(range(), 0..3), vec(vm_spec(), 0..4))
        .prop_map(|(taggable, tag_storage, vms)| MachineSpec { taggable, tag_storage, vms })
}

proptest! {
    #[test]
    fn reading_inverts_writing(machine in machine_spec()) {
        prop_assert_eq!(read(&write(&machine)), Ok(machine));
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&noise).is_err());
    }

    #[test]
    fn mutations_never_panic(machine in machine_spec(), hits in vec((any::<u16>(), any::<u8>()), 1..8)) {
        let mut dtb = write(&machine);
        for (at, value) in hits {
            let len = dtb.len();
            dtb[usize::from(at) % len] = value;
        }
        if let Ok(machine) = read(&dtb) {
            // Whatever can be read can be checked.
            let _ = crate::check(&machine, |name| u64::try_from(name.len()).ok());
        }
    }

    #[test]
    fn prefixes_never_panic(machine in machine_spec(), len in any::<u16>()) {
        let dtb = write(&machine);
        prop_assert!(read(&dtb[..usize::from(len) % dtb.len()]).is_err());
    }
}

/// The sentence after `edit` changed a valid compiled manifest.
fn sentence(edit: impl FnOnce(&mut DeviceTree)) -> String {
    let tag_storage = Vec::new();
    let spec =
        MachineSpec { taggable: Taggable::All, tag_storage, vms: Vec::from([crate::check::tests::vm("a")]) };
    let dtb = write(&spec);
    let mut tree = DeviceTree::from_fdt(&Fdt::new(&dtb).unwrap());
    edit(&mut tree);
    read(&tree.to_dtb()).unwrap_err().to_string()
}

fn set(tree: &mut DeviceTree, path: &str, name: &str, value: impl dtoolkit::ToPropertyValue) {
    tree.find_node_mut(path).unwrap().add_property(DeviceTreeProperty::new(name, value).unwrap());
}

#[test]
fn what_has_no_meaning_is_refused_with_a_sentence() {
    type Edit = fn(&mut DeviceTree);
    let edits: [(Edit, &str); 11] = [
        (|t| set(t, "/", "taggable", "some"), "a malformed property \"taggable\" at /"),
        (|t| set(t, "/", "dog", "wuff"), "an unknown property \"dog\" at /"),
        (|t| set(t, "/vm@0", "cat", 1_u32), "an unknown property \"cat\" at /vm@0"),
        (|t| set(t, "/vm@0", "cpus", [0x1_0000_u32]), "a malformed property \"cpus\" at /vm@0"),
        (|t| set(t, "/vm@0", "priority", 256_u32), "a malformed property \"priority\" at /vm@0"),
        (|t| set(t, "/vm@0", "on-serror", "panic"), "a malformed property \"on-serror\" at /vm@0"),
        (|t| set(t, "/vm@0/region@0", "reg", [1_u32]), "a malformed property \"reg\" at /vm@0/region@0"),
        (|t| set(t, "/vm@0/region@0", "reg", [!0_u32; 4]), "a malformed property \"reg\" at /vm@0/region@0"),
        (|t| set(t, "/vm@0/region@0", "kind", "rom"), "a malformed property \"kind\" at /vm@0/region@0"),
        (
            |t| {
                t.find_node_mut("/vm@0").unwrap().remove_property("cmdline");
            },
            "no property \"cmdline\" at /vm@0",
        ),
        (
            |t| {
                let region = t.find_node("/vm@0/region@0").unwrap().clone();
                t.root.add_child(region);
            },
            "an unknown node \"region@0\" at /",
        ),
    ];
    for (edit, expected) in edits {
        assert_eq!(sentence(edit), ["the compiled manifest has ", expected].concat());
    }
    assert_eq!(
        sentence(|t| set(t, "/", "compatible", "tagvisor,manifest-v2")),
        "the compiled manifest is not compatible with \"tagvisor,manifest-v1\""
    );
    assert_eq!(
        read(b"").unwrap_err().to_string(),
        "the compiled manifest is no device tree: Invalid FDT length at offset 0"
    );
}

#[test]
fn limits_hold_before_memory_is_spent() {
    let vms = alloc::vec![crate::check::tests::vm("a"); 33];
    let many = MachineSpec { taggable: Taggable::None, tag_storage: Vec::new(), vms };
    let error = read(&write(&many)).unwrap_err().to_string();
    assert_eq!(error, "the compiled manifest has too many nodes \"vm\" at /");
}
