// SPDX-License-Identifier: GPL-2.0

//! The ten cases that a claim of DMA ownership can meet, and what has to come out.
//!
//! They were counted in the discussion of dma_cleanup (iommu list, February 2022); the
//! requirements name them 1a to 4b. What each is, is read from the code, as follows. A is a
//! device of the group. B is another one: through it a claim is made, or a driver is bound to it
//! that uses the DMA API.
//!
//! ```text
//! cell   state of A                                       claim on B       binding B
//! 1a     bound to a driver that uses the DMA API          EPERM            0
//! 1b     bound to one that manages DMA, not claimed       0                0
//! 1c     ... and claimed                                  same key 0,      EBUSY
//!                                                         another EPERM
//! 2a.i   being bound to a driver that uses the DMA API,   0, and A then    0
//!        before dma_configure                             gets EBUSY
//! 2a.ii  ... after it                                     EPERM            0
//! 2b     being bound to a driver that manages DMA         0                0
//! 3      without a driver                                 0                0
//! 4a.i   being unbound from a driver that uses the        EPERM            0
//!        DMA API, before dma_cleanup
//! 4a.ii  ... after it                                     0                0
//! 4b     being unbound from a driver that manages DMA     0                0
//! ```
//!
//! A driver that manages DMA and has claimed in its probe, or has not yet released in its remove,
//! is 1c. 2a.i and 4a.ii are what a scan of `dev->driver` gets wrong: the driver is set before
//! `dma_configure` and cleared after `dma_cleanup`, so such a scan would find A bound in both.
//! [`expected`] has the table, and what becomes of A where B comes first.

use super::model::{
    Answer,
    Errno,
    Key,
    Kind,
    Step, //
};

/// A cell of the table: what state device A is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "see the table")]
pub enum Cell {
    C1a,
    C1b,
    C1c,
    C2ai,
    C2aii,
    C2b,
    C3,
    C4ai,
    C4aii,
    C4b,
}

/// The key that A is claimed with in cell 1c.
pub const KEY_OF_A: Key = 1;

impl Cell {
    /// All cells, with their names.
    pub const ALL: [(Cell, &'static str); 10] = [
        (Cell::C1a, "1a"),
        (Cell::C1b, "1b"),
        (Cell::C1c, "1c"),
        (Cell::C2ai, "2a.i"),
        (Cell::C2aii, "2a.ii"),
        (Cell::C2b, "2b"),
        (Cell::C3, "3"),
        (Cell::C4ai, "4a.i"),
        (Cell::C4aii, "4a.ii"),
        (Cell::C4b, "4b"),
    ];

    /// How A comes from being unbound to the state in which it meets B's operation where that
    /// comes first: bound where the cell is about unbinding, else unbound.
    pub fn before(self) -> &'static [Step] {
        use Step::*;
        match self {
            Cell::C4ai | Cell::C4aii => &[Bind(Kind::Kernel), Configure, Probed],
            Cell::C4b => &[Bind(Kind::Managed), Configure, Probed],
            _ => &[],
        }
    }

    /// How it comes from there into the cell.
    pub fn enter(self) -> &'static [Step] {
        use Step::*;
        match self {
            Cell::C1a => &[Bind(Kind::Kernel), Configure, Probed],
            Cell::C1b => &[Bind(Kind::Managed), Configure, Probed],
            Cell::C1c => &[Bind(Kind::Managed), Configure, Probed, Claim(KEY_OF_A)],
            Cell::C2ai => &[Bind(Kind::Kernel)],
            Cell::C2aii => &[Bind(Kind::Kernel), Configure],
            Cell::C2b => &[Bind(Kind::Managed), Configure],
            Cell::C3 => &[],
            Cell::C4ai | Cell::C4b => &[Unbind],
            Cell::C4aii => &[Unbind, Cleanup],
        }
    }

    /// How it goes on from the cell: what is being bound becomes bound, what is being unbound
    /// is unbound.
    pub fn after(self) -> &'static [Step] {
        use Step::*;
        match self {
            Cell::C1a | Cell::C1b | Cell::C1c | Cell::C3 => &[],
            Cell::C2ai => &[Configure, Probed],
            Cell::C2aii | Cell::C2b => &[Probed],
            Cell::C4ai | Cell::C4b => &[Cleanup, Finish],
            Cell::C4aii => &[Finish],
        }
    }
}

/// What is done with device B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Its driver, which manages DMA and is bound, claims.
    Claim(Key),
    /// A driver that uses the DMA API is bound.
    Bind,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A goes into the cell, then comes B, then A goes on.
    CellFirst,
    /// A is in the state that [`Cell::before`] says, then comes B, then A goes into the cell
    /// and on.
    OpFirst,
}

/// Who has the group in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody: it can be claimed, and its `type` be written.
    Nobody,
    /// Drivers that use the DMA API.
    Kernel,
    /// Whoever has this key. All DMA is blocked.
    Key(Key),
}

/// What has to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What B's operation returns.
    pub op: Answer,
    /// The first error on A's way, where it ends.
    pub a: Answer,
    /// Who has the group then.
    pub owner: Owner,
}

/// The table.
pub fn expected(cell: Cell, op: Op, order: Order) -> Outcome {
    use Cell::*;
    let busy = Err(Errno::Busy);
    let perm = Err(Errno::Perm);
    let (op, a, owner) = match (order, cell, op) {
        (Order::CellFirst, C1a | C2aii, Op::Claim(_)) => (perm, Ok(()), Owner::Kernel),
        (Order::CellFirst, C1c, Op::Claim(KEY_OF_A)) => (Ok(()), Ok(()), Owner::Key(KEY_OF_A)),
        (Order::CellFirst, C1c, Op::Claim(_)) => (perm, Ok(()), Owner::Key(KEY_OF_A)),
        (Order::CellFirst, C1c, Op::Bind) => (busy, Ok(()), Owner::Key(KEY_OF_A)),
        (Order::CellFirst, C2ai, Op::Claim(key)) => (Ok(()), busy, Owner::Key(key)),
        (Order::CellFirst, C4ai, Op::Claim(_)) => (perm, Ok(()), Owner::Nobody),
        (Order::OpFirst, C1a | C2ai | C2aii, Op::Claim(key)) => (Ok(()), busy, Owner::Key(key)),
        (Order::OpFirst, C1c, Op::Claim(key)) if key != KEY_OF_A => (Ok(()), perm, Owner::Key(key)),
        (Order::OpFirst, C1c, Op::Bind) => (Ok(()), perm, Owner::Kernel),
        // A still has its driver.
        (Order::OpFirst, C4ai | C4aii, Op::Claim(_)) => (perm, Ok(()), Owner::Nobody),
        (_, _, Op::Claim(key)) => (Ok(()), Ok(()), Owner::Key(key)),
        (_, _, Op::Bind) => (Ok(()), Ok(()), Owner::Kernel),
    };
    Outcome { op, a, owner }
}
