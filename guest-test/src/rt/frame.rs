//! Assembly that several files need: all registers to and from memory around a call.

/// Makes a frame of this size and keeps X19 to X30 in its first 96 bytes.
macro_rules! push_callee_saved {
    ($size:literal) => {
        concat!(
            "stp x29, x30, [sp, #-",
            $size,
            "]!\n",
            "stp x19, x20, [sp, #16]\n",
            "stp x21, x22, [sp, #32]\n",
            "stp x23, x24, [sp, #48]\n",
            "stp x25, x26, [sp, #64]\n",
            "stp x27, x28, [sp, #80]\n",
        )
    };
}
/// Undoes `push_callee_saved` with the same size.
macro_rules! pop_callee_saved {
    ($size:literal) => {
        concat!(
            "ldp x19, x20, [sp, #16]\n",
            "ldp x21, x22, [sp, #32]\n",
            "ldp x23, x24, [sp, #48]\n",
            "ldp x25, x26, [sp, #64]\n",
            "ldp x27, x28, [sp, #80]\n",
            "ldp x29, x30, [sp], #",
            $size,
            "\n",
        )
    };
}
/// Loads X0 to X29 from where this register points, X29 itself or X30.
macro_rules! load_x0_to_x29 {
    ($base:literal) => {
        concat!(
            "ldp x0, x1, [",
            $base,
            ", #0]\n",
            "ldp x2, x3, [",
            $base,
            ", #16]\n",
            "ldp x4, x5, [",
            $base,
            ", #32]\n",
            "ldp x6, x7, [",
            $base,
            ", #48]\n",
            "ldp x8, x9, [",
            $base,
            ", #64]\n",
            "ldp x10, x11, [",
            $base,
            ", #80]\n",
            "ldp x12, x13, [",
            $base,
            ", #96]\n",
            "ldp x14, x15, [",
            $base,
            ", #112]\n",
            "ldp x16, x17, [",
            $base,
            ", #128]\n",
            "ldp x18, x19, [",
            $base,
            ", #144]\n",
            "ldp x20, x21, [",
            $base,
            ", #160]\n",
            "ldp x22, x23, [",
            $base,
            ", #176]\n",
            "ldp x24, x25, [",
            $base,
            ", #192]\n",
            "ldp x26, x27, [",
            $base,
            ", #208]\n",
            "ldp x28, x29, [",
            $base,
            ", #224]\n",
        )
    };
}
/// Stores X0 to X29 where this register points.
macro_rules! store_x0_to_x29 {
    ($base:literal) => {
        concat!(
            "stp x0, x1, [",
            $base,
            ", #0]\n",
            "stp x2, x3, [",
            $base,
            ", #16]\n",
            "stp x4, x5, [",
            $base,
            ", #32]\n",
            "stp x6, x7, [",
            $base,
            ", #48]\n",
            "stp x8, x9, [",
            $base,
            ", #64]\n",
            "stp x10, x11, [",
            $base,
            ", #80]\n",
            "stp x12, x13, [",
            $base,
            ", #96]\n",
            "stp x14, x15, [",
            $base,
            ", #112]\n",
            "stp x16, x17, [",
            $base,
            ", #128]\n",
            "stp x18, x19, [",
            $base,
            ", #144]\n",
            "stp x20, x21, [",
            $base,
            ", #160]\n",
            "stp x22, x23, [",
            $base,
            ", #176]\n",
            "stp x24, x25, [",
            $base,
            ", #192]\n",
            "stp x26, x27, [",
            $base,
            ", #208]\n",
            "stp x28, x29, [",
            $base,
            ", #224]\n",
        )
    };
}
