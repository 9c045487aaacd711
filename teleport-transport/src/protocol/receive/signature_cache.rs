//! A cache of recently decoded large signatures, which the connections of the process share.
//!
//! Large signatures, such as those of dicts with many entries, would add up over thousands of connections, so
//! the process keeps a few for all of them. Small ones are kept by each connection ([`known`](super::known)).
//! A signature is decoded again for a connection with other limits. Bounds: `MAX_SIGNATURES` of up to
//! `MAX_SIGNATURE_BYTES`. Decoded signatures take a small multiple of their bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use teleport_wire::{DecodeError, Limits, Signature};

const MAX_SIGNATURES: usize = 16;
const MAX_SIGNATURE_BYTES: usize = 16 << 10;

/// The signatures, most recently used first.
static PROCESS: Mutex<VecDeque<(Limits, Arc<Signature>)>> = Mutex::new(VecDeque::new());

/// Returns the signature with these bytes.
///
/// # Errors
/// Fails if the bytes are not a valid signature, or break a limit.
pub(super) fn decoded(bytes: &[u8], limits: &Limits) -> Result<Arc<Signature>, DecodeError> {
    if bytes.len() > MAX_SIGNATURE_BYTES {
        return Signature::decode(bytes, limits).map(Arc::new);
    }
    {
        let mut known = PROCESS.lock();
        let found = known.iter().position(|(of, known)| known.as_bytes() == bytes && of == limits);
        if let Some(entry) = found.and_then(|index| known.remove(index)) {
            let signature = entry.1.clone();
            known.push_front(entry);
            return Ok(signature);
        }
    }
    let signature = Arc::new(Signature::decode(bytes, limits)?);
    let mut known = PROCESS.lock();
    known.push_front((*limits, signature.clone()));
    let oldest = if known.len() > MAX_SIGNATURES { known.pop_back() } else { None };
    drop(known);
    drop(oldest); // without the lock
    Ok(signature)
}

#[cfg(test)]
pub(super) mod tests {
    use teleport_wire::{Dict, IntoTree, Message, ResultMetadata, Tree};

    use super::*;

    /// Returns the metadata of a result that no other test has.
    pub(in super::super) fn result_of(entries: usize, name: &str) -> Vec<u8> {
        let entries = (0..entries).map(|index| (format!("{name} {index:04}"), (index as u64).into_tree()));
        let message =
            Message::result(&Tree::from(entries.collect::<Dict>()), &Limits::default()).expect("it is small");
        message.metadata().to_vec()
    }

    fn bytes(entries: usize, name: &str) -> Vec<u8> {
        let metadata = result_of(entries, name);
        ResultMetadata::decode(&metadata).expect("it was encoded").signature.to_vec()
    }

    #[test]
    fn equal_bytes_are_decoded_once() {
        let (large, limits) = (bytes(200, "large"), Limits::default());
        let first = decoded(&large, &limits).unwrap();
        assert!(Arc::ptr_eq(&first, &decoded(&large, &limits).unwrap()));
    }

    #[test]
    fn a_known_signature_is_checked_against_other_limits() {
        let (large, limits) = (bytes(200, "limits"), Limits::default());
        decoded(&large, &limits).unwrap();
        let strict = Limits { max_nodes: 100, ..limits };
        assert!(decoded(&large, &strict).is_err());
    }

    #[test]
    fn few_signatures_are_kept() {
        for index in 0..40 {
            decoded(&bytes(200, &format!("few {index}")), &Limits::default()).unwrap();
        }
        assert!(PROCESS.lock().len() <= MAX_SIGNATURES + 1);
    }
}
