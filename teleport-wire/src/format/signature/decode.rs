//! Decoding a signature, in one pass over its bytes.
//!
//! Every count and size is checked before it is used. Counts are compared with the remaining bytes, so that
//! allocations stay within a fixed multiple of the metadata. The limit of depth bounds the recursion.

use std::sync::Arc;

use crate::format::limits::{Limits, MAX_DEPTH, MAX_RANK};
use crate::format::reader::{Reader, at_most, utf8};
use crate::format::signature::{Leaf, LeafKind, Node, Placement, Run, Signature, padded_bytes, tag};
use crate::format::{decode_error::DecodeError, dtype_code};
use crate::model::{shape::Shape, tree::key::Key};

/// Decodes a signature and checks it against `limits`.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Signature, DecodeError> {
    at_most(bytes.len() as u64, u64::from(limits.max_metadata_bytes), "metadata bytes")?;
    let signature = Signature {
        bytes: bytes.into(),
        // The tree of most messages is one leaf.
        nodes: Vec::with_capacity(1),
        keys: Vec::new(),
        leaves: Vec::new(),
        ranges: Vec::new(),
        runs: Vec::new(),
        payload_bytes: 0,
        memory_bytes: 0,
        ordered_entries: 0,
    };
    let max_depth = limits.max_depth.min(MAX_DEPTH);
    let placement = Placement::default();
    let mut decoder =
        Decoder { reader: Reader::new(bytes), limits, max_depth, announced: 0, placement, signature };
    decoder.announce(1)?;
    decoder.node(0)?;
    decoder.reader.finish("signature")?;
    let signature = &mut decoder.signature;
    signature.payload_bytes = decoder.placement.payload_bytes;
    signature.memory_bytes = decoder.placement.memory_bytes as usize;
    signature.ranges = signature.leaves.iter().map(|leaf| leaf.memory.clone()).collect();
    // A connection keeps signatures for its whole life, and there may be thousands of connections.
    signature.nodes.shrink_to_fit();
    signature.keys.shrink_to_fit();
    signature.leaves.shrink_to_fit();
    signature.runs.shrink_to_fit();
    Ok(decoder.signature)
}

struct Decoder<'a> {
    reader: Reader<'a>,
    limits: &'a Limits,
    max_depth: u32,
    /// The root and the children of all lists and dicts so far, including those not yet read. This bounds the
    /// memory that is allocated for children before they are read.
    announced: u64,
    /// Invariant: `memory_bytes` fits `isize` and the limits.
    placement: Placement,
    signature: Signature,
}

impl Decoder<'_> {
    /// Decodes one node and its children. `depth` is the number of lists and dicts around it.
    fn node(&mut self, depth: u32) -> Result<(), DecodeError> {
        at_most(u64::from(depth), u64::from(self.max_depth), "depth")?;
        match self.reader.u8("node tag")? {
            tag::NULL => self.signature.nodes.push(Node::Null),
            tag::ARRAY => self.array()?,
            tag::STRING => {
                let bytes = self.reader.u64("string bytes")?;
                self.leaf(LeafKind::String, bytes)?;
            }
            tag::BYTES => {
                let bytes = self.reader.u64("bytes length")?;
                self.leaf(LeafKind::Bytes, bytes)?;
            }
            tag::LIST => self.list(depth)?,
            tag::DICT => self.dict(depth)?,
            other => return Err(DecodeError::UnknownValue { field: "node tag", value: u64::from(other) }),
        }
        Ok(())
    }

    fn array(&mut self) -> Result<(), DecodeError> {
        let number = self.reader.u8("dtype")?;
        let rank = usize::from(self.reader.u8("rank")?);
        at_most(rank as u64, MAX_RANK as u64, "rank")?;
        let dtype = dtype_code::decode(number, &mut self.reader)?;
        let mut sizes = [0; MAX_RANK];
        for size in &mut sizes[..rank] {
            let value = self.reader.u64("array size")?;
            *size = usize::try_from(value).map_err(|_| too_large(value))?;
        }
        let sizes = &sizes[..rank];
        let padded = padded_bytes(dtype, sizes).ok_or(too_large(u64::MAX))?;
        at_most(padded, self.max_message_bytes(), "array bytes")?;
        let empty = dtype.item_bytes() == 0 || sizes.contains(&0);
        let shape = Shape::from(sizes);
        self.leaf(LeafKind::Array { dtype, shape }, if empty { 0 } else { padded })
    }

    fn leaf(&mut self, kind: LeafKind, bytes: u64) -> Result<(), DecodeError> {
        let max = self.max_message_bytes();
        let (payload_start, memory_start) = self.placement.place(bytes).ok_or(too_large(u64::MAX))?;
        at_most(self.placement.memory_bytes, max, "message bytes")?;
        // Both are at most `memory_bytes`, which fits.
        let (memory_start, bytes) = (memory_start as usize, bytes as usize);
        let memory = memory_start..memory_start + bytes;
        let signature = &mut self.signature;
        if bytes > 0 {
            extend_runs(&mut signature.runs, Run { payload_start, memory_start, bytes });
        }
        signature.leaves.push(Leaf { kind, payload_start, memory });
        signature.nodes.push(Node::Leaf);
        Ok(())
    }

    fn list(&mut self, depth: u32) -> Result<(), DecodeError> {
        let count = self.count(1, "list items")?;
        self.signature.nodes.push(Node::List(count));
        for _ in 0..count {
            self.node(depth + 1)?;
        }
        Ok(())
    }

    fn dict(&mut self, depth: u32) -> Result<(), DecodeError> {
        let count = self.count(5, "dict entries")?;
        self.signature.nodes.push(Node::Dict(count));
        if count == 0 {
            return Ok(());
        }
        // Children with keys of their own come between, and behind these.
        let place = self.signature.keys.len();
        self.signature.keys.push(Arc::default());
        let mut keys = Vec::with_capacity(count as usize);
        if count >= 2 {
            self.signature.ordered_entries += count as usize;
        }
        let mut previous: Option<&[u8]> = None;
        for index in 0..count as usize {
            let key_bytes = self.reader.u32("key bytes")? as usize;
            let key = self.reader.take(key_bytes, "key")?;
            if previous.is_some_and(|previous| previous >= key) {
                return Err(DecodeError::NotAscending { field: "dict keys", index: index as u64 });
            }
            previous = Some(key);
            keys.push(Key::from(utf8(key, "key")?));
            self.node(depth + 1)?;
        }
        self.signature.keys[place] = Arc::new(keys.into_iter().collect());
        Ok(())
    }

    /// Reads the number of children, each of which takes at least `min_bytes` of the remaining bytes.
    fn count(&mut self, min_bytes: usize, field: &'static str) -> Result<u32, DecodeError> {
        let count = self.reader.u32(field)?;
        let remaining = self.reader.remaining() as u64;
        let bytes = u64::from(count) * min_bytes as u64;
        if bytes > remaining {
            return Err(DecodeError::Truncated { field, bytes, remaining });
        }
        self.announce(u64::from(count))?;
        // For the list or dict, and its children.
        self.signature.nodes.reserve(1 + count as usize);
        Ok(count)
    }

    fn announce(&mut self, nodes: u64) -> Result<(), DecodeError> {
        // Each count is below 2^32 and covered by bytes, so the sum cannot overflow.
        self.announced += nodes;
        at_most(self.announced, u64::from(self.limits.max_nodes), "nodes").map(|_| ())
    }

    fn max_message_bytes(&self) -> u64 {
        self.limits.max_message_bytes.min(isize::MAX as u64)
    }
}

fn too_large(value: u64) -> DecodeError {
    DecodeError::TooLarge { what: "array bytes", value, max: isize::MAX as u64 }
}

/// Appends a run, or extends the last one if they are contiguous in memory.
fn extend_runs(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.memory_start + last.bytes == run.memory_start => last.bytes += run.bytes,
        _ => runs.push(run),
    }
}
