//! Encoding a tree: signature and order as metadata, and leaves as shared memory.
//!
//! A first pass finds out whether an order must be written. A second pass writes the signature and checks the
//! receiver's limits. No payload is copied. The receiver's limit of depth bounds the recursion.

use crate::format::limits::{Limits, MAX_DEPTH, MAX_RANK};
use crate::format::signature::{Placement, padded_bytes, tag};
use crate::format::{dtype_code, encode_error::EncodeError};
use crate::model::{array::Array, buffer::Buffer, tree::Dict, tree::Tree};

/// An encoded tree: the end of `metadata`, and the payload.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) metadata: Vec<u8>,
    pub(crate) signature_bytes: u32,
    pub(crate) order_bytes: u32,
    pub(crate) payload: Vec<Buffer>,
    pub(crate) placement: Placement,
}

/// Appends the signature and the order of `tree` to `metadata`.
pub(crate) fn encode(tree: &Tree, metadata: Vec<u8>, limits: &Limits) -> Result<Encoded, EncodeError> {
    let start = metadata.len();
    let max_depth = limits.max_depth.min(MAX_DEPTH);
    let order = (!is_sorted(tree, max_depth)).then(Vec::new);
    let payload = Vec::new();
    let placement = Placement::default();
    let mut encoder = Encoder { limits, max_depth, metadata, order, nodes: 0, payload, placement };
    encoder.count_nodes(1)?;
    encoder.node(tree, 0)?;
    let Encoder { mut metadata, order, payload, placement, .. } = encoder;
    let signature_bytes = (metadata.len() - start) as u32;
    let order = order.unwrap_or_default();
    metadata.extend_from_slice(&order);
    check_metadata(metadata.len(), limits)?;
    Ok(Encoded { metadata, signature_bytes, order_bytes: order.len() as u32, payload, placement })
}

/// Returns true if the entries of every dict are in the order of their keys. Nodes that are too deep are
/// ignored.
fn is_sorted(tree: &Tree, depth_left: u32) -> bool {
    let Some(inner) = depth_left.checked_sub(1) else { return true };
    match tree {
        Tree::List(list) => list.iter().all(|tree| is_sorted(tree, inner)),
        Tree::Dict(dict) => dict.keys().is_sorted() && dict.iter().all(|(_, tree)| is_sorted(tree, inner)),
        _ => true,
    }
}

fn check_metadata(bytes: usize, limits: &Limits) -> Result<(), EncodeError> {
    let (bytes, max_bytes) = (bytes as u64, u64::from(limits.max_metadata_bytes));
    if bytes <= max_bytes { Ok(()) } else { Err(EncodeError::MetadataTooLarge { bytes, max_bytes }) }
}

struct Encoder<'a> {
    limits: &'a Limits,
    max_depth: u32,
    metadata: Vec<u8>,
    /// The bytes of the order, if one must be written.
    order: Option<Vec<u8>>,
    nodes: u64,
    payload: Vec<Buffer>,
    placement: Placement,
}

impl Encoder<'_> {
    fn node(&mut self, tree: &Tree, depth: u32) -> Result<(), EncodeError> {
        if depth > self.max_depth {
            return Err(EncodeError::TooDeep { max_depth: self.max_depth });
        }
        match tree {
            Tree::Null => self.metadata.push(tag::NULL),
            Tree::Array(array) => self.array(array)?,
            Tree::String(text) => self.sized(tag::STRING, text.buffer())?,
            Tree::Bytes(bytes) => self.sized(tag::BYTES, bytes)?,
            Tree::List(list) => {
                self.counted(tag::LIST, list.len())?;
                for tree in list {
                    self.node(tree, depth + 1)?;
                }
            }
            Tree::Dict(dict) => self.dict(dict, depth)?,
        }
        // Checked after each node, so that at most one node is written past the limit.
        check_metadata(self.metadata.len(), self.limits)
    }

    fn array(&mut self, array: &Array) -> Result<(), EncodeError> {
        let shape = array.shape();
        if shape.len() > MAX_RANK {
            return Err(EncodeError::Rank { rank: shape.len(), max_rank: MAX_RANK });
        }
        self.check_message(padded_bytes(array.dtype(), shape))?;
        self.metadata.extend_from_slice(&[tag::ARRAY, dtype_code::number(array.dtype()), shape.len() as u8]);
        dtype_code::encode_parameters(array.dtype(), &mut self.metadata);
        for size in shape {
            self.metadata.extend_from_slice(&(*size as u64).to_le_bytes());
        }
        self.leaf(array.buffer())
    }

    fn sized(&mut self, tag: u8, bytes: &Buffer) -> Result<(), EncodeError> {
        self.metadata.push(tag);
        self.metadata.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.leaf(bytes)
    }

    fn leaf(&mut self, bytes: &Buffer) -> Result<(), EncodeError> {
        let placed = self.placement.place(bytes.len() as u64);
        self.check_message(placed.map(|_| self.placement.memory_bytes))?;
        if !bytes.is_empty() {
            self.payload.push(bytes.clone());
        }
        Ok(())
    }

    fn dict(&mut self, dict: &Dict, depth: u32) -> Result<(), EncodeError> {
        self.counted(tag::DICT, dict.len())?;
        if dict.keys().is_sorted() {
            if let Some(order) = self.order.as_mut().filter(|_| dict.len() >= 2) {
                order.extend((0..dict.len() as u32).flat_map(u32::to_le_bytes));
            }
            return dict.iter().try_for_each(|(key, tree)| self.entry(key, tree, depth));
        }
        let mut entries: Vec<_> = dict.iter().enumerate().collect();
        entries.sort_unstable_by_key(|(_, (key, _))| *key);
        let mut order = vec![0u32; entries.len()];
        for (index, (place, _)) in entries.iter().enumerate() {
            order[*place] = index as u32;
        }
        // There is one: the first pass has seen that this dict is not sorted.
        if let Some(bytes) = &mut self.order {
            bytes.extend(order.into_iter().flat_map(u32::to_le_bytes));
        }
        entries.into_iter().try_for_each(|(_, (key, tree))| self.entry(key, tree, depth))
    }

    fn entry(&mut self, key: &str, tree: &Tree, depth: u32) -> Result<(), EncodeError> {
        check_metadata(self.metadata.len().saturating_add(key.len()), self.limits)?;
        self.metadata.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.metadata.extend_from_slice(key.as_bytes());
        self.node(tree, depth + 1)
    }

    fn counted(&mut self, tag: u8, count: usize) -> Result<(), EncodeError> {
        self.count_nodes(count as u64)?;
        self.metadata.push(tag);
        // The limit of nodes is a `u32`, so the count is too.
        self.metadata.extend_from_slice(&(count as u32).to_le_bytes());
        Ok(())
    }

    fn count_nodes(&mut self, more: u64) -> Result<(), EncodeError> {
        self.nodes += more;
        let (nodes, max_nodes) = (self.nodes, self.limits.max_nodes);
        if nodes <= u64::from(max_nodes) {
            Ok(())
        } else {
            Err(EncodeError::TooManyNodes { nodes, max_nodes })
        }
    }

    /// Checks a size. `None` is a size that exceeds 64 bits.
    fn check_message(&self, bytes: Option<u64>) -> Result<(), EncodeError> {
        let max_bytes = self.limits.max_message_bytes.min(isize::MAX as u64);
        match bytes {
            Some(bytes) if bytes <= max_bytes => Ok(()),
            bytes => Err(EncodeError::TooLarge { bytes: bytes.unwrap_or(u64::MAX), max_bytes }),
        }
    }
}
