//! TLB maintenance that L1 executes at virtual EL2, carried out.

use super::mmu::NestedMmu;
use crate::arch::tlb;
use ::nested::tlbi::{Host, Regime, Tlbi};
use trap::SysReg;

/// What of L1's registers a TLBI depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// HCR_EL2.E2H and TGE.
    pub(crate) host: Host,
    /// The VMID in VTTBR_EL2.
    pub(crate) vmid: u16,
}

/// Carries out TLBI `reg` with operand `x`, for all CPUs; when it returns, no CPU uses what it names.
/// False: the instruction is undefined for this VM.
pub(crate) fn execute(mmu: &NestedMmu, context: Context, reg: SysReg, x: u64) -> bool {
    let Some(tlbi) = Tlbi::decode(reg, x, context.host, mmu.offers().tlbi) else { return false };
    let vmid = context.vmid;
    match tlbi {
        Tlbi::AllVmids => mmu.forget_all(),
        Tlbi::Vmid => mmu.change(|shadows, mem, tlbs| shadows.forget_vmid(mem, tlbs, vmid)),
        Tlbi::Stage2(what) => mmu.change(|shadows, mem, tlbs| shadows.invalidate(mem, tlbs, vmid, what)),
        Tlbi::Stage1(Regime::El1, what) => {
            mmu.for_each_vttbr(vmid, |vttbr| tlb::flush_stage1_of(vttbr, what))
        }
        Tlbi::Stage1(Regime::El2, what) => mmu.with_own_vttbr(|vttbr| tlb::flush_stage1_of(vttbr, what)),
    }
    true
}
