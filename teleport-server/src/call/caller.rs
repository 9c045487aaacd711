//! What calls know of the client that made them, and how a connection finds its calls.
//!
//! Each call holds its caller, so a caller holds no call: its table is weak. A call that has not started is
//! held by its queue, and one that runs by its worker.

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
    /// The name that the client gave itself, or its address if it gave none.
    pub(crate) name: String,
    /// What messages to the client must keep to.
    pub(crate) limits: Limits,
    /// How many calls the client has open at most; 0 if it did not say.
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
