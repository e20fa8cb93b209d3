//! What a VM sees of its CPUs: its ID registers, and the traps that close what they hide.
//!
//! Built with the VM, changed by control VMs until it first runs, then frozen ([`idreg::Freeze`]): each
//! vCPU takes the reference when it begins, and reads it without a lock from then on.

use super::Vm;
use super::build::Means;
use crate::lock::Mutex;
use crate::log;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::fmt;
use idreg::{
    Contradiction, Denied, Draft, Features, Freeze, GuestIds, HostIds, REGISTERS, Refused, TrapConfig,
    VirtualEl2,
};
use manifest::{RegionKind, RegionSpec, Sve, VmSpec};
use spin::Once;

/// The values of a VM that runs or has run.
pub(crate) struct Identity {
    draft: Draft,
    /// Cache maintenance traps.
    maintenance: bool,
}

/// The values of a VM that has not run yet.
pub(crate) struct Open {
    draft: Draft,
    /// Bits of the VM's highest address.
    address_bits: u8,
    /// Cache maintenance traps: where it may hit memory that the VM cannot write.
    maintenance: bool,
    /// Where they go when they are frozen: nothing is allocated then.
    place: &'static Once<Identity>,
}

/// The values, whichever.
pub(crate) type Guarded = Mutex<Freeze<&'static mut Open, &'static Identity>>;

/// What a VM may see of its CPUs, as its manifest wants it. `nested`: its virtual EL2; `address_bits`:
/// bits of its highest address.
///
/// # Errors
/// Why it cannot be, as a sentence.
#[inline(never)]
pub(crate) fn of(
    spec: &VmSpec,
    nested: Option<VirtualEl2>,
    sve: bool,
    address_bits: u8,
    means: &Means<'_>,
) -> Result<Guarded, String> {
    let features = Features { mte: spec.mte, sve, nested };
    let cpus = || {
        let numbers = spec.cpus.iter().map(|cpu| usize::from(*cpu));
        numbers.filter_map(|cpu| Some((cpu, *means.cpus.get(cpu)?)))
    };
    let host = means.ids.on_cpus(features.mte, cpus()).map_err(|mixed| {
        let ((a, b), (x, y)) = (mixed.cpus, mixed.values);
        format!("its CPUs {a} and {b} differ in {} ({x:#x} and {y:#x})", mixed.name())
    })?;
    let mut draft = Draft::new(&host, &features);
    for (field, name) in spec.cpu.fields.iter().zip(spec.cpu.names.lines()) {
        draft.set_field(field.register, field.lsb, field.value.into()).map_err(|refused| match refused {
            Some(refused) => format!("manifest {name}: {refused}"),
            None => format!("manifest {name}: there is no such field"),
        })?;
    }
    let contradiction = |why| format!("its ID registers contradict each other: {why}");
    draft.check_consistency(address_bits).map_err(contradiction)?;
    let place = Box::leak(Box::new(Once::new()));
    let read_only = |region: &RegionSpec| matches!(region.kind, RegionKind::ReadOnly { .. });
    let maintenance = means.cmo_trap && spec.regions.iter().any(read_only);
    Ok(Mutex::new(Freeze::Open(Box::leak(Box::new(Open { draft, address_bits, maintenance, place })))))
}

/// Bits of a VM's longest SVE vectors; 0 without SVE.
pub(crate) fn longest_vector(spec: &VmSpec, means: &Means<'_>) -> Result<u16, String> {
    let longest = if means.ids.has_sve() { means.ids.longest_vector() } else { 0 };
    match (spec.sve, spec.sve_vl) {
        (Sve::No, _) => Ok(0),
        (Sve::IfPresent, _) => Ok(longest),
        (Sve::Yes, _) if longest == 0 => {
            Err("it wants SVE, which this machine's CPUs do not have, or not alike".into())
        }
        (Sve::Yes, Some(bits)) if !means.ids.has_vector(bits) => Err(format!(
            "its sve-vl is {bits}, which this machine's CPUs do not have; they have up to {longest}"
        )),
        (Sve::Yes, bits) => Ok(bits.unwrap_or(longest)),
    }
}

impl Open {
    fn seal(&mut self) -> Result<&'static Identity, Contradiction> {
        self.draft.check_consistency(self.address_bits)?;
        let (draft, maintenance) = (&self.draft, self.maintenance);
        Ok(self.place.call_once(|| Identity { draft: draft.clone(), maintenance }))
    }
}

impl Identity {
    /// The ID registers.
    #[inline(always)]
    pub(crate) const fn ids(&self) -> &GuestIds {
        self.draft.ids()
    }

    /// What traps on the CPU that has the ID registers `cpu`, one of the VM's.
    pub(crate) fn traps_on(&self, cpu: &HostIds) -> TrapConfig {
        let traps = self.draft.traps_on(cpu);
        if self.maintenance { traps.with_maintenance() } else { traps }
    }
}

impl Vm {
    /// Before the VM runs: from here on its ID registers stay as they are.
    ///
    /// # Errors
    /// They contradict each other; they stay open to changes then.
    pub(crate) fn freeze_identity(&self) -> Result<(), Contradiction> {
        let mut identity = self.identity.lock();
        if identity.frozen().is_some() {
            return Ok(());
        }
        let frozen = identity.freeze(|open| open.seal())?;
        drop(identity);
        log_values("vm ", &self.spec.name, &|index| frozen.ids().read(index));
        Ok(())
    }

    /// What the VM sees of its CPUs; `None` if it has not run yet.
    pub(crate) fn identity(&self) -> Option<&'static Identity> {
        self.identity.lock().frozen()
    }

    /// Reads an ID register from outside.
    pub(crate) fn id_register(&self, index: usize) -> u64 {
        self.with_draft(|draft| draft.ids().read(index))
    }

    /// The writable bits of an ID register.
    pub(crate) fn id_mask(&self, index: u8) -> u64 {
        self.with_draft(|draft| draft.mask(index))
    }

    /// Sets an ID register from outside.
    pub(crate) fn set_id_register(&self, index: u8, value: u64) -> Result<(), Denied<Refused>> {
        let same = |frozen: &Identity| frozen.draft.holds(index, value);
        self.identity.lock().change(same, |open| open.draft.set(index, value))
    }

    fn with_draft(&self, read: impl Fn(&Draft) -> u64) -> u64 {
        let identity = self.identity.lock();
        match &*identity {
            Freeze::Open(open) => read(&open.draft),
            Freeze::Frozen(frozen) => read(&frozen.draft),
        }
    }
}

/// Values of ID registers, those that are not 0, as `cargo xtask idregs` reads them.
struct Values<'a>(&'a dyn Fn(usize) -> u64);

impl fmt::Display for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for index in 0..REGISTERS {
            let value = self.0(index);
            if value != 0 {
                write!(f, " {index}={value:#x}")?;
            }
        }
        Ok(())
    }
}

/// Logs the values that somebody has. Long lines: only for those who ask for everything.
pub(crate) fn log_values(kind: &str, name: &str, read: &dyn Fn(usize) -> u64) {
    log::trace!("idregs {kind}{name}:{}", Values(read));
}
