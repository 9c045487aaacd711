//! One result for many calls, split into a message for each row.
//!
//! Flow: the tree that a function returned for a batch -> [`BatchResult::new`] checks that every array has a
//! row for each call -> [`BatchResult::row`] makes the message of one call. Payload is shared with the
//! arrays. Metadata is the same for all rows, and is encoded once for each set of limits.

use crate::format::{encode_error::EncodeError, limits::Limits, message::Message};
use crate::model::buffer::Buffer;
use crate::model::tree::ops::{check_rows, row};
use crate::model::tree::{Tree, error::TreeError};

/// Sets of limits for which metadata is kept. Most callers of one batch have the same limits.
const MAX_ENCODED: usize = 4;

/// A tree of stacked arrays that is sent row by row, without a copy.
///
/// Each row contains the nulls of the tree.
///
/// ```
/// use teleport_wire::{Array, BatchResult, Limits, tree};
///
/// let actions = Array::from_vec(vec![1i32, 2, 3, 4, 5, 6], [3, 2])?;
/// let mut result = BatchResult::new(&tree!({"action": actions, "value": vec![0.1, 0.2, 0.3]}), 3)?;
/// let message = result.row(2, &Limits::default())?;
/// assert_eq!(message.inline_payload()[..8], [5, 0, 0, 0, 6, 0, 0, 0]);
/// assert_eq!(message.payload_bytes(), 8 + 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BatchResult {
    rows: usize,
    /// The first row, from which the metadata is encoded. `Null` if there are no rows.
    first: Tree,
    /// The memory of the arrays that have bytes, in the order of the payload. Invariant: each is `rows` times
    /// as long as its row.
    stacks: Box<[Buffer]>,
    /// The message of the first row, or the reason why there can be none.
    encoded: Vec<(Limits, Result<Message, EncodeError>)>,
}

impl BatchResult {
    /// Takes `tree` as the results of `rows` calls. It shares the memory of the arrays.
    ///
    /// # Errors
    /// Returns [`TreeError::Rows`] if the first axis of an array is not `rows` long, [`TreeError::Scalar`] if
    /// an array has no axis, and [`TreeError::NoRows`] for strings and bytes.
    pub fn new(tree: &Tree, rows: usize) -> Result<BatchResult, TreeError> {
        check_rows(tree, rows)?;
        let mut stacks = Vec::new();
        collect(tree, &mut stacks);
        let first = if rows > 0 { row(tree, 0) } else { Tree::Null };
        Ok(BatchResult { rows, first, stacks: stacks.into(), encoded: Vec::new() })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Makes the result message of the call `row`, for a receiver with these limits.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if the receiver would refuse it.
    ///
    /// # Panics
    /// Panics if there is no such row.
    pub fn row(&mut self, row: usize, limits: &Limits) -> Result<Message, EncodeError> {
        let rows = self.rows;
        assert!(row < rows, "row {row} of {rows}");
        let known = self.encoded.iter().position(|(of, _)| of == limits);
        let index = known.unwrap_or_else(|| self.encode(limits));
        let first = self.encoded[index].1.as_ref().map_err(Clone::clone)?;
        Ok(first.with_payload_of(&self.stacks, |stack| {
            let bytes = stack.len() / rows;
            row * bytes..(row + 1) * bytes
        }))
    }

    /// Encodes the first row. Returns its index in `encoded`.
    #[cold]
    fn encode(&mut self, limits: &Limits) -> usize {
        self.encoded.truncate(MAX_ENCODED - 1);
        self.encoded.insert(0, (*limits, Message::result(&self.first, limits)));
        0
    }
}

/// Collects the memory of arrays in the order in which they are encoded: dicts are sorted by their keys.
fn collect(tree: &Tree, stacks: &mut Vec<Buffer>) {
    match tree {
        Tree::Array(array) if !array.buffer().is_empty() => stacks.push(array.buffer().clone()),
        Tree::Null | Tree::Array(_) | Tree::String(_) | Tree::Bytes(_) => {}
        Tree::List(list) => list.iter().for_each(|tree| collect(tree, stacks)),
        Tree::Dict(dict) => {
            let mut entries: Vec<_> = dict.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            entries.into_iter().for_each(|(_, tree)| collect(tree, stacks));
        }
    }
}
