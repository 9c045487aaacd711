//! Unknown sessions, sessions of other clients, and clients that break the rules of their own session.

use teleport::Tree;
use teleport::transport::random_id;
use teleport::wire::{
    CallAnswer, CallHead, CallState, Hello, Id128, Kind, Limits, Message, Resume, ResumeAnswer, encode_ids,
};
use teleport_tests::Raw;

use crate::case::{Case, cases, is_sent_away};
use crate::made::frame;

/// The number of calls that a resume can list.
const MOST_CALLS: u64 = 65_536;

/// The log line of clients that follow the rules and leave without a goodbye.
const CUT: &str = "the connection broke";

/// Connects a client with this session. Returns it with the server's hello.
fn introduced(address: &str, session: Id128) -> (Raw, Hello) {
    let mut peer = Raw::connect(address);
    let hello = peer.introduce(&Hello { features: Hello::RESUME, session, ..Raw::hello() });
    (peer, hello)
}

fn resume(server: Id128, calls: &[(u64, CallState)]) -> Vec<u8> {
    frame(Kind::Resume, 0, &Resume { server, calls: calls.to_vec() }.encode())
}

/// Returns a call without arguments that survives its connection.
fn surviving(id: u64) -> Vec<u8> {
    let head = CallHead { resume: true, ..CallHead::new("echo") };
    let message = Message::call(&head, &Tree::Null, &Limits::default()).unwrap();
    [&message.header(id, false)[..], message.metadata()].concat()
}

fn answers(peer: &mut Raw) -> Vec<(u64, CallAnswer)> {
    ResumeAnswer::decode(&peer.next_of(Kind::ResumeAnswer).body).unwrap().calls
}

fn a_resume_of_another_servers_calls() -> Case {
    Case::new(CUT, |address| {
        let (mut peer, _) = introduced(address, random_id());
        peer.send(&resume(random_id(), &[(1, CallState::Sent), (2, CallState::Acknowledged)]));
        let unknown = CallAnswer::UnknownSession;
        assert_eq!(answers(&mut peer), [(1, unknown), (2, unknown)]);
    })
}

fn a_resume_of_all_the_calls_that_fit() -> Case {
    Case::new(CUT, |address| {
        let (mut peer, hello) = introduced(address, random_id());
        let calls: Vec<_> = (1..=MOST_CALLS).map(|id| (id, CallState::Sent)).collect();
        peer.send(&resume(hello.instance, &calls));
        assert!(answers(&mut peer).iter().all(|(_, answer)| *answer == CallAnswer::Missing));
    })
}

fn a_resume_without_a_session() -> Case {
    Case::new("is not allowed", |address| {
        let (mut peer, hello) = introduced(address, Id128::NONE);
        peer.send(&resume(hello.instance, &[]));
        is_sent_away(&mut peer, "is not allowed");
    })
}

fn resumes_out_of_turn() -> Case {
    Case::times("came out of turn", 2, |address, nth| {
        let (mut peer, hello) = introduced(address, random_id());
        peer.send(&if nth == 0 { surviving(1) } else { resume(hello.instance, &[]) });
        peer.send(&resume(hello.instance, &[]));
        is_sent_away(&mut peer, "came out of turn");
    })
}

fn acknowledgements_of_calls_that_were_never_made() -> Case {
    Case::new("names message 7", |address| {
        let (mut peer, _) = introduced(address, random_id());
        peer.send(&surviving(6));
        peer.send(&frame(Kind::Ack, 0, &encode_ids(&[7])));
        is_sent_away(&mut peer, "names message 7");
    })
}

fn a_call_before_the_resume_of_earlier_ones() -> Case {
    Case::new("came before the resume", |address| {
        let session = random_id();
        let (mut first, _) = introduced(address, session);
        first.send(&surviving(1));
        first.next_of(Kind::Result);
        let (mut second, _) = introduced(address, session);
        first.until_silent_end();
        second.send(&surviving(2));
        is_sent_away(&mut second, "came before the resume");
    })
}

fn answers_that_are_never_acknowledged() -> Case {
    Case::new("were not acknowledged", |address| {
        let (mut peer, hello) = introduced(address, random_id());
        let most = 2 * u64::from(hello.max_open_calls);
        let ids: Vec<u64> = (1..=most + 1).collect();
        for ids in ids.chunks(1000) {
            peer.send(&ids.iter().flat_map(|id| surviving(*id)).collect::<Vec<u8>>());
            ids.iter().for_each(|_| drop(peer.next_of(Kind::Result)));
        }
        peer.send(&surviving(most + 2));
        is_sent_away(&mut peer, "were not acknowledged");
    })
}

fn a_session_that_is_taken_over_again_and_again() -> Case {
    Case::new(CUT, |address| {
        let session = random_id();
        let mut before: Option<Raw> = None;
        for _ in 0..50 {
            let (mut peer, hello) = introduced(address, session);
            if let Some(mut before) = before.take() {
                before.until_silent_end();
            }
            // Answers that the previous connection did not acknowledge are sent again.
            peer.send(&resume(hello.instance, &[(1, CallState::Sent)]));
            match answers(&mut peer)[..] {
                [(1, CallAnswer::Missing)] => peer.send(&surviving(1)),
                [(1, CallAnswer::Done | CallAnswer::Running)] => {}
                ref other => panic!("{other:?}"),
            }
            peer.next_of(Kind::Result);
            before = Some(peer);
        }
    })
}

cases![
    a_resume_of_another_servers_calls,
    a_resume_of_all_the_calls_that_fit,
    a_resume_without_a_session,
    resumes_out_of_turn,
    acknowledgements_of_calls_that_were_never_made,
    a_call_before_the_resume_of_earlier_ones,
    answers_that_are_never_acknowledged,
    a_session_that_is_taken_over_again_and_again,
];
