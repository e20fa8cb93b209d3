//! What the console's keys do with VMs.

use super::Vm;
use crate::log;
use crate::machine::{self, Machine};
use crate::mem::heap;
use crate::vcpu::{Count, ExitCounts};
use ::console::Action;
use abi::hypercall::{StopCause, VmState};

/// Carries out a key's action.
pub(crate) fn act(machine: &'static Machine, action: Action) {
    match action {
        Action::None => {}
        Action::Send { vm, byte } => {
            if let Some(vm) = machine.vms.get(vm) {
                vm.receive(byte);
            }
        }
        Action::List => machine.vms.iter().for_each(|vm| list(vm)),
        Action::Memory => memory(machine),
        Action::Exits => exits(machine),
        Action::Stop(vm) => {
            if let Some(vm) = machine.vms.get(vm)
                && !vm.request_stop(StopCause::Request, false)
            {
                log::info!("{} does not run", vm.spec.name);
            }
        }
        Action::Restart(vm) => {
            if let Some(vm) = machine.vms.get(vm) {
                let _ = vm.request_restart(StopCause::Request);
            }
        }
        Action::Start(vm) => {
            if let Some(vm) = machine.vms.get(vm)
                && vm.request_start().is_err()
            {
                log::info!("{} runs already", vm.spec.name);
            }
        }
        Action::End => {
            crate::console::flush();
            machine::end(true, format_args!("ended from the console"))
        }
    }
}

fn list(vm: &Vm) {
    let state = match vm.life.lock().state {
        VmState::Stopped => "stopped",
        VmState::Starting => "starting",
        VmState::Running => "running",
        VmState::Stopping => "stopping",
    };
    let starts = vm.starts.load(core::sync::atomic::Ordering::Relaxed);
    let mte = if vm.spec.mte { ", MTE" } else { "" };
    log::info!("{} {}: {state}, {} vCPUs{mte}, started {starts} times", vm.id, vm.spec.name, vm.vcpus.len());
}

fn memory(machine: &Machine) {
    let (used, total) = heap::usage();
    log::info!("EL2 heap: {} of {} KiB used; free RAM: {} KiB", used >> 10, total >> 10, machine.free >> 10);
    for vm in &machine.vms {
        let ram: u64 = vm.backing.iter().flat_map(|b| &b.pieces).map(|p| p.size()).sum();
        let (used, _) = vm.map.lock().table_bytes();
        log::info!("{}: {} KiB, stage-2 tables {} KiB", vm.spec.name, ram >> 10, used >> 10);
    }
}

fn exits(machine: &Machine) {
    for vm in &machine.vms {
        let sum = |f: fn(&ExitCounts) -> &Count| -> u64 { vm.vcpus.iter().map(|v| f(&v.exits).get()).sum() };
        log::info!(
            "{}: exits: {} calls, {} system registers, {} aborts, {} WFI/WFE, {} interrupts, {} others",
            vm.spec.name,
            sum(|e| &e.calls),
            sum(|e| &e.sysregs),
            sum(|e| &e.aborts),
            sum(|e| &e.waits),
            sum(|e| &e.interrupts),
            sum(|e| &e.others)
        );
    }
}
