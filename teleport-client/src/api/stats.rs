//! The numbers of a client.

/// Numbers of a client at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClientStats {
    /// The address of the connected server, and its process where that is known. `None` without a connection.
    pub server: Option<String>,
    /// Futures that are alive, including those whose result has come.
    pub futures: usize,
    /// Calls that were sent and not answered.
    pub in_flight: usize,
    /// Calls that wait for a free slot or a connection.
    pub waiting: usize,
    /// Bytes of `max_memory` that hold results which were not read, or that are granted to such results.
    pub held_bytes: u64,
    /// Bytes of results that were read and of which something is alive. They are the caller's memory, which
    /// no bound counts. Results of up to 4 KiB are left out. Of a larger result, one array that is kept
    /// keeps all of it alive.
    pub lent_bytes: u64,
    /// Results that wait at the server for memory, until others are read or somebody waits for them.
    pub awaiting_memory: usize,
    /// How often the client has connected.
    pub connects: u64,
    /// Calls sent.
    pub sends: u64,
    /// Answers received, both results and errors.
    pub receives: u64,
    /// Bytes of arrays, strings and bytes sent as arguments.
    pub sent_bytes: u64,
    /// Bytes of arrays, strings and bytes received as results.
    pub received_bytes: u64,
    /// Calls sent per second since the statistics were last read, or since the client was made.
    pub sends_per_second: f64,
    /// Answers received per second since then.
    pub receives_per_second: f64,
}
