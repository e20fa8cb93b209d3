//! VMs with MTE that cannot be on a CPU without FEAT_MTE_PERM: refused, never silently write-back.

use super::cases::case;
use super::{Bundle, Case, End};

const NONE: &str = "cpus = [0]\nmemory = \"8MiB\"\nmte = true\n[[vm.region]]\nname = \"bare\"\n\
                    ipa = \"0x98000000\"\nsize = \"2MiB\"\ntags = \"none\"\non-tag-access = \"inject\"";
const READ_ONLY: &str = "cpus = [0]\nmemory = \"8MiB\"\nmte = true\n[[vm.region]]\nname = \"bare\"\n\
                         ipa = \"0x98000000\"\nsize = \"64KiB\"\nkind = \"read-only\"";
const SHARED: &str = "cpus = [0]\nmemory = \"8MiB\"\nmte = true\n[[vm.region]]\nname = \"bare\"\n\
                      ipa = \"0xa0000000\"\nsize = \"1MiB\"\nkind = \"shared\"\nshare = \"s\"";
/// The second bank of QEMU's flash.
const DEVICE: &str = "cpus = [0]\nmemory = \"8MiB\"\nmte = true\n[[vm.region]]\nname = \"bare\"\n\
                      ipa = \"0x4000000\"\nsize = \"64MiB\"\nkind = \"device\"\npa = \"0x4000000\"\n\
                      memory-type = \"writeback\"\ndma = \"none\"";
/// A page less than all of it.
const LAZY: &str = "cpus = [0]\nmemory = \"8MiB\"\nmte = true\ntag-quota = \"2044KiB\"\n[[vm.region]]\n\
                    name = \"pool\"\nipa = \"0x80000000\"\nsize = \"2MiB\"\ntags = \"lazy\"";

const NO_TAGS: End =
    End::Refuse("VM vm: region bare has no tags, but the VM has MTE: that needs FEAT_MTE_PERM");
const SHORT: End = End::Refuse("VM vm: region pool has lazy tags, which need FEAT_MTE_PERM");

/// Both ways to be without it.
const fn cases(n2: &'static str, max: &'static str, vm: &'static str, end: End) -> [Case; 2] {
    let bundle = Bundle::Vm(vm);
    [
        Case { cpu: "neoverse-n2", bundle, ..case(n2, end) },
        Case { options: "mte-perm=off", bundle, ..case(max, end) },
    ]
}

pub(super) const CASES: [[Case; 2]; 6] = [
    cases("tags-none@neoverse-n2", "tags-none@mte-perm=off", NONE, NO_TAGS),
    cases("tags-read-only@neoverse-n2", "tags-read-only@mte-perm=off", READ_ONLY, NO_TAGS),
    cases("tags-shared@neoverse-n2", "tags-shared@mte-perm=off", SHARED, NO_TAGS),
    cases("tags-device@neoverse-n2", "tags-device@mte-perm=off", DEVICE, NO_TAGS),
    cases("tags-lazy-short@neoverse-n2", "tags-lazy-short@mte-perm=off", LAZY, SHORT),
    // What is refused there boots where FEAT_MTE_PERM is.
    [
        Case { bundle: Bundle::Vm(LAZY), ..case("tags-lazy-short", End::Pass) },
        Case { bundle: Bundle::Vm(DEVICE), ..case("tags-device", End::Pass) },
    ],
];
