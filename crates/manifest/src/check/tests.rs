use super::*;
use crate::{Cmo, DeviceInterrupt, DeviceMemory, KernelSpec, LazyUnit, OnSError, Placed, WithoutMtePerm};
use addr::{Ipa, IpaRange};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

fn ipa(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

pub(crate) fn region(name: &str, start: u64, size: u64, kind: RegionKind) -> RegionSpec {
    let tags = if kind == RegionKind::Ram { Tags::Backed } else { Tags::None };
    RegionSpec {
        name: name.into(),
        ipa: ipa(start, size),
        kind,
        file: None,
        tags,
        on_tag_access: OnTagAccess::Stop,
        without_mte_perm: WithoutMtePerm::Refuse,
    }
}

fn device(pa: u64, interrupts: &[(u32, u32)]) -> RegionKind {
    let interrupt = |&(physical, guest)| DeviceInterrupt { physical, guest, edge: false };
    RegionKind::Device {
        pa: Pa::new(pa),
        memory_type: DeviceMemory::Device,
        interrupts: interrupts.iter().map(interrupt).collect(),
    }
}

/// A valid VM with 32 MiB of RAM.
pub(crate) fn vm(name: &str) -> VmSpec {
    VmSpec {
        name: name.into(),
        cpus: Vec::from([0]),
        regions: Vec::from([region("ram", 0x4000_0000, 0x200_0000, RegionKind::Ram)]),
        kernel: KernelSpec {
            image: Placed { file: "kernel".into(), at: Ipa::new(0x4000_0000) },
            entry: Ipa::new(0x4000_0000),
        },
        initrd: Some(Placed { file: "initrd".into(), at: Ipa::new(0x4100_0000) }),
        dtb: Ipa::new(0x4080_0000),
        cmdline: String::new(),
        mte: true,
        priority: 100,
        control: Control::None,
        autostart: true,
        background: false,
        debug: true,
        on_serror: OnSError::Inject,
        tag_quota: None,
        cpu: crate::CpuSpec::default(),
        lazy_unit: LazyUnit::Page,
        sve: crate::Sve::IfPresent,
        sve_vl: None,
        nested: None,
    }
}

fn files(name: &str) -> Option<u64> {
    match name {
        "kernel" => Some(0x1_0000),
        "initrd" => Some(0x2345),
        "rom" => Some(0x1000),
        "big" => Some(0x1001),
        "empty" => Some(0),
        _ => None,
    }
}

fn machine(vms: &[VmSpec]) -> MachineSpec {
    MachineSpec { taggable: Taggable::All, tag_storage: Vec::new(), vms: vms.to_vec() }
}

/// The sentence for a machine of one VM that `edit` changed.
fn sentence(edit: impl FnOnce(&mut VmSpec)) -> String {
    let mut vm = vm("a");
    edit(&mut vm);
    check(&machine(&[vm]), files).unwrap_err().to_string()
}

/// The sentence for a machine of two VMs that `edit` changed.
fn sentence2(edit: impl FnOnce(&mut VmSpec, &mut VmSpec)) -> String {
    let (mut a, mut b) = (vm("a"), vm("b"));
    edit(&mut a, &mut b);
    check(&machine(&[a, b]), files).unwrap_err().to_string()
}

/// The sentence for a VM with one more region, of 4 KiB at 0x50000000.
fn extra(kind: RegionKind, edit: impl FnOnce(&mut RegionSpec)) -> String {
    sentence(|vm| {
        let mut x = region("x", 0x5000_0000, 0x1000, kind);
        edit(&mut x);
        vm.regions.push(x);
    })
}

#[test]
fn valid_machines_pass() {
    let mut a = vm("a");
    a.control = Control::All;
    a.regions.push(region("rom", 0x5000_0000, 0x1000, RegionKind::ReadOnly { cmo: Cmo::Emulate }));
    a.regions[1].file = Some("rom".into());
    a.regions.push(region("dev", 0x6000_0000, 0x1000, device(0x1000, &[(42, 42)])));
    a.regions.push(region("s", 0x7000_0000, 0x1000, RegionKind::Shared { share: "s".into() }));
    let mut b = vm("b");
    b.regions.push(region("dev", 0x6000_0000, 0x1000, device(0x2000, &[(43, 42)])));
    b.regions.push(region("t", 0x8000_0000, 0x1000, RegionKind::Shared { share: "s".into() }));
    b.regions[0].on_tag_access = OnTagAccess::Report;
    assert_eq!(check(&machine(&[a, b]), files), Ok(()));
}

#[test]
fn machine_rules() {
    let error = |machine: &MachineSpec| check(machine, files).unwrap_err().to_string();
    assert_eq!(error(&machine(&[])), "the machine has no VM");
    assert_eq!(error(&machine(&alloc::vec![vm("a"); 33])), "the machine has 33 VMs, more than 32");
    let range = |&(pa, size): &(u64, u64)| PaRange::new(Pa::new(pa), size).unwrap();
    let ranges = |list: &[(u64, u64)]| {
        error(&MachineSpec {
            taggable: Taggable::Ranges(list.iter().map(range).collect()),
            tag_storage: Vec::new(),
            vms: Vec::from([vm("a")]),
        })
    };
    let storage = |list: &[(u64, u64)]| MachineSpec {
        taggable: Taggable::All,
        tag_storage: list.iter().map(range).collect(),
        vms: Vec::from([vm("a")]),
    };
    assert_eq!(
        error(&storage(&[(0x1000, 8)])),
        "tag-storage range 0x1000 - 0x1008 is empty or not aligned to 4 KiB"
    );
    let mut device_there = storage(&[(0x1000, 0x2000)]);
    device_there.vms[0].regions.push(region("dev", 0x6000_0000, 0x1000, device(0x2000, &[])));
    assert_eq!(
        error(&device_there),
        "vm \"a\": region \"dev\" (0x60000000 - 0x60001000) lies in tag storage (0x1000 - 0x3000)"
    );
    assert_eq!(ranges(&[(0, 0)]), "taggable range 0x0 - 0x0 is empty or not aligned to 4 KiB");
    assert_eq!(ranges(&[(0x10, 0x1000)]), "taggable range 0x10 - 0x1010 is empty or not aligned to 4 KiB");
    assert_eq!(
        ranges(&[(0, 0x3000), (0x2000, 0x1000)]),
        "taggable range 0x2000 - 0x3000 overlaps 0x0 - 0x3000"
    );
}

#[test]
fn vm_rules() {
    let name = "the name is not 1 to 15 characters of a-z, 0-9, _ and -";
    assert_eq!(sentence(|vm| vm.name = "A".into()), ["vm \"A\": ", name].concat());
    assert_eq!(sentence(|vm| vm.name = "".into()), ["vm \"\": ", name].concat());
    assert_eq!(
        sentence(|vm| vm.name = "abcdefghijklmnop".into()),
        ["vm \"abcdefghijklmnop\": ", name].concat()
    );
    assert_eq!(sentence2(|_, b| b.name = "a".into()), "vm \"a\": another VM has the same name");
    assert_eq!(sentence(|vm| vm.cpus.clear()), "vm \"a\": it has 0 vCPUs, not 1 to 16");
    assert_eq!(sentence(|vm| vm.cpus = alloc::vec![0; 17]), "vm \"a\": it has 17 vCPUs, not 1 to 16");
    let cmdline = "vm \"a\": cmdline is longer than 2047 bytes or has control characters";
    assert_eq!(sentence(|vm| vm.cmdline = "x".repeat(2048)), cmdline);
    assert_eq!(sentence(|vm| vm.cmdline = "a\0b".into()), cmdline);
    assert_eq!(
        sentence(|vm| vm.regions = alloc::vec![vm.regions[0].clone(); 33]),
        "vm \"a\": it has 33 regions, more than 32"
    );
}

#[test]
fn control_rules() {
    let control = |list: &[u16]| sentence2(|a, _| a.control = Control::Vms(list.to_vec()));
    assert_eq!(control(&[2]), "vm \"a\": it controls VM 2, which does not exist (there are 2)");
    assert_eq!(control(&[0]), "vm \"a\": it controls VM 0, which is itself (there are 2)");
    assert_eq!(control(&[1, 1]), "vm \"a\": it controls VM 1, twice (there are 2)");
    let report = "region \"ram\" (0x40000000 - 0x42000000) has on-tag-access \"report\", but no VM controls \
                  this one";
    assert_eq!(
        sentence(|vm| {
            vm.control = Control::All;
            vm.regions[0].on_tag_access = OnTagAccess::Report;
        }),
        ["vm \"a\": ", report].concat()
    );
    assert_eq!(
        sentence2(|a, _| a.regions[0].on_tag_access = OnTagAccess::Report),
        ["vm \"a\": ", report].concat()
    );
}

#[test]
fn region_rules() {
    let x = |what: &str| ["vm \"a\": region \"x\" (0x50000000 - 0x50001000) ", what].concat();
    let ram = RegionKind::Ram;
    assert_eq!(
        extra(ram.clone(), |x| x.name = "X Y".into()),
        "vm \"a\": region \"X Y\" (0x50000000 - 0x50001000) has a name that is not 1 to 15 characters of \
         a-z, 0-9, _ and -"
    );
    assert_eq!(
        extra(ram.clone(), |x| x.name = "ram".into()),
        "vm \"a\": region \"ram\" (0x50000000 - 0x50001000) has the name of another region"
    );
    assert_eq!(
        extra(ram.clone(), |x| x.ipa = ipa(0x5000_0000, 0)),
        "vm \"a\": region \"x\" (0x50000000 - 0x50000000) is empty"
    );
    assert_eq!(
        extra(ram.clone(), |x| x.ipa = ipa(0x5000_0800, 0x1000)),
        "vm \"a\": region \"x\" (0x50000800 - 0x50001800) does not start at a multiple of 4 KiB"
    );
    assert_eq!(
        extra(ram.clone(), |x| x.ipa = ipa(0x5000_0000, 0x800)),
        "vm \"a\": region \"x\" (0x50000000 - 0x50000800) has a size that is no multiple of 4 KiB"
    );
    assert_eq!(
        extra(ram.clone(), |x| x.ipa = ipa(0xffff_ffff_f000, 0x2000)),
        "vm \"a\": region \"x\" (0xfffffffff000 - 0x1000000001000) ends above the 48 bits of an IPA"
    );
    assert_eq!(
        extra(ram.clone(), |x| x.without_mte_perm = WithoutMtePerm::NonCacheable),
        x("has without-mte-perm \"noncacheable\", which needs tags \"none\"")
    );
    assert_eq!(
        extra(ram.clone(), |x| x.file = Some("nix".into())),
        x("has the file \"nix\", which is not in the bundle")
    );
    assert_eq!(
        extra(ram, |x| x.file = Some("big".into())),
        x("has the file \"big\" of 4097 bytes, more than its own 4096")
    );
    let shared = RegionKind::Shared { share: "Ü".into() };
    assert_eq!(extra(shared, |_| {}), x("has a share that is not 1 to 15 characters of a-z, 0-9, _ and -"));
    let shared = RegionKind::Shared { share: "s".into() };
    assert_eq!(extra(shared, |x| x.tags = Tags::Lazy), x("is shared and cannot have tags \"lazy\""));
}

#[test]
fn overlaps_name_both() {
    assert_eq!(
        extra(RegionKind::Ram, |x| x.ipa = ipa(0x41ff_f000, 0x2000)),
        "vm \"a\": region \"x\" (0x41fff000 - 0x42001000) overlaps region \"ram\" (0x40000000 - 0x42000000)"
    );
    let at = |start| extra(RegionKind::ReadOnly { cmo: Cmo::Emulate }, |x| x.ipa = ipa(start, 0x1000));
    assert_eq!(
        at(0x800_f000),
        "vm \"a\": region \"x\" (0x800f000 - 0x8010000) overlaps the GIC distributor (0x8000000 - 0x8010000)"
    );
    assert_eq!(
        at(0x829_f000),
        "vm \"a\": region \"x\" (0x829f000 - 0x82a0000) overlaps the GIC redistributors (0x80a0000 - \
         0x82a0000)"
    );
    assert_eq!(
        at(0x900_0000),
        "vm \"a\": region \"x\" (0x9000000 - 0x9001000) overlaps the UART (0x9000000 - 0x9001000)"
    );
    assert_eq!(at(0x1000), "vm \"a\": its regions are not sorted by address");
}

#[test]
fn device_rules() {
    let x = |what: &str| ["vm \"a\": region \"x\" (0x50000000 - 0x50001000) ", what].concat();
    let dev = |pa, interrupts: &[_]| extra(device(pa, interrupts), |_| {});
    assert_eq!(dev(0x800, &[]), x("has pa 0x800, which is no multiple of 4 KiB"));
    assert_eq!(dev(1 << 48, &[]), x("has pa 0x1000000000000, which ends above 48 bits"));
    assert_eq!(dev(0, &[(31, 42)]), x("has physical interrupt 31, which is no SPI (32 to 1019)"));
    assert_eq!(dev(0, &[(1020, 42)]), x("has physical interrupt 1020, which is no SPI (32 to 1019)"));
    assert_eq!(dev(0, &[(42, 31)]), x("has guest interrupt 31, not 32 to 287"));
    assert_eq!(dev(0, &[(42, 288)]), x("has guest interrupt 288, not 32 to 287"));
    assert_eq!(dev(0, &[(42, 33)]), x("has guest interrupt 33, which belongs to the UART"));
    assert_eq!(dev(0, &[(42, 34)]), x("has guest interrupt 34, which belongs to the events of control VMs"));
    assert_eq!(
        dev(0, &[(42, 42), (43, 42)]),
        x("has guest interrupt 42, which belongs to region \"x\" (0x50000000 - 0x50001000)")
    );
    assert_eq!(dev(0, &[(42, 42), (42, 43)]), x("has physical interrupt 42, which the VM has twice"));
    let tags = extra(device(0, &[]), |x| x.tags = Tags::Backed);
    assert_eq!(tags, x("is a device and can only have tags \"none\""));
    let file = extra(device(0, &[]), |x| x.file = Some("rom".into()));
    assert_eq!(file, x("is a device and cannot have a file"));
}

#[test]
fn devices_have_one_owner() {
    let two = |a: RegionKind, b: RegionKind| {
        sentence2(|vm_a, vm_b| {
            vm_a.regions.push(region("x", 0x5000_0000, 0x2000, a));
            vm_b.regions.push(region("y", 0x6000_0000, 0x1000, b));
        })
    };
    assert_eq!(
        two(device(0x1000, &[]), device(0x2000, &[])),
        "vm \"b\": region \"y\" (0x60000000 - 0x60001000) has physical memory in common with vm \"a\" \
         region \"x\" (0x50000000 - 0x50002000)"
    );
    assert_eq!(
        two(device(0x1000, &[(42, 42)]), device(0x8000, &[(41, 41), (42, 43)])),
        "vm \"b\": region \"y\" (0x60000000 - 0x60001000) has physical interrupt 42 in common with vm \"a\" \
         region \"x\" (0x50000000 - 0x50002000)"
    );
}

#[test]
fn shares_agree() {
    let two = |edit: fn(&mut RegionSpec, &mut RegionSpec)| {
        let share = || RegionKind::Shared { share: "s".into() };
        let mut x = region("x", 0x5000_0000, 0x2000, share());
        let mut y = region("y", 0x6000_0000, 0x2000, share());
        edit(&mut x, &mut y);
        sentence2(|a, b| {
            a.regions.push(x);
            b.regions.push(y);
        })
    };
    let common = "and vm \"a\" region \"x\" (0x50000000 - 0x50002000) have the share \"s\" in common, but \
                  another ";
    assert_eq!(
        two(|_, y| y.ipa = ipa(0x6000_0000, 0x1000)),
        ["vm \"b\": region \"y\" (0x60000000 - 0x60001000) ", common, "size"].concat()
    );
    let y = ["vm \"b\": region \"y\" (0x60000000 - 0x60002000) ", common].concat();
    assert_eq!(two(|_, y| y.tags = Tags::Backed), [y.as_str(), "tags"].concat());
    let files = two(|x, y| (x.file, y.file) = (Some("rom".into()), Some("big".into())));
    assert_eq!(files, [y.as_str(), "file"].concat());
}

#[test]
fn what_is_loaded_lies_in_ram_and_apart() {
    let vm_a = |what: &str| ["vm \"a\": ", what].concat();
    let kernel = |edit: fn(&mut KernelSpec)| sentence(|vm| edit(&mut vm.kernel));
    assert_eq!(kernel(|k| k.image.file = "nix".into()), vm_a("its kernel \"nix\" is not in the bundle"));
    assert_eq!(kernel(|k| k.image.file = "empty".into()), vm_a("its kernel \"empty\" is empty"));
    assert_eq!(
        kernel(|k| k.image.at = Ipa::new(!0xff)),
        vm_a("its kernel \"kernel\" at 0xffffffffffffff00 does not fit in the address space")
    );
    assert_eq!(
        kernel(|k| k.entry = Ipa::new(0x4001_0000)),
        vm_a("its entry 0x40010000 is no instruction of the kernel (0x40000000 - 0x40010000)")
    );
    assert_eq!(
        kernel(|k| k.entry = Ipa::new(0x4000_0002)),
        vm_a("its entry 0x40000002 is no instruction of the kernel (0x40000000 - 0x40010000)")
    );
    assert_eq!(
        kernel(|k| (k.image.at, k.entry) = (Ipa::new(0x41ff_1000), Ipa::new(0x41ff_1000))),
        vm_a("its kernel (0x41ff1000 - 0x42001000) lies in no region of kind \"ram\"")
    );
    assert_eq!(
        sentence(|vm| vm.dtb = Ipa::new(0x4080_0004)),
        vm_a("its device tree at 0x40800004 is not aligned to 8 bytes or wraps")
    );
    assert_eq!(
        sentence(|vm| vm.dtb = Ipa::new(0x4000_fff8)),
        vm_a("its device tree (0x4000fff8 - 0x4001fff8) overlaps its kernel (0x40000000 - 0x40010000)")
    );
    let initrd = |at| sentence(|vm| vm.initrd = Some(Placed { file: "initrd".into(), at: Ipa::new(at) }));
    assert_eq!(
        initrd(0x4080_0000),
        vm_a("its initrd (0x40800000 - 0x40802345) overlaps its device tree (0x40800000 - 0x40810000)")
    );
    assert_eq!(
        initrd(0x9000_0000),
        vm_a("its initrd (0x90000000 - 0x90002345) lies in no region of kind \"ram\"")
    );
    assert_eq!(
        sentence(|vm| vm.regions[0].file = Some("rom".into())),
        vm_a("its kernel (0x40000000 - 0x40010000) overlaps its file \"rom\" (0x40000000 - 0x40001000)")
    );
}

#[test]
fn errors_point_at_their_entry() {
    let mut broken = vm("a");
    broken.regions[0].file = Some("nix".into());
    let error = check(&machine(&[broken]), files).unwrap_err();
    assert_eq!((error.vm.as_deref(), error.region.as_deref(), error.key), (Some("a"), Some("ram"), "file"));
}

#[test]
fn vectors() {
    let sve = |sve, bits| {
        sentence(|vm| {
            vm.sve = sve;
            vm.sve_vl = bits;
        })
    };
    for bits in [0, 64, 192, 2176] {
        let wanted = alloc::format!("vm \"a\": its sve-vl is {bits}, not a multiple of 128 from 128 to 2048");
        assert_eq!(sve(crate::Sve::Yes, Some(bits)), wanted);
    }
    for no in [crate::Sve::No, crate::Sve::IfPresent] {
        assert_eq!(sve(no, Some(256)), "vm \"a\": it has an sve-vl, but no SVE");
    }
}
