//! The kinds of errors, their numbers, and the error that ends a call.
//!
//! The numbers are part of the format and never change their meaning. Unknown numbers are kept, so that an
//! older client can show the error of a newer server.

use std::fmt;

use crate::format::decode_error::DecodeError;
use crate::format::limits::{MAX_BACKTRACE_BYTES, MAX_CODE_BYTES, MAX_ERROR_BYTES};
use crate::format::reader::{Reader, at_most, truncate};

/// The reason why a call or a connection ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 1: the server has no method of this name.
    UnknownMethod,
    /// 2: the arguments do not fit the method.
    BadArguments,
    /// 3: the function returned an error.
    Failed,
    /// 4: the function panicked.
    Panicked,
    /// 5: the server is closing and starts no more calls.
    Closing,
    /// 6: a bound on calls, memory or connections is reached.
    Overloaded,
    /// 7: the deadline passed before the call ended.
    Deadline,
    /// 8: the caller withdrew the call.
    Cancelled,
    /// 9: the transfer was slower than the receiver allows while others wait for memory.
    TooSlow,
    /// 10: a message is larger than its receiver can ever accept.
    TooLarge,
    /// 11: the peer broke a rule of the format.
    Protocol,
    /// 12: the call ran, and its result was dropped before it could be delivered.
    Expired,
    /// 13: a checksum shows that the payload was damaged in transit.
    Checksum,
    /// 14: the peer is not allowed to do this.
    Unauthorized,
    /// 15: a failure of the server itself.
    Internal,
    /// A number without a name in this version. Zero is never valid.
    Other(u16),
}

/// Numbers and names, in the order of the numbers from 1.
const KINDS: [(ErrorKind, &str); 15] = [
    (ErrorKind::UnknownMethod, "unknown method"),
    (ErrorKind::BadArguments, "bad arguments"),
    (ErrorKind::Failed, "failed"),
    (ErrorKind::Panicked, "panicked"),
    (ErrorKind::Closing, "closing"),
    (ErrorKind::Overloaded, "overloaded"),
    (ErrorKind::Deadline, "deadline"),
    (ErrorKind::Cancelled, "cancelled"),
    (ErrorKind::TooSlow, "too slow"),
    (ErrorKind::TooLarge, "too large"),
    (ErrorKind::Protocol, "protocol"),
    (ErrorKind::Expired, "expired"),
    (ErrorKind::Checksum, "checksum"),
    (ErrorKind::Unauthorized, "unauthorized"),
    (ErrorKind::Internal, "internal"),
];

impl ErrorKind {
    /// Returns the number on the wire.
    pub fn number(self) -> u16 {
        match self {
            ErrorKind::Other(number) => number,
            known => (KINDS.iter().take_while(|(kind, _)| *kind != known).count() + 1) as u16,
        }
    }

    /// Returns the kind with this number, or `Other` if this version has no name for it.
    pub fn from_number(number: u16) -> ErrorKind {
        let index = usize::from(number).wrapping_sub(1);
        KINDS.get(index).map_or(ErrorKind::Other(number), |(kind, _)| *kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KINDS.get(usize::from(self.number()).wrapping_sub(1)) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "error kind {}", self.number()),
        }
    }
}

/// Tells whether a call's function ran, and so whether it is safe to call it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ran {
    /// The function never started. Calling again is safe.
    No = 0,
    /// The function may have run, at least in part. Call again only if it may run twice.
    Maybe = 1,
    /// The function ran, at least in part. Calling again repeats it.
    Yes = 2,
}

impl Ran {
    fn from_number(number: u8) -> Result<Ran, DecodeError> {
        let known = [Ran::No, Ran::Maybe, Ran::Yes];
        let unknown = DecodeError::UnknownValue { field: "error ran", value: u64::from(number) };
        known.get(usize::from(number)).copied().ok_or(unknown)
    }
}

/// The error that ended a call: the body of an error frame.
///
/// ```
/// use teleport_wire::{ErrorKind, Ran, RemoteError};
///
/// let error = RemoteError::new(ErrorKind::Failed, Ran::Yes, "no such file").with_code("ENOENT");
/// assert_eq!(RemoteError::decode(&error.encode()), Ok(error.clone()));
/// assert_eq!(error.to_string(), "failed [ENOENT]: no such file");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    /// The kind of error.
    pub kind: ErrorKind,
    /// Tells whether the function ran.
    pub ran: Ran,
    /// A code of the application, or empty. It is cut to [`MAX_CODE_BYTES`] when encoded.
    pub code: String,
    /// A text for people. It is cut to [`MAX_ERROR_BYTES`] when encoded.
    pub message: String,
    /// The place in the remote program, if it is known. It is cut to [`MAX_BACKTRACE_BYTES`] when encoded.
    pub backtrace: Option<String>,
}

impl RemoteError {
    /// Length of the part before the three texts.
    pub(crate) const FIXED_BYTES: usize = 16;

    /// Length of the longest body.
    pub(crate) const MAX_BYTES: usize =
        Self::FIXED_BYTES + MAX_CODE_BYTES + MAX_ERROR_BYTES + MAX_BACKTRACE_BYTES;

    /// Creates an error without a code and a backtrace.
    pub fn new(kind: ErrorKind, ran: Ran, message: impl Into<String>) -> RemoteError {
        RemoteError { kind, ran, code: String::new(), message: message.into(), backtrace: None }
    }

    /// Sets the code of the application.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> RemoteError {
        self.code = code.into();
        self
    }

    /// Encodes the body of an error frame. Texts above their limit are cut between two characters. An empty
    /// backtrace is decoded as `None`.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_parts(|parts| parts.concat())
    }

    /// Calls `join` with the parts of the body.
    pub(crate) fn encode_parts<T>(&self, join: impl FnOnce(&[&[u8]; 4]) -> T) -> T {
        let code = truncate(&self.code, MAX_CODE_BYTES);
        let message = truncate(&self.message, MAX_ERROR_BYTES);
        let backtrace = truncate(self.backtrace.as_deref().unwrap_or(""), MAX_BACKTRACE_BYTES);
        let kind = u32::from(self.kind.number()) | u32::from(self.ran as u8) << 16;
        let lengths = [code, message, backtrace].map(|text| text.len() as u32);
        let fixed = [kind, lengths[0], lengths[1], lengths[2]].map(u32::to_le_bytes);
        join(&[fixed.as_flattened(), code.as_bytes(), message.as_bytes(), backtrace.as_bytes()])
    }

    /// Decodes the body of an error frame.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the body breaks the format.
    pub fn decode(body: &[u8]) -> Result<RemoteError, DecodeError> {
        let mut reader = Reader::new(body);
        let kind = match reader.u16("error kind")? {
            0 => return Err(DecodeError::Zero { field: "error kind" }),
            number => ErrorKind::from_number(number),
        };
        let ran = Ran::from_number(reader.u8("error ran")?)?;
        reader.zeros(1, "error reserved")?;
        let code_bytes = length(&mut reader, MAX_CODE_BYTES, "error code bytes")?;
        let message_bytes = length(&mut reader, MAX_ERROR_BYTES, "error message bytes")?;
        let backtrace_bytes = length(&mut reader, MAX_BACKTRACE_BYTES, "error backtrace bytes")?;
        let code = reader.utf8(code_bytes, "error code")?;
        let message = reader.utf8(message_bytes, "error message")?;
        let backtrace = reader.utf8(backtrace_bytes, "error backtrace")?;
        reader.finish("error")?;
        let backtrace = (!backtrace.is_empty()).then(|| backtrace.to_owned());
        Ok(RemoteError { kind, ran, code: code.to_owned(), message: message.to_owned(), backtrace })
    }
}

fn length(reader: &mut Reader<'_>, max: usize, field: &'static str) -> Result<usize, DecodeError> {
    let value = reader.u32(field)?;
    at_most(u64::from(value), max as u64, field).map(|value| value as usize)
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RemoteError { kind, code, message, .. } = self;
        match code.as_str() {
            "" => write!(f, "{kind}: {message}"),
            code => write!(f, "{kind} [{code}]: {message}"),
        }
    }
}

impl std::error::Error for RemoteError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_one_kind() {
        for number in 0..=u16::MAX {
            assert_eq!(ErrorKind::from_number(number).number(), number);
        }
        assert_eq!(ErrorKind::UnknownMethod.number(), 1);
        assert_eq!(ErrorKind::Internal.number(), 15);
        assert_eq!(ErrorKind::from_number(16), ErrorKind::Other(16));
        assert_eq!(ErrorKind::Other(16).to_string(), "error kind 16");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut error = RemoteError::new(ErrorKind::Panicked, Ran::Yes, "é".repeat(MAX_ERROR_BYTES));
        error.code = "x".repeat(MAX_CODE_BYTES + 1);
        error.backtrace = Some(format!("a{}", "é".repeat(MAX_BACKTRACE_BYTES)));
        let body = error.encode();
        assert!(body.len() <= RemoteError::MAX_BYTES);
        let decoded = RemoteError::decode(&body).unwrap();
        assert_eq!(decoded.code.len(), MAX_CODE_BYTES);
        assert_eq!(decoded.message, "é".repeat(MAX_ERROR_BYTES / 2));
        assert_eq!(decoded.backtrace.unwrap().len(), MAX_BACKTRACE_BYTES - 1);
    }

    #[test]
    fn invalid_bodies_are_refused() {
        let body = RemoteError::new(ErrorKind::Failed, Ran::No, "why").encode();
        let broken = |at: usize, value: u8| {
            let mut body = body.clone();
            body[at] = value;
            RemoteError::decode(&body).unwrap_err()
        };
        assert_eq!(broken(0, 0), DecodeError::Zero { field: "error kind" });
        assert_eq!(broken(2, 3), DecodeError::UnknownValue { field: "error ran", value: 3 });
        assert_eq!(broken(3, 1), DecodeError::NotZero { field: "error reserved", value: 1 });
        assert_eq!(broken(8, 2), DecodeError::Trailing { what: "error", bytes: 1 });
        assert_eq!(broken(16, 0xFF), DecodeError::NotUtf8 { field: "error message", at: 0 });
    }
}
