//! What regions and devices say, and the sentences about what is wrong with them.

use super::*;

#[test]
fn regions_say_what_they_are() {
    let at = "ipa = \"0x50000000\"\nsize = \"4KiB\"\n";
    let x = |lines: &str| region(&[at, lines].concat());
    assert_eq!(region("ipa = 0"), "6: vm \"a\": region \"x\": key \"size\" is missing");
    assert_eq!(
        x("kind = \"rom\""),
        "10: vm \"a\": region \"x\": kind \"rom\" is not one of \"ram\", \"read-only\", \"shared\", \"device\""
    );
    assert_eq!(x("flie = \"y\""), "10: vm \"a\": region \"x\": unknown key \"flie\"; did you mean \"file\"?");
    assert_eq!(
        x("tags = \"half\""),
        "10: vm \"a\": region \"x\": tags \"half\" is not one of \"backed\", \"none\", \"lazy\""
    );
    assert_eq!(
        x("on-tag-access = \"x\""),
        "10: vm \"a\": region \"x\": on-tag-access \"x\" is not one of \"stop\", \"inject\", \"report\""
    );
    assert_eq!(
        x("without-mte-perm = \"x\""),
        "10: vm \"a\": region \"x\": without-mte-perm \"x\" is not one of \"refuse\", \"noncacheable\""
    );
    assert_eq!(x("share = \"s\""), "6: vm \"a\": region \"x\": key \"share\" is only for kind \"shared\"");
    assert_eq!(
        x("kind = \"read-only\"\ncmo = \"skip\""),
        "11: vm \"a\": region \"x\": cmo \"skip\" is not one of \"emulate\", \"architectural\""
    );
    let only = "6: vm \"a\": region \"x\": key \"cmo\" is only for kind \"read-only\"";
    assert_eq!(x("cmo = \"emulate\""), only);
    assert_eq!(x("kind = \"shared\""), "6: vm \"a\": region \"x\": key \"share\" is missing");
    for key in ["pa = 0", "interrupts = []", "memory-type = \"device\"", "dma = \"none\""] {
        let name = key.split(' ').next().unwrap();
        let expected = format!("6: vm \"a\": region \"x\": key \"{name}\" is only for kind \"device\"");
        assert_eq!(x(key), expected);
    }
    assert_eq!(
        x("tags = \"none\""),
        "6: vm \"a\": region \"x\" is RAM with tags \"none\" in a VM with MTE: write out on-tag-access"
    );
    assert_eq!(
        region("ipa = 0xfffffffffffff000\nsize = 8192"),
        "9: vm \"a\": region \"x\": size does not fit in the address space"
    );
}

#[test]
fn devices_say_what_they_are() {
    let device =
        |lines: &str| region(&["ipa = \"0x50000000\"\nsize = \"4KiB\"\nkind = \"device\"\n", lines].concat());
    assert_eq!(device(""), "6: vm \"a\": region \"x\": key \"dma\" is missing");
    assert_eq!(
        device("dma = \"smmu\""),
        "11: vm \"a\": region \"x\": dma \"smmu\" is not \"none\": devices with DMA need an SMMU driver, \
         which does not exist"
    );
    assert_eq!(device("dma = \"none\""), "6: vm \"a\": region \"x\": key \"pa\" is missing");
    let rest = |line: &str| device(&["dma = \"none\"\npa = 0x1000\n", line].concat());
    assert_eq!(
        rest("memory-type = \"slow\""),
        "13: vm \"a\": region \"x\": memory-type \"slow\" is not one of \"device\", \"noncacheable\", \
         \"writeback\""
    );
    assert_eq!(
        rest("interrupts = [{ guest = 42 }]"),
        "13: vm \"a\": region \"x\": interrupts: key \"physical\" is missing"
    );
    assert_eq!(
        rest("interrupts = [{ physical = 42, trigger = \"soft\" }]"),
        "13: vm \"a\": region \"x\": interrupts: trigger \"soft\" is not one of \"level\", \"edge\""
    );
    assert_eq!(
        rest("interrupts = [{ physical = 42, guest = 33 }]"),
        "13: vm \"a\": region \"x\" (0x50000000 - 0x50001000) has guest interrupt 33, which belongs to the UART"
    );
}

#[test]
fn lazy_memory_whose_tags_may_run_out() {
    let toml = |quota: &str, policy: &str| {
        format!(
            "[machine]\ntaggable = \"all\"\ntag-storage = [{{ pa = 0, size = 4096 }}]\n\
             [[vm]]\nname = \"a\"\nkernel = \"Image\"\nmte = true\ntag-quota = \"{quota}\"\nlazy-unit = \"2MiB\"\n\
             [[vm.region]]\nname = \"ram\"\nipa = \"0x40000000\"\nsize = \"32MiB\"\ntags = \"lazy\"\n\
             on-tag-access = \"{policy}\"\n"
        )
    };
    let dir = Dir::new();
    let warnings = dir.compile(&toml("30MiB", "inject")).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("region \"ram\" has lazy tags and on-tag-access \"inject\", but tag-quota"));
    for (quota, policy) in [("32MiB", "inject"), ("30MiB", "stop")] {
        assert!(dir.compile(&toml(quota, policy)).unwrap().warnings.is_empty(), "{quota} {policy}");
    }
    let error = dir.compile(&toml("31MiB", "stop")).unwrap_err().to_string();
    assert!(error.ends_with(":8: vm \"a\": its tag-quota is no multiple of its lazy-unit 2MiB"), "{error}");
    let spec = dir.compile(&toml("2MiB", "stop")).unwrap().spec;
    assert_eq!((spec.vms[0].lazy_unit, spec.tag_storage.len()), (manifest::LazyUnit::Block, 1));
}
