//! What a control VM sees and does of this one, asked for through the page that both share: see
//! `modes::proxy`.

use crate::harness::{Message, Outcome, Stop, check, check_eq, skip};
use crate::modes::proxy::{ANSWER, LEAVE, REQUEST, RESULTS};
use crate::rt::machine::Machine;
use crate::rt::mem::{self, read64, write64};
use crate::rt::timer::{self, PATIENCE, SECOND};
use abi::hypercall::{
    ALL_REGIONS, EVENT_NEXT, Error, EventKind, FAULT_DECIDE, FAULT_INFO, FaultDecision, FaultState,
    TAG_DEMOTE, TAG_QUOTA, TAG_STATS,
};

/// This VM's number, by the order of the manifest.
pub(crate) const SELF: u64 = 0;

/// Results x0 to x15 of a call.
pub(crate) type Results = [u64; RESULTS as usize];

fn page(machine: &Machine) -> Result<u64, Stop> {
    match machine.option("share").and_then(|name| machine.region_called(name)) {
        Some(region) => Ok(region.start),
        None => skip!("no share="),
    }
}

/// Has the control VM call `id`.
pub(crate) fn call(machine: &Machine, id: u32, args: [u64; 3]) -> Result<Results, Stop> {
    let page = page(machine)?;
    let number = read64(page + ANSWER) + 1;
    write64(page + REQUEST + 8, u64::from(id));
    for (n, arg) in (2..).zip(args) {
        write64(page + REQUEST + 8 * n, arg);
    }
    mem::barrier();
    write64(page + REQUEST, number);
    let answered = timer::wait(PATIENCE, || read64(page + ANSWER) == number);
    mem::barrier();
    if !answered {
        return Err(Stop::Fail(Message::new(format_args!("the control VM does not answer call {id:#x}"))));
    }
    let mut results = [0; RESULTS as usize];
    for (n, x) in (1..).zip(&mut results) {
        *x = read64(page + ANSWER + 8 * n);
    }
    Ok(results)
}

/// Has the control VM turn itself off.
pub(crate) fn dismiss(machine: &Machine) -> Outcome {
    let page = page(machine)?;
    write64(page + REQUEST + 8, LEAVE);
    mem::barrier();
    write64(page + REQUEST, read64(page + ANSWER) + 1);
    Ok(())
}

fn call_ok(machine: &Machine, id: u32, args: [u64; 3]) -> Result<Results, Stop> {
    let x = call(machine, id, args)?;
    check_result(x[0], id)?;
    Ok(x)
}

fn check_result(x0: u64, id: u32) -> Outcome {
    check_eq!(x0 as i64, 0, "result of call {id:#x}");
    Ok(())
}

/// TAG_STATS of this VM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stats {
    pub(crate) regions: u64,
    pub(crate) unit: u64,
    pub(crate) quota: u64,
    pub(crate) used: u64,
    pub(crate) promoted: u64,
    pub(crate) demoted: u64,
    pub(crate) refused: u64,
    /// Faults that stopped, were injected, were reported; tag writes among them.
    pub(crate) faults: [u64; 4],
}

pub(crate) fn stats_of(machine: &Machine, vm: u64) -> Result<Stats, Stop> {
    let x = call_ok(machine, TAG_STATS, [vm, ALL_REGIONS, 0])?;
    let [_, regions, unit, quota, used, promoted, demoted, refused, a, b, c, d, ..] = x;
    Ok(Stats { regions, unit, quota, used, promoted, demoted, refused, faults: [a, b, c, d] })
}

pub(crate) fn stats(machine: &Machine) -> Result<Stats, Stop> {
    stats_of(machine, SELF)
}

/// TAG_STATS of a region: x1 to x8.
pub(crate) fn region_stats(machine: &Machine, region: u64) -> Result<[u64; 8], Stop> {
    let x = call_ok(machine, TAG_STATS, [SELF, region, 0])?;
    Ok([x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8]])
}

/// TAG_DEMOTE until all is done; returns the pages that were turned back.
pub(crate) fn demote(machine: &Machine, start: u64, size: u64) -> Result<u64, Stop> {
    let (mut done, mut pages) = (0, 0);
    // Each call gets on, or works on a large unit, in a bounded number of steps.
    for _ in 0..100_000 {
        let x = call_ok(machine, TAG_DEMOTE, [SELF, start + done, size - done])?;
        done += x[1];
        pages += x[2];
        if done == size {
            return Ok(pages);
        }
    }
    Err(Stop::Fail(Message::new(format_args!("TAG_DEMOTE ends at {done:#x} of {size:#x}"))))
}

/// TAG_QUOTA; returns the quota before.
pub(crate) fn set_quota(machine: &Machine, pages: u64) -> Result<u64, Stop> {
    Ok(call_ok(machine, TAG_QUOTA, [SELF, pages, 0])?[1])
}

/// FAULT_INFO.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info {
    pub(crate) state: u64,
    pub(crate) pc: u64,
    pub(crate) va: u64,
    pub(crate) ipa: u64,
    pub(crate) region: u64,
    pub(crate) access: u64,
    pub(crate) decision: u64,
    pub(crate) esr: u64,
    pub(crate) count: u64,
}

/// The last fault of a vCPU; `None` if it had none.
pub(crate) fn fault(machine: &Machine, vm: u64, vcpu: u64) -> Result<Option<Info>, Stop> {
    let x = call(machine, FAULT_INFO, [vm, vcpu, 0])?;
    let [result, state, pc, va, ipa, region, access, decision, esr, count, ..] = x;
    Ok((result == 0).then_some(Info { state, pc, va, ipa, region, access, decision, esr, count }))
}

/// Waits until a vCPU's fault waits for a decision.
pub(crate) fn await_fault(machine: &Machine, vm: u64, vcpu: u64) -> Result<Info, Stop> {
    const WAITING: u64 = FaultState::Waiting as u64;
    let mut last = Ok(None);
    let waits = timer::wait(PATIENCE, || {
        last = fault(machine, vm, vcpu);
        timer::delay(SECOND / 200);
        matches!(&last, Err(_) | Ok(Some(Info { state: WAITING, .. })))
    });
    let last = last?;
    if let Some(info) = last.filter(|_| waits) {
        return Ok(info);
    }
    Err(Stop::Fail(Message::new(format_args!("no fault of {vm}/{vcpu} waits: {last:x?}"))))
}

/// FAULT_DECIDE.
pub(crate) fn decide(machine: &Machine, vm: u64, vcpu: u64, decision: FaultDecision) -> Result<i64, Stop> {
    Ok(call(machine, FAULT_DECIDE, [vm, vcpu, decision as u64])?[0] as i64)
}

/// The control VM's next event of a tag fault; others are dropped.
pub(crate) fn fault_event(machine: &Machine) -> Result<Option<(u64, u64)>, Stop> {
    loop {
        let x = call(machine, EVENT_NEXT, [0; 3])?;
        if x[0] != 0 {
            return Ok(None);
        }
        if x[1] == EventKind::TagFault as u64 {
            return Ok(Some((x[2], x[3])));
        }
    }
}

/// Where lazy memory is: the second memory node.
pub(crate) fn lazy(machine: &Machine) -> Result<(u64, u64), Stop> {
    page(machine)?;
    match machine.memory().get(1) {
        Some(&memory) => Ok(memory),
        None => skip!("no lazy memory"),
    }
}

/// Whether lazy memory is like backed memory here, for lack of FEAT_MTE_PERM.
pub(crate) fn is_backed(machine: &Machine) -> Result<bool, Stop> {
    let (start, _) = lazy(machine)?;
    let unit = stats(machine)?.unit * 4096;
    Ok(call(machine, TAG_DEMOTE, [SELF, start, unit])?[0] as i64 == Error::Invalid as i64)
}

/// All tags of lazy memory gone; its start, and its size.
pub(crate) fn fresh(machine: &Machine) -> Result<(u64, u64), Stop> {
    let (start, size) = lazy(machine)?;
    if is_backed(machine)? {
        skip!("lazy memory is like backed here");
    }
    demote(machine, start, size)?;
    let used = stats(machine)?.used;
    check!(used == 0, "{used} pages are tagged after TAG_DEMOTE");
    Ok((start, size))
}
