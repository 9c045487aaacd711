//! Shapes of the small messages that this thread has encoded lately.
//!
//! Flow: [`append_frame`] and [`encode`] compare a tree with the known shapes, and copy metadata and payload
//! of the one that it has -> else the tree is encoded in full -> [`learn`] keeps its shape if it is seen a
//! second time. A shape has been checked against the limits that it is kept with. Bound: 8 shapes of up to
//! 4 KiB of metadata, 128 nodes and room for 16 KiB of payload for each thread.

use std::cell::RefCell;
use std::slice::Iter;
use std::sync::Arc;

use super::draft::{Draft, FrameSizes};
use super::{Message, frame_header};
use crate::format::checksum::checksum;
use crate::format::header::{Header, Kind};
use crate::format::limits::Limits;
use crate::model::tree::{Tree, keys::Keys};
use crate::model::{array::Array, buffer::Buffer, dtype::DType, shape::Shape};

const MAX_SHAPES: usize = 8;
const MAX_METADATA_BYTES: usize = 4 << 10;
const MAX_NODES: usize = 128;

/// The messages that are remembered until a second one has the same shape.
const MAX_SEEN: usize = 8;

/// Where the deadline is in the metadata of a call.
const DEADLINE_AT: usize = 16;

/// The shape of a tree in the order of its sender.
#[derive(Debug)]
enum Node {
    Null,
    Array { dtype: DType, shape: Shape, place: Place },
    String(Place),
    Bytes(Place),
    List { count: usize },
    Dict { keys: Option<Arc<Keys>> },
}

/// The place of a leaf in the payload.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    bytes: u32,
}

/// A shape with the metadata of messages that have it.
#[derive(Debug)]
struct Known {
    kind: Kind,
    flags: u16,
    method: Box<str>,
    limits: Limits,
    /// In preorder.
    nodes: Box<[Node]>,
    /// The place of a header, the metadata without a deadline, and the place of the payload.
    frame: Box<[u8]>,
    metadata_crc: u32,
    sizes: FrameSizes,
}

#[derive(Debug)]
struct Shapes {
    known: Vec<Known>,
    /// The index of the shape that was used last.
    last: usize,
    /// The index of the next shape that is replaced.
    oldest: usize,
    /// Checksums of the metadata of messages that had no known shape.
    seen: [u32; MAX_SEEN],
    next_seen: usize,
}

thread_local! {
    static SHAPES: RefCell<Shapes> = const {
        RefCell::new(Shapes { known: Vec::new(), last: 0, oldest: 0, seen: [0; MAX_SEEN], next_seen: 0 })
    };
}

/// Encodes a message of a known shape.
#[inline]
pub(super) fn encode(draft: &Draft<'_>) -> Option<Message> {
    find(|shapes| shapes.find(|known| known.encode(draft)))
}

/// Encodes a message of a known shape at the end of `out`, see [`Draft::append_frame`].
#[inline(always)]
pub(super) fn append_frame(
    draft: &Draft<'_>,
    id: u64,
    is_checked: bool,
    max_memory_bytes: u64,
    out: &mut Vec<u8>,
) -> Option<FrameSizes> {
    find(|shapes| shapes.find(|known| known.append_frame(draft, id, is_checked, max_memory_bytes, out)))
}

/// Calls `function` with the shapes of this thread.
#[inline(always)]
fn find<T>(function: impl FnOnce(&mut Shapes) -> Option<T>) -> Option<T> {
    let mut found = None;
    // Fails while the thread ends.
    let _ = SHAPES.try_with(|shapes| found = function(&mut shapes.borrow_mut()));
    found
}

/// Keeps the shape of a message, if it is small and one with the same metadata was seen before. The `leaves`
/// are those of the payload in its order.
#[cold]
pub(super) fn learn(draft: &Draft<'_>, message: &Message, leaves: &[&Buffer]) {
    if message.pieces.is_some() || message.metadata().len() > MAX_METADATA_BYTES || leaves.len() > MAX_NODES {
        return;
    }
    let _ = SHAPES.try_with(|shapes| {
        if let Ok(mut shapes) = shapes.try_borrow_mut() {
            shapes.learn(draft, message, leaves);
        }
    });
}

impl Shapes {
    /// Returns what `encode` returns for the first shape for which that is something.
    #[inline(always)]
    fn find<T>(&mut self, mut encode: impl FnMut(&Known) -> Option<T>) -> Option<T> {
        let mut index = self.last;
        for _ in 0..self.known.len() {
            if let Some(message) = encode(&self.known[index]) {
                self.last = index;
                return Some(message);
            }
            index = if index + 1 < self.known.len() { index + 1 } else { 0 };
        }
        None
    }

    fn learn(&mut self, draft: &Draft<'_>, message: &Message, leaves: &[&Buffer]) {
        let body_bytes = message.bytes.len();
        let mut frame = vec![0; Header::BYTES + body_bytes];
        let metadata = &mut frame[Header::BYTES..][..message.metadata().len()];
        metadata.copy_from_slice(message.metadata());
        if draft.deadline_micros != 0 {
            metadata[DEADLINE_AT..][..8].fill(0);
        }
        let metadata_crc = checksum(0, metadata);
        if !self.seen.contains(&metadata_crc) {
            self.seen[self.next_seen] = metadata_crc;
            self.next_seen = (self.next_seen + 1) % MAX_SEEN;
            return;
        }
        let mut start = 0;
        let mut places: Vec<_> = leaves
            .iter()
            .map(|leaf| {
                let place = Place { start, bytes: leaf.len() as u32 };
                start += place.bytes;
                (std::ptr::from_ref(*leaf), place)
            })
            .collect();
        places.sort_unstable_by_key(|(leaf, _)| leaf.addr());
        let mut nodes = Vec::new();
        if !collect(draft.tree, &places, &mut nodes) {
            return;
        }
        let known = Known {
            kind: draft.kind,
            flags: draft.flags,
            method: draft.method.into(),
            limits: *draft.limits,
            nodes: nodes.into(),
            frame: frame.into(),
            metadata_crc,
            sizes: FrameSizes {
                metadata_bytes: message.metadata_bytes,
                payload_bytes: message.payload_bytes as u32,
                memory_bytes: message.memory_bytes,
            },
        };
        if self.known.len() < MAX_SHAPES {
            self.known.push(known);
        } else {
            self.known[self.oldest] = known;
            self.oldest = (self.oldest + 1) % MAX_SHAPES;
        }
    }
}

/// Appends the nodes of `tree`, whose leaves with bytes have these places. Returns false if there are too
/// many nodes.
fn collect(tree: &Tree, places: &[(*const Buffer, Place)], nodes: &mut Vec<Node>) -> bool {
    let place = |leaf: &Buffer| {
        let leaf = std::ptr::from_ref(leaf).addr();
        let found = places.binary_search_by_key(&leaf, |(leaf, _)| leaf.addr());
        found.map_or(Place { start: 0, bytes: 0 }, |index| places[index].1)
    };
    nodes.push(match tree {
        Tree::Null => Node::Null,
        Tree::Array(array) => {
            Node::Array { dtype: array.dtype(), shape: array.shape().into(), place: place(array.buffer()) }
        }
        Tree::String(text) => Node::String(place(text.buffer())),
        Tree::Bytes(bytes) => Node::Bytes(place(bytes)),
        Tree::List(list) => Node::List { count: list.len() },
        Tree::Dict(dict) => Node::Dict { keys: dict.shared_keys().cloned() },
    });
    if nodes.len() > MAX_NODES {
        return false;
    }
    match tree {
        Tree::List(list) => list.iter().all(|tree| collect(tree, places, nodes)),
        Tree::Dict(dict) => dict.iter().all(|(_, tree)| collect(tree, places, nodes)),
        _ => true,
    }
}

impl Known {
    /// Encodes a message, if it has this shape.
    fn encode(&self, draft: &Draft<'_>) -> Option<Message> {
        if !self.has_head(draft) {
            return None;
        }
        let mut bytes = Buffer::fresh(self.frame.len() - Header::BYTES);
        let body = bytes.bytes_mut();
        let metadata_bytes = self.sizes.metadata_bytes as usize;
        body[..metadata_bytes].copy_from_slice(&self.frame[Header::BYTES..][..metadata_bytes]);
        let metadata_crc = self.fill(draft, body)?;
        let FrameSizes { metadata_bytes, payload_bytes, memory_bytes } = self.sizes;
        Some(Message {
            kind: self.kind,
            metadata_bytes,
            metadata_crc,
            bytes: bytes.into_buffer(),
            pieces: None,
            payload_bytes: u64::from(payload_bytes),
            memory_bytes,
        })
    }

    /// Appends the frame of a message, if it has this shape.
    #[inline(always)]
    fn append_frame(
        &self,
        draft: &Draft<'_>,
        id: u64,
        is_checked: bool,
        max_memory_bytes: u64,
        out: &mut Vec<u8>,
    ) -> Option<FrameSizes> {
        if !self.has_head(draft) || self.sizes.memory_bytes > max_memory_bytes {
            return None;
        }
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let (header, body) = out[start..].split_at_mut(Header::BYTES);
        let Some(metadata_crc) = self.fill(draft, body) else {
            out.truncate(start);
            return None;
        };
        let payload = &body[self.sizes.metadata_bytes as usize..];
        header.copy_from_slice(&frame_header(self.kind, id, metadata_crc, body.len(), payload, is_checked));
        Some(self.sizes)
    }

    #[inline(always)]
    fn has_head(&self, draft: &Draft<'_>) -> bool {
        self.kind == draft.kind
            && self.flags == draft.flags
            && is_same_text(&self.method, draft.method)
            && self.limits == *draft.limits
    }

    /// Writes the payload and the deadline to a body. Returns the CRC32C of the metadata, or `None` if the
    /// tree has another shape.
    #[inline(always)]
    fn fill(&self, draft: &Draft<'_>, body: &mut [u8]) -> Option<u32> {
        let (metadata, payload) = body.split_at_mut(self.sizes.metadata_bytes as usize);
        if !copy(&mut self.nodes.iter(), std::slice::from_ref(draft.tree), payload) {
            return None;
        }
        if draft.deadline_micros == 0 {
            return Some(self.metadata_crc);
        }
        metadata[DEADLINE_AT..][..8].copy_from_slice(&draft.deadline_micros.to_le_bytes());
        Some(checksum(0, metadata))
    }
}

/// Copies the leaves of `trees` to their places in `payload`. Returns false if a tree does not have the shape
/// of the next `nodes`.
#[inline(never)]
fn copy(nodes: &mut Iter<'_, Node>, trees: &[Tree], payload: &mut [u8]) -> bool {
    trees.iter().all(|tree| match (nodes.next(), tree) {
        (Some(Node::Array { dtype, shape, place }), Tree::Array(array)) => {
            has_shape(array, *dtype, shape) && place.copy(array.buffer(), payload)
        }
        (Some(Node::Null), Tree::Null) => true,
        (Some(Node::String(place)), Tree::String(text)) => place.copy(text.buffer(), payload),
        (Some(Node::Bytes(place)), Tree::Bytes(bytes)) => place.copy(bytes, payload),
        (Some(Node::List { count }), Tree::List(list)) => *count == list.len() && copy(nodes, list, payload),
        (Some(Node::Dict { keys }), Tree::Dict(dict)) => {
            dict.has_keys(keys.as_ref()) && copy(nodes, dict.trees(), payload)
        }
        _ => false,
    })
}

#[inline]
fn has_shape(array: &Array, dtype: DType, shape: &Shape) -> bool {
    array.dtype() == dtype && array.has_shape(shape)
}

impl Place {
    /// Copies a leaf to its place. Returns false if it has another length.
    #[inline]
    fn copy(self, leaf: &[u8], payload: &mut [u8]) -> bool {
        if self.bytes as usize != leaf.len() {
            return false;
        }
        let place = &mut payload[self.start as usize..][..leaf.len()];
        // The lengths of numbers, for which a call to copy them costs more than the copy.
        match *leaf {
            [a] => place[0] = a,
            [a, b, c, d] => place.copy_from_slice(&[a, b, c, d]),
            [a, b, c, d, e, f, g, h] => place.copy_from_slice(&[a, b, c, d, e, f, g, h]),
            _ => place.copy_from_slice(leaf),
        }
        true
    }
}

/// Compares texts. Those of one program are often the same memory.
#[inline]
fn is_same_text(left: &str, right: &str) -> bool {
    left.len() == right.len() && (left.as_ptr() == right.as_ptr() || left == right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::metadata::CallHead;
    use crate::tree;

    fn known() -> usize {
        SHAPES.with_borrow(|shapes| shapes.known.len())
    }

    fn encode_thrice(tree: &Tree) {
        for _ in 0..3 {
            Message::call(&CallHead::new("act"), tree, &Limits::default()).unwrap();
        }
    }

    #[test]
    fn a_frame_is_that_of_the_message() {
        let tree = |first: u64| tree!({"z": first, "a": vec![2u8; 70], "t": "text"});
        let (limits, time) = (Limits::default(), std::time::Duration::from_micros(9));
        for deadline in [None, Some(time)] {
            let head = CallHead { deadline, ..CallHead::new("act") };
            encode_thrice(&tree(0));
            for is_checked in [false, true] {
                let (tree, mut frame, mut expected) = (tree(7), b"before".to_vec(), b"before".to_vec());
                let message = Message::encode_new(&Draft::call(&head, &tree, &limits)).unwrap();
                message.append_frame(5, is_checked, &mut expected);
                let draft = Draft::call(&head, &tree, &limits);
                let sizes = draft.append_frame(5, is_checked, message.memory_bytes(), &mut frame).unwrap();
                assert_eq!(frame, expected);
                let found = (u64::from(sizes.payload_bytes), sizes.memory_bytes);
                assert_eq!(found, (message.payload_bytes(), message.memory_bytes()));
                assert_eq!(sizes.metadata_bytes as usize, message.metadata().len());
                assert_eq!(draft.encode().unwrap().bytes, message.bytes);
            }
        }
    }

    #[test]
    fn nothing_is_left_of_a_frame_of_another_shape() {
        let (head, limits) = (CallHead::new("act"), Limits::default());
        encode_thrice(&tree!([1, vec![1u8; 70]]));
        let mut out = b"before".to_vec();
        // The second leaf differs, so the first one has been copied.
        for other in [tree!([1, vec![1u8; 71]]), tree!([1, "text"]), tree!([1])] {
            assert_eq!(Draft::call(&head, &other, &limits).append_frame(1, true, 4096, &mut out), None);
            assert_eq!(out, b"before");
        }
        // There is no room at the receiver.
        let same = tree!([1, vec![1u8; 70]]);
        assert_eq!(Draft::call(&head, &same, &limits).append_frame(1, true, 100, &mut out), None);
        assert_eq!(out, b"before");
        assert!(Draft::call(&head, &same, &limits).append_frame(1, true, 4096, &mut out).is_some());
    }

    #[test]
    fn few_and_small_shapes_are_kept() {
        let bytes = |len| Tree::Array(Array::from(vec![1u8; len]));
        // A large array, many nodes, and long metadata.
        encode_thrice(&bytes(10_000));
        encode_thrice(&Tree::List(vec![Tree::Null; MAX_NODES]));
        encode_thrice(&Tree::Dict([("x".repeat(MAX_METADATA_BYTES), bytes(1))].into_iter().collect()));
        assert_eq!(known(), 0);
        Message::call(&CallHead::new("act"), &bytes(1), &Limits::default()).unwrap();
        assert_eq!(known(), 0, "a shape that was seen once is not kept");
        for len in 1..100 {
            encode_thrice(&bytes(len));
            assert_eq!(known(), len.min(MAX_SHAPES));
        }
    }
}
