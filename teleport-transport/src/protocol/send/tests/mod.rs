//! The send queue does what a plain list of messages does ([`model`]), byte by byte, whatever is queued,
//! withdrawn, answered, granted and staged in whatever order.

mod model;

use std::io::IoSlice;
use std::sync::Arc;

use teleport_wire::{
    Array, CallHead, CallState, Dict, Draft, ErrorKind, Kind, Limits, Message, Ran, RemoteError, Tree,
};

use self::model::Model;
use super::write_buffer::{MAX_SEGMENTS_PER_WRITE, WriteBuffer};
use super::{NewCall, Outbound, Withdrawn};
use crate::config::Config;
use crate::memory::budget::Budget;
use crate::protocol::error::{ProtocolError, SendError};
use crate::protocol::halves;
use crate::role::Role;

const RUNS: u64 = 80;
const STEPS: u64 = 300;
const MAX_OPEN_CALLS: u32 = 80;

/// The sending half under test beside its model.
struct Pair {
    role: Role,
    config: Config,
    outbound: Outbound,
    staged: WriteBuffer,
    model: Model,
    random: u64,
    last_id: u64,
    /// The operations from one staging to the next, on average.
    stages_one_in: u64,
    /// Most messages are as long as those may be that large ones wait for.
    floods: bool,
    /// The messages that were encoded where they were queued.
    encoded: u32,
}

/// A call that its layer registers or refuses.
struct Encoded<'a> {
    tree: &'a Tree,
    limits: Limits,
    registers: bool,
}

impl NewCall for Encoded<'_> {
    fn draft(&self) -> Draft<'_> {
        Draft::call(&CallHead::new("m"), self.tree, &self.limits)
    }

    fn register(&mut self, _: u64, _: u64) -> bool {
        self.registers
    }
}

impl Pair {
    fn new(role: Role, seed: u64) -> Pair {
        let eager_credit_bytes = [0, 20_000, 300_000, 6_000_000][seed as usize % 4];
        let config = Config { eager_credit_bytes, max_open_calls: MAX_OPEN_CALLS, ..Config::default() };
        let now = std::time::Instant::now();
        let (_, outbound) = halves(role, &Arc::new(config.clone()), Some(Budget::new(1 << 20)), now, || {});
        let (staged, model) = (WriteBuffer::default(), Model::new(role, eager_credit_bytes));
        let mut pair = Pair {
            role,
            config,
            outbound,
            staged,
            model,
            random: seed,
            last_id: 0,
            stages_one_in: 4,
            floods: seed % 4 == 3,
            encoded: 0,
        };
        pair.stages_one_in = if pair.floods { 150 } else { [4, 12, 24][pair.below(3) as usize] };
        pair.staged();
        let peer = match role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        pair.outbound.on_hello(pair.config.hello(peer));
        pair
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn pick(&mut self, of: &[u64]) -> Option<u64> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize])
    }

    /// Creates a tree of a size at which behaviour changes.
    fn tree(&mut self) -> Tree {
        let fill = self.below(256) as u8;
        let array = |bytes: u64| Tree::Array(Array::from(vec![fill; bytes as usize]));
        match self.below(24) {
            0..4 => Tree::Null,
            _ if self.floods && self.below(4) > 0 => array(60_000),
            4..8 => array(self.below(300)),
            8..12 => array(64 + 64 * self.below(2)),
            12 => array(4096),
            13..16 => array(5000 + self.below(30_000)),
            16 => Tree::List(vec![array(100), array(3000), array(7)]),
            17 => array(65_536),
            18 => array(60_000),
            19 => array(65_537 + self.below(200_000)),
            20 => array(self.below(2_500_000)),
            // Metadata that is sent from its own memory, alone and with a payload.
            21 => Tree::Dict(Dict::from_iter([("k".repeat(20_000), Tree::Null)])),
            22 => Tree::Dict(Dict::from_iter([("k".repeat(30_000), array(10))])),
            _ => Tree::Dict(Dict::from_iter([("k".repeat(300_000), array(50_000))])),
        }
    }

    fn step(&mut self) {
        if self.below(self.stages_one_in) == 0 {
            self.stage();
        }
        match (self.below(11), self.role) {
            (0..6, Role::Client) => self.call(),
            (0..3, Role::Server) => self.arrive(),
            (3..6, Role::Server) => self.answer(),
            (6 | 7, Role::Client) => self.withdraw(),
            (6, Role::Server) => self.replace(),
            (7, Role::Server) => self.abort(),
            (8, Role::Client) => self.answered(),
            (8 | 9, _) => self.grant(),
            _ => self.return_credit(),
        }
        self.check();
    }

    // ---- Operations ----

    fn call(&mut self) {
        if self.model.calls.len() < MAX_OPEN_CALLS as usize {
            let tree = self.tree();
            let message = Message::call(&CallHead::new("m"), &tree, &Limits::default()).expect("it is legal");
            let mut call = Encoded { tree: &tree, limits: Limits::default(), registers: self.below(8) > 0 };
            let id = match self.outbound.encode_call(&mut call) {
                Err(SendError::Unencoded) => self.outbound.send_call(message.clone(), |_| true),
                sent => {
                    assert_eq!(sent == Err(SendError::Refused), !call.registers);
                    self.encoded += 1;
                    sent
                }
            };
            match id {
                Err(SendError::Refused) => {}
                id => self.model.send(id.expect("few are open"), &message),
            }
        }
    }

    fn withdraw(&mut self) {
        let open: Vec<u64> = self.model.calls.keys().copied().collect();
        let Some(id) = self.pick(&open) else { return };
        let withdrawn = match self.model.withdraw(id) {
            Some(CallState::Unsent) => Withdrawn::NeverSent,
            Some(CallState::Part) => Withdrawn::Aborted,
            _ => Withdrawn::Requested,
        };
        assert_eq!(self.outbound.withdraw(id), withdrawn);
    }

    /// A call is answered, which it cannot be before its head was staged.
    fn answered(&mut self) {
        let open: Vec<u64> = self.model.calls.keys().copied().collect();
        let Some(id) = self.pick(&open) else { return };
        let is_result = self.below(2) == 0;
        let queue = &mut self.outbound.queue;
        match self.model.calls[&id] {
            CallState::Unsent => {
                assert!(queue.on_error(id).is_err() && queue.calls.on_result_head(id).is_err());
            }
            CallState::Sent if is_result => {
                assert!(matches!(queue.calls.on_result_head(id), Ok(true)));
                queue.calls.on_result_whole(id);
                self.model.calls.remove(&id);
            }
            _ if is_result => {
                let early = queue.calls.on_result_head(id);
                assert!(matches!(early, Err(ProtocolError::EarlyResult { .. })), "{early:?}");
            }
            _ => {
                assert!(matches!(queue.on_error(id), Ok(true)));
                self.model.on_error(id);
            }
        }
    }

    /// A call arrives, or one too many.
    fn arrive(&mut self) {
        self.last_id += 1;
        let arrived = self.outbound.queue.on_call(self.last_id, 100, &self.config);
        if self.model.unfinished() >= MAX_OPEN_CALLS as usize {
            assert!(matches!(arrived, Err(ProtocolError::TooManyCalls { .. })), "{arrived:?}");
        } else {
            assert!(matches!(arrived, Ok(true)), "{arrived:?}");
            self.model.calls.insert(self.last_id, CallState::Unsent);
        }
    }

    fn answer(&mut self) {
        let open: Vec<u64> = self.model.calls.keys().copied().collect();
        let Some(id) = self.pick(&open) else { return };
        let (tree, limits, is_error) = (self.tree(), Limits::default(), self.below(4) == 0);
        let draft = Draft::result(&tree, &limits);
        let message =
            if is_error { Message::error(&failure()) } else { draft.encode().expect("it is legal") };
        let sent = if is_error { Err(SendError::Unencoded) } else { self.outbound.encode_answer(id, &draft) };
        match sent {
            Err(SendError::Unencoded) => {
                assert_eq!(self.outbound.send_answer(id, message.clone()), Ok(()));
            }
            sent => {
                assert_eq!(sent, Ok(()));
                let again = self.outbound.encode_answer(id, &draft);
                assert!(matches!(again, Err(SendError::NotOpen { .. } | SendError::Unencoded)), "{again:?}");
                self.encoded += 1;
            }
        }
        assert!(self.outbound.send_answer(id, message.clone()).is_err(), "one answer is enough");
        self.model.send(id, &message);
    }

    fn replace(&mut self) {
        let id = 1 + self.below(self.last_id + 1);
        let replaced = self.model.replace(id, &Message::error(&failure()));
        assert_eq!(self.outbound.replace_answer(id, &failure()), replaced);
    }

    /// The client gives up a call that it has not sent completely, which may have an answer.
    fn abort(&mut self) {
        let id = 1 + self.below(self.last_id + 1);
        self.outbound.queue.on_call_abort(id);
        self.model.on_call_abort(id);
    }

    /// The peer grants a message that waits, or any other that it knows.
    fn grant(&mut self) {
        let wanting = self.model.wanting();
        let any = self.model.unstaged();
        let id = if self.below(4) == 0 { self.pick(&any) } else { self.pick(&wanting) };
        let Some(id) = id else { return };
        if self.outbound.queue.check_known(Kind::Grant, id).is_ok() {
            self.outbound.queue.on_grant(id).expect("it is known");
            self.model.on_grant(id);
        }
    }

    fn return_credit(&mut self) {
        let bytes = self.below(self.model.used_credit_bytes + 1);
        self.outbound.queue.ledger.on_credit(bytes).expect("it was used");
        self.model.credit_bytes += bytes;
        self.model.used_credit_bytes -= bytes;
    }

    /// The connection breaks. What was staged stays known.
    fn discard(&mut self) {
        self.outbound.discard();
        self.model.discard();
        self.check();
        self.stage();
    }

    /// Everything is granted and staged.
    fn drain(&mut self) {
        while self.outbound.has_work() || !self.model.wanting().is_empty() {
            for id in self.model.wanting() {
                self.outbound.queue.on_grant(id).expect("it is known");
                self.model.on_grant(id);
            }
            self.stage();
            self.check();
        }
        assert!(self.model.unstaged().is_empty());
    }

    /// Stages once. The bytes are those of the model.
    fn stage(&mut self) {
        let (staged, expected) = (self.staged(), self.model.stage());
        assert!(staged == expected, "{} bytes were staged instead of {}", staged.len(), expected.len());
    }

    fn staged(&mut self) -> Vec<u8> {
        assert!(!self.outbound.poll_write(&mut self.staged), "nobody waits");
        let mut all = Vec::new();
        while !self.staged.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
            let filled = self.staged.slices(&mut slices);
            let before = all.len();
            slices[..filled].iter().for_each(|slice| all.extend_from_slice(slice));
            self.staged.advance(all.len() - before);
        }
        all
    }

    fn check(&self) {
        let ledger = self.outbound.ledger();
        let found = (ledger.queued_bytes(), ledger.credit_bytes(), ledger.staged_payload_bytes());
        let model = &self.model;
        assert_eq!(found, (model.queued_bytes(), model.credit_bytes, model.staged_payload_bytes));
        assert_eq!(ledger.result_bytes(), model.result_bytes());
        assert_eq!(self.outbound.open_calls(), model.calls.len());
        if self.role == Role::Client {
            let states: Vec<_> = model.calls.iter().map(|(id, state)| (*id, *state)).collect();
            assert_eq!(self.outbound.call_states(), states);
        }
    }
}

fn failure() -> RemoteError {
    RemoteError::new(ErrorKind::TooSlow, Ran::Yes, "the receiver is too slow")
}

#[test]
fn the_queue_sends_what_a_list_of_messages_sends() {
    let mut seen = [0; 7];
    for seed in 0..RUNS {
        for role in [Role::Client, Role::Server] {
            let mut pair = Pair::new(role, seed);
            for _ in 0..STEPS {
                pair.step();
            }
            let of_run = pair.model.seen;
            let each = [
                of_run.split,
                of_run.split_for_chunk,
                of_run.cut_before_others,
                of_run.cut_after_head,
                of_run.short_chunks,
                of_run.long_chunks,
                pair.encoded,
            ];
            seen.iter_mut().zip(each).for_each(|(sum, count)| *sum += count);
            if pair.below(2) == 0 {
                pair.discard();
            } else {
                pair.drain();
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "each case occurs: {seen:?}");
}
