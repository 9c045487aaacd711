//! A cache of recently decoded signatures, because most messages repeat a recent signature.
//!
//! Each connection keeps small signatures, without a lock. Large signatures, such as those of dicts with many
//! entries, would add up over thousands of connections, so the process keeps a few for all of them. A
//! signature is decoded again for a connection with other limits. Bounds: `SMALL` of up to `MAX_SMALL_BYTES`
//! a connection, `LARGE` of up to `MAX_LARGE_BYTES` in the process. Decoded signatures take a small multiple
//! of their bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use teleport_wire::{DecodeError, Limits, Signature};

const SMALL: usize = 4;
const MAX_SMALL_BYTES: usize = 1 << 10;
const LARGE: usize = 16;
const MAX_LARGE_BYTES: usize = 16 << 10;

/// The large signatures of the process, most recently used first.
static PROCESS: Mutex<VecDeque<(Limits, Arc<Signature>)>> = Mutex::new(VecDeque::new());

/// The signatures of one connection, whose limits never change.
#[derive(Debug, Default)]
pub(super) struct SignatureCache {
    kept: [Option<Arc<Signature>>; SMALL],
    next: usize,
}

impl SignatureCache {
    /// Returns the signature with these bytes.
    ///
    /// # Errors
    /// Fails if the bytes are not a valid signature, or break a limit.
    pub(super) fn decoded(&mut self, bytes: &[u8], limits: &Limits) -> Result<Arc<Signature>, DecodeError> {
        if bytes.len() > MAX_SMALL_BYTES {
            return large(bytes, limits);
        }
        if let Some(known) = self.kept.iter().flatten().find(|known| known.as_bytes() == bytes) {
            return Ok(known.clone());
        }
        let signature = Arc::new(Signature::decode(bytes, limits)?);
        self.kept[self.next] = Some(signature.clone());
        self.next = (self.next + 1) % SMALL;
        Ok(signature)
    }
}

fn large(bytes: &[u8], limits: &Limits) -> Result<Arc<Signature>, DecodeError> {
    if bytes.len() > MAX_LARGE_BYTES {
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
    let oldest = if known.len() > LARGE { known.pop_back() } else { None };
    drop(known);
    drop(oldest); // without the lock
    Ok(signature)
}

#[cfg(test)]
mod tests {
    use teleport_wire::{Dict, IntoTree, Message, ResultMetadata, Tree};

    use super::*;

    /// Returns the bytes of a signature that no other test has.
    fn bytes(entries: usize, name: &str) -> Vec<u8> {
        let entries = (0..entries).map(|index| (format!("{name} {index:04}"), (index as u64).into_tree()));
        let message =
            Message::result(&Tree::from(entries.collect::<Dict>()), &Limits::default()).expect("it is small");
        ResultMetadata::decode(message.metadata()).expect("it was encoded").signature.to_vec()
    }

    #[test]
    fn equal_bytes_are_decoded_once() {
        let (small, large) = (bytes(3, "small"), bytes(200, "large"));
        assert!(small.len() <= MAX_SMALL_BYTES && (MAX_SMALL_BYTES..MAX_LARGE_BYTES).contains(&large.len()));
        let (mut one, mut other, limits) =
            (SignatureCache::default(), SignatureCache::default(), Limits::default());
        let first = [one.decoded(&small, &limits).unwrap(), one.decoded(&large, &limits).unwrap()];
        assert!(Arc::ptr_eq(&first[0], &one.decoded(&small, &limits).unwrap()));
        assert!(
            !Arc::ptr_eq(&first[0], &other.decoded(&small, &limits).unwrap()),
            "each connection has its own"
        );
        assert!(Arc::ptr_eq(&first[1], &other.decoded(&large, &limits).unwrap()), "the process has one");
    }

    #[test]
    fn a_known_signature_is_checked_against_other_limits() {
        let (large, limits) = (bytes(200, "limits"), Limits::default());
        let mut signatures = SignatureCache::default();
        signatures.decoded(&large, &limits).unwrap();
        let strict = Limits { max_nodes: 100, ..limits };
        assert!(SignatureCache::default().decoded(&large, &strict).is_err());
    }

    #[test]
    fn few_signatures_are_kept() {
        let limits = Limits::default();
        let mut signatures = SignatureCache::default();
        for index in 0..40 {
            signatures.decoded(&bytes(200, &format!("few {index}")), &limits).unwrap();
            signatures.decoded(&bytes(1, &format!("few {index}")), &limits).unwrap();
        }
        assert!(PROCESS.lock().len() <= LARGE + 1);
    }
}
