//! A VM: memory with kernel, RAM disk and tree, a GICv3, vCPUs, and the end of it.
//!
//! UNSAFETY: KVM is told which memory of this process the guest has.

use crate::bus::Bus;
use crate::tree::{self, GICD, GICR, RAM, SPACE};
use crate::vcpu::{self, End, Start};
use anyhow::{Context, Result, bail};
use kvm_bindings::{
    KVM_CAP_ARM_MTE, KVM_CAP_ARM_NISV_TO_USER, KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR,
    KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, KVM_VGIC_V3_ADDR_TYPE_DIST,
    KVM_VGIC_V3_ADDR_TYPE_REDIST, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{DeviceFd, Kvm, VmFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Runs a payload as guest of KVM.
#[derive(clap::Parser)]
pub(crate) struct Options {
    /// The payload: an arm64 Image
    image: PathBuf,
    /// A RAM disk for it
    #[arg(long)]
    initrd: Option<PathBuf>,
    /// Its command line
    #[arg(long, default_value = "")]
    append: String,
    /// Number of vCPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(4..=1024))]
    memory: u64,
    /// Gives it MTE
    #[arg(long)]
    mte: bool,
    /// What each line of its output begins with, in brackets
    #[arg(long, default_value = "guest")]
    name: String,
}

/// Runs a guest to its end.
pub(crate) fn run(options: &Options) -> Result<End> {
    let kvm = Kvm::new().context("/dev/kvm")?;
    // 40 bits of address, as most programs have it.
    let vm = kvm.create_vm_with_ipa_size(0).context("KVM_CREATE_VM")?;
    if options.mte {
        let mte = kvm_enable_cap { cap: KVM_CAP_ARM_MTE, ..Default::default() };
        vm.enable_cap(&mte).context("KVM_CAP_ARM_MTE")?;
    }
    // An access that its syndrome does not describe, where there is no memory, is the guest's own fault.
    let undescribed = kvm_enable_cap { cap: KVM_CAP_ARM_NISV_TO_USER, ..Default::default() };
    vm.enable_cap(&undescribed).context("KVM_CAP_ARM_NISV_TO_USER")?;
    let memory =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), usize::try_from(options.memory << 20)?)])?;
    give(&vm, &memory)?;
    let start = fill(&memory, options)?;
    let vcpus = (0..options.cpus).map(|index| vcpu::create(&vm, index, start));
    let vcpus = vcpus.collect::<Result<Vec<_>>>()?;
    let _gic = add_gic(&vm)?;
    let bus = Arc::new(Mutex::new(Bus::new(vm, &options.name)));
    let (sender, receiver) = mpsc::channel();
    for vcpu in vcpus {
        let (sender, bus) = (sender.clone(), Arc::clone(&bus));
        // Nobody listens any more when the guest has ended.
        std::thread::spawn(move || sender.send(vcpu::run(vcpu, &bus)));
    }
    // The others wait in the kernel, or still run, and end with this process.
    let end = receiver.recv().context("no vCPU has run")?;
    std::mem::forget(memory);
    bus.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).flush()?;
    end
}

/// Makes the memory the guest's.
fn give(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<()> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: this is a mapping that stays as long as the VM can run, and that only the guest and
        // `vm_memory` access, neither by reference.
        unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
    }
    Ok(())
}

/// Puts kernel, RAM disk and tree into the memory: the kernel as low as it may be, the tree at the end.
fn fill(memory: &GuestMemoryMmap, options: &Options) -> Result<Start> {
    let image = std::fs::read(&options.image).with_context(|| format!("{}", options.image.display()))?;
    if image.get(0x38..0x3c) != Some(b"ARM\x64") {
        bail!("{}: this is no arm64 Image", options.image.display());
    }
    // Linux, Documentation/arch/arm64/booting.rst: the offset from a multiple of 2 MiB, and the size
    // with what follows the file.
    let word = |at: usize| {
        let bytes = image.get(at..).and_then(|rest| rest.first_chunk()).copied();
        u64::from_le_bytes(bytes.unwrap_or_default())
    };
    let entry = RAM + word(8) % 0x20_0000;
    memory.write_slice(&image, GuestAddress(entry)).context("the image does not fit")?;
    let behind = (entry + word(16)).next_multiple_of(0x20_0000);
    let initrd = match &options.initrd {
        Some(path) => {
            let file = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
            memory.write_slice(&file, GuestAddress(behind)).context("the RAM disk does not fit")?;
            Some((behind, behind + u64::try_from(file.len())?))
        }
        None => None,
    };
    let tree = tree::write(options.cpus, options.memory << 20, initrd, &options.append)?;
    if u64::try_from(tree.len())? > SPACE {
        bail!("the command line is too long");
    }
    let at = RAM + (options.memory << 20) - SPACE;
    memory.write_slice(&tree, GuestAddress(at))?;
    Ok(Start { entry, tree: at })
}

/// INTIDs that are private or of an SPI: 256 SPIs, as the hypervisor's own VMs have.
const INTIDS: u32 = 32 + 256;

/// Adds a GICv3 for the vCPUs that there are.
fn add_gic(vm: &VmFd) -> Result<DeviceFd> {
    let mut device =
        kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, ..Default::default() };
    let gic = vm.create_device(&mut device).context("KVM_CREATE_DEVICE: GICv3")?;
    // `addr` is the address of the value.
    let set = |group: u32, attr: u32, addr: u64| {
        let attribute = kvm_device_attr { group, attr: attr.into(), addr, ..Default::default() };
        gic.set_device_attr(&attribute).with_context(|| format!("GICv3, group {group}, attribute {attr}"))
    };
    set(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, std::ptr::from_ref(&INTIDS) as u64)?;
    set(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, std::ptr::from_ref(&GICD.0) as u64)?;
    set(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, std::ptr::from_ref(&GICR.0) as u64)?;
    set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, 0)?;
    Ok(gic)
}
