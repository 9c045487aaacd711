//! The calls that are counted as a whole, one kind for each row.

/// One kind of call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    pub(super) argument: Argument,
    pub(super) in_flight: usize,
    pub(super) calls: usize,
    /// The calls have a deadline and survive a lost connection.
    pub(super) survives: bool,
    /// The method answers an error.
    pub(super) fails: bool,
    /// The server has rows of its own.
    pub(super) server_apart: bool,
}

/// The argument, which is also the result.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// An array of this many bytes.
    Array(usize),
    /// A dict of eight scalars.
    Scalars,
}

/// Enough to make what happens once or by time negligible.
const CALLS: usize = 10_000;

/// A call of an inline method with an array.
const fn inline(name: &'static str, bytes: usize, in_flight: usize) -> Work {
    Work {
        name,
        method: "echo",
        argument: Argument::Array(bytes),
        in_flight,
        calls: CALLS,
        survives: false,
        fails: false,
        server_apart: false,
    }
}

const MANY: Work = inline("64 B, 64 in flight", 64, 64);
const ALONE: Work = inline("1 KiB alone", 1 << 10, 1);

impl Work {
    /// All kinds of calls.
    pub(super) const ALL: [Work; 9] = [
        MANY,
        Work { name: "64 B, 64 in flight, deadline and resume", survives: true, ..MANY },
        Work { name: "dict of 8 scalars, 64 in flight", argument: Argument::Scalars, ..MANY },
        Work { name: "64 B, 64 in flight, batched", method: "batch", ..MANY },
        Work { name: "64 B, 64 in flight, error", method: "fail", fails: true, ..MANY },
        ALONE,
        Work { name: "1 KiB alone, deadline and resume", survives: true, ..ALONE },
        Work { name: "dict of 8 scalars alone", argument: Argument::Scalars, ..ALONE },
        Work { name: "1 KiB alone, pool", method: "pool", server_apart: true, ..ALONE },
    ];
}
