//! The connection on which a thread sent its last call, so that its next call finds it without a lock.
//!
//! It may be over, or that of a client that is gone: registering a call on it finds that out under the lock
//! of the client's state. Bound: one weak reference for each thread, which keeps the memory of one closed
//! link.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use teleport_transport::Link;
use teleport_transport::wire::Limits;

use crate::engine::shared::Engine;

struct LastLink {
    /// The address of the engine. That of a client that is gone may be used again.
    engine: usize,
    link: Weak<Link>,
    /// The limits of the server.
    limits: Limits,
}

thread_local! {
    static LAST: RefCell<Option<LastLink>> = const { RefCell::new(None) };
}

impl Engine {
    /// Returns the link of this thread's last call, if that was one of this client, and the limits of its
    /// server.
    pub(crate) fn last_link(&self) -> Option<(Arc<Link>, Limits)> {
        // Fails while the thread ends.
        let last = LAST.try_with(|last| {
            let last = last.borrow();
            let last = last.as_ref().filter(|last| last.engine == self.address())?;
            Some((last.link.upgrade()?, last.limits))
        });
        last.ok().flatten()
    }

    /// Notes the link of a call, or forgets that of the last one.
    pub(crate) fn set_last_link(&self, link: Option<(&Arc<Link>, Limits)>) {
        let engine = self.address();
        let last = link.map(|(link, limits)| LastLink { engine, link: Arc::downgrade(link), limits });
        let before = LAST.try_with(|current| current.replace(last));
        drop(before);
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
