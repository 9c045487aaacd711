//! Errors that the server itself answers calls with.

use teleport_transport::wire::{EncodeError, ErrorKind, Ran, RemoteError};

/// What a call is answered with when the server closes before it could start.
pub(crate) fn closing() -> RemoteError {
    RemoteError::new(ErrorKind::Closing, Ran::No, "the server is closing and starts no more calls")
}

/// What a withdrawn call is answered with, if it had not started.
pub(crate) fn cancelled() -> RemoteError {
    RemoteError::new(ErrorKind::Cancelled, Ran::No, "the caller withdrew the call before it started")
}

/// What a call is told that did not start in time.
pub(crate) fn late() -> RemoteError {
    RemoteError::new(ErrorKind::Deadline, Ran::No, "the call's time was over before it could start")
}

/// What a call is answered with when a limit of the server leaves no room for it.
pub(crate) fn overloaded(text: String) -> RemoteError {
    RemoteError::new(ErrorKind::Overloaded, Ran::No, text)
}

/// The function ran, but its caller does not accept the result.
pub(crate) fn unsendable(error: &EncodeError) -> RemoteError {
    let kind = match error {
        EncodeError::TooLarge { .. } | EncodeError::MetadataTooLarge { .. } => ErrorKind::TooLarge,
        _ => ErrorKind::Failed,
    };
    RemoteError::new(kind, Ran::Yes, format!("the result cannot be sent: {error}"))
}
