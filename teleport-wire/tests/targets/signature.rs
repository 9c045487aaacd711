//! Metadata: what decodes is written back as the same bytes, and keeps its promises about memory.

#![allow(clippy::unwrap_used, reason = "a panic is how a target reports what it found")]

use teleport_wire::{Buffer, CallMetadata, Limits, Message, Order, ResultMetadata, Signature, Tree};

/// Takes `data` for the metadata of a result, of a call, and for a bare signature.
pub(crate) fn signature(data: &[u8]) {
    // What decodes is built, so its memory is kept small.
    let limits = Limits { max_message_bytes: 1 << 20, ..Limits::default() };
    if let Ok(metadata) = ResultMetadata::decode(data)
        && let Some(tree) = build(metadata.signature, metadata.order, &limits)
    {
        assert_eq!(Message::result(&tree, &limits).unwrap().metadata, data);
    }
    if let Ok(metadata) = CallMetadata::decode(data)
        && let Some(tree) = build(metadata.signature, metadata.order, &limits)
    {
        assert_eq!(Message::call(&metadata.head, &tree, &limits).unwrap().metadata, data);
    }
    if let Some(tree) = build(data, &[], &limits) {
        let message = Message::result(&tree, &Limits { max_metadata_bytes: u32::MAX, ..limits }).unwrap();
        assert_eq!(ResultMetadata::decode(&message.metadata).unwrap().signature, data);
    }
}

fn build(signature: &[u8], order: &[u8], limits: &Limits) -> Option<Tree> {
    let signature = Signature::decode(signature, limits).ok()?;
    let order = Order::decode(order, &signature).ok()?;
    check_runs(&signature);
    Some(signature.build(&order, Buffer::zeroed(signature.memory_bytes())).unwrap())
}

/// Runs cover payload in order without gaps, and memory in order within its length.
fn check_runs(signature: &Signature) {
    let (mut payload, mut memory) = (0, 0);
    for run in signature.runs() {
        assert!(run.bytes > 0 && run.payload_start == payload && run.memory_start >= memory);
        payload += run.bytes as u64;
        memory = run.memory_start + run.bytes;
    }
    assert_eq!((payload, memory), (signature.payload_bytes(), signature.memory_bytes()));
}
