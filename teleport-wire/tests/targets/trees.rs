//! Trees of any structure arrive unchanged, and operations on whole trees are inverses.

#![allow(clippy::unwrap_used, reason = "a target reports a bug by a panic")]

use teleport_wire::{
    Array, Buffer, DType, Dict, Limits, Message, Order, ResultMetadata, Signature, TimeBase, TimeUnit, Tree,
};

/// Makes a tree from `data`, sends and receives it, and flattens and stacks it.
pub(crate) fn trees(data: &[u8]) {
    let tree = Choices { rest: data, nodes: 0 }.tree(0);
    let received = send(&tree);
    assert!(same(&tree, &received), "{tree} became {received}");
    let (leaves, structure) = tree.clone().flatten();
    assert_eq!(structure.unflatten(leaves).as_ref(), Ok(&tree));
    if let Ok(stacked) = Tree::stack(&[tree.clone(), tree.clone()])
        && let Ok(rows) = stacked.unstack()
    {
        assert_eq!(rows, [tree.clone(), tree]);
    }
}

fn send(tree: &Tree) -> Tree {
    let limits = Limits::default();
    let message = Message::result(tree, &limits).unwrap();
    let metadata = ResultMetadata::decode(message.metadata()).unwrap();
    let signature = Signature::decode(metadata.signature, &limits).unwrap();
    let order = Order::decode(metadata.order, &signature).unwrap();
    let payload: Vec<u8> = message.payload().flatten().copied().collect();
    assert_eq!(message.memory_bytes(), signature.memory_bytes() as u64);
    let mut memory = Buffer::zeroed(signature.memory_bytes());
    for run in signature.runs() {
        let from = &payload[run.payload_start as usize..][..run.bytes];
        memory.get_mut().unwrap()[run.memory_start..][..run.bytes].copy_from_slice(from);
    }
    signature.build(&order, memory).unwrap()
}

/// Compares trees, including the order of entries.
fn same(left: &Tree, right: &Tree) -> bool {
    match (left, right) {
        (Tree::List(left), Tree::List(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Tree::Dict(left), Tree::Dict(right)) => {
            let mut entries = left.iter().zip(right.iter());
            left.len() == right.len()
                && entries.all(|(left, right)| left.0 == right.0 && same(left.1, right.1))
        }
        (left, right) => left == right,
    }
}

/// Choices read from an input, with zeros after its end. So every input makes a tree.
struct Choices<'a> {
    rest: &'a [u8],
    nodes: usize,
}

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        self.rest.split_off_first().copied().unwrap_or(0)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next()) % bound
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = self.below(max + 1);
        (0..len).map(|_| self.next()).collect()
    }

    fn text(&mut self, max: usize) -> String {
        String::from_utf8_lossy(&self.bytes(max)).into_owned()
    }

    fn tree(&mut self, depth: usize) -> Tree {
        self.nodes += 1;
        let kinds = if depth < 60 && self.nodes < 500 { 6 } else { 4 };
        match self.below(kinds) {
            0 => Tree::Null,
            1 => Tree::Array(self.array()),
            2 => Tree::String(self.text(20).into()),
            3 => Tree::Bytes(self.bytes(100).into()),
            4 => Tree::List((0..self.below(6)).map(|_| self.tree(depth + 1)).collect()),
            _ => {
                let entries: Dict =
                    (0..self.below(6)).map(|_| (self.text(4), self.tree(depth + 1))).collect();
                Tree::Dict(entries)
            }
        }
    }

    fn array(&mut self) -> Array {
        let dtype = self.dtype();
        let shape: Vec<usize> = (0..self.below(6)).map(|_| self.below(4)).collect();
        let bytes = dtype.array_bytes(&shape).unwrap();
        let start = self.next();
        let items: Vec<u8> = (0..bytes).map(|index| start.wrapping_add(index as u8)).collect();
        Array::from_buffer(dtype, shape, Buffer::copy_from(&items)).unwrap()
    }

    fn dtype(&mut self) -> DType {
        use DType::*;
        const PLAIN: [DType; 15] =
            [Bool, I8, I16, I32, I64, U8, U16, U32, U64, F16, BF16, F32, F64, C64, C128];
        match self.below(19) {
            15 => Bytes(self.below(9) as u32),
            16 => Unicode(self.below(5) as u32),
            17 => DateTime(self.unit()),
            18 => TimeDelta(self.unit()),
            plain => PLAIN[plain],
        }
    }

    fn unit(&mut self) -> TimeUnit {
        let base = TimeBase::ALL[self.below(TimeBase::ALL.len())];
        TimeUnit::new(u32::from(self.next()), base).unwrap_or_else(|| base.into())
    }
}
