//! The order in which the sender had the entries of its dicts. It travels beside the sorted signature.
//!
//! It is empty if every dict is sorted, so that the common case costs nothing.

use std::sync::Arc;

use crate::format::{decode_error::DecodeError, reader::Reader, signature::Signature};

/// The order of the dict entries of one message, decoded for its [`Signature`]. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// For each dict with two or more entries, in preorder: the indices of the sorted entries in the sender's
    /// order. `None` if all dicts are sorted.
    indices: Option<Arc<[u32]>>,
}

impl Order {
    /// Returns the order in which every dict is sorted by its keys.
    pub fn sorted() -> Order {
        Order::default()
    }

    /// Decodes an order and checks it against the dicts of `signature`.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the bytes are not one permutation for each dict. If all dicts are sorted,
    /// the bytes must be empty.
    pub fn decode(bytes: &[u8], signature: &Signature) -> Result<Order, DecodeError> {
        if bytes.is_empty() {
            return Ok(Order::sorted());
        }
        let expected = signature.ordered_entries() as u64 * 4;
        if (bytes.len() as u64) < expected {
            let remaining = bytes.len() as u64;
            return Err(DecodeError::Truncated { field: "order", bytes: expected, remaining });
        }
        let mut reader = Reader::new(bytes);
        // Allocated as it is shared: a vector would be copied once more.
        let mut indices: Arc<[u32]> = (0..signature.ordered_entries()).map(|_| 0).collect();
        let mut places = Arc::get_mut(&mut indices).expect("it was made one line above").iter_mut();
        let mut seen = Vec::new();
        let mut sorted = true;
        for count in signature.ordered_dicts() {
            seen.clear();
            seen.resize(count as usize, false);
            for (index, place) in (0..count).zip(&mut places) {
                let entry = reader.u32("order")?;
                match seen.get_mut(entry as usize) {
                    Some(seen @ false) => *seen = true,
                    _ => return Err(DecodeError::NotPermutation { count, index }),
                }
                sorted &= entry == index;
                *place = entry;
            }
        }
        reader.finish("order")?;
        if sorted {
            return Err(DecodeError::RedundantOrder);
        }
        Ok(Order { indices: Some(indices) })
    }

    pub(crate) fn indices(&self) -> &[u32] {
        self.indices.as_deref().unwrap_or_default()
    }
}
