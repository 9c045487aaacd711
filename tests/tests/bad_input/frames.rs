//! Valid frames that are not allowed in the state of the connection.

use teleport::tree;
use teleport::wire::{Header, Kind, Preface, encode_ids};
use teleport_tests::Raw;

use crate::case::{Case, cases, liar, liars};
use crate::made::{NOBODY, changed, echo, frame, good_frame};

fn any_frame_before_hello() -> Case {
    let early = Kind::all().filter(|kind| !matches!(kind, Kind::Hello | Kind::Goodbye)).collect::<Vec<_>>();
    assert_eq!(early.len(), 15);
    Case::times("came before the hello", 15, move |address, nth| {
        let mut peer = Raw::connect(address);
        peer.send(&Preface::BYTES);
        peer.send(&good_frame(early[nth]));
        peer.until_silent_end();
    })
}

fn a_second_hello() -> Case {
    liar("Hello is not allowed", |peer| peer.send(&good_frame(Kind::Hello)))
}

fn frames_of_features_that_were_not_agreed_on() -> Case {
    let kinds = [Kind::Ack, Kind::Resume, Kind::ResumeAnswer, Kind::Block, Kind::Release];
    liars("is not allowed", kinds.map(good_frame).to_vec())
}

fn a_result_or_an_error_sent_to_a_server() -> Case {
    liars("is not allowed", [Kind::Result, Kind::Error].map(good_frame).to_vec())
}

fn frames_for_messages_that_nobody_has_sent() -> Case {
    let frames = [
        [&Header::data(NOBODY, 4, None).encode()[..], b"text"].concat(),
        Header::empty(Kind::Abort, NOBODY).encode().to_vec(),
        Header::empty(Kind::Cancel, NOBODY).encode().to_vec(),
        frame(Kind::Grant, 0, &encode_ids(&[NOBODY])),
    ];
    liars("names message 77, which is not open", frames.to_vec())
}

fn an_unknown_kind_that_must_not_be_skipped() -> Case {
    let bytes = changed(Header::empty(Kind::Ping, 1), |bytes| bytes[0] = 0x7F);
    liar("127", move |peer| peer.send(&bytes))
}

fn an_id_that_was_used_before() -> Case {
    liar("ids must increase", |peer| {
        peer.send_eager(5, &echo(&tree!(1)));
        peer.next_of(Kind::Result);
        peer.send_eager(5, &echo(&tree!(2)));
    })
}

fn ids_that_were_used_before() -> Case {
    let again = |id: u64| {
        let message = echo(&tree!(null));
        // The first call may still be open, answered or aborted.
        let head = |id| [&message.header(id, false)[..], message.metadata()].concat();
        let abort = Header::empty(Kind::Abort, 5).encode();
        [&head(5)[..], &abort, &head(id)].concat()
    };
    liars("ids must increase", [5, 4, 1].map(again).to_vec())
}

fn a_frame_after_goodbye() -> Case {
    // The goodbye ends the connection properly, and the server ignores everything after it.
    Case::unnoticed(|address| {
        let (mut peer, _) = Raw::introduced(address);
        peer.send(&good_frame(Kind::Goodbye));
        peer.send_eager(1, &echo(&tree!("text")));
        let frames = peer.until_closed();
        assert!(frames.iter().all(|frame| frame.header.kind != Kind::Result), "{frames:?}");
    })
}

fn a_goodbye_before_hello() -> Case {
    Case::unnoticed(|address| {
        let mut peer = Raw::connect(address);
        peer.send(&Preface::BYTES);
        peer.send(&good_frame(Kind::Goodbye));
        peer.until_silent_end();
    })
}

cases![
    any_frame_before_hello,
    a_second_hello,
    frames_of_features_that_were_not_agreed_on,
    a_result_or_an_error_sent_to_a_server,
    frames_for_messages_that_nobody_has_sent,
    an_unknown_kind_that_must_not_be_skipped,
    an_id_that_was_used_before,
    ids_that_were_used_before,
    a_frame_after_goodbye,
    a_goodbye_before_hello,
];
