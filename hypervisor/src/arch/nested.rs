//! The hardware's part of virtual EL2: the page of VNCR_EL2, the EL1 registers of which vEL2 and L2
//! take turns, and the EL2 registers that differ between them.

use super::gic::{HardwareListRegisters, VirtualInterface};
use super::sysreg::{instruction, mrs, msr, operation};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};
use nested::fine::FineTraps;
use nested::pauth::Key;
use nested::{lists, page};

/// What VNCR_EL2 names: memory of EL2's that vEL2 reads and writes by the names of registers.
///
/// Relaxed atomics: only the vCPU's own CPU accesses it, either L0 or, through the hardware, the guest.
#[repr(C, align(4096))]
pub(crate) struct VncrPage([AtomicU64; page::WORDS]);

impl VncrPage {
    /// All zero.
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self([const { AtomicU64::new(0) }; page::WORDS]))
    }

    /// The register in this slot, as L1 left it.
    #[inline]
    pub(crate) fn get(&self, slot: usize) -> u64 {
        self.0.get(slot).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Writes a slot.
    #[inline]
    pub(crate) fn set(&self, slot: usize, value: u64) {
        if let Some(word) = self.0.get(slot) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Makes this the page of the resident vCPU (VNCR_EL2).
    ///
    /// # Safety
    /// The vCPU must be entered next, and the page must live until it is unloaded.
    pub(crate) unsafe fn install(&self) {
        msr!("S3_4_C2_C2_0", (&raw const self.0).addr() as u64);
    }
}

/// One line per register: field, name that the assembler takes, slot of L2's.
macro_rules! bank {
    ($( $field:ident $reg:literal $slot:ident; )*) => {
        /// The EL1 registers in which vEL2 lives, while L2 is in the hardware.
        #[derive(Debug, Default)]
        pub(crate) struct Bank {
            $( #[doc = $reg] pub(crate) $field: u64, )*
        }

        impl Bank {
            /// Takes vEL2 out of the hardware and puts L2 there, from the page.
            ///
            /// # Safety
            /// The vCPU must be entered next, with L2's stage 2 and controls.
            pub(crate) unsafe fn enter_l2(&mut self, page: &VncrPage) {
                $( self.$field = mrs!($reg); msr!($reg, page.get(page::$slot)); )*
            }

            /// Takes L2 out of the hardware, into the page, and puts vEL2 back.
            ///
            /// # Safety
            /// The vCPU must be entered next, with vEL2's stage 2 and controls.
            pub(crate) unsafe fn leave_l2(&self, page: &VncrPage) {
                $( page.set(page::$slot, mrs!($reg)); msr!($reg, self.$field); )*
            }
        }
    };
}

bank! {
    sp "sp_el1" SP_EL1;
    elr "elr_el1" ELR_EL1;
    spsr "spsr_el1" SPSR_EL1;
    esr "esr_el1" ESR_EL1;
    far "far_el1" FAR_EL1;
    sctlr "sctlr_el1" SCTLR_EL1;
    tcr "tcr_el1" TCR_EL1;
    ttbr0 "ttbr0_el1" TTBR0_EL1;
    ttbr1 "ttbr1_el1" TTBR1_EL1;
    mair "mair_el1" MAIR_EL1;
    amair "amair_el1" AMAIR_EL1;
    vbar "vbar_el1" VBAR_EL1;
    cpacr "cpacr_el1" CPACR_EL1;
    contextidr "contextidr_el1" CONTEXTIDR_EL1;
    afsr0 "afsr0_el1" AFSR0_EL1;
    afsr1 "afsr1_el1" AFSR1_EL1;
    vdisr "S3_4_C12_C1_1" VDISR_EL2;
    vsesr "S3_4_C5_C2_3" VSESR_EL2;
}

/// TFSR_EL1, once asynchronous tag faults of what ran are there. For CPUs with FEAT_MTE2.
pub(crate) fn swap_tfsr(value: u64) -> u64 {
    instruction!("dsb nsh");
    instruction!("isb");
    let old = mrs!("S3_0_C5_C6_0");
    msr!("S3_0_C5_C6_0", value);
    old
}

/// Gives CNTKCTL_EL1 another value, and returns the old one.
pub(crate) fn swap_cntkctl(value: u64) -> u64 {
    let old = mrs!("cntkctl_el1");
    msr!("cntkctl_el1", value);
    old
}

/// Writes VSESR_EL2.
///
/// # Safety
/// The vCPU must be resident, and this the syndrome of the SError that is pending for it, if any is.
pub(crate) unsafe fn set_vsesr(value: u64) {
    msr!("S3_4_C5_C2_3", value);
}

/// EL2 registers that differ between vEL2 and L2; CPTR_EL2 is `fp`'s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Controls {
    pub(crate) hcr: u64,
    /// Where it exists.
    pub(crate) hcrx: Option<u64>,
    pub(crate) mdcr: u64,
    pub(crate) cnthctl: u64,
    pub(crate) vpidr: u64,
    pub(crate) vmpidr: u64,
}

impl Controls {
    /// Writes them. They take effect at the ERET that follows.
    ///
    /// # Safety
    /// The vCPU must be entered next, in the state that the values are for.
    pub(crate) unsafe fn load(&self) {
        msr!("hcr_el2", self.hcr);
        if let Some(hcrx) = self.hcrx {
            msr!("S3_4_C1_C2_2", hcrx);
        }
        msr!("mdcr_el2", self.mdcr);
        msr!("cnthctl_el2", self.cnthctl);
        msr!("vpidr_el2", self.vpidr);
        msr!("vmpidr_el2", self.vmpidr);
    }
}

/// Writes HFGRTR_EL2, HFGWTR_EL2, HFGITR_EL2, HDFGRTR_EL2, HDFGWTR_EL2. For CPUs with FEAT_FGT.
///
/// # Safety
/// The vCPU must be entered next, in the context that they are for.
pub(crate) unsafe fn set_fine_traps(traps: &FineTraps) {
    msr!("S3_4_C1_C1_4", traps.read);
    msr!("S3_4_C1_C1_5", traps.write);
    msr!("S3_4_C1_C1_6", traps.instruction);
    msr!("S3_4_C3_C1_4", traps.debug_read);
    msr!("S3_4_C3_C1_5", traps.debug_write);
}

/// A register of EL1 in which one of vEL2 lives.
macro_rules! el1_register {
    ($($read:ident $write:ident $reg:literal;)*) => {$(
        #[doc = concat!("Reads ", $reg, ".")]
        pub(crate) fn $read() -> u64 {
            mrs!($reg)
        }

        #[doc = concat!("Writes ", $reg, ".")]
        ///
        /// # Safety
        /// The resident vCPU must be in vEL2.
        pub(crate) unsafe fn $write(value: u64) {
            msr!($reg, value);
        }
    )*};
}

el1_register! {
    sctlr set_sctlr "sctlr_el1";
    tcr set_tcr "tcr_el1";
    ttbr0 set_ttbr0 "ttbr0_el1";
    ttbr1 set_ttbr1 "ttbr1_el1";
    mair set_mair "mair_el1";
    amair set_amair "amair_el1";
    vbar set_vbar "vbar_el1";
    afsr0 set_afsr0 "afsr0_el1";
    afsr1 set_afsr1 "afsr1_el1";
    contextidr set_contextidr "contextidr_el1";
    cpacr set_cpacr "cpacr_el1";
    cntkctl set_cntkctl "cntkctl_el1";
}

/// Numbers of registers of the virtual CPU interface: list registers, and active priorities.
fn registers(interface: &VirtualInterface) -> (usize, usize) {
    (interface.list_registers.into(), interface.active_priority_registers.into())
}

/// Puts L1's list registers and virtual CPU interface into the hardware, whose list registers are
/// empty.
///
/// # Safety
/// The vCPU must be entered next, in L2.
pub(crate) unsafe fn load_lists(page: &VncrPage, interface: &VirtualInterface) {
    let (lrs, aprs) = registers(interface);
    for n in 0..lrs {
        let value = lists::to_hardware(page.get(page::ICH_LR0_EL2 + n));
        if value != 0 {
            HardwareListRegisters::write(n, value);
        }
    }
    msr!("S3_4_C12_C8_0", page.get(page::ICH_AP0R0_EL2));
    msr!("S3_4_C12_C9_0", page.get(page::ICH_AP1R0_EL2));
    if aprs > 1 {
        msr!("S3_4_C12_C8_1", page.get(page::ICH_AP0R0_EL2 + 1));
        msr!("S3_4_C12_C9_1", page.get(page::ICH_AP1R0_EL2 + 1));
    }
    if aprs > 2 {
        msr!("S3_4_C12_C8_2", page.get(page::ICH_AP0R0_EL2 + 2));
        msr!("S3_4_C12_C9_2", page.get(page::ICH_AP1R0_EL2 + 2));
        msr!("S3_4_C12_C8_3", page.get(page::ICH_AP0R0_EL2 + 3));
        msr!("S3_4_C12_C9_3", page.get(page::ICH_AP1R0_EL2 + 3));
    }
    msr!("S3_4_C12_C11_7", page.get(page::ICH_VMCR_EL2));
    msr!("S3_4_C12_C11_0", lists::hcr(page.get(page::ICH_HCR_EL2)));
}

/// Folds what L2 did into L1's list registers and ICH_VMCR_EL2, empties those that are done, and tells
/// `ended` which interrupts of L1's L2 has ended.
pub(crate) fn fold_lists(page: &VncrPage, interface: &VirtualInterface, mut ended: impl FnMut(u32)) {
    for n in 0..registers(interface).0 {
        let l1 = page.get(page::ICH_LR0_EL2 + n);
        let mine = lists::to_hardware(l1);
        if mine == 0 {
            continue;
        }
        let now = HardwareListRegisters::read(n);
        if let Some(intid) = lists::ended(l1, now) {
            ended(intid);
        }
        let new = lists::from_hardware(l1, now);
        page.set(page::ICH_LR0_EL2 + n, new);
        if lists::to_hardware(new) == 0 {
            HardwareListRegisters::write(n, 0);
        }
    }
    let count = mrs!("S3_4_C12_C11_0") & lists::ich_hcr::EOICOUNT;
    let hcr = page.get(page::ICH_HCR_EL2) & !lists::ich_hcr::EOICOUNT;
    page.set(page::ICH_HCR_EL2, hcr | count);
    page.set(page::ICH_VMCR_EL2, mrs!("S3_4_C12_C11_7"));
}

/// Whether the hardware has a reason for a maintenance interrupt (ICH_MISR_EL2).
pub(crate) fn is_maintenance_due() -> bool {
    mrs!("S3_4_C12_C11_2") != 0
}

/// Lets L2 run on with no more maintenance interrupts: L1 knows that it has one.
pub(crate) fn mute_lists() {
    use lists::ich_hcr::{EN, EOICOUNT, TRAPS};
    msr!("S3_4_C12_C11_0", mrs!("S3_4_C12_C11_0") & (EN | EOICOUNT | TRAPS));
}

/// Takes L1's virtual CPU interface out of the hardware, after [`fold_lists`], and empties the list
/// registers.
pub(crate) fn unload_lists(page: &VncrPage, interface: &VirtualInterface) {
    let (lrs, aprs) = registers(interface);
    for n in 0..lrs {
        if lists::to_hardware(page.get(page::ICH_LR0_EL2 + n)) != 0 {
            HardwareListRegisters::write(n, 0);
        }
    }
    page.set(page::ICH_AP0R0_EL2, mrs!("S3_4_C12_C8_0"));
    page.set(page::ICH_AP1R0_EL2, mrs!("S3_4_C12_C9_0"));
    if aprs > 1 {
        page.set(page::ICH_AP0R0_EL2 + 1, mrs!("S3_4_C12_C8_1"));
        page.set(page::ICH_AP1R0_EL2 + 1, mrs!("S3_4_C12_C9_1"));
    }
    if aprs > 2 {
        page.set(page::ICH_AP0R0_EL2 + 2, mrs!("S3_4_C12_C8_2"));
        page.set(page::ICH_AP1R0_EL2 + 2, mrs!("S3_4_C12_C9_2"));
        page.set(page::ICH_AP0R0_EL2 + 3, mrs!("S3_4_C12_C8_3"));
        page.set(page::ICH_AP1R0_EL2 + 3, mrs!("S3_4_C12_C9_3"));
    }
}

/// ICH_VTR_EL2 of the machine.
pub(crate) fn vtr() -> u64 {
    mrs!("S3_4_C12_C11_1")
}

/// The upper half of the code that the resident vCPU's key gives `address` with `modifier`: PACGA, for which
/// its generic key makes way meanwhile. For CPUs with FEAT_PAuth and the same algorithm for PACGA.
pub(crate) fn authentication_code(key: Key, address: u64, modifier: u64) -> u64 {
    let (low, high) = match key {
        Key::A => (mrs!("S3_0_C2_C1_0"), mrs!("S3_0_C2_C1_1")),
        Key::B => (mrs!("S3_0_C2_C1_2"), mrs!("S3_0_C2_C1_3")),
    };
    let generic = (mrs!("S3_0_C2_C3_0"), mrs!("S3_0_C2_C3_1"));
    msr!("S3_0_C2_C3_0", low);
    msr!("S3_0_C2_C3_1", high);
    instruction!("isb");
    let code: u64;
    // SAFETY: computes on registers.
    unsafe {
        core::arch::asm!(".arch_extension pauth", "pacga {}, {}, {}", out(reg) code, in(reg) address,
            in(reg) modifier, options(nostack, preserves_flags))
    };
    msr!("S3_0_C2_C3_0", generic.0);
    msr!("S3_0_C2_C3_1", generic.1);
    code
}

/// CFP, DVP and CPP RCTX for all contexts at EL1 and EL0: more than any VM may ask for. For CPUs with
/// FEAT_SPECRES.
pub(crate) fn restrict_prediction() {
    /// GVMID, NS, EL1 and EL0, GASID.
    const CONTEXTS: [u64; 2] = [1 << 48 | 1 << 26 | 1 << 24 | 1 << 16, 1 << 48 | 1 << 26 | 1 << 16];
    for context in CONTEXTS {
        operation!("sys #3, c7, c3, #4", context);
        operation!("sys #3, c7, c3, #5", context);
        operation!("sys #3, c7, c3, #7", context);
    }
    instruction!("dsb nsh");
    instruction!("isb");
}
