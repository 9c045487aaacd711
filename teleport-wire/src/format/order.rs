//! The order in which the caller had the entries of its dicts, which travels beside the sorted signature.
//!
//! Empty when every dict is sorted, so that the common case costs nothing and nothing can be said in two ways.

use std::sync::Arc;

use crate::format::{decode_error::DecodeError, reader::Reader, signature::Signature};

/// The order of dict entries for one message, decoded for its [`Signature`]. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// For each dict with two or more entries, in preorder: the sorted entries' indices in the caller's order.
    /// `None` if all are sorted.
    indices: Option<Arc<[u32]>>,
}

impl Order {
    /// Every dict is sorted by its keys.
    pub fn sorted() -> Order {
        Order::default()
    }

    /// Reads an order and checks it against the dicts of `signature`.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not empty and not one permutation for each dict, or are those of sorted
    /// dicts, which must be empty.
    pub fn decode(bytes: &[u8], signature: &Signature) -> Result<Order, DecodeError> {
        if bytes.is_empty() {
            return Ok(Order::sorted());
        }
        let mut reader = Reader::new(bytes);
        let expected = signature.ordered_entries() as u64 * 4;
        if (bytes.len() as u64) < expected {
            let remaining = bytes.len() as u64;
            return Err(DecodeError::Truncated { field: "order", bytes: expected, remaining });
        }
        // Shared from the start: a vector would be copied once more.
        let mut indices: Arc<[u32]> = (0..signature.ordered_entries()).map(|_| 0).collect();
        let places = Arc::get_mut(&mut indices).expect("it was made one line above");
        let mut places = places.iter_mut();
        let mut seen = Vec::new();
        let mut sorted = true;
        for count in signature.ordered_dicts() {
            seen.clear();
            seen.resize(count as usize, false);
            for index in 0..count {
                let entry = reader.u32("order")?;
                match seen.get_mut(entry as usize) {
                    Some(seen @ false) => *seen = true,
                    _ => return Err(DecodeError::NotPermutation { count, index }),
                }
                sorted &= entry == index;
                if let Some(place) = places.next() {
                    *place = entry;
                }
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
