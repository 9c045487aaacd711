//! The metadata of the calls and results that a connection received last.
//!
//! Most messages repeat one of them, except for the id, the deadline and the payload. So their bytes are
//! compared, and what was computed and decided once is used again: the checksum, the signature, the order,
//! and the method's slot. Knows nothing of other connections. Bounds: `KNOWN` entries, each of up to
//! `MAX_KNOWN_BYTES` of metadata and what that decodes to, a small multiple.

use std::sync::Arc;

use teleport_wire::{CallMetadata, DecodeError, Header, Kind, Limits, Order, ResultMetadata, Signature};

use super::signature_cache;

const KNOWN: usize = 4;
const MAX_KNOWN_BYTES: usize = 1 << 10;

/// The decoded metadata of a call or a result.
#[derive(Debug)]
pub(super) struct Metadata {
    kind: Kind,
    /// The bytes. Empty if there are too many to keep them.
    body: Box<[u8]>,
    /// The CRC32C of `body`.
    crc: u32,
    /// The index of its place among the known metadata.
    place: usize,
    pub(super) signature: Arc<Signature>,
    pub(super) order: Order,
    pub(super) payload_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) structure_bytes: u64,
    /// The number of the method, once the gate has admitted it.
    pub(super) slot: u32,
    /// The gate must be asked for rows.
    pub(super) has_rows: bool,
    pub(super) idempotent: bool,
    pub(super) resume: bool,
}

/// The metadata of one connection, whose limits never change.
#[derive(Debug, Default)]
pub(super) struct Known {
    kept: [Option<Box<Metadata>>; KNOWN],
    next: usize,
}

impl Known {
    /// Takes the known metadata with these bytes, apart from a deadline. [`keep`](Known::keep) puts it back.
    ///
    /// # Errors
    /// Fails if the header's checksum is not that of these bytes. It is computed only for another deadline.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        header: &Header,
        body: &[u8],
    ) -> Result<Option<Box<Metadata>>, DecodeError> {
        let kind = header.kind;
        let repeats = |known: &Metadata| match kind {
            _ if known.kind != kind => false,
            Kind::Call => CallMetadata::repeats(&known.body, body),
            _ => *known.body == *body,
        };
        // A loop, since the compiler leaves a call of `find` to its own function.
        let mut found = None;
        for known in &mut self.kept {
            if known.as_deref().is_some_and(repeats) {
                found = known.take();
                break;
            }
        }
        let Some(known) = found else { return Ok(None) };
        if kind == Kind::Call && !CallMetadata::has_same_deadline(&known.body, body) {
            header.check_body(body)?;
        } else {
            header.check_crc(known.crc)?;
        }
        Ok(Some(known))
    }

    /// Keeps metadata for the next message like it.
    #[inline(always)]
    pub(super) fn keep(&mut self, metadata: Box<Metadata>) {
        if !metadata.body.is_empty() {
            let place = metadata.place;
            self.kept[place] = Some(metadata);
        }
    }

    /// Decodes the metadata of a call. Also returns the name of the method.
    ///
    /// # Errors
    /// Fails if the bytes do not have the header's checksum, are not valid, or break a limit.
    pub(super) fn decode_call<'a>(
        &mut self,
        header: &Header,
        body: &'a [u8],
        limits: &Limits,
    ) -> Result<(Box<Metadata>, &'a str), DecodeError> {
        header.check_body(body)?;
        let CallMetadata { head, signature, order } = CallMetadata::decode(body)?;
        let metadata = self.decode(header, body, (signature, order), limits)?;
        let (idempotent, resume) = (head.idempotent, head.resume);
        Ok((Box::new(Metadata { idempotent, resume, ..metadata }), head.method))
    }

    /// Decodes the metadata of a result.
    ///
    /// # Errors
    /// Fails if the bytes do not have the header's checksum, are not valid, or break a limit.
    pub(super) fn decode_result(
        &mut self,
        header: &Header,
        body: &[u8],
        limits: &Limits,
    ) -> Result<Box<Metadata>, DecodeError> {
        header.check_body(body)?;
        let ResultMetadata { signature, order } = ResultMetadata::decode(body)?;
        self.decode(header, body, (signature, order), limits).map(Box::new)
    }

    fn decode(
        &mut self,
        header: &Header,
        body: &[u8],
        (signature, order): (&[u8], &[u8]),
        limits: &Limits,
    ) -> Result<Metadata, DecodeError> {
        let is_kept = body.len() <= MAX_KNOWN_BYTES;
        let known = self.kept.iter().flatten().find(|known| known.signature.as_bytes() == signature);
        let signature = match known {
            Some(known) => known.signature.clone(),
            None if is_kept => Arc::new(Signature::decode(signature, limits)?),
            None => signature_cache::decoded(signature, limits)?,
        };
        let order = Order::decode(order, &signature)?;
        let place = self.next;
        self.next = (place + usize::from(is_kept)) % KNOWN;
        Ok(Metadata {
            kind: header.kind,
            crc: header.body_crc,
            body: if is_kept { body.into() } else { Box::default() },
            place,
            payload_bytes: signature.payload_bytes(),
            memory_bytes: signature.memory_bytes() as u64,
            structure_bytes: signature.structure_bytes(),
            signature,
            order,
            slot: 0,
            has_rows: false,
            idempotent: false,
            resume: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use teleport_wire::{CallHead, Message, tree};

    use super::super::signature_cache::tests::result_of;
    use super::*;

    fn call(method: &str, micros: u64) -> Vec<u8> {
        let deadline = Some(std::time::Duration::from_micros(micros));
        let head = CallHead { deadline, ..CallHead::new(method) };
        Message::call(&head, &tree!({"x": 1, "y": 2.5}), &Limits::default())
            .expect("it is small")
            .metadata()
            .to_vec()
    }

    fn header(kind: Kind, body: &[u8]) -> Header {
        Header::of_body(kind, 1, body)
    }

    fn take(known: &mut Known, kind: Kind, body: &[u8]) -> Option<Box<Metadata>> {
        known.take(&header(kind, body), body).expect("its checksum is right")
    }

    #[test]
    fn what_was_decoded_once_is_known_again() {
        let (mut known, limits) = (Known::default(), Limits::default());
        assert!(take(&mut known, Kind::Call, &call("m", 1)).is_none());
        let (mut first, method) = known
            .decode_call(&header(Kind::Call, &call("m", 1)), &call("m", 1), &limits)
            .map(|(first, method)| (first, method.to_owned()))
            .unwrap();
        assert_eq!((method.as_str(), first.payload_bytes, first.memory_bytes), ("m", 16, 72));
        first.slot = 7;
        known.keep(first);
        for micros in [1, 2, 1 << 40] {
            let again = take(&mut known, Kind::Call, &call("m", micros)).expect("only the deadline differs");
            assert_eq!(again.slot, 7);
            known.keep(again);
        }
        assert!(
            take(&mut known, Kind::Result, &call("m", 1)).is_none()
                && take(&mut known, Kind::Call, &call("n", 1)).is_none()
        );
        let (other, _) =
            known.decode_call(&header(Kind::Call, &call("n", 1)), &call("n", 1), &limits).unwrap();
        let first = take(&mut known, Kind::Call, &call("m", 1)).expect("it was kept");
        assert!(Arc::ptr_eq(&first.signature, &other.signature), "equal signatures are decoded once");
    }

    #[test]
    fn a_wrong_checksum_is_found_in_known_and_in_new_metadata() {
        for (method, micros) in [("m", 1), ("m", 2), ("n", 1)] {
            let (mut known, limits, body) = (Known::default(), Limits::default(), call("m", 1));
            let (metadata, _) = known.decode_call(&header(Kind::Call, &body), &body, &limits).unwrap();
            known.keep(metadata);
            let body = call(method, micros);
            let right = header(Kind::Call, &body);
            let wrong = Header { body_crc: right.body_crc ^ 1, ..right };
            let found = known.take(&wrong, &body);
            if method == "m" {
                assert!(matches!(found, Err(DecodeError::BodyChecksum { .. })), "{micros}");
            } else {
                let decoded = known.decode_call(&wrong, &body, &limits).map(drop);
                assert!(matches!((found, decoded), (Ok(None), Err(DecodeError::BodyChecksum { .. }))));
            }
        }
    }

    #[test]
    fn few_small_metadata_are_kept() {
        let (mut known, limits) = (Known::default(), Limits::default());
        let large = result_of(200, "not kept");
        let metadata = known.decode_result(&header(Kind::Result, &large), &large, &limits).unwrap();
        known.keep(metadata);
        assert!(take(&mut known, Kind::Result, &large).is_none());
        let bodies: Vec<_> = (0..2 * KNOWN).map(|index| result_of(2, &format!("kept {index}"))).collect();
        for body in &bodies {
            let metadata = known.decode_result(&header(Kind::Result, body), body, &limits).unwrap();
            known.keep(metadata);
        }
        let kept: Vec<_> = bodies.iter().map(|body| take(&mut known, Kind::Result, body).is_some()).collect();
        assert_eq!(kept, [[false; KNOWN], [true; KNOWN]].concat());
    }
}
