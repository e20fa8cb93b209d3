//! What a guest asks of the caches: its maintenance instructions, told apart by their encoding.
//!
//! A trap names the encoding in ISS. A stage-2 fault does not: ESR_EL2.CM is 1 for DC, IC and AT alike,
//! so the instruction itself has to be read (DDI 0487, ESR_ELx, ISS of a Data Abort, CM).

use trap::SysReg;

/// What a line maintenance instruction reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Data.
    Data,
    /// Allocation tags.
    Tags,
    /// Both.
    Both,
}

/// How far changed lines are written back; each point lies behind the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// Where instruction fetches and table walks see them.
    Unification,
    /// Where all observers see them.
    Coherency,
    /// Where they outlive the power (FEAT_DPB).
    Persistence,
    /// Where they outlive more than that (FEAT_DPB2).
    DeepPersistence,
}

/// What is done to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// Forgotten, changed or not. Needs write permission.
    Invalidate,
    /// Written back.
    Clean(Point),
    /// Written back to the point of coherency and forgotten.
    CleanInvalidate,
}

/// Maintenance of one line of a data cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// What is done.
    pub how: How,
    /// To what.
    pub content: Content,
}

impl Line {
    /// DC IVAC.
    pub const INVALIDATE: Self = Self { how: How::Invalidate, content: Content::Data };
    /// What serves for any maintenance of a line.
    pub const THOROUGH: Self = Self { how: How::CleanInvalidate, content: Content::Both };
}

/// A system instruction that ESR_EL2.CM may mean, or that a trap of cache maintenance may catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// DC by address.
    Line(Line),
    /// DC by set and way, to this content.
    SetWay(Content),
    /// IC IVAU: instructions of one line.
    Fetch,
    /// IC IALLU, IC IALLUIS: all instructions.
    AllFetches,
    /// DC ZVA, GVA, GZVA: stores, whatever their name.
    Zero,
    /// AT: a translation.
    Translate,
}

/// SYS without op1, CRn, CRm, op2 and Rt, and with op0 = 1 (DDI 0487, C6.2 "SYS").
const SYS: u32 = 0xd508_0000;
const SYS_MASK: u32 = 0xfff8_0000;

impl Operation {
    /// The operation with this encoding; `None` for all other system instructions.
    #[must_use]
    pub const fn from_encoding(reg: SysReg) -> Option<Self> {
        if reg.op0() != 1 || reg.crn() != 7 {
            return None;
        }
        let (op1, crm, op2) = (reg.op1(), reg.crm(), reg.op2());
        Some(match (op1, crm, op2) {
            (0, 6, 1 | 3 | 5) => line(How::Invalidate, op2),
            (3, 14, 1 | 3 | 5) => line(How::CleanInvalidate, op2),
            (3, 10, 1 | 3 | 5) => line(How::Clean(Point::Coherency), op2),
            // There is no tag form to the point of unification.
            (3, 11, 1) => line(How::Clean(Point::Unification), op2),
            (3, 12, 1 | 3 | 5) => line(How::Clean(Point::Persistence), op2),
            (3, 13, 1 | 3 | 5) => line(How::Clean(Point::DeepPersistence), op2),
            (3, 5, 1) => Self::Fetch,
            (0, 1 | 5, 0) => Self::AllFetches,
            (3, 4, 1 | 3 | 4) => Self::Zero,
            (0, 6 | 10 | 14, 2 | 4 | 6) => Self::SetWay(content(op2.wrapping_sub(1))),
            // CRm 8 and 9 are AT throughout; op1 4 and 6 are those of EL2 and EL3.
            (_, 8 | 9, _) => Self::Translate,
            _ => return None,
        })
    }

    /// The operation that the instruction `word` asks for; `None` if it is none of these. An instruction
    /// with CRn 7 that is not known here is newer maintenance of a line.
    #[must_use]
    pub const fn from_instruction(word: u32) -> Option<Self> {
        if word & SYS_MASK != SYS || word >> 12 & 15 != 7 {
            return None;
        }
        let reg = SysReg::new(1, word >> 16 & 7, 7, word >> 8 & 15, word >> 5 & 7);
        match Self::from_encoding(reg) {
            None => Some(Self::Line(Line::THOROUGH)),
            known => known,
        }
    }
}

/// op2 is 1, 3 and 5 for data, tags and both, by address; one more by set and way.
const fn content(op2: u32) -> Content {
    match op2 {
        3 => Content::Tags,
        5 => Content::Both,
        _ => Content::Data,
    }
}

const fn line(how: How, op2: u32) -> Operation {
    Operation::Line(Line { how, content: content(op2) })
}

#[cfg(test)]
mod tests;
