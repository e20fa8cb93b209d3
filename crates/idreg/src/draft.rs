//! The ID registers of a VM that has not run yet: what it may have, and what was asked for so far.

use core::fmt;

use crate::closing::TrapConfig;
use crate::contradiction::{Contradiction, contradiction};
use crate::field::{Entry, Reg, Rule, index};
use crate::guest::{Features, GuestIds, MTE_FRAC};
use crate::host::HostIds;
use crate::register_at;
use crate::table::ENTRIES;

/// The values of a VM, and the limits that they keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The machine, as this VM's CPUs show it.
    host: HostIds,
    features: Features,
    limit: GuestIds,
    ids: GuestIds,
}

/// A value that a VM cannot have: of a field, or of a bit that no field covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Index of the register.
    pub register: u8,
    /// Lowest bit.
    pub lsb: u8,
    /// What was asked for.
    pub asked: u64,
    /// The nearest that is allowed.
    pub allowed: u64,
    /// What else is.
    pub bound: Bound,
}

/// What a field allows beside its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Nothing.
    Only,
    /// Less.
    AtMost,
    /// More.
    AtLeast,
    /// The value that says "not implemented".
    OrAbsent,
}

/// The reason alone; who asked knows the register's name.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, behind) = match self.bound {
            Bound::Only => ("only ", " is"),
            Bound::AtMost => ("at most ", ""),
            Bound::AtLeast => ("at least ", ""),
            Bound::OrAbsent => ("only \"absent\" or ", ""),
        };
        write!(f, "asked {}, {before}{}{behind} allowed here", self.asked, self.allowed)
    }
}

impl Draft {
    /// All that a VM can have on this machine, of which `host` is what holds on its CPUs
    /// ([`HostIds::on_cpus`]).
    #[must_use]
    pub fn new(host: &HostIds, features: &Features) -> Self {
        let limit = GuestIds::new(host, features);
        Self { host: *host, features: features.on(host), ids: limit.clone(), limit }
    }

    /// The values.
    #[must_use]
    pub const fn ids(&self) -> &GuestIds {
        &self.ids
    }

    /// Sets the field at `lsb` of a register.
    ///
    /// # Errors
    /// What is wrong with the value; `None` if the table has no such field.
    pub fn set_field(&mut self, register: u8, lsb: u8, value: u64) -> Result<(), Option<Refused>> {
        let entry = self.fields(register).find(|entry| entry.field.lsb == lsb).ok_or(None)?;
        let old = self.ids.read(register.into());
        if value != 0 || !is_mute(&entry, old) {
            self.check(&entry, value)?;
        }
        let mut new = old & !entry.field.mask() | entry.field.place(value);
        if entry.reg == Reg::Pfr1 && mte_of(old) < 2 && mte_of(new) >= 2 {
            // MTE is back, and so is what MTE_frac says of it.
            new |= self.limit.read(register.into()) & 0xf << MTE_FRAC.1;
        }
        self.put(register, new);
        Ok(())
    }

    /// Sets a whole register: at once, or not at all. AArch32 registers, which read as zero because no
    /// VM has AArch32, take any value and keep none, so that what another machine saved can be restored.
    ///
    /// # Errors
    /// The first field that is wrong, or a bit outside all fields that is not as it was.
    pub fn set(&mut self, register: u8, value: u64) -> Result<(), Refused> {
        if register < Reg::Pfr0 as u8 {
            return Ok(());
        }
        let mut outside = value ^ self.limit.read(register.into());
        if register == index::CLIDR || register == index::GMID {
            outside = value ^ self.ids.read(register.into());
        }
        for entry in self.fields(register) {
            let asked = entry.field.get(value);
            if asked != 0 || !is_mute(&entry, value) {
                self.check(&entry, asked)?;
            }
            outside &= !entry.field.mask();
        }
        if outside != 0 {
            let lsb = outside.trailing_zeros();
            let (asked, bound) = (value.wrapping_shr(lsb) & 1, Bound::Only);
            return Err(Refused { register, lsb: lsb as u8, asked, allowed: asked ^ 1, bound });
        }
        self.put(register, value);
        Ok(())
    }

    /// Whether setting a register to this value changes nothing.
    #[must_use]
    pub fn holds(&self, register: u8, value: u64) -> bool {
        register < Reg::Pfr0 as u8 || self.ids.read(register.into()) == value
    }

    /// The bits of a register that may have other values than they have at most.
    #[must_use]
    pub fn mask(&self, register: u8) -> u64 {
        let limit = self.limit.read(register.into());
        let writable = self.fields(register).filter(|e| e.is_writable(e.field.get(limit)));
        writable.fold(0, |mask, e| mask | e.field.mask())
    }

    /// Whether the values make a CPU.
    ///
    /// # Errors
    /// The first pair of fields that contradict each other.
    pub fn check_consistency(&self, address_bits: u8) -> Result<(), Contradiction> {
        contradiction(&self.ids, address_bits).map_or(Ok(()), Err)
    }

    /// What closes everything that the values hide, on one of the VM's CPUs.
    #[must_use]
    pub fn traps_on(&self, cpu: &HostIds) -> TrapConfig {
        TrapConfig::new(cpu, &self.ids, self.host.has_fwb())
    }

    /// The fields of a register, for this VM.
    fn fields(&self, register: u8) -> impl Iterator<Item = Entry> + use<> {
        let features = self.features;
        let entries = ENTRIES.iter().filter(move |entry| entry.reg as u8 == register);
        entries.map(move |entry| entry.for_features(&features))
    }

    fn put(&mut self, register: u8, value: u64) {
        self.ids.set(register.into(), value);
        self.ids.derive(&self.host);
    }

    fn check(&self, entry: &Entry, asked: u64) -> Result<(), Refused> {
        let Entry { reg, field, .. } = *entry;
        let limit = field.get(self.limit.read(reg as usize));
        if asked <= field.ones() && entry.allows(asked, limit) {
            return Ok(());
        }
        let bound = match field.rule {
            _ if !entry.is_writable(limit) => Bound::Only,
            Rule::LowerSafe | Rule::SignedLowerSafe => Bound::AtMost,
            Rule::HigherSafe | Rule::HigherOrZero => Bound::AtLeast,
            Rule::Exact => Bound::OrAbsent,
        };
        Err(Refused { register: reg as u8, lsb: field.lsb, asked, allowed: limit, bound })
    }
}

/// ID_AA64PFR1_EL1.MTE.
const fn mte_of(pfr1: u64) -> u64 {
    pfr1 >> 8 & 0xf
}

/// Whether the field is 0 in this value of its register whatever the machine has: MTE_frac without MTE 2.
fn is_mute(entry: &Entry, register: u64) -> bool {
    (entry.reg, u32::from(entry.field.lsb)) == MTE_FRAC && mte_of(register) < 2
}

impl Refused {
    /// The register.
    #[must_use]
    pub fn register(&self) -> trap::SysReg {
        register_at(self.register)
    }
}
