//! Reading and writing system registers that `aarch64-cpu` does not name, or not with a memory
//! clobber.
//!
//! `mrs!` and `msr!` take the register as the assembler writes it; registers newer than Armv8.0 are
//! written `S3_op1_Cn_Cm_op2`, because the assembler refuses their names on this target. Neither is
//! `nomem`: memory accesses stay on their side of them.

/// Reads a system register.
macro_rules! mrs {
    ($reg:literal) => {{
        let value: u64;
        // SAFETY: reading a system register that exists at EL2 changes nothing but the output.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $reg), out(reg) value, options(nostack, preserves_flags))
        };
        value
    }};
}

/// Writes a system register. To be used inside functions whose own contract says why the write is
/// right at that point.
macro_rules! msr {
    ($reg:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the enclosing function of `arch` states why this write keeps EL2 sound: it
        // changes guest state or EL2 controls, never memory that Rust owns.
        unsafe {
            core::arch::asm!(concat!("msr ", $reg, ", {}"), in(reg) value, options(nostack, preserves_flags))
        };
    }};
}

/// Executes an instruction without operands that Rust sees, such as a barrier.
macro_rules! instruction {
    ($text:literal) => {
        // SAFETY: barriers, hints and TLB maintenance change no memory or register that Rust owns.
        unsafe { core::arch::asm!($text, options(nostack, preserves_flags)) }
    };
}

/// Executes an instruction with one register operand: cache or TLB maintenance, address translation.
macro_rules! operation {
    ($text:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: maintenance by address or translation of one changes no memory that Rust owns; the
        // enclosing function of `arch` states the rest.
        unsafe { core::arch::asm!(concat!($text, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
    }};
}

pub(crate) use {instruction, mrs, msr, operation};
