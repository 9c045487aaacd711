//! The right to write to one socket: a value that one thread at a time owns.
//!
//! The token is under the lock of the send queue. A thread that queues something takes the value if it is
//! free, and writes. Otherwise the owner of the value, or the event loop, finds what was queued: the owner
//! returns the value only under the lock and when the queue is empty. So nothing queued is left behind, and
//! no thread waits to write.

/// The location of the value.
#[derive(Debug)]
pub(super) enum WriteToken<T> {
    /// Nobody writes.
    Free(T),
    /// A thread writes.
    Taken,
    /// The socket is full, or its writer had its turn: the event loop writes next.
    Blocked(T),
}

impl<T> WriteToken<T> {
    /// Returns true if no thread writes and the socket is not known to be full.
    pub(super) fn is_free(&self) -> bool {
        matches!(self, WriteToken::Free(_))
    }

    /// Returns the value if no thread writes.
    pub(super) fn idle_mut(&mut self) -> Option<&mut T> {
        match self {
            WriteToken::Free(value) | WriteToken::Blocked(value) => Some(value),
            WriteToken::Taken => None,
        }
    }

    /// Takes the value to write with, unless another thread or the event loop has it.
    pub(super) fn take(&mut self) -> Option<T> {
        match std::mem::replace(self, WriteToken::Taken) {
            WriteToken::Free(value) => Some(value),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Takes the value after the socket became writable, if it was blocked. Only for the event loop.
    pub(super) fn unblock(&mut self) -> Option<T> {
        match std::mem::replace(self, WriteToken::Taken) {
            WriteToken::Blocked(value) => Some(value),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Returns the value, because nothing is queued.
    pub(super) fn free(&mut self, value: T) {
        *self = WriteToken::Free(value);
    }

    /// Leaves the value to the event loop, which takes it with `unblock`.
    pub(super) fn block(&mut self, value: T) {
        *self = WriteToken::Blocked(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_token_belongs_to_the_event_loop() {
        let mut token = WriteToken::Free(7);
        assert!(token.is_free());
        let value = token.take().expect("it is free");
        assert!(!token.is_free() && token.take().is_none() && token.unblock().is_none());
        token.block(value);
        assert!(!token.is_free() && token.take().is_none());
        let value = token.unblock().expect("it is blocked");
        assert!(token.unblock().is_none());
        token.free(value);
        assert!(token.is_free());
    }
}
