//! The client of a connection, for its calls, and the table of its open calls.
//!
//! Each call refers to its caller, so the table is weak. A queue owns a call that has not started, and a
//! worker owns a running call.

use std::mem;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use teleport_transport::IdMap;
use teleport_transport::wire::{Hello, Limits};

use crate::call::open_call::OpenCall;
use crate::call::slow_reader::SlowReader;
use crate::runtime::shared::Shared;

/// The client of one connection, after its hello.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) shared: Arc<Shared>,
    /// The client's name, or its address if it has no name.
    pub(crate) name: String,
    /// The client's limits on messages.
    pub(crate) limits: Limits,
    /// The most calls that the client will have open; 0 if unknown.
    pub(crate) max_inflight: u32,
    pub(crate) slow_reader: SlowReader,
    /// Calls without an answer, except those of a session and inline calls that are not throttled.
    open: Mutex<IdMap<Weak<OpenCall>>>,
}

impl Caller {
    pub(crate) fn new(shared: &Arc<Shared>, address: &str, hello: &Hello) -> Arc<Caller> {
        let name = if hello.name.is_empty() { address } else { &hello.name };
        Arc::new(Caller {
            shared: shared.clone(),
            name: name.to_owned(),
            limits: hello.limits,
            max_inflight: hello.max_open_calls,
            slow_reader: SlowReader::default(),
            open: Mutex::default(),
        })
    }

    /// Adds a call to the table.
    pub(crate) fn opened(&self, call: &Arc<OpenCall>) {
        self.open.lock().insert(call.id, Arc::downgrade(call));
    }

    /// Removes a call that was answered.
    pub(crate) fn answered(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    /// Returns the open call with this id.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<OpenCall>> {
        self.open.lock().get(&id).and_then(Weak::upgrade)
    }

    /// Removes all calls and returns them.
    pub(crate) fn take_open(&self) -> Vec<Arc<OpenCall>> {
        let open = mem::take(&mut *self.open.lock());
        open.into_values().filter_map(|call| call.upgrade()).collect()
    }
}
