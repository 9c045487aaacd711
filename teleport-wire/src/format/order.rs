//! The order in which the sender had the entries of its dicts. It travels beside the sorted signature.
//!
//! It is empty if every dict is sorted, so that the common case costs nothing.

use std::sync::Arc;

use crate::format::{decode_error::DecodeError, reader::Reader, signature::Signature};
use crate::model::tree::keys::Keys;

/// The order of the dict entries of one message, decoded for its [`Signature`]. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// `None` if all dicts are sorted.
    ordered: Option<Arc<Ordered>>,
}

/// The place of an entry that was not read yet. No dict has so many entries.
const NO_PLACE: u32 = u32::MAX;

#[derive(Debug)]
struct Ordered {
    /// For each dict with two or more entries, in preorder: the places of the sorted entries in the sender's
    /// order.
    places: Vec<u32>,
    /// The keys of each dict that has entries, in preorder, in the sender's order.
    keys: Vec<Arc<Keys>>,
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Ordered) -> bool {
        self.places == other.places
    }
}

impl Eq for Ordered {}

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
        let mut places = Vec::with_capacity(signature.ordered_entries());
        let mut keys = Vec::with_capacity(signature.keys().len());
        let mut sorted = true;
        for sorted_keys in signature.keys() {
            let count = sorted_keys.names().len() as u32;
            if count < 2 {
                keys.push(sorted_keys.clone());
                continue;
            }
            let (first, mut is_sorted) = (places.len(), true);
            places.resize(first + count as usize, NO_PLACE);
            let mut names = Vec::with_capacity(count as usize);
            for index in 0..count {
                let entry = reader.u32("order")?;
                match places[first..].get_mut(entry as usize) {
                    Some(place) if *place == NO_PLACE => *place = index,
                    _ => return Err(DecodeError::NotPermutation { count, index }),
                }
                is_sorted &= entry == index;
                names.push(sorted_keys.names()[entry as usize].clone());
            }
            sorted &= is_sorted;
            keys.push(if is_sorted { sorted_keys.clone() } else { Arc::new(names.into_iter().collect()) });
        }
        reader.finish("order")?;
        if sorted {
            return Err(DecodeError::RedundantOrder);
        }
        Ok(Order { ordered: Some(Arc::new(Ordered { places, keys })) })
    }

    /// Returns the places of the sorted entries in the sender's order, for each dict with two or more
    /// entries, in preorder. It is empty if they are sorted.
    pub(crate) fn places(&self) -> &[u32] {
        self.ordered.as_ref().map_or(&[], |ordered| &ordered.places)
    }

    /// Returns the keys of each dict that has entries, in preorder, or `None` if they are sorted.
    pub(crate) fn keys(&self) -> Option<&[Arc<Keys>]> {
        self.ordered.as_ref().map(|ordered| &ordered.keys[..])
    }
}
