//! A VM that finds its lazy memory without data and tags, leaves some there, and then waits at a tag fault
//! that a control VM is to decide about. Whoever looks sees it wait there only if all was clean.

use crate::harness::{Outcome, check, check_eq, skip};
use crate::rt::machine::Machine;
use crate::rt::mem::{read64, write64};
use crate::rt::mmu::tagged;
use crate::rt::mte;

/// Memory is the second memory node, the fault is in the region that `at=` names.
pub(crate) fn run(machine: &Machine) -> Outcome {
    let Some(&(start, size)) = machine.memory().get(1) else { skip!("no lazy memory") };
    let Some(at) = machine.option("at").and_then(|name| machine.region_called(name)) else { skip!("no at=") };
    for page in (start..start + size).step_by(4096) {
        check_eq!(read64(page + 64), 0, "data at {page:#x}");
        check_eq!(mte::ldg(tagged(page) + 64), 0, "tag at {page:#x}");
        mte::stg(mte::with_tag(tagged(page) + 64, 9));
        write64(page + 64, !page);
    }
    mte::stg(mte::with_tag(tagged(at.start), 3));
    println!("# went on");
    check!(mte::ldg(tagged(start) + 64) == 9, "tags at {start:#x}");
    Ok(())
}
