//! Tags that are not simply there: lazy memory, and faults that a control VM looks at and decides. For a VM
//! with a proxy beside it (`share=PAGE`, `modes::proxy`), not in `all`; the head of `manifests/test/tags.toml`
//! says what else there has to be.

use crate::harness::suite;
use crate::rt::el0::{self, Left};
use core::arch::global_asm;

mod decisions;
mod faults;
mod joined;
mod lazy;
pub(super) mod outside;
mod tables;
mod vectors;
mod walks;

use decisions::{inject_later, nobody_answers, nobody_left, retry, stop_at_fault};
use faults::{
    across_regions, arguments, at_el0 as fault_at_el0, device, kinds, no_faults, read_only, tco_in_handler,
};
use joined::block_splits_and_joins;
use lazy::{
    across_pages, at_el0, end_of_page, end_of_page_by_two, first_access, like_backed, no_tag_access, quota,
    turned_back_while_running, two_vcpus,
};
use tables::{par_is_kept, tables_change_meanwhile};
use vectors::{vectors, vectors_across_pages};
use walks::{fetches_and_walks, translations};

suite!(
    "tags",
    false,
    [
        kinds,
        no_faults,
        tco_in_handler,
        fault_at_el0,
        across_regions,
        read_only,
        device,
        fetches_and_walks,
        translations,
        par_is_kept,
        tables_change_meanwhile,
        vectors,
        first_access,
        like_backed,
        no_tag_access,
        across_pages,
        end_of_page,
        end_of_page_by_two,
        vectors_across_pages,
        at_el0,
        quota,
        two_vcpus,
        turned_back_while_running,
        block_splits_and_joins,
        arguments,
        retry,
        inject_later,
        stop_at_fault,
        nobody_answers,
        nobody_left,
    ]
);

unsafe extern "C" {
    fn tags_el0_stg();
}

/// EL0 tags the granule at `va`, which the user window maps, with its logical tag.
fn el0_tags(va: u64) -> Left {
    el0::run(tags_el0_stg, [va, 0, 0, 0, 0, 0, 0, 0])
}

global_asm!(
    r#"
    .arch_extension memtag
    .section .user, "ax"
    .globl  tags_el0_stg
tags_el0_stg:
    stg     x0, [x0]
    svc     #0
    .text
"#
);
