//! The reasons for failed calls, grouped by what the caller can do next.
//!
//! The texts name the value, the limit and the remedy. Texts from the server are unchanged.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::{DecodeError, EncodeError, ErrorKind, Key, Ran, RemoteError, TreeError};

use crate::error::connect::{AttemptError, last_attempt};

/// The reason why a call has no result.
///
/// [`ran`](CallError::ran) returns whether its function ran, and so whether calling again is safe.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server answered with an error: the function failed or panicked, there is no such method, the
    /// arguments do not fit it, or the server is overloaded. [`RemoteFailure::kind`] says which.
    #[error(transparent)]
    Remote(Box<RemoteFailure>),
    /// The server is closing or has closed. Call another server, or the same one after its restart.
    #[error("{method}: the server is closing{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Closing {
        /// The method.
        method: Key,
        /// The server's text, which may be empty.
        reason: String,
        /// `No` if the server refused the call, `Maybe` if it closed before it answered.
        ran: Ran,
    },
    /// Nothing arrived from the server for too long: it hangs, was stopped, or is cut off.
    #[error(
        "{method}: nothing was received from the server for {silence:.1?}, longer than `max_silence` ({max_silence:?})"
    )]
    NotAlive {
        /// The method.
        method: Key,
        /// The time since the last bytes from the server.
        silence: Duration,
        /// The client's limit.
        max_silence: Duration,
        /// `No` if no byte of the call was sent, `Maybe` otherwise.
        ran: Ran,
    },
    /// The connection broke before the answer arrived. The client connects again by itself.
    #[error("{method}: disconnected before the answer came: {reason}")]
    Disconnected {
        /// The method.
        method: Key,
        /// The reason for the end of the connection.
        reason: Arc<Closed>,
        /// `No` if no byte of the call was sent, `Maybe` otherwise.
        ran: Ran,
    },
    /// One side broke the protocol, and the connection ended. One of the two programs has a bug.
    #[error("{method}: {reason}")]
    Protocol {
        /// The method.
        method: Key,
        /// The rule that was broken.
        reason: Arc<Closed>,
        /// `No` if no byte of the call was sent, `Maybe` otherwise.
        ran: Ran,
    },
    /// The time limit of the call passed before its result arrived: its deadline, or the time that the server
    /// gives a batch to fill.
    #[error(
        "{method}: no result in time{}{}{reason}",
        time.map_or(String::new(), |time| format!(" ({time:?})")),
        if reason.is_empty() { "" } else { ": " }
    )]
    Deadline {
        /// The method.
        method: Key,
        /// The time limit of the call, if this side knows it.
        time: Option<Duration>,
        /// The server's text. Empty if this side gave up.
        reason: String,
        /// `No` if the call was never sent completely, or if the server dropped it before it started. `Maybe`
        /// otherwise.
        ran: Ran,
    },
    /// The call was withdrawn.
    #[error("{method}: the call was cancelled")]
    Cancelled {
        /// The method.
        method: Key,
        /// `No` if it had not started.
        ran: Ran,
    },
    /// The arguments are larger than the server accepts. Nothing was sent.
    #[error(
        "{method}: the arguments take {bytes} bytes and the server accepts {max_bytes} in one message: split them, or \
        raise the server's `max_message_bytes` (at most three quarters of its `max_memory`)"
    )]
    TooLarge {
        /// The method.
        method: Key,
        /// Bytes of memory that the arguments take at the server.
        bytes: u64,
        /// The server's limit.
        max_bytes: u64,
    },
    /// The method's name or the structure of the arguments exceeds a limit. Nothing was sent.
    #[error("{method}: {source}")]
    Encode {
        /// The method.
        method: Key,
        /// The limit.
        source: EncodeError,
    },
    /// The function did not return what this call expects.
    #[error("{method}: the result does not fit: {source}")]
    Reply {
        /// The method.
        method: Key,
        /// The value that was found, and the expected one.
        source: Box<TreeError>,
    },
    /// The function returned a string that is not UTF-8.
    #[error("{method}: the result cannot be read: {source}")]
    Garbled {
        /// The method.
        method: Key,
        /// The string, and its first wrong byte.
        source: Box<DecodeError>,
    },
    /// [`try_send`](crate::Call::try_send) found no free slot.
    #[error("{method}: {max_inflight} calls are in flight, which is all that are allowed (`max_inflight`)")]
    Full {
        /// The method.
        method: Key,
        /// The lower of the client's limit and the server's.
        max_inflight: usize,
    },
    /// There was no connection within the time that a call waits for one.
    #[error(
        "{method}: no connection to {address} within {waited:.1?} (`connect_timeout`){}",
        last_attempt(last.as_deref())
    )]
    Connect {
        /// The method.
        method: Key,
        /// The address of the client.
        address: Arc<str>,
        /// The time that the call waited.
        waited: Duration,
        /// The reason for the failure of the last attempt, if there was one.
        last: Option<Arc<AttemptError>>,
    },
    /// The client was closed.
    #[error("{method}: the client was closed")]
    Closed {
        /// The method.
        method: Key,
        /// `No` if the call was not sent before that.
        ran: Ran,
    },
    /// The call was made on a poller's thread, which would have waited for itself. Call from another thread,
    /// or use `try_send` or `.await`.
    #[error(
        "{method}: waiting on a poller's thread would wait for itself: wait on another thread, or `.await`"
    )]
    OnPoller {
        /// The method.
        method: Key,
        /// `No` if the call was not sent. `Maybe` otherwise, since it continues.
        ran: Ran,
    },
    /// This process was forked from the client's. Execute a program instead, as `std::process::Command` and
    /// the crate `teleport-proc` do, and connect there.
    #[error(
        "{method}: the client belongs to the process that this one was forked from: execute a program instead, and \
        connect there"
    )]
    Forked {
        /// The method.
        method: Key,
        /// `No` if the call was made here. `Maybe` otherwise, since it continues in the other process.
        ran: Ran,
    },
    /// An earlier call whose future was dropped failed. This call was not sent. See
    /// [`errors_from_next_call`](crate::ClientBuilder::errors_from_next_call).
    #[error("an earlier call failed: {source}")]
    Earlier {
        /// The reason why that call failed.
        source: Box<CallError>,
    },
}

impl CallError {
    /// Returns whether the function of this call ran, which matters before calling again.
    ///
    /// ```
    /// use teleport_client::{CallError, wire::Ran};
    /// let error = CallError::Full { method: "act".into(), max_inflight: 16 };
    /// assert_eq!(error.ran(), Ran::No); // safe to try again
    /// ```
    pub fn ran(&self) -> Ran {
        match self {
            CallError::Remote(failure) => failure.ran(),
            CallError::Closing { ran, .. }
            | CallError::Deadline { ran, .. }
            | CallError::Cancelled { ran, .. }
            | CallError::Closed { ran, .. }
            | CallError::NotAlive { ran, .. }
            | CallError::Disconnected { ran, .. }
            | CallError::Protocol { ran, .. }
            | CallError::OnPoller { ran, .. }
            | CallError::Forked { ran, .. } => *ran,
            CallError::TooLarge { .. }
            | CallError::Encode { .. }
            | CallError::Full { .. }
            | CallError::Connect { .. }
            | CallError::Earlier { .. } => Ran::No,
            CallError::Reply { .. } | CallError::Garbled { .. } => Ran::Yes,
        }
    }

    /// Returns the name of the method that was called.
    pub fn method(&self) -> &str {
        match self {
            CallError::Remote(failure) => failure.method(),
            CallError::Earlier { source } => source.method(),
            CallError::Closing { method, .. }
            | CallError::NotAlive { method, .. }
            | CallError::Disconnected { method, .. }
            | CallError::Protocol { method, .. }
            | CallError::Deadline { method, .. }
            | CallError::Cancelled { method, .. }
            | CallError::TooLarge { method, .. }
            | CallError::Encode { method, .. }
            | CallError::Reply { method, .. }
            | CallError::Garbled { method, .. }
            | CallError::Full { method, .. }
            | CallError::Connect { method, .. }
            | CallError::Closed { method, .. }
            | CallError::OnPoller { method, .. }
            | CallError::Forked { method, .. } => method,
        }
    }

    /// Returns the error of a call that the server answered with one.
    pub(crate) fn remote(method: Key, error: RemoteError) -> CallError {
        let ran = error.ran;
        match error.kind {
            ErrorKind::Closing => CallError::Closing { method, reason: error.message, ran },
            ErrorKind::Deadline => CallError::Deadline { method, time: None, reason: error.message, ran },
            ErrorKind::Cancelled => CallError::Cancelled { method, ran },
            _ => CallError::Remote(Box::new(RemoteFailure { method, error })),
        }
    }

    /// Returns the error of a call whose connection ended.
    pub(crate) fn lost(method: Key, reason: &Arc<Closed>, ran: Ran) -> CallError {
        match &**reason {
            Closed::NotAlive { silence, max_silence } => {
                CallError::NotAlive { method, silence: *silence, max_silence: *max_silence, ran }
            }
            Closed::Goodbye { kind: None | Some(ErrorKind::Closing), reason } => {
                CallError::Closing { method, reason: reason.clone(), ran }
            }
            Closed::Protocol(_) | Closed::Goodbye { kind: Some(ErrorKind::Protocol), .. } => {
                CallError::Protocol { method, reason: reason.clone(), ran }
            }
            _ => CallError::Disconnected { method, reason: reason.clone(), ran },
        }
    }

    pub(crate) fn encode(method: Key, error: EncodeError) -> CallError {
        match error {
            EncodeError::TooLarge { bytes, max_bytes } => CallError::TooLarge { method, bytes, max_bytes },
            source => CallError::Encode { method, source },
        }
    }
}

/// An error that the server answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFailure {
    method: Key,
    error: RemoteError,
}

impl RemoteFailure {
    /// Returns the name of the method that was called.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the kind of failure: the function failed, it panicked, there is no such method, …
    pub fn kind(&self) -> ErrorKind {
        self.error.kind
    }

    /// Returns the application's own code. Empty if it set none.
    pub fn code(&self) -> &str {
        &self.error.code
    }

    /// Returns the server's text for people.
    pub fn message(&self) -> &str {
        &self.error.message
    }

    /// Returns the place in the server's program, if the server sends it.
    pub fn backtrace(&self) -> Option<&str> {
        self.error.backtrace.as_deref()
    }

    /// Returns whether the function ran.
    pub fn ran(&self) -> Ran {
        self.error.ran
    }
}

impl fmt::Display for RemoteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", &*self.method, self.error)
    }
}

impl std::error::Error for RemoteFailure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::connect::ClientError;
    use teleport_transport::wire::{Tree, tree};

    fn method() -> Key {
        Key::from_static("act")
    }

    #[test]
    fn every_variant_says_whether_the_call_ran() {
        let silence = Duration::from_secs(121);
        let reason = Arc::new(Closed::Lost { error: None });
        let remote = |kind, ran| CallError::remote(method(), RemoteError::new(kind, ran, "why"));
        let garbled = DecodeError::NotUtf8 { field: "string", at: 3 };
        let full = || CallError::Full { method: method(), max_inflight: 16 };
        let cases = [
            (remote(ErrorKind::Failed, Ran::Yes), Ran::Yes),
            (remote(ErrorKind::UnknownMethod, Ran::No), Ran::No),
            (remote(ErrorKind::Expired, Ran::Yes), Ran::Yes),
            (remote(ErrorKind::Closing, Ran::No), Ran::No),
            (remote(ErrorKind::Deadline, Ran::No), Ran::No),
            (remote(ErrorKind::Cancelled, Ran::Maybe), Ran::Maybe),
            (CallError::Closing { method: method(), reason: String::new(), ran: Ran::Maybe }, Ran::Maybe),
            (
                CallError::NotAlive { method: method(), silence, max_silence: silence, ran: Ran::Maybe },
                Ran::Maybe,
            ),
            (
                CallError::Disconnected { method: method(), reason: reason.clone(), ran: Ran::Maybe },
                Ran::Maybe,
            ),
            (CallError::Disconnected { method: method(), reason: reason.clone(), ran: Ran::No }, Ran::No),
            (CallError::Protocol { method: method(), reason, ran: Ran::Maybe }, Ran::Maybe),
            (
                CallError::Deadline {
                    method: method(),
                    time: Some(silence),
                    reason: String::new(),
                    ran: Ran::No,
                },
                Ran::No,
            ),
            (CallError::Cancelled { method: method(), ran: Ran::No }, Ran::No),
            (CallError::TooLarge { method: method(), bytes: 2, max_bytes: 1 }, Ran::No),
            (CallError::encode(method(), EncodeError::TooDeep { max_depth: 64 }), Ran::No),
            (
                CallError::Reply {
                    method: method(),
                    source: Box::new(tree!(1).field::<i64>("a").unwrap_err()),
                },
                Ran::Yes,
            ),
            (CallError::Garbled { method: method(), source: Box::new(garbled) }, Ran::Yes),
            (full(), Ran::No),
            (
                CallError::Connect { method: method(), address: "a".into(), waited: silence, last: None },
                Ran::No,
            ),
            (CallError::Closed { method: method(), ran: Ran::No }, Ran::No),
            (CallError::Closed { method: method(), ran: Ran::Maybe }, Ran::Maybe),
            (CallError::OnPoller { method: method(), ran: Ran::Maybe }, Ran::Maybe),
            (CallError::Forked { method: method(), ran: Ran::Maybe }, Ran::Maybe),
            (CallError::Earlier { source: Box::new(remote(ErrorKind::Failed, Ran::Yes)) }, Ran::No),
        ];
        for (error, ran) in cases {
            assert_eq!(error.ran(), ran, "{error:?}");
            assert_eq!(error.method(), "act");
            assert!(!error.to_string().contains("  "), "{error}");
        }
    }

    #[test]
    fn the_text_of_a_server_says_whose_time_was_over() {
        let error = RemoteError::new(ErrorKind::Deadline, Ran::No, "only 3 of 4 calls have come");
        let error = CallError::remote(method(), error);
        assert!(matches!(error, CallError::Deadline { time: None, ran: Ran::No, .. }));
        assert!(error.to_string().ends_with("no result in time: only 3 of 4 calls have come"), "{error}");
    }

    #[test]
    fn errors_of_connections_are_grouped() {
        let lost = |closed| CallError::lost(method(), &Arc::new(closed), Ran::Maybe);
        let goodbye = |kind| Closed::Goodbye { kind, reason: "done".into() };
        assert!(matches!(
            lost(goodbye(Some(ErrorKind::Closing))),
            CallError::Closing { ran: Ran::Maybe, .. }
        ));
        assert!(matches!(lost(goodbye(Some(ErrorKind::Protocol))), CallError::Protocol { .. }));
        assert!(matches!(lost(goodbye(Some(ErrorKind::Overloaded))), CallError::Disconnected { .. }));
        assert!(matches!(lost(Closed::Lost { error: None }), CallError::Disconnected { .. }));
        let second = Duration::from_secs(1);
        let silent = Closed::NotAlive { silence: second, max_silence: second };
        assert!(matches!(lost(silent), CallError::NotAlive { .. }));
    }

    #[test]
    fn errors_travel_between_threads_and_are_small() {
        fn check<E: std::error::Error + Send + Sync + 'static>() {}
        check::<CallError>();
        check::<ClientError>();
        check::<AttemptError>();
        assert!(size_of::<CallError>() <= 80);
        assert!(size_of::<Result<Tree, CallError>>() <= 128);
    }
}
