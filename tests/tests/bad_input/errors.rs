//! Bad calls that fail alone and leave their connection open.

use teleport::tree;
use teleport::wire::{CallHead, ErrorKind, Header, Kind, Limits, Message, Ran, RemoteError};
use teleport_tests::{Raw, Received};

use crate::case::{Case, cases};
use crate::made::{echo, good_frame, ungranted};

/// Returns the error in a frame that answers call `id`.
#[track_caller]
fn error_of(frame: &Received, id: u64) -> RemoteError {
    assert_eq!(frame.header.id, id);
    RemoteError::decode(&frame.body).unwrap()
}

fn a_method_that_does_not_exist() -> Case {
    Case::unnoticed(|address| {
        let (mut peer, _) = Raw::introduced(address);
        let head = CallHead::new("../../etc/passwd\n\u{1b}[2J");
        let message = Message::call(&head, &tree!("text"), &Limits::default()).unwrap();
        peer.send_eager(1, &message);
        let error = error_of(&peer.next_of(Kind::Error), 1);
        assert_eq!((error.kind, error.ran), (ErrorKind::UnknownMethod, Ran::No));
        peer.send_eager(2, &echo(&tree!("the connection goes on")));
        assert_eq!(peer.next_of(Kind::Result).header.id, 2);
        peer.send(&good_frame(Kind::Goodbye));
        peer.until_closed();
    })
}

fn a_string_that_is_not_utf8() -> Case {
    Case::unnoticed(|address| {
        let (mut peer, _) = Raw::introduced(address);
        let message = echo(&tree!("text"));
        peer.send_head(1, &message, true);
        peer.send(&Header::data(1, 4, None).encode());
        peer.send(&[0xFF; 4]);
        let error = error_of(&peer.next_of(Kind::Error), 1);
        assert_eq!((error.kind, error.ran), (ErrorKind::BadArguments, Ran::No));
        peer.send_eager(2, &echo(&tree!("the connection goes on")));
        assert_eq!(peer.next_of(Kind::Result).header.id, 2);
        peer.send(&good_frame(Kind::Goodbye));
        peer.until_closed();
    })
}

fn a_name_that_would_break_the_log() -> Case {
    Case::new("came before its grant", |address| {
        let mut peer = Raw::connect(address);
        peer.introduce(&teleport::wire::Hello {
            name: "evil\nINFO all is well\u{1b}[2J".into(),
            ..Raw::hello()
        });
        peer.send(&ungranted());
        peer.until_closed();
    })
}

cases![a_method_that_does_not_exist, a_string_that_is_not_utf8, a_name_that_would_break_the_log,];
