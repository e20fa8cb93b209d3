//! A vCPU's EL1 and EL0 system registers: in the hardware while the vCPU is resident, here while
//! another vCPU has the CPU. L0 runs with E2H=0 and uses none of them itself.

use super::sysreg::{instruction, mrs, msr};

/// One line per register: field, name that the assembler takes, architectural long name.
macro_rules! el1_registers {
    ($( $field:ident, $reg:literal, $doc:literal; )*) => {
        /// The registers of a vCPU that is not resident.
        #[derive(Debug, Default)]
        pub(crate) struct El1State {
            $( #[doc = $doc] pub(crate) $field: u64, )*
        }

        impl El1State {
            /// Reads all registers from the hardware.
            pub(crate) fn save(&mut self) {
                $( self.$field = mrs!($reg); )*
            }

            /// Writes all registers to the hardware. They take effect at the ERET that follows.
            ///
            /// # Safety
            /// The vCPU must be the one that is entered next.
            pub(crate) unsafe fn load(&self) {
                $( msr!($reg, self.$field); )*
            }
        }
    };
}

el1_registers! {
    elr_el2, "elr_el2", "Exception Link Register (EL2): where the guest goes on";
    spsr_el2, "spsr_el2", "Saved Program Status Register (EL2): the guest's PSTATE";
    sp_el0, "sp_el0", "Stack Pointer (EL0)";
    sp_el1, "sp_el1", "Stack Pointer (EL1)";
    elr_el1, "elr_el1", "Exception Link Register (EL1)";
    spsr_el1, "spsr_el1", "Saved Program Status Register (EL1)";
    ttbr0_el1, "ttbr0_el1", "Translation Table Base Register 0 (EL1)";
    ttbr1_el1, "ttbr1_el1", "Translation Table Base Register 1 (EL1)";
    tcr_el1, "tcr_el1", "Translation Control Register (EL1)";
    sctlr_el1, "sctlr_el1", "System Control Register (EL1)";
    cpacr_el1, "cpacr_el1", "Architectural Feature Access Control Register";
    vbar_el1, "vbar_el1", "Vector Base Address Register (EL1)";
    mair_el1, "mair_el1", "Memory Attribute Indirection Register (EL1)";
    amair_el1, "amair_el1", "Auxiliary Memory Attribute Indirection Register (EL1)";
    esr_el1, "esr_el1", "Exception Syndrome Register (EL1)";
    far_el1, "far_el1", "Fault Address Register (EL1)";
    par_el1, "par_el1", "Physical Address Register";
    afsr0_el1, "afsr0_el1", "Auxiliary Fault Status Register 0 (EL1)";
    afsr1_el1, "afsr1_el1", "Auxiliary Fault Status Register 1 (EL1)";
    contextidr_el1, "contextidr_el1", "Context ID Register (EL1)";
    tpidr_el0, "tpidr_el0", "EL0 Read/Write Software Thread ID Register";
    tpidrro_el0, "tpidrro_el0", "EL0 Read-Only Software Thread ID Register";
    tpidr_el1, "tpidr_el1", "EL1 Software Thread ID Register";
    cntkctl_el1, "cntkctl_el1", "Counter-timer Kernel Control Register";
    csselr_el1, "csselr_el1", "Cache Size Selection Register";
    vdisr_el2, "S3_4_C12_C1_1", "Virtual Deferred Interrupt Status Register: what the guest sees as DISR_EL1";
    vsesr_el2, "S3_4_C5_C2_3", "Virtual SError Exception Syndrome Register";
}

impl El1State {
    /// The state in which a vCPU starts: AArch64 EL1h, interrupts masked, MMU and caches off
    /// (DDI 0487, AArch64.TakeReset and D19 reset values; RES1 bits of SCTLR_EL1 set).
    pub(crate) fn at_reset(entry: u64) -> Self {
        Self { elr_el2: entry, spsr_el2: 0x3c5, sctlr_el1: 0x30d0_0980, ..Self::default() }
    }
}

/// MTE registers of a vCPU; only where the CPU has FEAT_MTE2.
#[derive(Debug, Default)]
pub(crate) struct MteState {
    rgsr_el1: u64,
    gcr_el1: u64,
    tfsr_el1: u64,
    tfsre0_el1: u64,
}

impl MteState {
    /// Reads them, once the guest's accesses have left their asynchronous tag faults there (DDI 0487,
    /// TFSR_EL1: DSB, then ISB).
    pub(crate) fn save(&mut self) {
        instruction!("dsb nsh");
        instruction!("isb");
        self.rgsr_el1 = mrs!("S3_0_C1_C0_5");
        self.gcr_el1 = mrs!("S3_0_C1_C0_6");
        self.tfsr_el1 = mrs!("S3_0_C5_C6_0");
        self.tfsre0_el1 = mrs!("S3_0_C5_C6_1");
    }

    /// Writes them.
    ///
    /// # Safety
    /// The vCPU must be the one that is entered next, and the CPU must have FEAT_MTE2.
    pub(crate) unsafe fn load(&self) {
        msr!("S3_0_C1_C0_5", self.rgsr_el1);
        msr!("S3_0_C1_C0_6", self.gcr_el1);
        msr!("S3_0_C5_C6_0", self.tfsr_el1);
        msr!("S3_0_C5_C6_1", self.tfsre0_el1);
    }
}

/// Pointer authentication keys; only where the CPU has FEAT_PAuth.
#[derive(Debug, Default)]
pub(crate) struct PauthKeys([u64; 10]);

macro_rules! pauth_keys {
    ($( $n:literal $reg:literal $doc:literal; )*) => {
        impl PauthKeys {
            /// Reads them.
            pub(crate) fn save(&mut self) {
                self.0 = [$( mrs!($reg) ),*];
            }

            /// Writes them. EL2 does not use pointer authentication, so nothing of its own is lost.
            ///
            /// # Safety
            /// The vCPU must be the one that is entered next, and the CPU must have FEAT_PAuth.
            pub(crate) unsafe fn load(&self) {
                let Self(keys) = self;
                $( msr!($reg, keys[$n]); )*
            }
        }
    };
}

pauth_keys! {
    0 "S3_0_C2_C1_0" "APIAKeyLo_EL1";
    1 "S3_0_C2_C1_1" "APIAKeyHi_EL1";
    2 "S3_0_C2_C1_2" "APIBKeyLo_EL1";
    3 "S3_0_C2_C1_3" "APIBKeyHi_EL1";
    4 "S3_0_C2_C2_0" "APDAKeyLo_EL1";
    5 "S3_0_C2_C2_1" "APDAKeyHi_EL1";
    6 "S3_0_C2_C2_2" "APDBKeyLo_EL1";
    7 "S3_0_C2_C2_3" "APDBKeyHi_EL1";
    8 "S3_0_C2_C3_0" "APGAKeyLo_EL1";
    9 "S3_0_C2_C3_1" "APGAKeyHi_EL1";
}
