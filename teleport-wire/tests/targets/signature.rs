//! Metadata: decoded bytes encode to the same bytes, and runs fit the announced memory.

#![allow(clippy::unwrap_used, reason = "a target reports a bug by a panic")]

use teleport_wire::{Buffer, CallMetadata, Limits, Message, Order, ResultMetadata, Signature, Tree};

/// Decodes `data` as the metadata of a result, as that of a call, and as a signature.
pub(crate) fn signature(data: &[u8]) {
    // Decoded trees are built, so the limit of memory is low.
    let limits = Limits { max_message_bytes: 1 << 20, ..Limits::default() };
    if let Ok(metadata) = ResultMetadata::decode(data)
        && let Some(tree) = build(metadata.signature, metadata.order, &limits)
    {
        assert_eq!(Message::result(&tree, &limits).unwrap().metadata(), data);
    }
    if let Ok(metadata) = CallMetadata::decode(data)
        && let Some(tree) = build(metadata.signature, metadata.order, &limits)
    {
        assert_eq!(Message::call(&metadata.head, &tree, &limits).unwrap().metadata(), data);
    }
    if let Some(tree) = build(data, &[], &limits) {
        let message = Message::result(&tree, &Limits { max_metadata_bytes: u32::MAX, ..limits }).unwrap();
        assert_eq!(ResultMetadata::decode(message.metadata()).unwrap().signature, data);
    }
}

fn build(signature: &[u8], order: &[u8], limits: &Limits) -> Option<Tree> {
    let signature = Signature::decode(signature, limits).ok()?;
    let order = Order::decode(order, &signature).ok()?;
    check_runs(&signature);
    Some(signature.build(&order, Buffer::zeroed(signature.memory_bytes())).unwrap())
}

/// Checks that runs cover the payload in order without gaps, and are in order within the memory.
fn check_runs(signature: &Signature) {
    let (mut payload, mut memory) = (0, 0);
    for run in signature.runs() {
        assert!(run.bytes > 0 && run.payload_start == payload && run.memory_start >= memory);
        payload += run.bytes as u64;
        memory = run.memory_start + run.bytes;
    }
    assert_eq!((payload, memory), (signature.payload_bytes(), signature.memory_bytes()));
}
