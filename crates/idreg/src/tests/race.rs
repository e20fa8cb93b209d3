//! Setters that race with the first run of a VM, in every order that the memory model allows.
#![cfg(not(miri))]

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::boxed::Box;

use super::*;

type Shared = Mutex<Freeze<Draft, &'static GuestIds>>;

const PFR1: u8 = Reg::Pfr1 as u8;

fn shared() -> Shared {
    Mutex::new(Freeze::Open(Draft::new(&max(), &MTE)))
}

fn now(vm: &Shared) -> u64 {
    match &*vm.lock().unwrap() {
        Freeze::Open(draft) => draft.ids().read(PFR1.into()),
        Freeze::Frozen(ids) => ids.read(PFR1.into()),
    }
}

/// What a vCPU does before it begins.
fn begin(vm: &Shared) -> &'static GuestIds {
    let seal =
        |draft: &mut Draft| -> Result<&'static GuestIds, ()> { Ok(Box::leak(Box::new(draft.ids().clone()))) };
    vm.lock().unwrap().freeze(seal).unwrap()
}

/// What IDREG_SET does.
fn set(vm: &Shared, value: u64) -> Result<(), Denied<Refused>> {
    let same = |ids: &GuestIds| ids.read(PFR1.into()) == value;
    vm.lock().unwrap().change(same, |draft| draft.set(PFR1, value))
}

/// Two vCPUs begin while a control VM sets a register: both see the old value and the setter is
/// refused, or both see the new one.
#[test]
fn setter_against_first_run() {
    loom::model(|| {
        let vm = Arc::new(shared());
        let old = now(&vm);
        let new = old & !0xf0;
        let vcpus = [(); 2].map(|()| {
            let vm = vm.clone();
            thread::spawn(move || begin(&vm).read(PFR1.into()))
        });
        let answer = set(&vm, new);
        let seen = vcpus.map(|vcpu| vcpu.join().unwrap());
        let expected = match answer {
            Ok(()) => new,
            Err(Denied::Frozen) => old,
            Err(Denied::Wrong(e)) => panic!("{e}"),
        };
        assert_eq!(seen, [expected; 2]);
        // From here on it is as it is: the same again is accepted, anything else is not.
        assert_eq!(set(&vm, expected), Ok(()));
        assert_eq!(set(&vm, old ^ new ^ expected), Err(Denied::Frozen));
        assert_eq!(begin(&vm).read(PFR1.into()), expected);
    });
}

/// Two setters of different values and one vCPU: it sees that of the last one that succeeded.
#[test]
fn two_setters() {
    loom::model(|| {
        let vm = Arc::new(shared());
        let old = now(&vm);
        let values = [old & !0xf0, old & !0xf];
        let setters = values.map(|value| {
            let vm = vm.clone();
            thread::spawn(move || set(&vm, value).is_ok())
        });
        let seen = begin(&vm).read(PFR1.into());
        let done = setters.map(|setter| setter.join().unwrap());
        assert!(seen == old || values.contains(&seen));
        for (value, done) in values.into_iter().zip(done) {
            assert!(done || seen != value, "a value is seen whose setter was refused");
        }
        assert_eq!(seen == old, done == [false, false], "a setter was told that it succeeded");
    });
}

/// The mistake that all this is about, a flag that is looked at outside the lock, does not pass the
/// first test: the model finds it.
#[test]
#[should_panic(expected = "torn")]
fn flag_outside_the_lock() {
    loom::model(|| {
        let vm = Arc::new((AtomicBool::new(false), Mutex::new(0)));
        let vcpu = {
            let vm = vm.clone();
            thread::spawn(move || {
                vm.0.store(true, Ordering::Release);
                *vm.1.lock().unwrap()
            })
        };
        let refused = vm.0.load(Ordering::Acquire);
        if !refused {
            *vm.1.lock().unwrap() = 1;
        }
        let seen = vcpu.join().unwrap();
        assert!(seen == if refused { 0 } else { 1 }, "torn");
    });
}

#[test]
fn a_contradiction_does_not_freeze() {
    let mut freeze = Freeze::Open(1);
    assert_eq!(freeze.freeze(|_| Err("no")), Err("no"));
    assert_eq!(freeze.frozen(), None);
    let put = |to| {
        move |draft: &mut i32| {
            *draft = to;
            Ok::<(), ()>(())
        }
    };
    assert_eq!(freeze.change(|_| false, put(2)), Ok(()));
    assert_eq!(freeze.freeze(|draft| Ok::<_, ()>(*draft)), Ok(2));
    assert_eq!(freeze.freeze(|_| Err("too late")), Ok(2));
    assert_eq!(freeze.frozen(), Some(2));
    assert_eq!(freeze.change(|frozen| frozen == 2, put(3)), Ok(()));
    assert_eq!(freeze.change(|frozen| frozen == 3, put(3)), Err(Denied::Frozen));
    assert_eq!(freeze.frozen(), Some(2));
}
