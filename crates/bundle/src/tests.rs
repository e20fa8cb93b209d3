use crate::kernel::tests::{an_elf, an_image, gzip};
use crate::{Bundle, Error, Resolver, compile};
use addr::Ipa;
use manifest::{Control, RegionKind, Tags, cpio};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

mod regions;

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A directory with a manifest and some files, deleted at the end.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Dir {
    fn new() -> Self {
        // Unique among tests and among runs.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("tagvisor-bundle-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let image = an_image(0, 0x10_0000, 0x1000);
        std::fs::write(dir.join("Image"), &image).unwrap();
        std::fs::write(dir.join("Image.gz"), gzip(&image)).unwrap();
        std::fs::write(dir.join("initrd"), vec![7; 0x1234]).unwrap();
        std::fs::write(dir.join("raw"), b"code").unwrap();
        std::fs::write(dir.join("empty"), b"").unwrap();
        let elf = an_elf(0x4020_0000, &[(0x4020_0000, 0x4020_0000, b"text....", 0x1000)]);
        std::fs::write(dir.join("elf"), elf).unwrap();
        Self(dir)
    }

    fn compile(&self, toml: &str) -> Result<Bundle, Error> {
        let path = self.0.join("m.toml");
        std::fs::write(&path, toml).unwrap();
        compile(&path, self)
    }
}

impl Resolver for Dir {
    fn resolve(&self, name: &str) -> Result<PathBuf, String> {
        match name {
            "payload" => Ok(self.0.join("Image")),
            "guests/linux-backports/Image" => Ok(self.0.join("Image.gz")),
            "guests/initrd.cpio" => Ok(self.0.join("initrd")),
            _ => Err("is nothing that the build makes".into()),
        }
    }
}

/// The sentence, with the line, for a manifest.
fn sentence(toml: &str) -> String {
    let error = Dir::new().compile(toml).unwrap_err();
    format!("{}: {}", error.line.unwrap_or(0), error.message)
}

/// The sentence for a VM "a" with these lines, from line 4 on.
fn vm(lines: &str) -> String {
    sentence(&["[[vm]]\nname = \"a\"\nkernel = \"Image\"\n", lines].concat())
}

/// The sentence for a VM with MTE that has a region "x" with these lines, from line 8 on.
fn region(lines: &str) -> String {
    vm(&["memory = \"32MiB\"\nmte = true\n[[vm.region]]\nname = \"x\"\n", lines].concat())
}

const FULL: &str = include_str!("../../../docs/manifest.md");

/// The example of the documentation.
fn example() -> &'static str {
    let (_, rest) = FULL.split_once("```toml\n# A complete example").unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_example_of_the_documentation_compiles() {
    let dir = Dir::new();
    for name in ["vmlinuz", "initrd.cpio", "firmware.bin"] {
        std::fs::copy(dir.0.join("Image"), dir.0.join(name)).unwrap();
    }
    let bundle = dir.compile(example()).unwrap();
    assert_eq!(bundle.warnings, Vec::<String>::new());
    let names: Vec<_> = bundle.spec.vms.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names, ["linux", "monitor"]);
    let linux = &bundle.spec.vms[0];
    assert_eq!(linux.cpus, [0, 1, 0, 1]);
    assert_eq!(linux.tag_quota, Some(0x1000));
    let regions: Vec<_> = linux.regions.iter().map(|r| (r.name.as_str(), r.kind.name(), r.tags)).collect();
    let expected = [
        ("rtc", "device", Tags::None),
        ("ram", "ram", Tags::Backed),
        ("pool", "ram", Tags::Lazy),
        ("mailbox", "shared", Tags::None),
        ("firmware", "read-only", Tags::None),
    ];
    assert_eq!(regions, expected);
    assert_eq!(bundle.spec.vms[1].control, Control::Vms(vec![0]));
}

#[test]
fn the_manifests_of_the_project_compile() {
    let dir = Dir::new();
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
    let bundle = compile(&manifests.join("default.toml"), &dir).unwrap();
    assert_eq!(bundle.warnings, Vec::<String>::new());
    assert_eq!(bundle.spec.vms.len(), 3);
    let total: u64 = bundle.spec.vms.iter().flat_map(|vm| &vm.regions).map(|r| r.ipa.size()).sum();
    assert!(total < 256 << 20);
    let bundle = compile(&manifests.join("linux.toml"), &dir).unwrap();
    assert_eq!(bundle.spec.vms[0].cpus, [0, 1, 2, 3]);
}

#[test]
fn a_bundle_holds_what_its_manifest_names() {
    let toml = "[[vm]]\nname = \"a\"\nmemory = \"32MiB\"\nkernel = \"Image.gz\"\ninitrd = \"initrd\"\n\
                [[vm]]\nname = \"b\"\nmemory = \"32MiB\"\nkernel = \"@payload\"\n\
                [[vm]]\nname = \"c\"\nmemory = \"32MiB\"\nkernel = \"elf\"\n\
                [[vm]]\nname = \"d\"\nmemory = \"32MiB\"\nkernel = \"raw\"\nkernel-offset = \"0x80000\"\n";
    let dir = Dir::new();
    let bundle = dir.compile(toml).unwrap();
    let archive = cpio::Archive::new(&bundle.archive).unwrap();
    let names: Vec<_> = archive.files().map(|f| f.name).collect();
    assert_eq!(names, ["manifest.dtb", "Image.gz", "elf", "initrd", "raw"]);
    let read = manifest::dtb::read(archive.file("manifest.dtb").unwrap()).unwrap();
    assert_eq!(read, bundle.spec);
    assert_eq!(manifest::check(&read, |name| archive.size(name)), Ok(()));
    let [a, b, c, d] = read.vms.as_slice() else { panic!("four VMs") };
    assert_eq!((a.kernel.image.at, a.dtb), (Ipa::new(0x4000_0000), Ipa::new(0x4020_0000)));
    assert_eq!(a.initrd.as_ref().unwrap().at, Ipa::new(0x4021_0000));
    assert_eq!(b.kernel, a.kernel);
    assert_eq!(archive.file("Image.gz").unwrap(), an_image(0, 0x10_0000, 0x1000));
    assert_eq!((c.kernel.image.at, c.kernel.entry), (Ipa::new(0x4020_0000), Ipa::new(0x4020_0000)));
    assert_eq!(archive.file("elf").unwrap(), b"text....");
    assert_eq!(d.kernel.entry, Ipa::new(0x4008_0000));
    // Reproducible.
    assert_eq!(dir.compile(toml).unwrap(), bundle);
}

#[test]
fn defaults() {
    let toml = "[[vm]]\nname = \"a\"\nmemory = \"32MiB\"\nkernel = \"Image\"\n\
                [[vm.region]]\nname = \"x\"\nipa = 0x5000_0000\nsize = 4096\n";
    let bundle = Dir::new().compile(toml).unwrap();
    let vm = &bundle.spec.vms[0];
    assert_eq!(vm.cpus, [0]);
    assert!(vm.autostart && !vm.mte && vm.initrd.is_none() && vm.tag_quota.is_none());
    assert_eq!((vm.priority, &vm.control, vm.cmdline.as_str()), (100, &Control::None, ""));
    assert_eq!((&vm.regions[1].kind, vm.regions[1].tags), (&RegionKind::Ram, Tags::Backed));
    let cpus = |lines: &str| {
        let toml = format!("[[vm]]\nname = \"a\"\nmemory = \"32MiB\"\nkernel = \"Image\"\n{lines}\n");
        Dir::new().compile(&toml).unwrap().spec.vms[0].cpus.clone()
    };
    assert_eq!(cpus("vcpus = 3"), [0, 1, 2]);
    assert_eq!(cpus("cpus = [2, 5]"), [2, 5]);
    assert_eq!(cpus("cpus = [2, 5]\nvcpus = 3"), [2, 5, 2]);
}

#[test]
fn keys_and_types_are_checked() {
    assert_eq!(sentence("x = 1"), "1: unknown key \"x\"");
    assert_eq!(sentence("[machin]\n"), "1: unknown key \"machin\"; did you mean \"machine\"?");
    assert_eq!(sentence("\n[machine]\ntags = 1"), "3: machine: unknown key \"tags\"");
    assert_eq!(
        sentence("[machine]\ntaggable = \"some\""),
        "2: machine: taggable \"some\" is not \"all\", \"none\" or a list of ranges"
    );
    assert_eq!(
        sentence("[machine]\ntaggable = [{ pa = 0 }]"),
        "2: machine: taggable: key \"size\" is missing"
    );
    assert_eq!(sentence(""), "1: the machine has no VM");
    assert_eq!(sentence("[[vm]]\nkernel = \"x\""), "1: vm: key \"name\" is missing");
    assert_eq!(sentence("[[vm]]\nname = \"a\""), "1: vm \"a\": key \"kernel\" is missing");
    assert_eq!(
        sentence("[vm]\nname = \"a\""),
        "1: vm must be a list of tables, each under [[vm]], not a table"
    );
    assert_eq!(vm("[[vm.region]]\nipa = 0"), "4: vm \"a\": region: key \"name\" is missing");
    assert_eq!(vm("intird = \"x\""), "4: vm \"a\": unknown key \"intird\"; did you mean \"initrd\"?");
    assert_eq!(vm("mte = 1"), "4: vm \"a\": mte must be true or false, not an integer");
    assert_eq!(vm("cmdline = 1"), "4: vm \"a\": cmdline must be a string, not an integer");
    assert_eq!(vm("cpus = 1"), "4: vm \"a\": cpus must be a list, not an integer");
    assert_eq!(vm("cpus = []"), "4: vm \"a\": cpus is empty");
    assert_eq!(vm("cpus = [65536]"), "4: vm \"a\": cpus is more than 65535");
    assert_eq!(vm("vcpus = 0"), "4: vm \"a\": vcpus is 0, not 1 to 16");
    assert_eq!(vm("vcpus = 17"), "4: vm \"a\": vcpus is 17, not 1 to 16");
    assert_eq!(vm("cpus = [1, 2]\nvcpus = 1"), "5: vm \"a\": vcpus is 1, fewer than the 2 CPUs of cpus");
    assert_eq!(vm("priority = 256"), "4: vm \"a\": priority is more than 255");
    assert_eq!(
        vm("priority = -1"),
        "4: vm \"a\": priority is not a number below 2^64, or a string like \"0x1000\" or \"16MiB\""
    );
    assert_eq!(
        vm("memory = \"lots\""),
        "4: vm \"a\": memory \"lots\" is not a number below 2^64, or a string like \"0x1000\" or \"16MiB\""
    );
    assert_eq!(
        vm("on-serror = \"die\""),
        "4: vm \"a\": on-serror \"die\" is not one of \"inject\", \"stop\""
    );
    assert_eq!(vm("tag-quota = 5"), "4: vm \"a\": tag-quota is no multiple of 4 KiB");
    assert_eq!(vm("control = [\"b\"]"), "4: vm \"a\": control \"b\" is no VM");
    assert_eq!(
        sentence("[[vm]]\nname = \"linux\"\nkernel = \"x\"\ncontrol = [\"linxu\"]"),
        "4: vm \"linux\": control \"linxu\" is no VM; did you mean \"linux\"?"
    );
    assert_eq!(vm("control = 1"), "4: vm \"a\": control must be a list, not an integer");
    assert!(sentence("[[vm]\n").starts_with("1: "));
}

#[test]
fn files_are_found_or_named() {
    let kernel = |name: &str, rest: &str| {
        let toml = format!("[[vm]]\nname = \"a\"\nmemory = \"32MiB\"\nkernel = \"{name}\"\n{rest}");
        sentence(&toml)
    };
    let missing = kernel("nix", "");
    assert!(missing.starts_with("4: vm \"a\": kernel \"nix\" cannot be read: "), "{missing}");
    assert!(missing.contains("/nix: No such file"), "{missing}");
    assert_eq!(kernel("@nix", ""), "4: vm \"a\": kernel \"@nix\" is nothing that the build makes");
    let empty = kernel("empty", "");
    assert!(empty.starts_with("4: vm \"a\": kernel \"empty\" is empty: "), "{empty}");
    assert_eq!(
        kernel("Image", "kernel-offset = 4096"),
        "5: vm \"a\": kernel-offset is for raw kernels only: this one says where it goes"
    );
    assert!(kernel("Image", "initrd = \"nix\"").starts_with("5: vm \"a\": initrd \"nix\" cannot be read: "));
    assert_eq!(
        kernel("raw", "kernel-offset = \"32MiB\""),
        "4: vm \"a\": kernel \"raw\" (0x42000000 - 0x42000004) does not fit in the VM's RAM (0x40000000 - \
         0x42000000)"
    );
    assert_eq!(vm(""), "3: vm \"a\": kernel \"Image\" has no region of kind \"ram\" to go to");
}

#[test]
fn a_nested_vm_says_which_kind() {
    assert_eq!(vm("nested = \"yes\""), "4: vm \"a\": nested \"yes\" is not one of \"vhe\", \"nvhe\"");
    assert_eq!(vm("nested = true"), "4: vm \"a\": nested must be a string, not a boolean");
}

#[test]
fn vectors_have_lengths_of_the_architecture() {
    for (bits, line) in [("0", 4), ("64", 4), ("200", 4), ("2176", 4)] {
        let wanted = format!("{line}: vm \"a\": sve-vl is {bits}, not a multiple of 128 from 128 to 2048");
        assert_eq!(vm(&format!("sve-vl = {bits}")), wanted);
    }
    assert_eq!(vm("sve = false\nsve-vl = 128"), "5: vm \"a\": sve-vl is given, but sve is false");
    assert_eq!(vm("sve = \"yes\""), "4: vm \"a\": sve must be true or false, not a string");
    let old = "cpu = \"armv8.2-a\"\n";
    for key in ["sve = true", "sve-vl = 256"] {
        let name = key.split(' ').next().unwrap();
        let wanted = format!("5: vm \"a\": {name} is given, but cpu is \"armv8.2-a\", which has no SVE");
        assert_eq!(vm(&[old, key].concat()), wanted);
    }
}

/// SVE as the machine has it, unless the CPU is named; then none, unless the entry asks for it.
#[test]
fn sve_by_cpu() {
    use manifest::Sve::{IfPresent, No, Yes};
    let sve = |lines: &str| {
        let ram = "memory = \"32MiB\"\n";
        let toml = ["[[vm]]\nname = \"a\"\nkernel = \"Image\"\n", ram, lines].concat();
        let vm = Dir::new().compile(&toml).unwrap().spec.vms.remove(0);
        let fields = vm.cpu.names.lines().filter(|name| name.contains("SVE")).count();
        (vm.sve, vm.sve_vl, fields)
    };
    assert_eq!(sve(""), (IfPresent, None, 0));
    assert_eq!(sve("cpu = \"host\""), (IfPresent, None, 0));
    assert_eq!(sve("sve = false"), (No, None, 0));
    assert_eq!(sve("sve = true"), (Yes, None, 0));
    assert_eq!(sve("sve-vl = 384"), (Yes, Some(384), 0));
    assert_eq!(sve("cpu = \"armv8.5-a\""), (No, None, 0));
    assert_eq!(sve("cpu = \"armv9.0-a\""), (No, None, 0));
    // ID_AA64PFR0_EL1.SVE and ID_AA64ZFR0_EL1.SVEver.
    assert_eq!(sve("cpu = \"armv9.0-a\"\nsve-vl = 128"), (Yes, Some(128), 2));
}

#[test]
fn cpus_by_name_and_by_field() {
    let spec = |lines: &str| {
        let toml = ["[[vm]]\nname = \"a\"\nkernel = \"Image\"\nmemory = \"32MiB\"\n", lines].concat();
        Dir::new().compile(&toml).map(|bundle| bundle.spec.vms.into_iter().next().unwrap())
    };
    assert_eq!(spec("").unwrap().cpu, manifest::CpuSpec::default());
    assert_eq!(spec("cpu = \"host\"").unwrap().cpu, manifest::CpuSpec::default());
    let vm = spec("cpu = \"armv8.5-a+memtag\"").unwrap();
    assert!(vm.mte && vm.cpu.fields.len() > 80 && vm.cpu.fields.len() == vm.cpu.names.lines().count());
    assert!(vm.cpu.names.contains(": armv8.5-a+memtag: ID_AA64PFR1_EL1.MTE\n"), "{}", vm.cpu.names);
    assert!(!spec("cpu = \"armv8.5-a\"").unwrap().mte);
    // A field beats the baseline; names in any case; the last line is 8 or so.
    let vm = spec("[vm.cpu]\nbaseline = \"armv8.0-a\"\nid_aa64isar0_el1.crc32 = 1").unwrap();
    let (field, name) = vm.cpu.fields.iter().zip(vm.cpu.names.lines()).last().unwrap();
    assert_eq!((field.register, field.lsb, field.value), (40, 16, 1));
    assert!(name.starts_with("line ") && name.ends_with(": ID_AA64ISAR0_EL1.CRC32"), "{name}");
    assert_eq!(vm.cpu.names.matches("CRC32").count(), 1);
}

#[test]
fn cpus_that_cannot_be() {
    let says = |lines: &str, what: &str| {
        let sentence = vm(lines);
        assert!(sentence.contains(what), "{sentence}");
    };
    says("cpu = \"armv8.5\"", "cpu \"armv8.5\" is not one of \"host\", \"armv8.0-a\"");
    says("cpu = 3", "cpu must be a table, not an integer");
    says(
        "[vm.cpu]\nID_AA64PFR9_EL1.MTE = 1",
        "is no ID register with fields; the nearest are ID_AA64PFR0_EL1, ",
    );
    says("[vm.cpu]\nID_AA64PFR1_EL1.MT = 1", "is no field of it; the nearest are BT, MTE, ");
    says("[vm.cpu]\nID_AA64PFR1_EL1.SME = 1", "is 1, but every VM has 0 there: ZA and streaming mode");
    says("[vm.cpu]\nID_AA64PFR1_EL1.MTE = 16", "ID_AA64PFR1_EL1: MTE is 16, but the field ends at 15");
    says("[vm.cpu]\nID_AA64PFR1_EL1.MTE = -1", "MTE is not a number");
    says("[vm.cpu]\nID_AA64PFR1_EL1 = 1", "must be a table");
    says("[vm.cpu]\nID_AA64PFR1_EL1 = { MTE = 1, mte = 2 }", "is there twice");
    says("mte = true\ncpu = \"armv8.5-a\"", "mte is true, but cpu is \"armv8.5-a\", which has no MTE");
    says(
        "mte = false\ncpu = \"armv9.0-a+memtag\"",
        "mte is false, but cpu is \"armv9.0-a+memtag\", which has MTE",
    );
    // The line of the field, not that of the table.
    let sentence = vm("[vm.cpu]\n\nID_AA64PFR1_EL1.BT = 1\n\nID_AA64PFR1_EL1.SME = 1");
    assert!(sentence.starts_with("8: "), "{sentence}");
}

#[test]
fn rules_blame_lines() {
    assert_eq!(
        region("ipa = \"0x41fff000\"\nsize = \"8KiB\""),
        "8: vm \"a\": region \"x\" (0x41fff000 - 0x42001000) overlaps region \"ram\" (0x40000000 - 0x42000000)"
    );
    // The shorthand is where its region comes from.
    assert_eq!(
        vm("memory = \"33555000\""),
        "4: vm \"a\": region \"ram\" (0x40000000 - 0x42000238) has a size that is no multiple of 4 KiB"
    );
    let two = "[[vm]]\nname = \"a\"\nmemory = \"32MiB\"\nkernel = \"Image\"\n";
    assert_eq!(sentence(&[two, two].concat()), "6: vm \"a\": another VM has the same name");
    assert_eq!(
        sentence(&["[machine]\n\ntaggable = [{ pa = 1, size = 1 }]\n", two].concat()),
        "3: taggable range 0x1 - 0x2 is empty or not aligned to 4 KiB"
    );
}

#[test]
fn warnings_name_what_is_probably_not_meant() {
    let toml = "[[vm]]\nname = \"a\"\nmemory = \"32MiB\"\nkernel = \"Image\"\nautostart = false\nmte = true\n\
                tag-quota = \"16MiB\"\n\
                [[vm.region]]\nname = \"s\"\nkind = \"shared\"\nshare = \"s\"\nipa = \"0x50000000\"\nsize = 4096\n\
                [[vm.region]]\nname = \"r\"\nkind = \"read-only\"\nipa = \"0x60000000\"\nsize = 4096\n\
                [[vm.region]]\nname = \"b\"\nipa = \"0x70000000\"\nsize = 4096\non-tag-access = \"stop\"\n\
                [[vm]]\nname = \"b\"\nautostart = false\nmemory = \"32MiB\"\nkernel = \"Image\"\n\
                [[vm.region]]\nname = \"l\"\ntags = \"lazy\"\nipa = \"0x50000000\"\nsize = 4096\n";
    let dir = Dir::new();
    let warnings = dir.compile(toml).unwrap().warnings;
    let expected = [
        "1: vm \"a\": has MTE, but [machine] taggable is \"none\"",
        "1: vm \"a\": has a tag-quota, but no region with tags \"lazy\"",
        "1: vm \"a\": region \"s\" is shared, but nothing else has its share",
        "1: vm \"a\": region \"r\" is read-only, but has no file",
        "1: vm \"a\": region \"b\" has on-tag-access, which does nothing with tags \"backed\"",
        "24: vm \"b\": region \"l\" has tags \"lazy\", but its VM has no MTE",
        "1: no VM has autostart",
    ];
    let expected: Vec<_> =
        expected.iter().map(|w| format!("{}:{w}", dir.0.join("m.toml").display())).collect();
    assert_eq!(warnings, expected);
}

#[test]
fn errors_start_with_file_and_line() {
    let dir = Dir::new();
    let error = dir.compile("x = 1").unwrap_err().to_string();
    assert_eq!(error, format!("{}:1: unknown key \"x\"", dir.0.join("m.toml").display()));
    let error = compile(&dir.0.join("no.toml"), &dir).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: cannot be read: ", dir.0.join("no.toml").display())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    #[test]
    fn mutated_manifests_never_panic(at in any::<u16>(), len in 0_usize..20, noise in "[ -~\n]{0,20}") {
        let mut toml = example().to_owned();
        let at = usize::from(at) % toml.len();
        toml.replace_range(at..(at + len).min(toml.len()), &noise);
        let _ = Dir::new().compile(&toml);
    }
}
