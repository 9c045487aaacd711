//! The errors with which the server itself answers calls.

use teleport_transport::wire::{EncodeError, ErrorKind, Ran, RemoteError};

/// Returns the answer to a call that could not start before the server closed.
pub(crate) fn closing() -> RemoteError {
    RemoteError::new(ErrorKind::Closing, Ran::No, "the server is closing and starts no more calls")
}

/// Returns the answer to a call that was withdrawn before it started.
pub(crate) fn cancelled() -> RemoteError {
    RemoteError::new(ErrorKind::Cancelled, Ran::No, "the caller withdrew the call before it started")
}

/// Returns the answer to a call that did not start in time.
pub(crate) fn late() -> RemoteError {
    RemoteError::new(ErrorKind::Deadline, Ran::No, "the call's time was over before it could start")
}

/// Returns the answer to a call for which a limit of the server leaves no room.
pub(crate) fn overloaded(text: String) -> RemoteError {
    RemoteError::new(ErrorKind::Overloaded, Ran::No, text)
}

/// Returns the answer to a call that ran, but whose caller does not accept the result.
pub(crate) fn unsendable(error: &EncodeError) -> RemoteError {
    let kind = match error {
        EncodeError::TooLarge { .. } | EncodeError::MetadataTooLarge { .. } => ErrorKind::TooLarge,
        _ => ErrorKind::Failed,
    };
    RemoteError::new(kind, Ran::Yes, format!("the result cannot be sent: {error}"))
}
