//! Making a tree on the memory that its payload was received into.
//!
//! Arrays get a part of the memory each, with one owner, so that a function may write them in place. Keys are
//! counted clones of the signature's. Recursion is bounded by the depth that decoding allowed.

use std::ops::Range;

use crate::format::signature::{LeafKind, Node, Signature};
use crate::format::{decode_error::DecodeError, order::Order};
use crate::model::tree::error::{TreeError, TreePath};
use crate::model::{array::Array, buffer::Buffer, text::Text, tree::Dict, tree::Tree, tree::key::Key};

impl Signature {
    /// The tree whose payload lies in `memory`, its dicts in the caller's order.
    ///
    /// `memory` is [`memory_bytes`](Signature::memory_bytes) long and starts at a multiple of 64. If it has one
    /// owner, each leaf of the tree has one owner too; otherwise leaves share it. Strings are checked here.
    ///
    /// # Errors
    /// [`DecodeError::NotUtf8`] if a string is none; [`DecodeError::MemoryLength`].
    ///
    /// # Panics
    /// If `order` was decoded for another signature, which is the caller's mistake.
    pub fn build(&self, order: &Order, memory: Buffer) -> Result<Tree, DecodeError> {
        if memory.len() != self.memory_bytes {
            let (expected, found) = (self.memory_bytes as u64, memory.len() as u64);
            return Err(DecodeError::MemoryLength { expected, found });
        }
        self.build_at(&self.ranges, order, memory, None)
    }

    /// The tree whose leaves lie at `ranges` of `memory`, which are ascending; its arrays have a first axis of `rows`
    /// before their own, if that is given, and the range of each is as long as that takes.
    pub(crate) fn build_at(
        &self,
        ranges: &[Range<usize>],
        order: &Order,
        memory: Buffer,
        rows: Option<usize>,
    ) -> Result<Tree, DecodeError> {
        let order = order.indices();
        assert!(order.is_empty() || order.len() == self.ordered_entries, "an order for another signature");
        let buffers = Buffers::new(memory, ranges);
        let signature = self;
        let mut builder =
            Builder { signature, ranges, order, buffers, rows, next_node: 0, next_key: 0, next_leaf: 0 };
        builder.node()
    }
}

/// Where leaves get their memory from, in their order.
enum Buffers {
    /// All of it, for the only leaf.
    One(Buffer),
    Parts(std::vec::IntoIter<Buffer>),
    Shared(Buffer),
}

impl Buffers {
    fn new(memory: Buffer, ranges: &[Range<usize>]) -> Buffers {
        // All of it, or nothing, for the only leaf: the usual message, which then costs no allocation.
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

struct Builder<'a> {
    signature: &'a Signature,
    /// Where in the memory each leaf lies.
    ranges: &'a [Range<usize>],
    /// What is left of the order; empty throughout if every dict is sorted.
    order: &'a [u32],
    buffers: Buffers,
    /// The size of an axis before those of each array, if there is one.
    rows: Option<usize>,
    next_node: usize,
    next_key: usize,
    next_leaf: usize,
}

impl<'a> Builder<'a> {
    fn node(&mut self) -> Result<Tree, DecodeError> {
        let node = self.signature.nodes[self.next_node];
        self.next_node += 1;
        match node {
            Node::Null => Ok(Tree::Null),
            Node::Leaf => self.leaf(),
            Node::List(count) => self.children(count as usize).map(Tree::List),
            Node::Dict(count) => self.dict(count as usize).map(Tree::Dict),
        }
    }

    /// The next `count` nodes with all below them. Collecting results would make room in steps, and up to twice as much.
    fn children(&mut self, count: usize) -> Result<Vec<Tree>, DecodeError> {
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            children.push(self.node()?);
        }
        Ok(children)
    }

    fn leaf(&mut self) -> Result<Tree, DecodeError> {
        let (leaf, range) = (&self.signature.leaves[self.next_leaf], &self.ranges[self.next_leaf]);
        self.next_leaf += 1;
        let buffer = match &mut self.buffers {
            Buffers::One(memory) => std::mem::take(memory),
            Buffers::Parts(parts) => parts.next().expect("split gives a part for each leaf"),
            Buffers::Shared(memory) => memory.slice(range.clone()),
        };
        match &leaf.kind {
            LeafKind::Array { dtype, shape } => {
                let shape = self.rows.map_or_else(|| shape.clone(), |rows| shape.with_first(rows));
                let array = Array::from_buffer(*dtype, shape, buffer);
                Ok(Tree::Array(array.expect("the leaf has the bytes of its shape")))
            }
            LeafKind::String => Text::from_utf8(buffer)
                .map(Tree::String)
                .map_err(|error| DecodeError::NotUtf8 { field: "string", at: error.valid_up_to() as u64 }),
            LeafKind::Bytes => Ok(Tree::Bytes(buffer)),
        }
    }

    fn dict(&mut self, count: usize) -> Result<Dict, DecodeError> {
        let keys = &self.signature.keys[self.next_key..][..count];
        self.next_key += count;
        let mut dict = Dict::with_capacity(count);
        if count < 2 || self.order.is_empty() {
            for key in keys {
                dict.insert(key, self.node()?);
            }
            return Ok(dict);
        }
        let (order, rest) = self.order.split_at(count);
        self.order = rest;
        self.reordered(keys, order, &mut dict)?;
        Ok(dict)
    }

    /// Children lie in the order of their keys, and are inserted in the caller's.
    fn reordered(&mut self, keys: &[Key], order: &[u32], dict: &mut Dict) -> Result<(), DecodeError> {
        let mut children = self.children(keys.len())?;
        for index in order {
            let index = *index as usize;
            dict.insert(&keys[index], std::mem::take(&mut children[index]));
        }
        Ok(())
    }
}

impl Signature {
    /// Whether its messages can be stacked along a new first axis, each one row of every array.
    ///
    /// # Errors
    /// [`TreeError::NoRows`] for the first string or bytes, with its path.
    pub fn check_stackable(&self) -> Result<(), TreeError> {
        let is_array = |kind: &LeafKind| matches!(kind, LeafKind::Array { .. });
        if self.leaves.iter().all(|leaf| is_array(&leaf.kind)) {
            return Ok(());
        }
        Walk { signature: self, next_node: 0, next_key: 0, next_leaf: 0 }.node()
    }
}

/// Looks for the first leaf that is no array.
struct Walk<'a> {
    signature: &'a Signature,
    next_node: usize,
    next_key: usize,
    next_leaf: usize,
}

impl Walk<'_> {
    fn node(&mut self) -> Result<(), TreeError> {
        let node = self.signature.nodes[self.next_node];
        self.next_node += 1;
        match node {
            Node::Null => Ok(()),
            Node::Leaf => self.leaf(),
            Node::List(count) => {
                (0..count as usize).try_for_each(|index| self.node().map_err(|error| error.within(index)))
            }
            Node::Dict(count) => {
                let keys = &self.signature.keys[self.next_key..][..count as usize];
                self.next_key += count as usize;
                keys.iter().try_for_each(|key| self.node().map_err(|error| error.within(key)))
            }
        }
    }

    fn leaf(&mut self) -> Result<(), TreeError> {
        let leaf = &self.signature.leaves[self.next_leaf];
        self.next_leaf += 1;
        let bytes = leaf.memory.len();
        let found = match leaf.kind {
            LeafKind::Array { .. } => return Ok(()),
            LeafKind::String => format!("a string of {bytes} bytes"),
            LeafKind::Bytes => format!("{bytes} bytes"),
        };
        Err(TreeError::NoRows { path: TreePath::default(), found })
    }
}
