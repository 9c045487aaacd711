//! Building a tree on the memory that its payload was received into.
//!
//! Each array gets a part of the memory with one owner, so that a function can write it in place. Keys are
//! shared with the signature. The depth that decoding allowed bounds the recursion.

use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::Arc;

use crate::format::signature::{Leaf, LeafKind, Node, Signature};
use crate::format::{decode_error::DecodeError, order::Order};
use crate::model::buffer::list::{self, List};
use crate::model::tree::error::{TreeError, TreePath};
use crate::model::tree::{Dict, Tree, keys::Keys};
use crate::model::{array::Array, buffer::Buffer, text::Text};

impl Signature {
    /// Builds the tree whose payload is in `memory`, with dicts in the order of the sender.
    ///
    /// `memory` must start at a multiple of 64. If it has one owner, each leaf of the tree has one owner too.
    /// Otherwise leaves share it. Strings are checked here.
    ///
    /// # Errors
    /// Returns [`DecodeError::NotUtf8`] for a string that is not UTF-8, and [`DecodeError::MemoryLength`] if
    /// `memory` is not [`memory_bytes`](Signature::memory_bytes) long.
    ///
    /// # Panics
    /// Panics if `order` was decoded for another signature.
    pub fn build(&self, order: &Order, memory: Buffer) -> Result<Tree, DecodeError> {
        if memory.len() != self.memory_bytes {
            let (expected, found) = (self.memory_bytes as u64, memory.len() as u64);
            return Err(DecodeError::MemoryLength { expected, found });
        }
        self.build_at(&self.ranges, order, memory, None)
    }

    /// Builds the tree of a payload that is copied, with dicts in the order of the sender.
    ///
    /// For small payloads: each leaf gets small memory of its own, aligned to 64 bytes and writable in place.
    /// A leaf of up to 8 bytes needs none: its bytes are in its buffer. Strings are checked here.
    ///
    /// # Errors
    /// Returns [`DecodeError::NotUtf8`] for a string that is not UTF-8, and [`DecodeError::MemoryLength`] if
    /// `payload` is not [`payload_bytes`](Signature::payload_bytes) long.
    ///
    /// # Panics
    /// Panics if `order` was decoded for another signature.
    pub fn build_copied(&self, order: &Order, payload: &[u8]) -> Result<Tree, DecodeError> {
        if payload.len() as u64 != self.payload_bytes {
            let (expected, found) = (self.payload_bytes, payload.len() as u64);
            return Err(DecodeError::MemoryLength { expected, found });
        }
        Builder { walk: Walk::new(self, order), leaves: Copied { payload } }.tree()
    }

    /// Builds the tree whose leaves are at the ascending `ranges` of `memory`. With `rows`, arrays have a
    /// first axis of that size before their own.
    pub(crate) fn build_at(
        &self,
        ranges: &[Range<usize>],
        order: &Order,
        memory: Buffer,
        rows: Option<usize>,
    ) -> Result<Tree, DecodeError> {
        let buffers = Buffers::new(memory, ranges);
        let leaves = Received { ranges: ranges.iter(), buffers, rows };
        Builder { walk: Walk::new(self, order), leaves }.tree()
    }

    /// Checks that messages of this signature can be stacked, each as one row of every array.
    ///
    /// # Errors
    /// Returns [`TreeError::NoRows`] for the first string or bytes.
    pub fn check_stackable(&self) -> Result<(), TreeError> {
        if self.leaves.iter().all(|leaf| matches!(leaf.kind, LeafKind::Array { .. })) {
            return Ok(());
        }
        Walk::new(self, &Order::sorted()).check_arrays()
    }
}

/// A position in the lists of a signature and of an order.
struct Walk<'a> {
    nodes: std::slice::Iter<'a, Node>,
    /// The keys of dicts, in the order of the sender.
    keys: std::slice::Iter<'a, Arc<Keys>>,
    leaves: std::slice::Iter<'a, Leaf>,
    /// The rest of the places in the order. There are none from the start if every dict is sorted.
    places: &'a [u32],
}

impl<'a> Walk<'a> {
    fn new(signature: &'a Signature, order: &'a Order) -> Walk<'a> {
        let (nodes, leaves, places) = (signature.nodes.iter(), signature.leaves.iter(), order.places());
        let fits = places.is_empty() || places.len() == signature.ordered_entries;
        assert!(fits, "an order for another signature");
        Walk { nodes, keys: order.keys().unwrap_or(&signature.keys).iter(), leaves, places }
    }

    fn node(&mut self) -> Node {
        *self.nodes.next().expect("a node follows, as the decoder checked")
    }

    fn leaf(&mut self) -> &'a Leaf {
        self.leaves.next().expect("there is a leaf for each leaf node")
    }

    /// Returns the keys of a dict of `count` entries, in the order of the sender, and the places of its
    /// children, which come sorted. There are no places if the order is the same.
    fn keys(&mut self, count: u32) -> (Option<&'a Arc<Keys>>, &'a [u32]) {
        if count == 0 {
            return (None, &[]);
        }
        let keys = self.keys.next().expect("each dict with entries has keys");
        if count < 2 || self.places.is_empty() {
            return (Some(keys), &[]);
        }
        let (places, rest) = self.places.split_at(count as usize);
        self.places = rest;
        (Some(keys), places)
    }

    /// Finds the first leaf that is no array.
    fn check_arrays(&mut self) -> Result<(), TreeError> {
        match self.node() {
            Node::Null => Ok(()),
            Node::Leaf => {
                let leaf = self.leaf();
                let bytes = leaf.memory.len();
                let found = match leaf.kind {
                    LeafKind::Array { .. } => return Ok(()),
                    LeafKind::String => format!("a string of {bytes} bytes"),
                    LeafKind::Bytes => format!("{bytes} bytes"),
                };
                Err(TreeError::NoRows { path: TreePath::ROOT, found })
            }
            Node::List(count) => (0..count as usize)
                .try_for_each(|index| self.check_arrays().map_err(|error| error.within(index))),
            Node::Dict(count) => {
                let (keys, _) = self.keys(count);
                let mut names = keys.map_or(&[][..], |keys| keys.names()).iter();
                names.try_for_each(|key| self.check_arrays().map_err(|error| error.within(key)))
            }
        }
    }
}

/// The source of memory for leaves, in their order.
enum Buffers {
    /// All memory, for the only leaf.
    One(Buffer),
    Parts(std::vec::IntoIter<Buffer>),
    Shared(Buffer),
}

impl Buffers {
    fn new(memory: Buffer, ranges: &[Range<usize>]) -> Buffers {
        // Most messages have one leaf that takes all memory. They do not allocate here.
        let is_whole = match ranges {
            [] => true,
            [range] => range.len() == memory.len(),
            _ => false,
        };
        if is_whole {
            return Buffers::One(memory);
        }
        match memory.split(ranges) {
            Ok(parts) => Buffers::Parts(parts.into_iter()),
            Err(shared) => Buffers::Shared(shared),
        }
    }
}

/// The place of a node. It has a null, which needs no drop when the node is written.
type Place = ManuallyDrop<Tree>;

/// Makes the leaves of a tree.
trait Leaves {
    /// Makes the next leaf at its place.
    fn leaf(&mut self, leaf: &Leaf, place: &mut Place) -> Result<(), DecodeError>;
}

/// Builds a tree from top to bottom, each node at its place.
struct Builder<'a, L> {
    walk: Walk<'a>,
    leaves: L,
}

impl<L: Leaves> Builder<'_, L> {
    #[inline(always)]
    fn tree(mut self) -> Result<Tree, DecodeError> {
        let mut place = ManuallyDrop::new(Tree::Null);
        self.node(&mut place)?;
        Ok(ManuallyDrop::into_inner(place))
    }

    #[inline(always)]
    fn node(&mut self, place: &mut Place) -> Result<(), DecodeError> {
        match self.walk.node() {
            Node::Null => {}
            Node::Leaf => self.leaves.leaf(self.walk.leaf(), place)?,
            Node::List(count) => {
                // Without the capacity it could be up to four times as long.
                let mut list = Vec::with_capacity(count as usize);
                list.resize_with(count as usize, Tree::default);
                self.children(list::places(&mut list), &[])?;
                *place = ManuallyDrop::new(Tree::List(list));
            }
            Node::Dict(count) => {
                let (keys, places) = self.walk.keys(count);
                let mut trees = List::defaults(count as usize);
                self.children(list::places(&mut trees), places)?;
                *place = ManuallyDrop::new(Tree::Dict(Dict::with_keys(keys.cloned(), trees)));
            }
        }
        Ok(())
    }

    /// Builds the next nodes at these places, or in order if there are no places.
    #[inline(never)]
    fn children(&mut self, trees: &mut [Place], places: &[u32]) -> Result<(), DecodeError> {
        for index in 0..trees.len() {
            let place = if places.is_empty() { index } else { places[index] as usize };
            self.node(&mut trees[place])?;
        }
        Ok(())
    }
}

/// Leaves in place, in the memory that the payload was received into.
struct Received<'a> {
    /// The memory of the leaves to come.
    ranges: std::slice::Iter<'a, Range<usize>>,
    buffers: Buffers,
    /// The size of a first axis of each array, if there is one.
    rows: Option<usize>,
}

impl Leaves for Received<'_> {
    fn leaf(&mut self, leaf: &Leaf, place: &mut Place) -> Result<(), DecodeError> {
        let range = self.ranges.next().expect("there is a range for each leaf");
        let buffer = match &mut self.buffers {
            Buffers::One(memory) => std::mem::take(memory),
            Buffers::Parts(parts) => parts.next().expect("split gives a part for each leaf"),
            Buffers::Shared(memory) => memory.slice(range.clone()),
        };
        *place = ManuallyDrop::new(match &leaf.kind {
            LeafKind::Array { dtype, shape } => {
                let shape = self.rows.map_or_else(|| shape.clone(), |rows| shape.with_first(rows));
                let array = Array::from_buffer(*dtype, shape, buffer);
                Tree::Array(array.expect("the leaf has the bytes of its shape"))
            }
            LeafKind::String => text(buffer)?,
            LeafKind::Bytes => Tree::Bytes(buffer),
        });
        Ok(())
    }
}

/// Leaves that are copied.
struct Copied<'a> {
    /// The rest of the payload.
    payload: &'a [u8],
}

impl Leaves for Copied<'_> {
    #[inline(always)]
    fn leaf(&mut self, leaf: &Leaf, place: &mut Place) -> Result<(), DecodeError> {
        let (bytes, rest) = self.payload.split_at(leaf.memory.len());
        self.payload = rest;
        let buffer = Buffer::copy_from(bytes);
        match &leaf.kind {
            LeafKind::Array { dtype, shape } => {
                *place = ManuallyDrop::new(Tree::Array(Array::of_leaf(*dtype, shape, buffer)));
            }
            LeafKind::String => *place = ManuallyDrop::new(text(buffer)?),
            LeafKind::Bytes => *place = ManuallyDrop::new(Tree::Bytes(buffer)),
        }
        Ok(())
    }
}

/// Returns the string of these bytes, which are checked here.
fn text(bytes: Buffer) -> Result<Tree, DecodeError> {
    Text::from_utf8(bytes)
        .map(Tree::String)
        .map_err(|error| DecodeError::NotUtf8 { field: "string", at: error.valid_up_to() as u64 })
}
