//! The statistics of a client.

/// The statistics of a client at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClientStats {
    /// The address of the connected server, and its process if that is known. `None` without a connection.
    pub server: Option<String>,
    /// Futures that were neither read nor dropped, including those whose result has arrived.
    pub futures: usize,
    /// Calls that were sent and not answered.
    pub in_flight: usize,
    /// Calls that wait for a free slot or a connection.
    pub waiting: usize,
    /// Bytes of `max_memory` that hold unread results or are granted to them.
    pub held_bytes: u64,
    /// Bytes of results that were read and are still alive. This memory belongs to the caller, and no limit
    /// counts it. Results of up to 4 KiB are left out. One array that is kept keeps all of a larger result
    /// alive.
    pub lent_bytes: u64,
    /// Results that wait at the server for memory, until others are read or a caller waits for them.
    pub awaiting_memory: usize,
    /// The number of times that the client has connected.
    pub connects: u64,
    /// Calls sent.
    pub sends: u64,
    /// Answers received, both results and errors.
    pub receives: u64,
    /// Bytes of arrays, strings and bytes sent as arguments.
    pub sent_bytes: u64,
    /// Bytes of arrays, strings and bytes received as results.
    pub received_bytes: u64,
    /// Calls sent per second since the statistics were last read, or since the client was created.
    pub sends_per_second: f64,
    /// Answers received per second since then.
    pub receives_per_second: f64,
}
