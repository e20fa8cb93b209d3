//! What an access that took a tag fault wanted of the tag.
//!
//! The syndrome says only whether a tag was written (ISS.WnR): LDG, a checked load and a checked store
//! report the same. The instruction tells them apart (C4.1 "A64 instruction set encoding").

/// What an access did with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Access {
    /// A tag was read, by LDG, LDGM, or by a checked access: which, is not known.
    ReadOrChecked = 0,
    /// LDG, LDGM.
    TagRead = 1,
    /// The STG family, DC GVA, DC GZVA.
    TagWrite = 2,
    /// A load whose tag was to be checked.
    CheckedRead = 3,
    /// A store, atomic or DC ZVA whose tag was to be checked.
    CheckedWrite = 4,
}

impl Access {
    /// What the syndrome alone says.
    #[must_use]
    pub const fn from_syndrome(tag_write: bool) -> Self {
        if tag_write { Self::TagWrite } else { Self::ReadOrChecked }
    }

    /// In words, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOrChecked => "tag read or checked access",
            Self::TagRead => "tag read",
            Self::TagWrite => "tag write",
            Self::CheckedRead => "checked read",
            Self::CheckedWrite => "checked write",
        }
    }

    /// What `instruction`, which took a tag fault, wanted; `None` if it is no access of memory that is
    /// known here.
    #[must_use]
    pub const fn of(instruction: u32) -> Option<Self> {
        // Bits 28:25, C4.1: x1x0 are loads and stores, 0010 is SVE, 101x holds the DC instructions.
        match instruction >> 25 & 0b1111 {
            0b0100 | 0b0110 | 0b1100 | 0b1110 => Some(load_or_store(instruction)),
            // C4.1.36: loads are 100 to 110 in bits 31:29, stores 111.
            0b0010 => match instruction >> 29 {
                0b111 => Some(Self::CheckedWrite),
                0b100..=0b110 => Some(Self::CheckedRead),
                _ => None,
            },
            0b1010 | 0b1011 => dc(instruction),
            _ => None,
        }
    }
}

const fn bit(word: u32, at: u32) -> bool {
    word >> at & 1 == 1
}

/// DC ZVA, GVA and GZVA: SYS with op1 = 3, CRn = 7, CRm = 4.
const fn dc(instruction: u32) -> Option<Access> {
    match instruction & !0x1f {
        0xd50b_7420 => Some(Access::CheckedWrite),
        0xd50b_7460 | 0xd50b_7480 => Some(Access::TagWrite),
        _ => None,
    }
}

const fn checked(load: bool) -> Access {
    if load { Access::CheckedRead } else { Access::CheckedWrite }
}

/// C4.1.94 "Loads and stores".
const fn load_or_store(i: u32) -> Access {
    // Bits 31:30 are mostly the size, V (bit 26) is FP, bit 22 mostly L.
    match (i >> 27 & 0b111, i >> 24 & 0b11) {
        // Memory tags: 11011001 in bits 31:24, bit 21.
        (0b011, 0b01) if i >> 30 == 0b11 && !bit(i, 26) && bit(i, 21) => tag_instruction(i),
        // Pairs. Size 01 of the general registers without L is STGP.
        (0b101, _) if i >> 30 == 0b01 && !bit(i, 26) && !bit(i, 22) => Access::TagWrite,
        // Exclusive and ordered ones; CAS and CASP store.
        (0b001, 0b00) if !bit(i, 26) => checked(bit(i, 22) && !bit(i, 21)),
        // Literals only load.
        (0b011, 0b00) => Access::CheckedRead,
        // One register, and LDAPUR, STLUR: the upper bit of opc tells loads with sign extension apart.
        (0b111, kind) => one_register(i, kind),
        (0b011, 0b01) if !bit(i, 26) => checked(i >> 22 & 0b11 != 0),
        // FP structures, FP pairs, pairs, LDAPUR of FP registers.
        _ => checked(bit(i, 22)),
    }
}

const fn one_register(i: u32, kind: u32) -> Access {
    if bit(i, 26) {
        return checked(bit(i, 22));
    }
    let register_form = kind & 0b01 == 0 && bit(i, 21);
    match i >> 10 & 0b11 {
        // Atomics store, but for LDAPR: o3 = 1, opc = 100 in bits 15:12.
        0b00 if register_form => checked(i >> 12 & 0b1111 == 0b1100 && bit(i, 23)),
        // LDRAA, LDRAB.
        0b01 | 0b11 if register_form => Access::CheckedRead,
        _ => checked(i >> 22 & 0b11 != 0),
    }
}

/// C4.1.94.16 "Load/store memory tags".
const fn tag_instruction(i: u32) -> Access {
    match (i >> 22 & 0b11, i >> 10 & 0b11) {
        (0b01 | 0b11, 0b00) => Access::TagRead,
        _ => Access::TagWrite,
    }
}

#[cfg(test)]
mod tests {
    use super::Access::{self, *};

    /// Assembled by LLVM 19 for armv9-a with memtag, lse and sve.
    #[rustfmt::skip]
    const KNOWN: &[(u32, Access, &str)] = &[
        (0xd960_0020, TagRead, "ldg x0, [x1]"),
        (0xd9e0_0020, TagRead, "ldgm x0, [x1]"),
        (0xd920_0821, TagWrite, "stg x1, [x1]"),
        (0xd920_1421, TagWrite, "stg x1, [x1], #16"),
        (0xd920_1c21, TagWrite, "stg x1, [x1, #16]!"),
        (0xd9a0_0821, TagWrite, "st2g x1, [x1]"),
        (0xd960_0821, TagWrite, "stzg x1, [x1]"),
        (0xd9e0_0821, TagWrite, "stz2g x1, [x1]"),
        (0xd9a0_0020, TagWrite, "stgm x0, [x1]"),
        (0xd920_0020, TagWrite, "stzgm x0, [x1]"),
        (0x6900_0440, TagWrite, "stgp x0, x1, [x2]"),
        (0x6880_8440, TagWrite, "stgp x0, x1, [x2], #16"),
        (0xd50b_7421, CheckedWrite, "dc zva, x1"),
        (0xd50b_7461, TagWrite, "dc gva, x1"),
        (0xd50b_7481, TagWrite, "dc gzva, x1"),
        (0xf940_0020, CheckedRead, "ldr x0, [x1]"),
        (0xf900_0020, CheckedWrite, "str x0, [x1]"),
        (0x3940_0020, CheckedRead, "ldrb w0, [x1]"),
        (0x3980_0020, CheckedRead, "ldrsb x0, [x1]"),
        (0xb980_0020, CheckedRead, "ldrsw x0, [x1]"),
        (0x3900_0020, CheckedWrite, "strb w0, [x1]"),
        (0xf862_6820, CheckedRead, "ldr x0, [x1, x2]"),
        (0xf822_6820, CheckedWrite, "str x0, [x1, x2]"),
        (0xf840_8420, CheckedRead, "ldr x0, [x1], #8"),
        (0xf800_8c20, CheckedWrite, "str x0, [x1, #8]!"),
        (0xf840_0820, CheckedRead, "ldtr x0, [x1]"),
        (0xf800_0820, CheckedWrite, "sttr x0, [x1]"),
        (0xa940_0440, CheckedRead, "ldp x0, x1, [x2]"),
        (0xa900_0440, CheckedWrite, "stp x0, x1, [x2]"),
        (0x6940_0440, CheckedRead, "ldpsw x0, x1, [x2]"),
        (0x2940_0440, CheckedRead, "ldp w0, w1, [x2]"),
        (0xad40_0440, CheckedRead, "ldp q0, q1, [x2]"),
        (0xad00_0440, CheckedWrite, "stp q0, q1, [x2]"),
        (0x3dc0_0020, CheckedRead, "ldr q0, [x1]"),
        (0x3d80_0020, CheckedWrite, "str q0, [x1]"),
        (0xfd40_0020, CheckedRead, "ldr d0, [x1]"),
        (0xfd00_0020, CheckedWrite, "str d0, [x1]"),
        (0x4c40_7020, CheckedRead, "ld1 {v0.16b}, [x1]"),
        (0x4c00_7020, CheckedWrite, "st1 {v0.16b}, [x1]"),
        (0xc85f_7c20, CheckedRead, "ldxr x0, [x1]"),
        (0xc802_7c20, CheckedWrite, "stxr w2, x0, [x1]"),
        (0xc8df_fc20, CheckedRead, "ldar x0, [x1]"),
        (0xc89f_fc20, CheckedWrite, "stlr x0, [x1]"),
        (0xc8a0_7c22, CheckedWrite, "cas x0, x2, [x1]"),
        (0x4820_7c82, CheckedWrite, "casp x0, x1, x2, x3, [x4]"),
        (0xf820_0022, CheckedWrite, "ldadd x0, x2, [x1]"),
        (0xf820_8022, CheckedWrite, "swp x0, x2, [x1]"),
        (0xf8bf_c020, CheckedRead, "ldapr x0, [x1]"),
        (0xd940_0020, CheckedRead, "ldapur x0, [x1]"),
        (0xd900_0020, CheckedWrite, "stlur x0, [x1]"),
        (0xf820_0420, CheckedRead, "ldraa x0, [x1]"),
        (0xa5e0_a000, CheckedRead, "ld1d {z0.d}, p0/z, [x0]"),
        (0xe5e0_e000, CheckedWrite, "st1d {z0.d}, p0, [x0]"),
        (0x8580_4000, CheckedRead, "ldr z0, [x0]"),
        (0xe580_4000, CheckedWrite, "str z0, [x0]"),
        (0xc5c0_c000, CheckedRead, "ld1d {z0.d}, p0/z, [x0, z0.d]"),
        (0xe580_a000, CheckedWrite, "st1d {z0.d}, p0, [x0, z0.d]"),
    ];

    #[test]
    fn known_instructions() {
        for (word, access, text) in KNOWN {
            assert_eq!(Access::of(*word), Some(*access), "{text}");
        }
    }

    #[test]
    fn no_access_of_memory() {
        // nop, mov x0, x1, ret, mrs x0, gcr_el1, dc cvac, x1, an SVE add, udf.
        for word in [0xd503_201f, 0xaa01_03e0, 0xd65f_03c0, 0xd538_10c0, 0xd50b_7a21, 0x0420_0000, 0] {
            assert_eq!(Access::of(word), None, "{word:#x}");
        }
    }

    #[test]
    fn a_syndrome_alone() {
        assert_eq!(Access::from_syndrome(true), TagWrite);
        assert_eq!(Access::from_syndrome(false).name(), "tag read or checked access");
    }
}
