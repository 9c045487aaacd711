//! A plain model of the send queue: lists of messages as bytes, which are staged one by one.

use std::collections::{BTreeMap, VecDeque};

use teleport_wire::{CallState, Header, Kind, Message};

use crate::role::Role;

/// The documented limits of staging.
const MAX_STAGED_SMALL_BYTES: usize = 256 << 10;
const SMALL_BYTES_PER_CHUNK: usize = 1 << 20;
const MAX_CHUNK_BYTES: usize = 1 << 20;
const SHORT_CHUNK_BYTES: usize = 256 << 10;
const SHORT_CHUNKS: u32 = 16;
const MAX_SMALL_BYTES: usize = 64 << 10;
const MIN_CHARGED_BYTES: u64 = 4 << 10;
const MAX_INLINE_METADATA_BYTES: u64 = 16 << 10;

/// What a message is made of.
struct Parts {
    metadata_bytes: u64,
    payload: Vec<u8>,
    memory_bytes: u64,
    is_eager: bool,
}

/// Frames that wait for their turn in the order of the queue.
struct Small {
    id: u64,
    frames: Vec<u8>,
    is_head: bool,
    payload_bytes: u64,
}

/// A message that is not staged completely.
struct Open {
    parts: Parts,
    is_begun: bool,
    is_granted: bool,
    /// The first payload byte that is not staged.
    next: usize,
}

/// Counts the cases that are hard to meet, to show that they occur.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// A part of the small messages was staged because there were too many.
    pub(super) split: u32,
    /// A part of them was staged because it was a chunk's turn.
    pub(super) split_for_chunk: u32,
    /// A message was taken out that others followed.
    pub(super) cut_before_others: u32,
    /// A small payload was taken out whose head was staged before.
    pub(super) cut_after_head: u32,
    pub(super) short_chunks: u32,
    pub(super) long_chunks: u32,
}

pub(super) struct Model {
    pub(super) seen: Seen,
    role: Role,
    small: VecDeque<Small>,
    large: VecDeque<u64>,
    small_bytes_since_chunk: usize,
    chunks_since_small: u32,
    round_bytes: usize,
    turns_left: usize,
    aborts: Vec<u64>,
    cancels: Vec<u64>,
    /// The messages of this side that are not staged completely.
    open: BTreeMap<u64, Open>,
    /// On a client, the calls without an answer, and what was staged of them. On a server, the unanswered
    /// calls.
    pub(super) calls: BTreeMap<u64, CallState>,
    pub(super) credit_bytes: u64,
    /// The credit that the peer learned of and has not returned.
    pub(super) used_credit_bytes: u64,
    pub(super) staged_payload_bytes: u64,
}

impl Model {
    pub(super) fn new(role: Role, credit_bytes: u64) -> Model {
        Model {
            seen: Seen::default(),
            role,
            small: VecDeque::new(),
            large: VecDeque::new(),
            small_bytes_since_chunk: 0,
            chunks_since_small: SHORT_CHUNKS,
            round_bytes: MAX_CHUNK_BYTES,
            turns_left: 0,
            aborts: Vec::new(),
            cancels: Vec::new(),
            open: BTreeMap::new(),
            calls: BTreeMap::new(),
            credit_bytes,
            used_credit_bytes: 0,
            staged_payload_bytes: 0,
        }
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        let left = |open: &Open| {
            let head = if open.is_begun { 0 } else { open.parts.metadata_bytes };
            head + (open.parts.payload.len() - open.next) as u64
        };
        self.open.values().map(left).sum()
    }

    /// Returns the memory of the results that are charged.
    pub(super) fn result_bytes(&self) -> u64 {
        let is_charged = |open: &&Open| open.parts.payload.len() as u64 > MIN_CHARGED_BYTES;
        let of_server = self.open.values().filter(|_| self.role == Role::Server);
        of_server.filter(is_charged).map(|open| open.parts.memory_bytes).sum()
    }

    /// Returns the calls that are open for the limit: those without a complete answer.
    pub(super) fn unfinished(&self) -> usize {
        self.calls.len() + if self.role == Role::Server { self.open.len() } else { 0 }
    }

    /// Returns the calls whose payload waits for a grant.
    pub(super) fn wanting(&self) -> Vec<u64> {
        let wants = |(id, open): (&u64, &Open)| (open.is_begun && !open.is_granted).then_some(*id);
        self.open.iter().filter_map(wants).collect()
    }

    /// Returns the messages that are not staged completely.
    pub(super) fn unstaged(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }

    // ---- What is queued ----

    pub(super) fn send(&mut self, id: u64, message: &Message) {
        let payload = message.payload().collect::<Vec<_>>().concat();
        let is_eager = !payload.is_empty() && message.memory_bytes() <= self.credit_bytes;
        if is_eager {
            self.credit_bytes -= message.memory_bytes();
        }
        let (metadata_bytes, memory_bytes) = (message.metadata().len() as u64, message.memory_bytes());
        let is_inline =
            is_eager && !message.inline_payload().is_empty() && metadata_bytes <= MAX_INLINE_METADATA_BYTES;
        let goes_along = is_eager && payload.len() <= MAX_SMALL_BYTES;
        let mut frames = Vec::new();
        if is_inline {
            message.append_frame(id, false, &mut frames);
        } else {
            frames.extend([&message.header(id, is_eager)[..], message.metadata()].concat());
            if goes_along {
                frames.extend(data(id, &payload));
            }
        }
        let payload_bytes = if goes_along { payload.len() as u64 } else { 0 };
        self.small.push_back(Small { id, frames, is_head: true, payload_bytes });
        match self.role {
            Role::Client => drop(self.calls.insert(id, CallState::Unsent)),
            Role::Server => drop(self.calls.remove(&id)),
        }
        let parts = Parts { metadata_bytes, payload, memory_bytes, is_eager };
        self.open.insert(id, Open { parts, is_begun: false, is_granted: is_eager, next: 0 });
    }

    /// Drops what is not staged of a message. Returns true if the peer knows the head.
    fn drop_rest(&mut self, id: u64) -> Option<bool> {
        let open = self.open.remove(&id)?;
        if let Some(index) = self.small.iter().position(|small| small.id == id) {
            self.seen.cut_before_others += u32::from(index + 1 < self.small.len());
            self.seen.cut_after_head += u32::from(open.is_begun);
            self.small.remove(index);
        }
        self.large.retain(|large| *large != id);
        if !open.is_begun && open.parts.is_eager {
            self.credit_bytes += open.parts.memory_bytes;
        }
        Some(open.is_begun)
    }

    pub(super) fn withdraw(&mut self, id: u64) -> Option<CallState> {
        let state = *self.calls.get(&id)?;
        match self.drop_rest(id) {
            None => self.cancels.push(id),
            Some(is_begun) => {
                self.calls.remove(&id);
                if is_begun {
                    self.aborts.push(id);
                }
            }
        }
        Some(state)
    }

    pub(super) fn replace(&mut self, id: u64, error: &Message) -> bool {
        let Some(is_begun) = self.drop_rest(id) else { return false };
        if is_begun {
            self.aborts.push(id);
        }
        self.send(id, error);
        true
    }

    pub(super) fn discard(&mut self) {
        self.aborts.clear();
        self.cancels.clear();
        self.small.clear();
        self.large.clear();
        self.open.clear();
    }

    // ---- What the peer sent ----

    pub(super) fn on_error(&mut self, id: u64) {
        self.calls.remove(&id);
        if self.drop_rest(id).is_some() {
            self.aborts.push(id);
        }
    }

    pub(super) fn on_call_abort(&mut self, id: u64) {
        self.calls.remove(&id);
        self.drop_rest(id);
    }

    pub(super) fn on_grant(&mut self, id: u64) {
        let Some(open) = self.open.get_mut(&id) else { return };
        if !open.is_begun || std::mem::replace(&mut open.is_granted, true) {
            return;
        }
        if open.parts.payload.len() > MAX_SMALL_BYTES {
            self.push_large(id);
        } else {
            let (frames, payload_bytes) = (data(id, &open.parts.payload), open.parts.payload.len() as u64);
            self.small.push_back(Small { id, frames, is_head: false, payload_bytes });
        }
    }

    fn push_large(&mut self, id: u64) {
        if self.large.is_empty() {
            self.small_bytes_since_chunk = 0;
        }
        self.large.push_back(id);
    }

    // ---- Staging ----

    /// Returns the bytes that are staged next.
    pub(super) fn stage(&mut self) -> Vec<u8> {
        let mut staged = Vec::new();
        for (kind, ids) in [(Kind::Abort, &mut self.aborts), (Kind::Cancel, &mut self.cancels)] {
            for id in ids.drain(..) {
                staged.extend(Header::empty(kind, id).encode());
            }
        }
        let max_bytes = if self.large.is_empty() {
            MAX_STAGED_SMALL_BYTES
        } else {
            MAX_STAGED_SMALL_BYTES.min(SMALL_BYTES_PER_CHUNK.saturating_sub(self.small_bytes_since_chunk))
        };
        let start = staged.len();
        while staged.len() - start < max_bytes
            && let Some(small) = self.small.pop_front()
        {
            staged.extend(&small.frames);
            self.on_small(&small);
        }
        if !self.small.is_empty() {
            self.seen.split += u32::from(max_bytes == MAX_STAGED_SMALL_BYTES);
            self.seen.split_for_chunk += u32::from(max_bytes < MAX_STAGED_SMALL_BYTES);
        }
        self.small_bytes_since_chunk += staged.len() - start;
        let is_turn = self.small.is_empty() || self.small_bytes_since_chunk >= SMALL_BYTES_PER_CHUNK;
        if staged.len() < MAX_STAGED_SMALL_BYTES
            && is_turn
            && let Some(id) = self.large.pop_front()
        {
            self.small_bytes_since_chunk = 0;
            staged.extend(self.chunk(id));
        }
        staged
    }

    fn on_small(&mut self, small: &Small) {
        let id = small.id;
        let open = self.open.get_mut(&id).expect("it is not staged completely");
        if small.is_head {
            open.is_begun = true;
            if open.parts.is_eager {
                self.used_credit_bytes += open.parts.memory_bytes;
            }
        }
        open.next += small.payload_bytes as usize;
        self.staged_payload_bytes += small.payload_bytes;
        let is_large = open.is_granted && open.next < open.parts.payload.len();
        if open.next == open.parts.payload.len() {
            self.chunks_since_small = 0;
        }
        self.note(id);
        if is_large {
            self.push_large(id);
        }
    }

    fn chunk(&mut self, id: u64) -> Vec<u8> {
        let open = self.open.get_mut(&id).expect("it is not staged completely");
        let payload = &open.parts.payload[open.next..];
        if self.turns_left == 0 {
            let is_short = self.chunks_since_small < SHORT_CHUNKS;
            self.round_bytes = if is_short { SHORT_CHUNK_BYTES } else { MAX_CHUNK_BYTES };
            self.turns_left = self.large.len() + 1;
        }
        self.turns_left -= 1;
        let max_bytes = self.round_bytes;
        let is_short = max_bytes < MAX_CHUNK_BYTES;
        self.chunks_since_small = self.chunks_since_small.saturating_add(1);
        self.seen.short_chunks += u32::from(is_short);
        self.seen.long_chunks += u32::from(!is_short);
        let chunk = &payload[..payload.len().min(max_bytes)];
        let frame = data(id, chunk);
        open.next += chunk.len();
        self.staged_payload_bytes += chunk.len() as u64;
        let is_whole = open.next == open.parts.payload.len();
        self.note(id);
        if !is_whole {
            self.push_large(id);
        }
        frame
    }

    /// Notes how much of a message was staged.
    fn note(&mut self, id: u64) {
        let is_whole = self.open.get(&id).is_some_and(|open| open.next == open.parts.payload.len());
        if let Some(state) = self.calls.get_mut(&id).filter(|_| self.role == Role::Client) {
            *state = if is_whole { CallState::Sent } else { CallState::Part };
        }
        if is_whole {
            self.open.remove(&id);
        }
    }
}

fn data(id: u64, payload: &[u8]) -> Vec<u8> {
    [&Header::data(id, payload.len() as u64, None).encode()[..], payload].concat()
}
