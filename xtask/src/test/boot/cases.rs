//! The cases, and what most of them have in common.

use super::{Bundle, Case, End, Way, archive, tree};
use anyhow::Result;

/// A VM without MTE that any machine can run.
const PLAIN: &str = "cpus = [0]\nmemory = \"8MiB\"";
/// The same with MTE.
pub(super) const TAGGED: &str = "cpus = [0]\nmemory = \"8MiB\"\nmte = true";
const NO_MTE: &[&str] = &["-machine", "mte=off"];

const NO_API: &str = "cpus = [0]\nmemory = \"8MiB\"\n\n[vm.cpu]\nID_AA64ISAR1_EL1.API = 0";
const NESTED_VHE: &str = "cpus = [0]\nmemory = \"8MiB\"\nnested = \"vhe\"";
const NESTED_NVHE: &str = "cpus = [0]\nmemory = \"8MiB\"\nnested = \"nvhe\"";
const NO_NV2: &str = "vm: nested needs FEAT_NV2, which this machine's CPUs do not have";

/// The usual machine.
pub(super) const fn case(name: &'static str, end: End) -> Case {
    Case {
        name,
        cpu: "max",
        smp: 2,
        mem: "1G",
        options: "",
        qemu: &[],
        bundle: Bundle::Vm(TAGGED),
        way: Way::Qemu,
        end,
    }
}

const fn cpus(name: &'static str, smp: u32, vm: &'static str) -> Case {
    Case { smp, bundle: Bundle::Vm(vm), ..case(name, End::Pass) }
}

const fn model(name: &'static str, cpu: &'static str, vm: &'static str, end: End) -> Case {
    let qemu = if vm.len() == PLAIN.len() { NO_MTE } else { &[] };
    Case { cpu, bundle: Bundle::Vm(vm), qemu, ..case(name, end) }
}

const fn qemu(name: &'static str, qemu: &'static [&'static str], end: End) -> Case {
    Case { qemu, ..case(name, end) }
}

const fn options(name: &'static str, options: &'static str, end: End) -> Case {
    Case { options, ..case(name, end) }
}

const fn way(name: &'static str, way: Way, end: End) -> Case {
    Case { way, ..case(name, end) }
}

const fn spoilt(name: &'static str, spoil: fn(Vec<u8>) -> Result<Vec<u8>>, says: &'static str) -> Case {
    Case { bundle: Bundle::Spoilt(spoil), ..case(name, End::Refuse(says)) }
}

const fn vm(name: &'static str, vm: &'static str, says: &'static str) -> Case {
    Case { bundle: Bundle::Vm(vm), ..case(name, End::Refuse(says)) }
}

/// A machine that keeps tags in `storage`, with a plain VM of `memory`.
const fn tag_storage(name: &'static str, storage: &'static str, memory: &'static str, end: End) -> Case {
    Case { bundle: Bundle::TagStorage(storage, memory), ..case(name, end) }
}

const fn dt(name: &'static str, change: tree::Change, end: End) -> Case {
    way(name, Way::Tree(change), end)
}

const fn blob(name: &'static str, change: fn(Vec<u8>) -> Vec<u8>) -> Case {
    way(name, Way::Blob(change), End::Silence)
}

/// A machine of which only part of the redistributors can be found, for a VM that wants one of the rest.
const fn short_gicr(name: &'static str, change: tree::Change, says: &'static str) -> Case {
    let vm = "cpus = [0, 1, 2]\nmemory = \"8MiB\"";
    Case { bundle: Bundle::Vm(vm), ..dt(name, change, End::Refuse(says)) }
}

pub(super) const CASES: &[Case] = &[
    // Entry.
    Case { bundle: Bundle::Vm("cpus = [0, 1, 0]\nmemory = \"8MiB\""), ..way("e2h", Way::E2h, End::Pass) },
    Case {
        // Without PSCI, which firmware at EL3 would provide, all CPUs start at once.
        smp: 1,
        ..way("el3", Way::El3, End::Halt("entered at EL3: firmware must hand over at EL2"))
    },
    qemu("el1", &["-machine", "virtualization=off"], End::Refuse("entered at EL1: a hypervisor needs EL2")),
    qemu("firmware-at-el3", &["-machine", "secure=on"], End::Pass),
    way("no-tree", Way::X0(0), End::Silence),
    way("misaligned-tree", Way::X0(0x4800_0004), End::Silence),
    way("tree-in-a-hole", Way::X0(0x20_0000_0000), End::Silence),
    // CPUs and the interrupt controller.
    cpus("smp1", 1, TAGGED),
    cpus("smp2", 2, "cpus = [0, 1]\nmemory = \"8MiB\""),
    cpus("smp4", 4, "cpus = [3, 2, 1, 0]\nmemory = \"8MiB\"\nmte = true"),
    cpus("smp8", 8, "cpus = [0, 7]\nmemory = \"8MiB\""),
    model("neoverse-n2", "neoverse-n2", TAGGED, End::Pass),
    model("cortex-a710", "cortex-a710", TAGGED, End::Pass),
    model("cortex-a76", "cortex-a76", PLAIN, End::Pass),
    model("cortex-a57", "cortex-a57", PLAIN, End::Refuse("the CPU lacks FEAT_RAS")),
    qemu("gicv4", &["-machine", "gic-version=4"], End::Pass),
    qemu("gicv2", &["-machine", "gic-version=2"], End::Refuse("QEMU: add gic-version=3 to -machine")),
    short_gicr("gicr-too-short", tree::short_gicr, "it wants CPU 1, but the machine has 1"),
    short_gicr("gicr-without-room", tree::tiny_gicr, "no GIC redistributor has this CPU's affinity"),
    Case {
        // Every other redistributor is passed over.
        smp: 3,
        ..short_gicr("gicr-stride", tree::gicr_stride, "it wants CPU 2, but the machine has 2")
    },
    dt(
        "gicr-odd-stride",
        tree::odd_stride,
        End::Refuse("`redistributor-stride` is not a multiple of 64 KiB"),
    ),
    dt("odd-timer", tree::odd_timer, End::Refuse("gives the EL1 virtual timer INTID 20, but only 27 is")),
    dt(
        "odd-maintenance",
        tree::odd_maintenance,
        End::Refuse("maintenance interrupt INTID 24, but only 25 is"),
    ),
    // Options.
    options("all-options", "fwb=off mte-perm=off cmo-trap=on log=debug", End::Pass),
    options("unknown-option", "fwb=maybe", End::Refuse("unknown option `fwb=maybe`")),
    options("unknown-option-unlogged", "log=off quiet", End::Refuse("unknown option `quiet`")),
    options(
        "contradictory-options",
        "fwb=off fwb=on",
        End::Refuse("the options `fwb=off` and `fwb=on` contradict each other"),
    ),
    // Bundles.
    Case {
        bundle: Bundle::Absent,
        ..case("no-bundle", End::Refuse("there is no bundle: the loader gave no initrd"))
    },
    spoilt("no-archive", archive::no_archive, "no cpio (newc) entry at offset 0 of the bundle"),
    spoilt("cut-archive", archive::cut, "the bundle ends inside its cpio entry"),
    spoilt("no-manifest", archive::without_manifest, "no file \"manifest.dtb\" in the bundle"),
    spoilt("garbage-manifest", archive::garbage_manifest, "the compiled manifest is no device tree"),
    spoilt("cut-manifest", archive::cut_manifest, "the compiled manifest is no device tree"),
    spoilt("file-missing", archive::without_file, "vm \"vm\": "),
    vm("too-many-cpus", "cpus = [0, 5]\nmemory = \"8MiB\"", "it wants CPU 5, but the machine has 2"),
    vm(
        "idregs-too-high",
        "cpus = [0]\nmemory = \"8MiB\"\nmte = true\n\n[vm.cpu]\nID_AA64PFR1_EL1.MTE = 4",
        "manifest line 12: ID_AA64PFR1_EL1.MTE: asked 4, at most 3 allowed here",
    ),
    Case {
        cpu: "neoverse-n2",
        ..vm(
            "idregs-beyond-this-cpu",
            "cpus = [0]\nmemory = \"8MiB\"\n\n[vm.cpu]\nID_AA64ISAR0_EL1.Atomic = 3",
            "manifest line 11: ID_AA64ISAR0_EL1.Atomic: asked 3, at most 2 allowed here",
        )
    },
    vm(
        "idregs-contradiction",
        "cpus = [0]\nmemory = \"8MiB\"\n\n[vm.cpu]\nID_AA64PFR0_EL1.FP = 15",
        "VM vm: its ID registers contradict each other: ID_AA64PFR0_EL1.FP and AdvSIMD differ",
    ),
    vm("idregs-half-an-algorithm", NO_API, "APA and GPA, API and GPI, or ID_AA64ISAR2_EL1.APA3"),
    // Virtual EL2: no CPU of QEMU's has FEAT_NV2 without NV1.
    Case { cpu: "cortex-a710", ..vm("nested-vhe-absent", NESTED_VHE, NO_NV2) },
    Case { cpu: "cortex-a710", ..vm("nested-nvhe-absent", NESTED_NVHE, NO_NV2) },
    // Tag storage, which is nobody's memory.
    tag_storage(
        "tags-storage-in-use",
        "{ pa = 0x40000000, size = \"16MiB\" }",
        "8MiB",
        End::Refuse("tag storage at 0x40000000 is in use by the hypervisor itself, at 0x4"),
    ),
    tag_storage(
        "tags-storage-is-no-ram",
        "{ pa = 0x60000000, size = \"512MiB\" }",
        "512MiB",
        End::Refuse("region ram needs 524288 KiB of RAM, of which"),
    ),
    Case {
        // Nothing answers there, and it would be the first choice for this VM: touched once, all ends.
        way: Way::Tree(tree::absent_bank),
        ..tag_storage("tags-storage-untouched", "{ pa = 0x100000000, size = \"8MiB\" }", "8MiB", End::Pass)
    },
    // The same said by the device tree, which also knows of memory without tags.
    Case {
        bundle: Bundle::Vm("cpus = [0]\nmemory = \"8MiB\""),
        ..dt("tags-storage-in-tree", tree::absent_tag_storage, End::Pass)
    },
    Case {
        bundle: Bundle::Vm(
            "cpus = [0]\nmemory = \"8MiB\"\n[[vm.region]]\nname = \"tags\"\nkind = \"device\"\n\
             ipa = \"0x4000000000\"\npa = \"0x4000000000\"\nsize = \"4KiB\"\ndma = \"none\"",
        ),
        ..dt(
            "tags-storage-is-no-device",
            tree::tag_storage_beside_ram,
            End::Refuse("(0x4000000000 - 0x4000001000) lies in tag storage (0x4000000000 - 0x4000100000)"),
        )
    },
    dt("tags-not-in-tree", tree::no_mte, End::Refuse("region ram needs 8192 KiB of taggable RAM, of which")),
    vm("too-much-ram", "cpus = [0]\nmemory = \"3GiB\"", "region ram needs 3145728 KiB of RAM, of which"),
    Case {
        qemu: NO_MTE,
        ..case("mte-absent", End::Refuse("it wants MTE, which this machine's CPUs do not have"))
    },
    Case { mem: "32M", bundle: Bundle::Vm(PLAIN), ..case("little-ram", End::Pass) },
    Case { mem: "8M", ..case("tiny-ram", End::Refuse("there is not enough RAM for the hypervisor itself")) },
    // Device trees that are well-formed.
    dt("tree-same", tree::same, End::Pass),
    dt("no-memory", tree::no_memory, End::Refuse("device tree: there is no memory")),
    dt("no-gic", tree::no_gic, End::Refuse("there is no interrupt controller that is a GIC")),
    dt("no-timer", tree::no_timer, End::Refuse("there is no architectural timer")),
    dt("no-cpus", tree::no_cpus, End::Refuse("there is no /cpus node")),
    dt("no-psci", tree::no_psci, End::Halt("has no PSCI 0.2 or later")),
    dt("odd-psci", tree::odd_psci, End::Refuse("/psci: property `method` is neither `smc` nor `hvc`")),
    dt("no-stdout", tree::no_stdout, End::Silence),
    dt("wrong-stdout", tree::wrong_stdout, End::Silence),
    dt("stdout-in-a-hole", tree::stdout_in_a_hole, End::Silence),
    dt("wrong-cells", tree::wrong_cells, End::Refuse("device tree: /cpus")),
    dt("wrong-root-cells", tree::wrong_root_cells, End::Silence),
    dt("long-property", tree::long_property, End::Pass),
    dt("two-cpus-alike", tree::two_cpus_alike, End::Refuse("property `reg` of two CPUs is the same")),
    dt("absent-cpu", tree::absent_cpu, End::Pass),
    dt("many-cpus", tree::many_cpus, End::Refuse("the machine has 80 CPUs, more than 64")),
    dt("deep", tree::deep, End::Refuse("is nested deeper than 16 nodes")),
    dt("very-deep", tree::very_deep, End::Refuse("is nested deeper than 16 nodes")),
    dt("high-memory", tree::high_memory, End::Refuse("there is RAM above 0xff0000000000")),
    dt("wrapping-memory", tree::wrapping_memory, End::Refuse("/memory@ffffffffffff0000: property `reg`")),
    dt("scattered-memory", tree::scattered_memory, End::Refuse("number of such ranges above 1024")),
    dt("two-banks", tree::two_banks, End::Pass),
    dt(
        "reserved-scattered",
        tree::reserved_scattered,
        End::Refuse("`(memory reservation block)` brings the number of such ranges above 1024"),
    ),
    dt("reserved-holes", tree::reserved_holes, End::Pass),
    Case {
        bundle: Bundle::Vm("cpus = [0]\nmemory = \"32MiB\""),
        ..dt(
            "reserved-nearly-all",
            tree::reserved_nearly_all,
            End::Refuse("region ram needs 32768 KiB of RAM"),
        )
    },
    dt("initrd-outside", tree::initrd_outside, End::Refuse("the bundle at 0x2000000000 is not in RAM")),
    dt("initrd-over-image", tree::initrd_over_image, End::Refuse("two parts of EL2's map overlap")),
    dt("initrd-reversed", tree::initrd_reversed, End::Refuse("`linux,initrd-end` is below")),
    dt("half-an-initrd", tree::half_an_initrd, End::Refuse("`linux,initrd-end` is missing")),
    // Device trees that are not: no UART can be found in them.
    blob("tree-cut", tree::cut),
    blob("tree-without-magic", tree::no_magic),
    blob("tree-huge", tree::huge),
    blob("tree-tiny", tree::tiny),
    blob("tree-structure-outside", tree::structure_outside),
    blob("tree-noise", tree::noise),
];
