//! The connections of a server that have not ended.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use teleport_transport::Link;

/// Links by their keys. Weak, since each link owns its connection, which refers to this list.
#[derive(Debug, Default)]
pub(crate) struct ConnectionList {
    links: Mutex<HashMap<usize, Weak<Link>>>,
}

impl ConnectionList {
    /// Adds a link, unless it has ended.
    pub(crate) fn add(&self, link: &Arc<Link>) {
        let mut links = self.links.lock();
        // A link that has ended by now was removed before it was added.
        if link.closed().is_none() {
            links.insert(link.key(), Arc::downgrade(link));
        }
    }

    pub(crate) fn remove(&self, link: &Link) {
        self.links.lock().remove(&link.key());
    }

    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().filter_map(Weak::upgrade).collect()
    }
}
