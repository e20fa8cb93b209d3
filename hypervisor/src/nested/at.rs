//! Address translation that L1 asks for at virtual EL2: all in software, because neither of the two
//! stages that it means is in the hardware's registers then.

use super::memory::L1Memory;
use super::mmu::NestedMmu;
use crate::vm::Vm;
use ::nested::at::{At, Second, Stage1};
use ::nested::stage2::Registers;
use ::nested::tlbi::Host;
use addr::Va;
use trap::SysReg;
use vmsa::walk::Regime;

/// What of L1's registers the answer depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// HCR_EL2.E2H and TGE.
    pub(crate) host: Host,
    /// EL1&0 as L1 has loaded it for its guest; PSTATE.PAN is vEL2's.
    pub(crate) el1: Regime,
    /// L1's own EL2 or EL2&0, in the format of EL1 (`vmsa::walk::el2_tcr`).
    pub(crate) el2: Regime,
    /// L1's stage 2, if HCR_EL2.VM or DC is set.
    pub(crate) stage2: Option<Registers>,
    /// HCR_EL2.PTW.
    pub(crate) protected: bool,
}

/// PAR_EL1 after AT `reg` for `va`; `None`: the instruction is undefined for this VM.
pub(crate) fn execute(vm: &Vm, mmu: &NestedMmu, context: &Context, reg: SysReg, va: u64) -> Option<u64> {
    let at = At::decode(reg, context.host)?;
    let regime = match at.stage1 {
        Stage1::El1 => &context.el1,
        Stage1::El2 => &context.el2,
    };
    let offered = &mmu.offers().stage2;
    let protected = context.protected;
    let second = context.stage2.as_ref().map(|registers| Second { registers, offered, protected });
    Some(at.answer(&L1Memory(vm), regime, second, Va::new(va)))
}
