//! Encoding a tree: signature and order as metadata, and references to the leaves.
//!
//! A first pass finds out whether an order must be written. A second pass writes the signature and checks the
//! receiver's limits. No payload is copied. The receiver's limit of depth bounds the recursion. Each thread
//! keeps the memory in which it encodes, up to 32 KiB of it.

use std::cell::Cell;

use crate::format::limits::{Limits, MAX_DEPTH, MAX_RANK};
use crate::format::signature::{Placement, padded_bytes, tag};
use crate::format::{dtype_code, encode_error::EncodeError};
use crate::model::{array::Array, buffer::Buffer, tree::Dict, tree::Tree};

/// Memory in which a thread encodes.
#[derive(Default)]
pub(crate) struct Scratch<'a> {
    pub(crate) metadata: Vec<u8>,
    /// The leaves with bytes, in the order of the payload.
    pub(crate) leaves: Vec<&'a Buffer>,
}

thread_local! {
    static SCRATCH: Cell<Scratch<'static>> =
        const { Cell::new(Scratch { metadata: Vec::new(), leaves: Vec::new() }) };
}

/// The capacities that a thread keeps.
const MAX_KEPT_METADATA_BYTES: usize = 16 << 10;
const MAX_KEPT_LEAVES: usize = (16 << 10) / size_of::<&Buffer>();

impl<'a> Scratch<'a> {
    /// Takes the memory of this thread, which is empty.
    #[inline]
    pub(crate) fn take() -> Scratch<'a> {
        // Fails while the thread ends.
        SCRATCH.try_with(Cell::take).unwrap_or_default()
    }

    /// Gives the memory back to this thread.
    #[inline]
    pub(crate) fn give_back(mut self) {
        self.metadata.clear();
        self.leaves.clear();
        if self.metadata.capacity() > MAX_KEPT_METADATA_BYTES || self.leaves.capacity() > MAX_KEPT_LEAVES {
            return;
        }
        // An empty vector is converted in place.
        let leaves = self.leaves.into_iter().map(|_| unreachable!("it is empty")).collect();
        let kept = Scratch { metadata: self.metadata, leaves };
        let _ = SCRATCH.try_with(|scratch| scratch.set(kept));
    }
}

/// The sizes of an encoded tree.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) signature_bytes: u32,
    pub(crate) order_bytes: u32,
    pub(crate) placement: Placement,
    /// The length of the longest leaf.
    pub(crate) longest_bytes: usize,
}

/// Appends the signature and the order of `tree` to the metadata in `scratch`, and its leaves to the leaves.
#[inline]
pub(crate) fn encode<'a>(
    tree: &'a Tree,
    scratch: &mut Scratch<'a>,
    limits: &Limits,
) -> Result<Encoded, EncodeError> {
    let start = scratch.metadata.len();
    let max_depth = limits.max_depth.min(MAX_DEPTH);
    let max_bytes = limits.max_message_bytes.min(isize::MAX as u64);
    let order = (!is_sorted(tree, max_depth)).then(Vec::new);
    let placement = Placement::default();
    let mut encoder =
        Encoder { limits, max_depth, max_bytes, scratch, order, nodes: 0, placement, longest_bytes: 0 };
    encoder.count_nodes(1)?;
    encoder.node(tree, 0)?;
    let Encoder { order, placement, longest_bytes, .. } = encoder;
    let signature_bytes = (scratch.metadata.len() - start) as u32;
    let mut order_bytes = 0;
    if let Some(order) = order {
        order_bytes = order.len() as u32;
        scratch.metadata.extend_from_slice(&order);
        check_metadata(scratch.metadata.len(), limits)?;
    }
    Ok(Encoded { signature_bytes, order_bytes, placement, longest_bytes })
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

struct Encoder<'a, 'b> {
    limits: &'b Limits,
    max_depth: u32,
    max_bytes: u64,
    scratch: &'b mut Scratch<'a>,
    /// The bytes of the order, if one must be written.
    order: Option<Vec<u8>>,
    nodes: u64,
    placement: Placement,
    longest_bytes: usize,
}

impl<'a> Encoder<'a, '_> {
    fn node(&mut self, tree: &'a Tree, depth: u32) -> Result<(), EncodeError> {
        if depth > self.max_depth {
            return Err(EncodeError::TooDeep { max_depth: self.max_depth });
        }
        match tree {
            Tree::Null => self.scratch.metadata.push(tag::NULL),
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
        check_metadata(self.scratch.metadata.len(), self.limits)
    }

    fn array(&mut self, array: &'a Array) -> Result<(), EncodeError> {
        let shape = array.shape();
        if shape.len() > MAX_RANK {
            return Err(EncodeError::Rank { rank: shape.len(), max_rank: MAX_RANK });
        }
        let bytes = array.bytes() as u64;
        self.check_message(if bytes > 0 { Some(bytes) } else { padded_bytes(array.dtype(), shape) })?;
        self.scratch.metadata.extend_from_slice(&[
            tag::ARRAY,
            dtype_code::number(array.dtype()),
            shape.len() as u8,
        ]);
        dtype_code::encode_parameters(array.dtype(), &mut self.scratch.metadata);
        for size in shape {
            self.scratch.metadata.extend_from_slice(&(*size as u64).to_le_bytes());
        }
        self.leaf(array.buffer())
    }

    fn sized(&mut self, tag: u8, bytes: &'a Buffer) -> Result<(), EncodeError> {
        self.scratch.metadata.push(tag);
        self.scratch.metadata.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.leaf(bytes)
    }

    fn leaf(&mut self, bytes: &'a Buffer) -> Result<(), EncodeError> {
        if !bytes.is_empty() {
            let placed = self.placement.place(bytes.len() as u64);
            self.check_message(placed.map(|_| self.placement.memory_bytes))?;
            self.scratch.leaves.push(bytes);
            self.longest_bytes = self.longest_bytes.max(bytes.len());
        }
        Ok(())
    }

    fn dict(&mut self, dict: &'a Dict, depth: u32) -> Result<(), EncodeError> {
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

    fn entry(&mut self, key: &str, tree: &'a Tree, depth: u32) -> Result<(), EncodeError> {
        check_metadata(self.scratch.metadata.len().saturating_add(key.len()), self.limits)?;
        self.scratch.metadata.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.scratch.metadata.extend_from_slice(key.as_bytes());
        self.node(tree, depth + 1)
    }

    fn counted(&mut self, tag: u8, count: usize) -> Result<(), EncodeError> {
        self.count_nodes(count as u64)?;
        self.scratch.metadata.push(tag);
        // The limit of nodes is a `u32`, so the count is too.
        self.scratch.metadata.extend_from_slice(&(count as u32).to_le_bytes());
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
        match bytes {
            Some(bytes) if bytes <= self.max_bytes => Ok(()),
            bytes => {
                Err(EncodeError::TooLarge { bytes: bytes.unwrap_or(u64::MAX), max_bytes: self.max_bytes })
            }
        }
    }
}
