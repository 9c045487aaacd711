//! The same stream in different pieces and frames. A message with an inline payload is taken at once, and any
//! other waits in a table. All must lead to the same events, answers, credit and refusals.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use teleport_wire::MAX_INLINE_BYTES;

use super::placing::Above;
use super::*;
use crate::memory::rows::Ticket;

/// Enough for a few messages of more than 4 KiB.
const CREDIT: u64 = 30_000;

const READ_AHEAD_BYTES: usize = 64 << 10;

/// A side, and what it has reported.
struct Peer {
    side: Side,
    above: Above,
    now: Instant,
    seen: Vec<String>,
    leases: Vec<Lease>,
}

impl Peer {
    fn new(role: Role, now: Instant) -> Peer {
        let above = Above::default();
        let config =
            Config { eager_credit_bytes: CREDIT, max_open_calls: 6, resume: true, ..Config::default() };
        let mut side = Side { gate: Box::new(above.clone()), ..Side::new(role, config) };
        let session = if role == Role::Server { Id128([7; 16]) } else { Id128::NONE };
        side.feed(&introduction_of(Hello::RESUME, session)).expect("a plain hello");
        side.events();
        let mut peer = Peer { side, above, now, seen: Vec::new(), leases: Vec::new() };
        if role == Role::Client {
            (0..4).for_each(|_| peer.call(10));
        }
        peer
    }

    fn call(&mut self, bytes: usize) {
        let called = self.side.outbound.borrow_mut().send_call(call_message("m", bytes), |_| true);
        self.seen.push(format!("{called:?}"));
    }

    /// Receives bytes in pieces of at most these sizes, and the rest in one.
    fn feed(&mut self, mut bytes: &[u8], cuts: &[usize]) -> bool {
        let mut cuts = cuts.iter().copied();
        let mut ahead = vec![0; READ_AHEAD_BYTES];
        while !bytes.is_empty() {
            let (mut now, later) = bytes.split_at(cuts.next().unwrap_or(usize::MAX).min(bytes.len()));
            bytes = later;
            while !now.is_empty() {
                let read = |slices: &mut [io::IoSliceMut<'_>]| io::Read::read_vectored(&mut now, slices);
                let Side { inbound, outbound, gate, events, .. } = &mut self.side;
                let received = inbound.on_readable(self.now, &mut ahead, outbound, &**gate, events, read);
                self.report();
                match received {
                    Ok(_) => {}
                    Err(Closed::Protocol(error)) => {
                        self.seen.push(error.to_string());
                        return false;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        true
    }

    /// Notes the events, and keeps their leases.
    fn report(&mut self) {
        for event in std::mem::take(&mut self.side.events) {
            let text = match &event {
                // Which read a message began with does not matter.
                Event::Call(Call { lease, row, deadline, .. }) => {
                    let deadline = deadline.map(|deadline| deadline - self.now);
                    let row = row.as_ref().map(|row| (row.key(), row.row().filled_bytes()));
                    format!("{} leased, {row:?}, {deadline:?}", lease.eager_bytes())
                }
                Event::Answer { answer: Ok(Reply { lease, .. }), .. } => {
                    format!("{} leased", lease.eager_bytes())
                }
                _ => String::new(),
            };
            self.seen.push(match event {
                Event::Call(Call { id, slot, tree, row, idempotent, resume, lease, .. }) => {
                    self.leases.push(lease);
                    row.map(Ticket::complete);
                    format!("call {id} of {slot}: {tree:?}, {idempotent}, {resume}, {text}")
                }
                Event::Answer { id, answer: Ok(Reply { tree, lease }) } => {
                    self.leases.push(lease);
                    format!("result {id}: {tree:?}, {text}")
                }
                other => format!("{other:?}"),
            });
        }
    }

    /// Notes what the side sends and holds.
    fn settle(&mut self) {
        let sent = self.side.sent();
        let Side { inbound, outbound, .. } = &self.side;
        let counts = (inbound.unfinished(), outbound.borrow().open_calls());
        let batch = self.above.0.lock();
        let filled: Vec<u64> = batch.rows.iter().map(|row| row.filled_bytes()).collect();
        self.seen.push(format!("{sent:?} {counts:?} {filled:?} {:?}", batch.abandoned));
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Grant(id) => self.side.grant(id),
            Act::Answer(id) => {
                let message = Message::result(&Tree::Null, &Limits::default()).expect("it is small");
                let answered = self.side.outbound.borrow_mut().send_answer(id, message);
                self.seen.push(format!("{answered:?}"));
            }
            Act::Withdraw(id) => {
                let withdrawn = self.side.outbound.borrow_mut().withdraw(id);
                self.seen.push(format!("{withdrawn:?}"));
            }
            Act::Call => self.call(10),
            Act::DropLeases => self.leases.clear(),
            Act::RefuseRows(refuses) => self.above.0.lock().refuses = refuses,
        }
    }
}

/// Something that a side does between two reads.
#[derive(Clone, Copy, Debug)]
enum Act {
    Grant(u64),
    Answer(u64),
    Withdraw(u64),
    Call,
    DropLeases,
    RefuseRows(bool),
}

#[derive(Clone, Debug)]
enum Step {
    Frames(Vec<u8>),
    Act(Act),
}

/// Makes a list of arrays of these sizes.
fn tree(sizes: &[usize]) -> Tree {
    Tree::List(sizes.iter().map(|size| bytes_tree(*size)).collect())
}

fn call_head(id: u64, method: &str, sizes: &[usize], options: u8, eager: bool) -> Vec<u8> {
    let deadline = (options & 1 != 0).then(|| Duration::from_millis(id));
    let (idempotent, resume) = (options & 2 != 0, options & 4 != 0);
    let call = CallHead { method, deadline, idempotent, resume };
    head(id, &Message::call(&call, &tree(sizes), &Limits::default()).expect("it is small"), eager)
}

fn result_head(id: u64, sizes: &[usize], eager: bool) -> Vec<u8> {
    head(id, &Message::result(&tree(sizes), &Limits::default()).expect("it is small"), eager)
}

/// Makes a payload with a checksum in one case of three, and a wrong one in one case of nine.
fn payload(bytes: usize, seed: u8) -> (Vec<u8>, Option<u32>) {
    let payload: Vec<u8> = (0..bytes).map(|at| seed ^ at as u8).collect();
    let crc = teleport_wire::checksum(0, &payload) ^ u32::from(seed.is_multiple_of(9));
    (payload, seed.is_multiple_of(3).then_some(crc))
}

fn chunk(id: u64, bytes: usize, seed: u8) -> Vec<u8> {
    let (payload, crc) = payload(bytes, seed);
    [&Header::data(id, bytes as u64, crc).encode()[..], &payload].concat()
}

/// How whole messages of up to 16 KiB are sent.
#[derive(Clone, Copy, Debug)]
enum Form {
    Inline,
    TwoFrames,
}

/// Choices for one step: what, which message, sizes, and options.
type Choice = (u8, u8, Vec<u8>, u8);

fn choices() -> impl Strategy<Value = (bool, Vec<Choice>, Vec<usize>, Vec<usize>)> {
    let choice = (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..3), any::<u8>());
    let cuts = || vec(prop_oneof![1..40usize, 1..5000usize, 30_000..60_000usize], 0..60);
    (any::<bool>(), vec(choice, 1..30), cuts(), cuts())
}

/// Makes mostly legal steps of the peer and of the side itself.
fn steps(role: Role, choices: &[Choice], form: Form) -> Vec<Step> {
    const SIZES: [usize; 9] = [0, 1, 63, 64, 100, 1000, 4032, 4097, 9000];
    let mut last_id = 0;
    let mut steps = Vec::new();
    for (what, which, sizes, options) in choices {
        let sizes: Vec<usize> = sizes.iter().map(|size| SIZES[usize::from(*size) % SIZES.len()]).collect();
        let bytes: usize = sizes.iter().sum();
        let (seed, is_eager) = (*options, bytes > 0);
        let recent = |last: u64| last.saturating_sub(u64::from(which % 4)).max(1);
        let (next, id) = match role {
            Role::Server => (last_id + 1, recent(last_id)),
            Role::Client => (1 + u64::from(which % 5), 1 + u64::from(which % 5)),
        };
        let message = |eager| match role {
            Role::Server => {
                let method = ["m", "m", "row", "n", "refused"][usize::from(which / 4 % 5)];
                call_head(next, method, &sizes, options / 9, eager)
            }
            Role::Client => result_head(next, &sizes, eager),
        };
        steps.push(match what % 20 {
            0..9 if is_eager => {
                // Rarely a part, or too much.
                let sent_bytes = match options % 40 {
                    7 => bytes.div_ceil(2),
                    8 => bytes + 1,
                    _ => bytes,
                };
                let is_whole = sent_bytes == bytes && bytes as u64 <= MAX_INLINE_BYTES;
                Step::Frames(match form {
                    Form::Inline if is_whole => {
                        let (payload, crc) = payload(bytes, seed);
                        inline(&message(true), &payload, crc)
                    }
                    _ => [message(true), chunk(next, sent_bytes, seed)].concat(),
                })
            }
            0..9 => Step::Frames(message(false)),
            9 => Step::Frames(message(is_eager)),
            10 => Step::Frames(message(false)),
            11 => Step::Frames(chunk(id, bytes.max(1), seed)),
            12 => Step::Frames(empty(Kind::Abort, id)),
            13 if role == Role::Server => Step::Frames(empty(Kind::Cancel, id)),
            13 => Step::Frames(error(id)),
            14 => Step::Frames(empty(Kind::Ping, id)),
            15 => Step::Act(Act::Grant(id)),
            16 if role == Role::Server => Step::Act(Act::RefuseRows(options % 4 == 0)),
            16 => Step::Act(Act::Withdraw(id)),
            17..19 if role == Role::Server => Step::Act(Act::Answer(id)),
            17..19 => Step::Act(Act::Call),
            _ => Step::Act(Act::DropLeases),
        });
        if matches!(what % 20, 0..11) {
            last_id = next;
        }
    }
    steps
}

/// Runs the steps. The frames between two acts are cut at `cuts`, which every batch of frames begins anew.
fn run(role: Role, steps: &[Step], now: Instant, cuts: &[usize]) -> Vec<String> {
    let mut peer = Peer::new(role, now);
    peer.settle();
    let mut frames = Vec::new();
    for step in steps.iter().chain([&Step::Act(Act::DropLeases)]) {
        match step {
            Step::Frames(bytes) => frames.extend_from_slice(bytes),
            Step::Act(act) => {
                let is_open = peer.feed(&std::mem::take(&mut frames), cuts);
                if !is_open {
                    break;
                }
                peer.settle();
                peer.act(*act);
                peer.settle();
            }
        }
    }
    peer.settle();
    peer.seen
}

/// Checks that all cuts of the steps look the same from above.
#[track_caller]
fn check_cuts(role: Role, steps: &[Step], cuts: &[&[usize]]) -> Vec<String> {
    let now = Instant::now();
    let whole = run(role, steps, now, &[]);
    for cuts in cuts {
        assert_eq!(run(role, steps, now, cuts), whole, "cut at {cuts:?}");
    }
    whole
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cuts_and_frames_lead_to_the_same_state((is_server, choices, one, other) in choices()) {
        let role = if is_server { Role::Server } else { Role::Client };
        let inline = check_cuts(role, &steps(role, &choices, Form::Inline), &[&one, &other]);
        let two_frames = check_cuts(role, &steps(role, &choices, Form::TwoFrames), &[&one, &other]);
        assert_eq!(inline, two_frames);
    }
}

fn whole_call(id: u64, method: &str, bytes: usize) -> Vec<u8> {
    inline(&call_head(id, method, &[bytes], 0, true), &payload(bytes, 1).0, None)
}

fn whole_result(id: u64, bytes: usize) -> Vec<u8> {
    inline(&result_head(id, &[bytes], true), &payload(bytes, 1).0, None)
}

/// Checks that the last frames are refused in the same way, read whole and byte by byte, also after other
/// messages of the same shape.
#[track_caller]
fn check_refused(role: Role, frames: &[Vec<u8>], text: &str) {
    let steps: Vec<Step> = frames.iter().cloned().map(Step::Frames).collect();
    let bytes = vec![1; frames.iter().map(Vec::len).sum()];
    let seen = check_cuts(role, &steps, &[&bytes, &[40], &[100, 3, 3]]);
    assert_eq!(seen[seen.len() - 2], text);
}

#[test]
fn whole_calls_are_refused_like_others() {
    let open = "more than 6 calls without an answer, or twice as many not sent whole (the server's `max_open_calls`)";
    let calls =
        |method: &str, bytes: usize| (1..=7).map(|id| whole_call(id, method, bytes)).collect::<Vec<_>>();
    check_refused(Role::Server, &calls("m", 64), open);
    check_refused(Role::Server, &calls("row", 64), open);
    check_refused(Role::Server, &calls("refused", 64), open);
    let text = "call 2 came after call 2: ids must increase";
    check_refused(
        Role::Server,
        &[whole_call(1, "m", 64), whole_call(2, "m", 64), whole_call(2, "m", 64)],
        text,
    );
    let text = "9000 eager bytes go past the credit of 30000";
    check_refused(Role::Server, &calls("m", 9000)[..4], text);
    let text = "4000 eager bytes go past the credit of 30000";
    let large = (1..=3).map(|id| whole_call(id, "m", 9000));
    check_refused(Role::Server, &large.chain([whole_call(4, "n", 4000)]).collect::<Vec<_>>(), text);
    let text = "65 bytes of inline payload for message 2, whose metadata announced 64";
    let long = inline(&call_head(2, "m", &[64], 0, true), &payload(65, 1).0, None);
    check_refused(Role::Server, &[whole_call(1, "m", 64), long], text);
    let text = "Call came after the goodbye";
    check_refused(Role::Server, &[whole_call(1, "m", 64), goodbye(), whole_call(2, "m", 64)], text);
    let text = "Result is not allowed here: this is the Server and the hellos agreed on no such thing";
    check_refused(Role::Server, &[whole_call(1, "m", 64), whole_result(1, 64)], text);
}

#[test]
fn a_whole_call_out_of_turn_is_refused_like_others() {
    let resume = teleport_wire::Resume { server: Id128([1; 16]), calls: Vec::new() };
    let resume = encode_frame(Kind::Resume, 0, &resume.encode());
    let text =
        "Call came out of turn: a resume stands before all calls, which wait for its answer of the same ids";
    check_refused(Role::Server, &[resume, whole_call(1, "m", 64)], text);
}

#[test]
fn whole_results_are_refused_like_others() {
    for id in [1, 9] {
        let text = format!("an answer came for call {id}, which is not open");
        check_refused(Role::Client, &[whole_result(1, 64), whole_result(id, 64)], &text);
    }
    let text = "9000 eager bytes go past the credit of 30000";
    let results: Vec<_> = (1..=4).map(|id| whole_result(id, 9000)).collect();
    check_refused(Role::Client, &results, text);
    let text = "65 bytes of inline payload for message 2, whose metadata announced 64";
    let long = inline(&result_head(2, &[64], true), &payload(65, 1).0, None);
    check_refused(Role::Client, &[whole_result(1, 64), long], text);
    let text = "Call is not allowed here: this is the Client and the hellos agreed on no such thing";
    check_refused(Role::Client, &[whole_result(1, 64), whole_call(1, "m", 64)], text);
}

#[test]
fn the_credit_of_a_small_message_returns_at_once_and_that_of_a_larger_one_with_its_lease() {
    for cuts in [&[][..], &[1; 20_000], &[50, 50]] {
        let mut server = Peer::new(Role::Server, Instant::now());
        let frames = [whole_call(1, "m", 4096), whole_call(2, "row", 64), whole_call(3, "m", 4097)].concat();
        assert!(server.feed(&frames, cuts));
        assert_eq!(server.side.sent(), [(Kind::Credit, 4096 + 64, 0)]);
        server.leases.clear();
        assert_eq!(server.side.sent(), [(Kind::Credit, 4097, 0)]);
        let mut client = Peer::new(Role::Client, Instant::now());
        client.side.sent();
        assert!(client.feed(&[whole_result(1, 4096), whole_result(2, 4097)].concat(), cuts));
        assert_eq!(client.side.sent(), [(Kind::Credit, 4096, 0)]);
        client.leases.clear();
        assert_eq!(client.side.sent(), [(Kind::Credit, 4097, 0)]);
    }
}

#[test]
fn unused_credit_is_returned_at_the_latest_when_half_of_it_is_unused() {
    let mut server = Peer::new(Role::Server, Instant::now());
    server.side.sent();
    let has_work = |server: &Peer| server.side.outbound.borrow().has_work();
    // A quarter of the credit is 7500 bytes.
    assert!(server.feed(&[whole_call(1, "m", 4096), whole_call(2, "m", 3403)].concat(), &[]));
    assert!(!has_work(&server));
    assert!(server.feed(&whole_call(3, "m", 7499), &[]));
    server.leases.clear();
    assert!(!has_work(&server), "each part is less than a quarter");
    assert!(server.feed(&whole_call(4, "m", 1), &[]));
    assert!(has_work(&server));
    assert_eq!(server.side.sent(), [(Kind::Credit, 2 * 7499 + 1, 0)]);
    assert!(server.feed(&whole_call(5, "m", 7500), &[]));
    assert!(!has_work(&server));
    server.leases.clear();
    assert!(has_work(&server));
}
