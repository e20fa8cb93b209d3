//! Virtual EL2: a VM whose vCPUs start at EL2 and have guests of their own.
//!
//! A vCPU of such a VM is in one of two *contexts*. In **vEL2**, the hardware's EL1 plays EL2 with the
//! help of FEAT_NV2; its EL0 belongs to it if L1 says so (VHE and TGE). In **L2**, the hardware's EL1
//! and EL0 are those of a guest of L1's, or of L1's own EL1. [`Nested`] is what the vCPU has beside the
//! state of any vCPU; it exists only for such VMs. Their exits come by vectors of their own to [`exit`], so
//! that no other vCPU has to be asked.
//!
//! - `exit`: an exit, `vel2`, `l2`: from either context
//! - `switch`: from one context to the other; `take`: exceptions into vEL2, ERET from it
//! - `sysreg`: EL2 registers that trap; `sve`: vector lengths; `timers`, `lists`: timers, L1's list registers
//! - `serror`: SErrors that L0 has for the VM
//! - `mmu`: L2's stage 2; `abort`: its faults; `at`, `tlbi`: those instructions at vEL2

pub(crate) mod abort;
pub(crate) mod at;
pub(crate) mod exit;
mod l2;
pub(crate) mod lists;
mod memory;
pub(crate) mod mmu;
pub(crate) mod serror;
mod sve;
mod switch;
mod sysreg;
mod take;
pub(crate) mod timers;
pub(crate) mod tlbi;
mod vel2;

use crate::arch::fp;
use crate::arch::nested::{Bank, VncrPage};
use crate::cpu::Local;
use crate::vcpu::Vcpu;
use ::nested::controls::{self, Features, L1Hcr, Offered};
use ::nested::fine::FineTraps;
use ::nested::{format, page};
use alloc::boxed::Box;
use idreg::closing::absent_instructions;
use idreg::{GuestIds, Reg};
use timers::Timers;

/// What a vCPU with virtual EL2 has beside the state of any vCPU.
pub(crate) struct Nested {
    /// The page that VNCR_EL2 names.
    page: Box<VncrPage>,
    /// HCR_EL2.E2H of this VM.
    vhe: bool,
    /// What of L1's controls its VM has, and which fine-grained traps.
    offered: Offered,
    fine_offered: FineTraps,
    /// L1's fine-grained traps are in the hardware.
    fine_loaded: bool,
    /// L2 is what runs, or would if the vCPU were resident.
    in_l2: bool,
    /// L1's list registers are those of the hardware: in L2, if L1 owns the interrupts.
    lists_loaded: bool,
    /// L0 wants WFE to trap, so that a vCPU that polls gives way.
    gives_way: bool,
    /// The VM has SVE, and memory tags.
    sve: bool,
    mte: bool,
    /// ZCR_EL2 while L2 runs; in vEL2, ZCR_EL1 plays it.
    zcr: u64,
    /// vEL2's registers while L2 runs, as the hardware has them.
    el2: Bank,
    /// CNTKCTL_EL1 and TFSR_EL1 of the context that is not in the hardware.
    other_cntkctl: u64,
    other_tfsr: u64,
    /// HCR_EL2.VSE of L0's while L2 runs; its VSESR_EL2 is in `el2`.
    virtual_serror: u64,
    /// Registers of EL2 that have no place in the hardware, or another format there.
    regs: Shadow,
    timers: Timers,
}

/// Registers of vEL2 as L1 wrote them. Those with a format of their own (without VHE) are in the
/// hardware in EL1's.
#[derive(Debug, Default)]
struct Shadow {
    sctlr: u64,
    tcr: u64,
    ttbr0: u64,
    cptr: u64,
    hpfar: u64,
    mdcr: u64,
    cnthctl: u64,
}

/// SCTLR_EL1 and SCTLR_EL2 at reset: RES1 bits, all else off.
const SCTLR_EL1: u64 = 0x30d0_0980;
const SCTLR_EL2: u64 = 0x30c5_0830;
/// CPTR_EL2 with E2H 0: RES1 bits.
const CPTR_RES1: u64 = 0x33ff;

impl Nested {
    /// That of an off vCPU.
    pub(crate) fn new(vhe: bool) -> Box<Self> {
        Box::new(Self {
            page: VncrPage::new(),
            vhe,
            offered: Offered::default(),
            fine_offered: FineTraps::default(),
            fine_loaded: false,
            in_l2: false,
            lists_loaded: false,
            gives_way: false,
            sve: false,
            mte: false,
            zcr: 0,
            el2: Bank::default(),
            other_cntkctl: 0,
            other_tfsr: 0,
            virtual_serror: 0,
            regs: Shadow::default(),
            timers: Timers::default(),
        })
    }

    /// The first state: vEL2, MMU off. The vCPU is not resident.
    pub(crate) fn reset(&mut self, midr: u64, vmpidr: u64, ids: &GuestIds) {
        self.offer(ids);
        for slot in 0..page::WORDS {
            self.page.set(slot, 0);
        }
        self.page.set(page::HCR_EL2, L1Hcr::new(0, self.vhe).get());
        self.page.set(page::VPIDR_EL2, midr);
        self.page.set(page::VMPIDR_EL2, vmpidr);
        self.page.set(page::SCTLR_EL1, SCTLR_EL1);
        self.page.set(page::SPSR_EL1, 0x3c5);
        self.in_l2 = false;
        self.lists_loaded = false;
        self.zcr = 0;
        self.other_cntkctl = 0;
        self.other_tfsr = 0;
        self.virtual_serror = 0;
        let cptr = if self.vhe { 0 } else { CPTR_RES1 };
        self.regs = Shadow { sctlr: SCTLR_EL2, cptr, ..Shadow::default() };
        self.timers = Timers::default();
    }

    /// SCTLR_EL1 of the hardware at the first instruction, and CPACR_EL1.
    pub(crate) fn first_controls(&self) -> (u64, u64) {
        if self.vhe {
            (SCTLR_EL1, 0)
        } else {
            (format::sctlr(SCTLR_EL2), format::cpacr(CPTR_RES1 & !(1 << 10)))
        }
    }

    /// Which controls L1 has, by the VM's ID registers.
    #[cold]
    fn offer(&mut self, ids: &GuestIds) {
        let fgt = ids.field(Reg::Mmfr0, 56) != 0;
        self.sve = ids.has_sve();
        self.mte = ids.has_mte();
        self.offered = Offered::new(Features {
            evt: ids.field(Reg::Mmfr2, 56),
            ecv: ids.field(Reg::Mmfr0, 60),
            pauth: ids.has_pauth(),
            mte: ids.has_mte(),
            fgt,
            xs_controls: ids.field(Reg::Mmfr1, 40) != 0 && ids.field(Reg::Isar1, 56) != 0,
        });
        self.fine_offered = if fgt {
            FineTraps::offered(ids.has_pauth(), absent_instructions(ids))
        } else {
            FineTraps::default()
        };
    }

    /// L1's HCR_EL2.
    #[inline(always)]
    fn hcr(&self) -> L1Hcr {
        self.offered.hcr(self.page.get(page::HCR_EL2), self.vhe)
    }

    /// L1's HCRX_EL2.
    fn hcrx(&self) -> u64 {
        self.page.get(page::HCRX_EL2) & self.offered.hcrx
    }

    /// CNTHCTL_EL2 while L2 runs, with E2H 0.
    #[inline(always)]
    fn cnthctl(&self) -> u64 {
        self.offered.cnthctl_for_l2(self.regs.cnthctl, self.vhe)
    }

    /// L1's fine-grained traps.
    #[inline]
    fn fine(&self) -> FineTraps {
        let word = |slot| self.page.get(slot);
        let all = FineTraps {
            read: word(page::HFGRTR_EL2),
            write: word(page::HFGWTR_EL2),
            instruction: word(page::HFGITR_EL2),
            debug_read: word(page::HDFGRTR_EL2),
            debug_write: word(page::HDFGWTR_EL2),
        };
        all.and(self.fine_offered)
    }

    /// L1's CPTR_EL2, in the format that L1 has, while L2 runs.
    fn cptr(&self) -> u64 {
        controls::cptr(self.regs.cptr, self.el2.cpacr, self.vhe)
    }

    /// Bits of CPTR_EL2 by which L1 traps FP and SVE, if L2 runs.
    pub(crate) fn closed_fp(&self) -> u64 {
        if self.in_l2 { controls::cptr_for_l2(0, self.cptr(), self.vhe) & (fp::TFP | fp::TZ) } else { 0 }
    }

    /// CNTVOFF_EL2 for the context that is in the hardware. A VM with virtual EL2 gets the physical
    /// counter as it is, so all of the offset is L1's; EL2 with VHE has none.
    pub(crate) fn counter_offset(&self) -> u64 {
        if self.in_l2 || !self.vhe { self.page.get(page::CNTVOFF_EL2) } else { 0 }
    }

    /// CNTPOFF_EL2 for L2: what L1 has there, if it says that it counts.
    #[inline]
    fn l2_physical_offset(&self) -> u64 {
        // The bit is at the same place with VHE and without.
        let counts = self.regs.cnthctl & self.offered.cnthctl & controls::cnthctl::ECV != 0;
        if counts { self.page.get(page::CNTPOFF_EL2) } else { 0 }
    }

    /// CNTPOFF_EL2 for the context that is in the hardware.
    pub(crate) fn physical_offset(&self) -> u64 {
        if self.in_l2 { self.l2_physical_offset() } else { 0 }
    }

    /// When the first timer fires that is not in the hardware and whose line is low; `now` if it is due.
    pub(crate) fn soft_deadline(&self, now: u64) -> Option<u64> {
        self.timers.deadline(self, now)
    }
}

/// A vCPU with virtual EL2 wants to wait: whether it may. L2 may be woken for no reason, and is, if it
/// is L1 whose interrupts would wake it.
pub(crate) fn may_wait(vcpu: &mut Vcpu, local: &Local) -> bool {
    if lists::are_l1s(vcpu) {
        return false;
    }
    timers::update(vcpu, local);
    true
}
