//! The client of a connection, for its calls.

use std::sync::Arc;

use teleport_transport::wire::{Hello, Limits};

use crate::call::route::MethodInfo;
use crate::call::slow_reader::SlowReader;
use crate::runtime::shared::Shared;

/// The client of one connection, after its hello.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) shared: Arc<Shared>,
    /// The methods of the server by their numbers.
    pub(crate) methods: Arc<Vec<MethodInfo>>,
    /// The client's name, or its address if it has no name.
    pub(crate) name: String,
    /// The client's limits on messages.
    pub(crate) limits: Limits,
    /// The most calls that the client will have open; 0 if unknown.
    pub(crate) max_inflight: u32,
    pub(crate) slow_reader: SlowReader,
}

impl Caller {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        methods: &Arc<Vec<MethodInfo>>,
        address: &str,
        hello: &Hello,
    ) -> Arc<Caller> {
        let name = if hello.name.is_empty() { address } else { &hello.name };
        Arc::new(Caller {
            shared: shared.clone(),
            methods: methods.clone(),
            name: name.to_owned(),
            limits: hello.limits,
            max_inflight: hello.max_open_calls,
            slow_reader: SlowReader::default(),
        })
    }
}
