//! vCPUs: created by the boot protocol of arm64, then each run by a thread of its own.

use crate::bus::Bus;
use anyhow::{Context, Result, bail};
use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_ARM_VCPU_PTRAUTH_ADDRESS,
    KVM_ARM_VCPU_PTRAUTH_GENERIC, KVM_ARM_VCPU_SVE, KVM_EXIT_ARM_NISV, KVM_REG_ARM_CORE, KVM_REG_ARM64,
    KVM_REG_SIZE_U64, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_vcpu_events, kvm_vcpu_init,
};
use kvm_ioctls::{Cap, VcpuExit, VcpuFd, VmFd};
use std::io::ErrorKind;
use std::sync::Mutex;

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// SYSTEM_OFF.
    Off,
    /// SYSTEM_RESET.
    Reset,
}

/// What the first vCPU starts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Address of the first instruction.
    pub(crate) entry: u64,
    /// Address of the device tree.
    pub(crate) tree: u64,
}

/// Creates a vCPU; the first one starts as the boot protocol says, the others are off.
pub(crate) fn create(vm: &VmFd, index: u32, start: Start) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(index.into()).with_context(|| format!("KVM_CREATE_VCPU {index}"))?;
    let mut init = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut init).context("KVM_ARM_PREFERRED_TARGET")?;
    let mut features = 1 << KVM_ARM_VCPU_PSCI_0_2;
    if vm.check_extension(Cap::ArmPtrAuthAddress) && vm.check_extension(Cap::ArmPtrAuthGeneric) {
        features |= 1 << KVM_ARM_VCPU_PTRAUTH_ADDRESS | 1 << KVM_ARM_VCPU_PTRAUTH_GENERIC;
    }
    let sve = vm.check_extension(Cap::ArmSve);
    if sve {
        features |= 1 << KVM_ARM_VCPU_SVE;
    }
    if index != 0 {
        features |= 1 << KVM_ARM_VCPU_POWER_OFF;
    }
    init.features = [features, 0, 0, 0, 0, 0, 0];
    vcpu.vcpu_init(&init).with_context(|| format!("KVM_ARM_VCPU_INIT {index}"))?;
    if sve {
        let feature = i32::try_from(KVM_ARM_VCPU_SVE)?;
        vcpu.vcpu_finalize(&feature).with_context(|| format!("KVM_ARM_VCPU_FINALIZE {index}"))?;
    }
    if index == 0 {
        set(&vcpu, X0, start.tree)?;
        set(&vcpu, PC, start.entry)?;
    }
    Ok(vcpu)
}

/// Offsets in `struct user_pt_regs` in units of 32 bits (Linux, Documentation/virt/kvm/api.rst).
const X0: u64 = 0;
const PC: u64 = 2 * 32;

fn set(vcpu: &VcpuFd, register: u64, value: u64) -> Result<()> {
    let id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | register;
    vcpu.set_one_reg(id, &value.to_le_bytes()).context("KVM_SET_ONE_REG")?;
    Ok(())
}

/// Runs a vCPU until the VM ends.
pub(crate) fn run(mut vcpu: VcpuFd, bus: &Mutex<Bus>) -> Result<End> {
    let locked = || bus.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        let present = match vcpu.run() {
            Ok(VcpuExit::MmioRead(address, data)) => locked().read(address, data)?,
            Ok(VcpuExit::MmioWrite(address, data)) => locked().write(address, data)?,
            // An access to the UART that its syndrome does not describe is the guest's fault, too.
            Ok(VcpuExit::Unsupported(KVM_EXIT_ARM_NISV)) => false,
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => return Ok(End::Off),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => return Ok(End::Reset),
            Ok(VcpuExit::Intr) => true,
            Ok(exit) => bail!("KVM_RUN: unexpected exit {exit:?}"),
            Err(error) => {
                let error = std::io::Error::from(error);
                if !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) {
                    return Err(error).context("KVM_RUN");
                }
                true
            }
        };
        if !present {
            abort(&vcpu)?;
        }
    }
}

/// The access that made the vCPU exit gets a synchronous external abort.
fn abort(vcpu: &VcpuFd) -> Result<()> {
    let mut events = kvm_vcpu_events::default();
    events.exception.ext_dabt_pending = 1;
    vcpu.set_vcpu_events(&events).context("KVM_SET_VCPU_EVENTS")
}
