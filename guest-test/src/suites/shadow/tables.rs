//! Stage-2 tables in memory behind the payload.

use crate::rt::mem::{self, write64};
use core::arch::asm;

/// Size of a page.
pub(crate) const PAGE: u64 = 4096;
/// Size of a block of level 2.
pub(crate) const BLOCK_2M: u64 = 2 << 20;
/// The guest may read.
pub(crate) const READ: u64 = 1 << 6;
/// The guest may write.
pub(crate) const WRITE: u64 = 1 << 7;
/// Nobody may execute.
pub(crate) const NO_EXEC: u64 = 1 << 54;
/// Where tests map something: above all that the payload has.
pub(crate) const NESTED: u64 = 4 << 30;
/// A block of memory for tests, and another one behind it.
pub(crate) const AREA: u64 = 0x4120_0000;
/// Tables, 64 KiB for each stage 2; then pages for data.
const TABLES: u64 = 0x4180_0000;
const DATA: u64 = 0x41b0_0000;

const GIB: u64 = 1 << 30;
const ALL: u64 = READ | WRITE;
const LEAF: u64 = 1 << 10 | 3 << 8;
/// Normal write-back.
const WRITE_BACK: u64 = 0b1111 << 2;

/// Page `n` for data.
pub(crate) fn data(n: u64) -> u64 {
    DATA + n * PAGE
}

/// A stage 2: 39 bits, from level 1, 4 KiB granule. All of the first 4 GiB is mapped as it is, by blocks of
/// 1 GiB: the guest's code is there. [`NESTED`] and 2 MiB behind are the test's.
pub(crate) struct Stage2 {
    base: u64,
    /// VTTBR_EL2.
    pub(crate) vttbr: u64,
    /// VTCR_EL2.
    pub(crate) vtcr: u64,
}

impl Stage2 {
    /// Number `n`, under `vmid`. The caller forgets what was there before.
    pub(crate) fn new(n: u64, vmid: u64) -> Self {
        let (_, end) = mem::image();
        assert!(end <= AREA, "the payload is too large for its tests");
        let stage2 = Self::again(n, vmid);
        let base = stage2.base;
        let (level1, level2, level3) = (base, base + PAGE, base + 2 * PAGE);
        for at in (base..base + 4 * PAGE).step_by(8) {
            write64(at, 0);
        }
        for gib in 0..4 {
            write64(level1 + 8 * gib, (gib * GIB) | WRITE_BACK | LEAF | ALL | 0b01);
        }
        write64(level1 + 8 * (NESTED / GIB), level2 | 0b11);
        write64(level2, level3 | 0b11);
        stage2
    }

    /// The same once more, on another CPU.
    pub(crate) fn again(n: u64, vmid: u64) -> Self {
        let base = TABLES + (n << 16);
        // T0SZ 25, SL0 1, cacheable walks, PS 40 bits.
        let vtcr = 25 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 2 << 16 | 1 << 31;
        Self { base, vttbr: vmid << 48 | base, vtcr }
    }

    /// Room for other tables, 64 KiB, behind those of the first eight.
    pub(crate) const fn room() -> u64 {
        TABLES + (8 << 16)
    }

    /// One page of another granule at [`NESTED`]: TG0, and bits of offset. And where it is.
    pub(crate) fn with_granule(tg0: u64, shift: u32) -> (Self, u64) {
        let stage2 = Self::new(0, 2);
        let entries = shift - 3;
        // Tables of 64 KiB at most: level 2, and two of level 3; all of 16 MiB aligned.
        let (level2, code, own) = (TABLES + (16 << 16), TABLES + (18 << 16), TABLES + (20 << 16));
        for at in (level2..level2 + (6 << 16)).step_by(8) {
            write64(at, 0);
        }
        let block = entries + shift;
        let pa = AREA & !((1 << shift) - 1);
        // 36 bits from level 2: up to 16 root tables are not needed, one or two are there.
        write64(level2 + 8 * (NESTED >> block), own | 0b11);
        let index = |ipa: u64| ipa >> shift & ((1 << entries) - 1);
        write64(own + 8 * index(NESTED), pa | WRITE_BACK | LEAF | ALL | 0b11);
        // The guest's code, page by page.
        let (start, end) = mem::image();
        write64(level2 + 8 * (start >> block), code | 0b11);
        let mut at = start & !((1 << shift) - 1);
        while at < end {
            write64(code + 8 * index(at), at | WRITE_BACK | LEAF | ALL | 0b11);
            at += 1 << shift;
        }
        // SL0 1 is level 2 there.
        let vtcr = stage2.vtcr & !0x3f | 28 | tg0 << 14;
        (Self { vttbr: 2 << 48 | level2, vtcr, ..stage2 }, pa)
    }

    /// Where its four tables begin.
    pub(crate) fn root(&self) -> u64 {
        self.base
    }

    /// Where the level-3 descriptor of `ipa` is.
    pub(crate) fn leaf(&self, ipa: u64) -> u64 {
        assert!((NESTED..NESTED + BLOCK_2M).contains(&ipa));
        self.base + 2 * PAGE + 8 * (ipa >> 12 & 511)
    }

    /// Maps a page as write-back.
    pub(crate) fn page(&self, ipa: u64, pa: u64, rights: u64) {
        self.leaf_with(ipa, pa | rights, 0b1111);
    }

    /// Maps a page with another MemAttr. Nothing is mapped without rights.
    pub(crate) fn leaf_with(&self, ipa: u64, pa_and_rights: u64, mem_attr: u64) {
        let leaf = pa_and_rights | mem_attr << 2 | LEAF | 0b11;
        write64(self.base + PAGE, (self.base + 2 * PAGE) | 0b11);
        write64(self.leaf(ipa), if pa_and_rights & ALL == 0 { 0 } else { leaf });
    }

    /// Maps the 2 MiB at [`NESTED`].
    pub(crate) fn block(&self, ipa: u64, pa: u64, rights: u64) {
        assert!(ipa == NESTED && pa.is_multiple_of(BLOCK_2M));
        write64(self.base + PAGE, pa | rights | WRITE_BACK | LEAF | 0b01);
    }

    /// Maps the GiB at [`NESTED`], page by page, all to `pa`, or block by block.
    pub(crate) fn fill(&self, pa: u64, pages: bool) {
        let (level2, level3) = (self.base + PAGE, self.base + 2 * PAGE);
        for n in 0..512 {
            write64(level3 + 8 * n, pa | READ | WRITE_BACK | LEAF | 0b11);
            let block = pa & !(BLOCK_2M - 1) | READ | WRITE_BACK | LEAF | 0b01;
            write64(level2 + 8 * n, if pages { level3 | 0b11 } else { block });
        }
    }

    /// Maps each GiB from [`NESTED`] on like the one there, or all to the GiB that the payload is in.
    pub(crate) fn spread(&self, pages: bool) {
        let block = AREA & !(GIB - 1) | READ | WRITE_BACK | LEAF | 0b01;
        let entry = if pages { (self.base + PAGE) | 0b11 } else { block };
        for gib in NESTED / GIB..512 {
            write64(self.base + 8 * gib, entry);
        }
    }

    /// Maps `n` blocks of 2 MiB from [`NESTED`] on, all to [`AREA`].
    pub(crate) fn blocks(&self, n: u64) {
        for block in 0..n {
            write64(self.base + PAGE + 8 * block, AREA | READ | WRITE_BACK | LEAF | 0b01);
        }
    }

    /// Maps the 2 MiB at `ipa` of the first 4 GiB to `pa`, the rest of its GiB as it is.
    pub(crate) fn alias(&self, ipa: u64, pa: u64) {
        let level2 = self.base + 3 * PAGE;
        let gib = ipa & !(GIB - 1);
        for n in 0..512 {
            write64(level2 + 8 * n, (gib + n * BLOCK_2M) | WRITE_BACK | LEAF | ALL | 0b01);
        }
        write64(level2 + 8 * (ipa >> 21 & 511), pa | WRITE_BACK | LEAF | ALL | 0b01);
        write64(self.base + 8 * (ipa / GIB), level2 | 0b11);
    }

    /// At EL2: the next guest has it.
    pub(crate) fn install(&self) {
        msr!("vttbr_el2", self.vttbr);
        msr!("vtcr_el2", self.vtcr);
    }

    /// Forgets all translations under the VMID.
    pub(crate) fn forget(&self) {
        self.invalidate(|| {
            // SAFETY: TLB maintenance of the guest's translations.
            unsafe { asm!("dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack)) };
        });
    }

    /// Forgets a page's translation under the VMID.
    pub(crate) fn forget_page(&self, ipa: u64) {
        self.forget_hinted(ipa, 0);
    }

    /// The same with a hint of the level (TTL).
    pub(crate) fn forget_hinted(&self, ipa: u64, hint: u64) {
        self.invalidate(|| {
            // SAFETY: as above.
            unsafe {
                asm!("dsb ishst", "tlbi ipas2e1is, {}", "dsb ish", "tlbi vmalle1is", "dsb ish", "isb",
                    in(reg) ipa >> 12 | hint << 44, options(nostack))
            };
        });
    }

    /// At EL2, under the VMID; VMALLE1 is the guest's with TGE clear.
    fn invalidate(&self, f: impl FnOnce()) {
        crate::rt::el2::at_el2(|| {
            self.install();
            let hcr = mrs!("hcr_el2");
            msr!("hcr_el2", hcr & !(1 << 27));
            f();
            msr!("hcr_el2", hcr);
        });
    }
}
