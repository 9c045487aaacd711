//! One result for many calls, cut into messages of a row each.
//!
//! Flow: the tree that a function gave for a batch -> [`BatchResult::new`] checks that every array has a row for each
//! call -> [`BatchResult::row`] gives the message of one. Payload is slices of the stacked arrays, which it keeps alive;
//! metadata is the same for all rows, and is encoded once for each limits. Copies no payload. Bound: metadata is kept for
//! `MAX_ENCODED` limits.

use std::sync::{Arc, Mutex, PoisonError};

use crate::format::{encode_error::EncodeError, limits::Limits, message::Message};
use crate::model::tree::ops::{check_rows, row};
use crate::model::{buffer::Buffer, tree::Tree, tree::error::TreeError};

/// Different limits for which metadata is kept: callers of one batch mostly have the same.
const MAX_ENCODED: usize = 4;

/// A tree of stacked arrays that is sent row by row, without a copy.
///
/// Nulls go to each row as nulls; a tree without arrays to each row as it is.
///
/// ```
/// use teleport_wire::{Array, Limits, BatchResult, tree};
///
/// let actions = Array::from_vec(vec![1i32, 2, 3, 4, 5, 6], [3, 2])?;
/// let result = BatchResult::new(&tree!({"action": actions, "value": vec![0.1, 0.2, 0.3]}), 3)?;
/// let message = result.row(2, &Limits::default())?;
/// assert_eq!(*message.payload[0], [5, 0, 0, 0, 6, 0, 0, 0]);
/// assert_eq!(message.payload_bytes, 8 + 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BatchResult {
    rows: usize,
    /// The first row, of which the metadata is made; `Null` if there are no rows.
    first: Tree,
    /// The memory of the arrays that have bytes, in the order of the payload. Invariant: each is `rows` times as long as
    /// its row.
    stacks: Box<[Buffer]>,
    encoded: Mutex<Vec<(Limits, Encoded)>>,
}

/// A message without its payload, or why there can be none.
type Encoded = Result<Arc<Message>, EncodeError>;

impl BatchResult {
    /// Takes `tree` as the results of `rows` calls. Its arrays are counted once more, not copied.
    ///
    /// # Errors
    /// [`TreeError::Rows`] if the first axis of an array is not `rows` long, [`TreeError::Scalar`] if an array has no axis,
    /// [`TreeError::NoRows`] for strings and bytes; each with the path.
    pub fn new(tree: &Tree, rows: usize) -> Result<BatchResult, TreeError> {
        check_rows(tree, rows)?;
        let mut stacks = Vec::new();
        collect(tree, &mut stacks);
        let first = if rows > 0 { row(tree, 0) } else { Tree::Null };
        Ok(BatchResult { rows, first, stacks: stacks.into(), encoded: Mutex::default() })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The result message of the call `row`, whose receiver has these limits.
    ///
    /// # Errors
    /// [`EncodeError`] if the receiver would refuse it.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize, limits: &Limits) -> Result<Message, EncodeError> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let Message { kind, ref metadata, metadata_crc, payload_bytes, memory_bytes, .. } =
            *self.encoded(limits)?;
        let slice = |stack: &Buffer| {
            let bytes = stack.len() / self.rows;
            stack.slice(row * bytes..(row + 1) * bytes)
        };
        let payload = self.stacks.iter().map(slice).collect();
        Ok(Message { kind, metadata: metadata.clone(), metadata_crc, payload, payload_bytes, memory_bytes })
    }

    fn encoded(&self, limits: &Limits) -> Encoded {
        // What is in there is whole after a panic too: entries are made before they are put there.
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = encoded.iter().find(|(of, _)| of == limits) {
            return known.clone();
        }
        let message = Message::result(&self.first, limits)
            .map(|message| Arc::new(Message { payload: Vec::new(), ..message }));
        encoded.truncate(MAX_ENCODED - 1);
        encoded.insert(0, (*limits, message.clone()));
        message
    }
}

/// The memory of arrays, in the order in which they are encoded: dicts sorted by their keys.
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
