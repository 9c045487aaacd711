//! Receives messages without a connection.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere; helpers are outside of test functions")]
#![allow(dead_code, reason = "each test file compiles this module for itself and uses a part of it")]

use teleport_wire::{
    Buffer, CallMetadata, DecodeError, Kind, Limits, Message, Order, ResultMetadata, Signature, Tree,
};

/// Returns signature and order of a call or result.
pub(crate) fn parts(message: &Message) -> (&[u8], &[u8]) {
    match message.kind() {
        Kind::Call => {
            let metadata = CallMetadata::decode(message.metadata()).unwrap();
            (metadata.signature, metadata.order)
        }
        _ => {
            let metadata = ResultMetadata::decode(message.metadata()).unwrap();
            (metadata.signature, metadata.order)
        }
    }
}

/// Copies a payload into memory, run by run, as a connection does.
pub(crate) fn receive(signature: &Signature, payload: &[u8]) -> Buffer {
    let mut memory = Buffer::zeroed(signature.memory_bytes());
    let bytes = memory.get_mut().unwrap();
    for run in signature.runs() {
        let start = run.payload_start as usize;
        bytes[run.memory_start..][..run.bytes].copy_from_slice(&payload[start..][..run.bytes]);
    }
    memory
}

/// Decodes the tree from these bytes.
pub(crate) fn decode(
    signature: &[u8],
    order: &[u8],
    payload: &[u8],
    limits: &Limits,
) -> Result<Tree, DecodeError> {
    let signature = Signature::decode(signature, limits)?;
    let order = Order::decode(order, &signature)?;
    assert_eq!(payload.len() as u64, signature.payload_bytes());
    signature.build(&order, receive(&signature, payload))
}

pub(crate) fn payload(message: &Message) -> Vec<u8> {
    message.payload().flatten().copied().collect()
}
