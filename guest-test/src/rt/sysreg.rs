//! System registers by name: one macro to read, one to write, one to probe.

/// Reads a system register.
macro_rules! mrs {
    ($reg:literal) => {{
        let value: u64;
        // SAFETY: a read of a system register touches no memory; one that is undefined ends in
        // the exception handler.
        unsafe {
            core::arch::asm!(concat!(".arch_extension memtag\nmrs {v}, ", $reg), v = out(reg) value, options(nostack))
        };
        value
    }};
}

/// Writes a system register and synchronises. Only for registers that cannot pull the floor away
/// under Rust (translation, stack): those are written in `mmu` and `entry`.
macro_rules! msr {
    ($reg:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the registers written so control traps, tags, timers and interrupts, not memory
        // that Rust relies on.
        unsafe {
            core::arch::asm!(concat!(".arch_extension memtag\nmsr ", $reg, ", {v}\nisb"), v = in(reg) value, options(nostack))
        };
    }};
}

/// Reads a system register that may be undefined: its value, or the exception.
macro_rules! probe {
    ($reg:literal) => {{
        let mut value = 0u64;
        match $crate::rt::exception::expect_fault(|| value = mrs!($reg)) {
            None => Ok(value),
            Some(fault) => Err(fault),
        }
    }};
}

/// A field of `bits` width (4 unless given) at `shift` of an ID register's value.
pub(crate) const fn field(value: u64, shift: u32) -> u64 {
    (value >> shift) & 0xf
}
