//! Address types that cannot be mixed up.
//!
//! [`Pa`] is a physical address of the machine, [`Ipa`] an address that a VM takes for physical
//! (`Ipa<Canonical>`) or that a guest hypervisor's guest does (`Ipa<Nested>`), [`Va`] a virtual
//! address of some stage 1. Only walkers turn one into another. Arithmetic is checked: it returns
//! `None` where it would wrap.
#![no_std]
#![forbid(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;

/// Size of a page and of a translation granule, in bytes (4 KiB: the only granule in use).
pub const PAGE_SIZE: u64 = 4096;
/// Size of a level-2 block, in bytes.
pub const BLOCK_2M: u64 = 2 << 20;
/// Size of a level-1 block, in bytes.
pub const BLOCK_1G: u64 = 1 << 30;

/// Marks an IPA of a VM of this hypervisor: the address space that stage 2 maps to physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Canonical {}
/// Marks an IPA of a guest hypervisor's guest: an address that the guest hypervisor's stage 2 maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nested {}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident $(<$param:ident>)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name $(<$param>)? (u64 $(, PhantomData<$param>)?);

        impl $(<$param>)? $name $(<$param>)? {
            /// The address with this numeric value.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value $(, PhantomData::<$param>)?)
            }

            /// The numeric value.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// This address plus `bytes`, or `None` if that wraps.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(v) => Some(Self::new(v)),
                    None => None,
                }
            }

            /// The distance from `base` up to this address in bytes, or `None` if `base` is higher.
            #[must_use]
            pub const fn offset_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }

            /// This address rounded down to a multiple of `align`, a power of two.
            #[must_use]
            pub const fn align_down(self, align: u64) -> Self {
                Self::new(self.0 & !(align.wrapping_sub(1)))
            }

            /// Whether the address is a multiple of `align`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, align: u64) -> bool {
                self.0 & align.wrapping_sub(1) == 0
            }
        }

        impl $(<$param>)? fmt::Debug for $name $(<$param>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl $(<$param>)? fmt::Display for $name $(<$param>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl $(<$param>)? fmt::LowerHex for $name $(<$param>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A physical address of the machine.
    Pa
);
address!(
    /// A virtual address, tag byte included where there is one.
    Va
);
address!(
    /// An intermediate physical address: what a guest takes for physical.
    Ipa<Space>
);

/// A half-open range of addresses, `start..start + size`, that does not wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range<A> {
    start: A,
    size: u64,
}

/// A range of physical memory.
pub type PaRange = Range<Pa>;
/// A range of a VM's own IPA space.
pub type IpaRange = Range<Ipa<Canonical>>;

macro_rules! range {
    ([$($param:ident)?] $addr:ty) => {
        impl $(<$param: Copy>)? Range<$addr> {
            /// The range of `size` bytes at `start`, or `None` if its end wraps.
            #[must_use]
            pub const fn new(start: $addr, size: u64) -> Option<Self> {
                match start.checked_add(size) {
                    Some(_) => Some(Self { start, size }),
                    None => None,
                }
            }

            /// First address.
            #[must_use]
            pub const fn start(&self) -> $addr {
                self.start
            }

            /// Length in bytes.
            #[must_use]
            pub const fn size(&self) -> u64 {
                self.size
            }

            /// First address behind the range.
            #[must_use]
            pub const fn end(&self) -> $addr {
                // `new` proved that this does not wrap.
                <$addr>::new(self.start.get().wrapping_add(self.size))
            }

            /// Whether `a` lies inside.
            #[must_use]
            pub const fn contains(&self, a: $addr) -> bool {
                a.get().wrapping_sub(self.start.get()) < self.size
            }

            /// Whether all of `other` lies inside.
            #[must_use]
            pub const fn contains_range(&self, other: &Self) -> bool {
                other.start.get() >= self.start.get() && other.end().get() <= self.end().get()
            }

            /// Whether the two have an address in common; an empty range overlaps nothing.
            #[must_use]
            pub const fn overlaps(&self, other: &Self) -> bool {
                self.start.get() < other.end().get()
                    && other.start.get() < self.end().get()
                    && self.size != 0
                    && other.size != 0
            }

            /// Whether start and size are multiples of `align`, a power of two.
            #[must_use]
            pub const fn is_aligned(&self, align: u64) -> bool {
                (self.start.get() | self.size) & align.wrapping_sub(1) == 0
            }
        }
    };
}

range!([] Pa);
range!([] Va);
range!([Space] Ipa<Space>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_checked() {
        assert_eq!(Pa::new(u64::MAX).checked_add(1), None);
        assert_eq!(Pa::new(16).checked_add(16), Some(Pa::new(32)));
        assert_eq!(Va::new(1).offset_from(Va::new(2)), None);
        assert_eq!(Pa::new(0x1fff).align_down(PAGE_SIZE), Pa::new(0x1000));
    }

    #[test]
    fn ranges_do_not_wrap() {
        assert!(PaRange::new(Pa::new(u64::MAX), 2).is_none());
        let r = IpaRange::new(Ipa::new(0x1000), 0x1000).unwrap();
        assert!(r.contains(Ipa::new(0x1fff)) && !r.contains(Ipa::new(0x2000)) && !r.contains(Ipa::new(0)));
        let empty = IpaRange::new(Ipa::new(0x1800), 0).unwrap();
        assert!(!r.overlaps(&empty) && r.contains_range(&empty));
        let above = IpaRange::new(Ipa::new(0x2000), 0x1000).unwrap();
        assert!(!r.overlaps(&above) && !r.contains_range(&above));
    }
}
