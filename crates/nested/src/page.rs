//! The page that VNCR_EL2 names: where the registers are that vEL2 reads and writes without an exit.
//!
//! Slots are the architecture's (D8.12, "Enhanced support for nested virtualization", table of
//! offsets). What L1 stores there is checked nowhere: every use by L0 must bring it into shape.

/// Words of the page.
pub const WORDS: usize = 512;

macro_rules! slots {
    ($( $name:ident = $offset:literal; )*) => {
        $( #[doc = concat!(stringify!($name), ": offset ", stringify!($offset), ", as a word of the page.")]
           pub const $name: usize = $offset / 8; )*
        #[cfg(test)]
        const ALL: &[(&str, usize)] = &[$((stringify!($name), $offset)),*];
    };
}

slots! {
    VTTBR_EL2 = 0x020;
    VTCR_EL2 = 0x040;
    VMPIDR_EL2 = 0x050;
    CNTVOFF_EL2 = 0x060;
    HCR_EL2 = 0x078;
    VPIDR_EL2 = 0x088;
    TPIDR_EL2 = 0x090;
    HCRX_EL2 = 0x0a0;
    CPACR_EL1 = 0x100;
    CONTEXTIDR_EL1 = 0x108;
    SCTLR_EL1 = 0x110;
    TCR_EL1 = 0x120;
    AFSR0_EL1 = 0x128;
    AFSR1_EL1 = 0x130;
    ESR_EL1 = 0x138;
    MAIR_EL1 = 0x140;
    AMAIR_EL1 = 0x148;
    SPSR_EL1 = 0x160;
    CNTV_CVAL_EL0 = 0x168;
    CNTV_CTL_EL0 = 0x170;
    CNTP_CVAL_EL0 = 0x178;
    CNTP_CTL_EL0 = 0x180;
    TFSR_EL1 = 0x190;
    CNTPOFF_EL2 = 0x1a8;
    HFGRTR_EL2 = 0x1b8;
    HFGWTR_EL2 = 0x1c0;
    HFGITR_EL2 = 0x1c8;
    HDFGRTR_EL2 = 0x1d0;
    HDFGWTR_EL2 = 0x1d8;
    ZCR_EL1 = 0x1e0;
    TTBR0_EL1 = 0x200;
    TTBR1_EL1 = 0x210;
    FAR_EL1 = 0x220;
    ELR_EL1 = 0x230;
    SP_EL1 = 0x240;
    VBAR_EL1 = 0x250;
    ICH_LR0_EL2 = 0x400;
    ICH_AP0R0_EL2 = 0x480;
    ICH_AP1R0_EL2 = 0x4a0;
    ICH_HCR_EL2 = 0x4c0;
    ICH_VMCR_EL2 = 0x4c8;
    VDISR_EL2 = 0x500;
    VSESR_EL2 = 0x508;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows `name,offset` of the registers in the page, from the accessors of the architecture.
    const ORACLE: &str = include_str!("../tests/page.csv");

    #[test]
    fn slots_are_where_the_architecture_has_them() {
        for (name, offset) in ALL {
            let row = ORACLE.lines().find(|row| row.split(',').next() == Some(name));
            let at = row.and_then(|row| row.split(',').nth(1)).unwrap_or("none");
            assert_eq!(at, std::format!("0x{offset:03X}"), "{name}");
            assert_eq!(offset % 8, 0);
        }
    }

    #[test]
    fn slots_are_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }
}
