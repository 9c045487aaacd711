//! An account of one connection that is kept from its frames alone. It checks how much each side may
//! send.
//!
//! Flow: the bytes of each direction, as they are sent -> a decoder -> the account, which both
//! directions share. Apart from the decoder, it uses none of the code that it checks.

use std::collections::HashMap;
use std::ops::Range;

use teleport_wire::{
    CallMetadata, DecodeError, Decoder, Header, Hello, Kind, Limits, ResultMetadata, Signature, Sink,
    decode_ids,
};

use super::invariants::Invariant;

/// A direction of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    pub(super) const BOTH: [Way; 2] = [Way::Up, Way::Down];

    pub(super) fn back(self) -> Way {
        match self {
            Way::Up => Way::Down,
            Way::Down => Way::Up,
        }
    }
}

pub(super) struct Audit {
    decoders: [Decoder; 2],
    books: Books,
}

#[derive(Default)]
struct Books {
    /// The credit that the receiver of each way has offered.
    offered_bytes: [u64; 2],
    /// The eager memory of each way that was sent and not given back.
    eager_bytes: [u64; 2],
    open: HashMap<(Way, u64), Open>,
    /// The chunk of each way that is being sent, and whether it has a checksum.
    chunk: [(u64, bool); 2],
    /// The message of each way that is being sent, and the bytes of its body, if it has an inline payload
    /// with a checksum.
    inline: [Option<(u64, usize)>; 2],
    is_finished: [bool; 2],
}

/// A message whose payload was not yet sent in full.
struct Open {
    bytes: u64,
    may_be_sent: bool,
}

impl Audit {
    pub(super) fn new() -> Audit {
        let decoder = || Decoder::new(&Limits::default());
        Audit { decoders: [decoder(), decoder()], books: Books::default() }
    }

    pub(super) fn sent(&mut self, way: Way, bytes: &[u8]) {
        let mut pages = Pages { books: &mut self.books, way };
        self.decoders[way as usize].feed(bytes, &mut pages).expect("both sides write the format");
    }

    /// Returns the message whose payload with a checksum is being sent, and the place of payload among the
    /// bytes that are sent next: the rest of a chunk, or the last byte of an inline payload.
    pub(super) fn checked_payload(&self, way: Way) -> Option<(u64, Range<usize>)> {
        let (decoder, at) = (&self.decoders[way as usize], way as usize);
        if let Some((id, body_bytes)) = self.books.inline[at] {
            let missing = body_bytes - decoder.collected_bytes();
            return Some((id, missing - 1..missing));
        }
        let (id, has_checksum) = self.books.chunk[at];
        let remaining = decoder.chunk_remaining();
        (has_checksum && remaining > 0).then_some((id, 0..remaining))
    }

    /// Returns true if all eager memory was given back and no message is open.
    pub(super) fn is_settled(&self) -> bool {
        self.books.eager_bytes == [0, 0] && self.books.open.is_empty()
    }
}

struct Pages<'a> {
    books: &'a mut Books,
    way: Way,
}

impl Pages<'_> {
    fn check_unfinished(&self, kind: Kind) {
        let is_finished = self.books.is_finished[self.way as usize];
        Invariant::RulesKept.require(!is_finished, || format!("{kind} after goodbye"));
    }

    fn head(&mut self, header: &Header, signature: &[u8]) -> Result<(), DecodeError> {
        let signature = Signature::decode(signature, &Limits::default())?;
        let at = self.way as usize;
        if header.is_eager() {
            self.books.eager_bytes[at] += signature.memory_bytes() as u64;
            let (eager, offered) = (self.books.eager_bytes[at], self.books.offered_bytes[at]);
            Invariant::CreditKept
                .require(eager <= offered, || format!("{eager} eager bytes of {offered} that were offered"));
        }
        if signature.payload_bytes() > 0 && !header.is_inline() {
            let open = Open { bytes: signature.payload_bytes(), may_be_sent: header.is_eager() };
            self.books.open.insert((self.way, header.id), open);
        }
        Ok(())
    }
}

impl Sink for Pages<'_> {
    type Error = DecodeError;

    fn preface(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }

    fn header(&mut self, header: &Header) -> Result<(), DecodeError> {
        let is_checked = header.payload_crc().is_some();
        self.books.inline[self.way as usize] = is_checked.then_some((header.id, header.length as usize));
        Ok(())
    }

    fn frame(&mut self, header: &Header, body: &[u8]) -> Result<(), DecodeError> {
        let (at, back, id) = (self.way as usize, self.way.back(), header.id);
        self.check_unfinished(header.kind);
        match header.kind {
            Kind::Hello => self.books.offered_bytes[back as usize] = Hello::decode(body)?.eager_credit_bytes,
            Kind::Grant => {
                for id in decode_ids(body)? {
                    if let Some(open) = self.books.open.get_mut(&(back, id)) {
                        open.may_be_sent = true;
                    }
                }
            }
            Kind::Credit => {
                let eager = &mut self.books.eager_bytes[back as usize];
                Invariant::CreditKept.require(id <= *eager, || format!("{id} bytes given back of {eager}"));
                *eager -= id;
            }
            Kind::Abort => drop(self.books.open.remove(&(self.way, id))),
            Kind::Goodbye => self.books.is_finished[at] = true,
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, header: &Header, metadata: &[u8], _payload: &[u8]) -> Result<(), DecodeError> {
        header.check_body(metadata)?;
        self.check_unfinished(header.kind);
        self.books.inline[self.way as usize] = None;
        match header.kind {
            Kind::Call => self.head(header, CallMetadata::decode(metadata)?.signature),
            _ => self.head(header, ResultMetadata::decode(metadata)?.signature),
        }
    }

    fn begin_chunk(&mut self, header: &Header) -> Result<(), DecodeError> {
        self.books.chunk[self.way as usize] = (header.id, header.has_checksum());
        let key = (self.way, header.id);
        let open = self.books.open.get_mut(&key);
        let fits = open.as_ref().is_some_and(|open| open.may_be_sent && header.length <= open.bytes);
        Invariant::GrantsKept.require(fits, || format!("{} bytes of message {key:?}", header.length));
        if let Some(open) = open {
            open.bytes -= header.length;
            if open.bytes == 0 {
                self.books.open.remove(&key);
            }
        }
        Ok(())
    }

    fn chunk_bytes(&mut self, _bytes: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }
}
