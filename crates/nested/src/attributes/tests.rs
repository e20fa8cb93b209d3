use super::*;
use S2Memory::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use vmsa::attr::S2Features;

use crate::stage2::tests::OFFERED;

/// MemAttr: as L1 means it with FWB = 0 and FWB = 1, without and with MTE_PERM offered (D8.6.5, D8.6.6). A
/// reserved value is write-back.
#[rustfmt::skip]
const TABLE: [[(S2Memory, bool); 4]; 16] = {
    const R: (S2Memory, bool) = (WriteBack, true);
    const W: (S2Memory, bool) = (WriteBack, false);
    const N: (S2Memory, bool) = (NonCacheable, false);
    const T: (S2Memory, bool) = (WriteBackNoTag, false);
    const D: (S2Memory, bool) = (DeviceNGnRE, false);
    [
        /* 0000 */ [(DeviceNGnRnE, false); 4],
        /* 0001 */ [D; 4], /* 0010 */ [D; 4], /* 0011 */ [D; 4],
        /* 0100 */ [R, T, R, R],
        /* 0101 */ [N; 4],
        /* 0110 */ [N, N, W, W],
        /* 0111 */ [N, N, W, W],
        /* 1000 */ [R; 4],
        /* 1001 */ [N, N, R, R], /* 1010 */ [N, N, R, R], /* 1011 */ [N, N, R, R],
        /* 1100 */ [R; 4],
        /* 1101 */ [N, N, R, R],
        /* 1110 */ [N, N, R, T],
        /* 1111 */ [W, W, R, T],
    ]
};

#[test]
fn l1s_types_by_l1s_fwb_and_mte_perm() {
    // docs/testing.md, M23: the same 0b1111 with vFWB 0 and 1.
    for (value, row) in TABLE.iter().enumerate() {
        for (case, expected) in row.iter().enumerate() {
            let offered = Offered { mte_perm: case & 1 != 0, ..OFFERED };
            let found = Attributes::decode((value as u64) << 2, case & 2 != 0, &offered);
            assert_eq!((found.memory, found.reserved), *expected, "{value:#06b} {case}");
        }
    }
}

#[test]
fn execute_never_with_and_without_xnx() {
    let exec = |xn: u64, xnx| Attributes::decode(xn << 53, false, &Offered { xnx, ..OFFERED }).exec;
    assert_eq!([0, 1, 2, 3].map(|xn| exec(xn, true)), [Exec::All, Exec::El0, Exec::Nobody, Exec::El1]);
    let without = [Exec::All, Exec::All, Exec::Nobody, Exec::Nobody];
    assert_eq!([0, 1, 2, 3].map(|xn| exec(xn, false)), without);
}

#[test]
fn tags_are_the_stricter() {
    let types = [DeviceNGnRnE, DeviceNGnRE, NonCacheable, WriteBackNoTag, WriteBack];
    for (i, a) in types.into_iter().enumerate() {
        for (j, b) in types.into_iter().enumerate() {
            assert_eq!(stricter(a, b), types[i.min(j)]);
        }
    }
}

#[test]
fn a_write_through_leaf_of_l1_is_non_cacheable_under_fwb() {
    let leaf = Attributes::decode(0b1010 << 2 | 0b11 << 6, false, &OFFERED);
    let features = S2Features { fwb: true, mte_perm: true };
    let attr = S2Attr { memory: leaf.memory, read: true, write: true, exec: Exec::All };
    assert_eq!(attr.encode(features).unwrap() >> 2 & 0b1111, 0b0101);
}

fn leaf(output: u64, size: u64, memory: S2Memory) -> Leaf {
    let attributes = Attributes { memory, read: true, write: true, exec: Exec::All, reserved: false };
    Leaf { output: Ipa::new(output), level: 2, size, attributes, clean: false, descriptor: 0 }
}

fn own(pa: u64, size: u64, attr: S2Attr) -> Own {
    Own { pa: Pa::new(pa), attr, size }
}

#[test]
fn blocks_survive_where_both_have_them() {
    let all = S2Attr::rwx(WriteBack);
    for (l1, l0, both) in [
        (BLOCK_1G, BLOCK_1G, BLOCK_1G),
        (BLOCK_1G, BLOCK_2M, BLOCK_2M),
        (BLOCK_2M, BLOCK_1G, BLOCK_2M),
        (BLOCK_2M, PAGE_SIZE, PAGE_SIZE),
        (512 << 20, BLOCK_1G, BLOCK_2M),
        (32 << 20, BLOCK_2M, BLOCK_2M),
        (64 << 10, BLOCK_2M, 64 << 10),
        (16 << 10, PAGE_SIZE, PAGE_SIZE),
        (16 << 30, BLOCK_1G, BLOCK_1G),
    ] {
        let offset = 0x3721_5123_u64;
        let ipa = Ipa::new(0x10_0000_0000 + offset);
        let (ours, theirs) =
            (own(0x20_4000_0000 + offset, l0, all), leaf(0x8_0000_0000 + offset, l1, WriteBack));
        let mapping = compose(ipa, &theirs, &ours).unwrap();
        let base = offset / both * both;
        assert_eq!(mapping.nested.size(), both, "{l1:#x} {l0:#x}");
        assert_eq!(mapping.nested.start().get(), 0x10_0000_0000 + base);
        assert_eq!(
            (mapping.pa.get(), mapping.canonical.get()),
            (0x20_4000_0000 + base, 0x8_0000_0000 + base)
        );
        assert_eq!(mapping.leaf, l1);
    }
}

prop_compose! {
    fn any_attr()(memory in prop::sample::select(std::vec![DeviceNGnRnE, DeviceNGnRE, NonCacheable,
                  WriteBackNoTag, WriteBack]), rights in 0_u8..16) -> S2Attr {
        let exec = Exec::new(rights & 4 != 0, rights & 8 != 0);
        S2Attr { memory, read: rights & 1 != 0, write: rights & 2 != 0, exec }
    }
}

/// What an attribute allows, as a set.
fn rights(attr: &S2Attr) -> BTreeSet<&'static str> {
    let all = [
        (attr.read, "read"),
        (attr.write, "write"),
        (attr.exec.el1(), "el1"),
        (attr.exec.el0(), "el0"),
        (attr.memory == WriteBack, "tags"),
        (matches!(attr.memory, WriteBack | WriteBackNoTag), "cache"),
        (!matches!(attr.memory, DeviceNGnRE | DeviceNGnRnE), "normal"),
        (attr.memory != DeviceNGnRnE, "early"),
    ];
    all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
}

proptest! {
    /// A shadow allows what both allow, no more and no less.
    #[test]
    fn composition_is_intersection(l1 in any_attr(), l0 in any_attr()) {
        let attributes = Attributes { memory: l1.memory, read: l1.read, write: l1.write, exec: l1.exec,
                                      reserved: false };
        let leaf = Leaf { output: Ipa::new(0x8000_0000), level: 3, size: PAGE_SIZE, attributes, clean: false, descriptor: 0 };
        let mapping = compose(Ipa::new(0x1000), &leaf, &own(0x4_0000_0000, PAGE_SIZE, l0)).unwrap();
        let both: BTreeSet<_> = rights(&l1).intersection(&rights(&l0)).copied().collect();
        prop_assert_eq!(rights(&mapping.attr), both);
    }
}
