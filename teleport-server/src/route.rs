//! Where the calls of a method go.

/// Where a method's calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Inline,
    /// The pool of that number.
    Pool(usize),
    /// The batcher of that number.
    Batch(usize),
}
