//! SMC Calling Convention (DEN0028) and the calls outside PSCI.

use crate::harness::{Outcome, check, check_eq, skip, suite};
use crate::rt::machine::Machine;
use crate::rt::smccc::{call, call_all, tagvisor, w0};
use abi::smccc::*;
use abi::{hypercall, psci};

suite!(
    "smccc",
    true,
    [
        version,
        arch_features,
        unknown,
        high_bits_ignored,
        registers_preserved,
        trng,
        trng_wrong,
        vendor,
        not_control
    ]
);

fn hypervisor() -> Outcome {
    if !tagvisor() {
        skip!("this firmware has PSCI only");
    }
    Ok(())
}

fn version(_: &Machine) -> Outcome {
    hypervisor()?;
    check_eq!(call(VERSION, 0, 0, 0)[0], VERSION_1_2, "SMCCC_VERSION");
    Ok(())
}

fn arch_features(_: &Machine) -> Outcome {
    hypervisor()?;
    for id in [VERSION, ARCH_FEATURES] {
        check!(w0(call(ARCH_FEATURES, u64::from(id), 0, 0)) >= 0, "ARCH_FEATURES({id:#x})");
    }
    for id in [0x8000_1234u32, 0, u32::MAX] {
        check_eq!(w0(call(ARCH_FEATURES, u64::from(id), 0, 0)), NOT_SUPPORTED, "ARCH_FEATURES({id:#x})");
    }
    for id in [ARCH_WORKAROUND_1, ARCH_WORKAROUND_2, ARCH_WORKAROUND_3] {
        let answer = w0(call(ARCH_FEATURES, u64::from(id), 0, 0));
        check!((NOT_REQUIRED..=1).contains(&answer), "ARCH_FEATURES({id:#x}): {answer}");
    }
    Ok(())
}

fn unknown(_: &Machine) -> Outcome {
    // Fast and yielding calls of every owner: Arm, CPU, SiP, OEM, standard, hypervisor, trusted OS.
    for id in [
        0x8000_0fffu32,
        0xc000_0fff,
        0x8100_0000,
        0xc200_0001,
        0xc300_0001,
        0x8500_0020,
        0xc500_0020,
        0xc600_00ff,
        0x8600_00ff,
        0xb200_0000,
        0xbf00_ff01,
        0x0000_0000,
        0x4000_0000,
        0x0200_0000,
        0xffff_ffff,
    ] {
        check_eq!(w0(call(id, 1, 2, 3)), NOT_SUPPORTED, "function {id:#x}");
    }
    Ok(())
}

fn high_bits_ignored(_: &Machine) -> Outcome {
    hypervisor()?;
    // The function id is in w0, and 32-bit calls look at the low halves of their arguments.
    let mut before = [0; 31];
    before[0] = 0xdead_0000_0000_0000 | u64::from(psci::VERSION);
    let mut after = [0; 31];
    call_all(&before, &mut after);
    check_eq!(after[0], call(psci::VERSION, 0, 0, 0)[0], "PSCI_VERSION with high bits in x0");
    let id = 0xffff_0000_0000_0000 | u64::from(psci::CPU_OFF);
    check!(w0(call(psci::FEATURES, id, 0, 0)) >= 0, "PSCI_FEATURES with high bits in x1");
    let own = crate::rt::cpu::affinity() | 0xee << 32;
    check_eq!(w0(call(psci::AFFINITY_INFO32, own, 0, 0)), 0, "AFFINITY_INFO32 with high bits in x1");
    Ok(())
}

fn registers_preserved(_: &Machine) -> Outcome {
    for id in [psci::VERSION, psci::FEATURES, 0x8400_001f, VERSION, 0xc600_00ff] {
        let mut before: [u64; 31] = core::array::from_fn(|n| 0x1111_2222_3333_0000 + n as u64);
        before[0] = u64::from(id);
        let mut after = [0; 31];
        call_all(&before, &mut after);
        check_eq!(&after[4..], &before[4..], "x4 to x30 over {id:#x}");
    }
    Ok(())
}

fn has_trng() -> Outcome {
    if w0(call(TRNG_VERSION, 0, 0, 0)) < 0 {
        skip!("no TRNG");
    }
    Ok(())
}

fn trng(_: &Machine) -> Outcome {
    has_trng()?;
    check!(w0(call(TRNG_VERSION, 0, 0, 0)) >= 0x1_0000, "TRNG_VERSION");
    check!(w0(call(TRNG_FEATURES, u64::from(TRNG_RND64), 0, 0)) >= 0, "TRNG_FEATURES(TRNG_RND64)");
    let entropy = |id, bits| {
        // A source may run dry for a moment.
        (0..1000).map(|_| call(id, bits, 0, 0)).find(|x| x[0] as i64 != TRNG_NO_ENTROPY)
    };
    let Some(full) = entropy(TRNG_RND64, 192) else { skip!("no entropy") };
    check_eq!(full[0], 0, "TRNG_RND64(192)");
    check!(full[1..4] != [0; 3], "192 bits of entropy are all 0");
    let again = entropy(TRNG_RND64, 192).map(|x| [x[1], x[2], x[3]]);
    check!(again != Some([full[1], full[2], full[3]]), "the same 192 bits twice");
    for bits in [1u64, 63, 64, 65, 100, 191] {
        let Some(x) = entropy(TRNG_RND64, bits) else { skip!("no entropy") };
        check_eq!(x[0], 0, "TRNG_RND64({bits})");
        // Bits 63:0 are in x3, 127:64 in x2, 191:128 in x1; what was not asked for is 0.
        for (word, low) in [(x[3], 0), (x[2], 64), (x[1], 128)] {
            let wanted = bits.saturating_sub(low).min(64);
            check!(
                wanted == 64 || word >> wanted == 0,
                "TRNG_RND64({bits}): bits from {low} on are {word:#x}"
            );
        }
    }
    Ok(())
}

fn trng_wrong(_: &Machine) -> Outcome {
    has_trng()?;
    for bits in [0, 193, u64::MAX] {
        check_eq!(call(TRNG_RND64, bits, 0, 0)[0] as i64, TRNG_INVALID_PARAMETERS, "TRNG_RND64({bits})");
    }
    for bits in [0, 97, 193] {
        check_eq!(w0(call(TRNG_RND32, bits, 0, 0)), TRNG_INVALID_PARAMETERS, "TRNG_RND32({bits})");
    }
    check_eq!(w0(call(TRNG_FEATURES, 0x8400_0001, 0, 0)), NOT_SUPPORTED, "TRNG_FEATURES of another service");
    Ok(())
}

fn vendor(_: &Machine) -> Outcome {
    hypervisor()?;
    let revision = call(hypercall::REVISION, 0, 0, 0);
    check_eq!((revision[0], revision[1]), hypercall::REVISION_VALUE, "revision");
    let features = call(hypercall::FEATURES, 0, 0, 0);
    check_eq!(features[0], 0, "FEATURES");
    for id in [hypercall::VM_LIST, hypercall::VM_START, hypercall::EVENT_NEXT] {
        check!(features[1] >> (id & 0xff) & 1 == 1, "FEATURES lacks {id:#x}: {:#x}", features[1]);
    }
    Ok(())
}

fn not_control(machine: &Machine) -> Outcome {
    hypervisor()?;
    if machine.control.is_some() {
        skip!("this is a control VM");
    }
    for id in hypercall::VM_LIST..=hypercall::EVENT_NEXT {
        let answer = call(id, 0, 0, 0)[0] as i64;
        check_eq!(answer, hypercall::Error::Denied as i64, "call {id:#x} by an ordinary VM");
    }
    Ok(())
}
