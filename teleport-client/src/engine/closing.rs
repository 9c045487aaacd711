//! Closing a client, and dropping its last handle.
//!
//! Flow: `begin_close` (no more calls) -> calls end -> `end_if_idle` (goodbye). The owner waits for calls for
//! a limited time, and then ends the rest.

use std::time::{Duration, Instant};

use teleport_transport::{Interrupted, Wakers, block_on_interruptible, flush_coalesced};

use crate::calls::pending::Released;
use crate::engine::shared::{Engine, Locked, State};

/// The time that a goodbye may take to reach the server after the last answer.
pub(crate) const GOODBYE_TIME: Duration = Duration::from_secs(1);

impl Engine {
    /// Closes for all handles: waits for all calls in flight. An interruption of this thread ends the wait.
    pub(crate) fn close(&self, within: Duration) -> Result<(), Interrupted> {
        self.begin_close();
        let waited = self.wait_while(within, |client| client.in_flight() > 0);
        self.end_unless(|_| false);
        waited
    }

    /// Handles the drop of the last handle: waits `within` for calls without a future, if at all. Calls with
    /// a future continue.
    pub(crate) fn release(&self, within: Option<Duration>) {
        self.begin_close();
        let waited = within.map(|within| {
            self.wait_while(within, |client| client.in_flight() > client.table.in_flight_futures()).is_ok()
        });
        match waited {
            Some(true) => self.end_unless(|client| client.table.in_flight_futures() > 0),
            // Calls without a future continue too.
            None | Some(false) => self.end_unless(|client| client.in_flight() > 0),
        }
    }

    /// Accepts no more calls.
    fn begin_close(&self) {
        // Closing also waits for calls that this thread holds back, on this link or another.
        flush_coalesced();
        let mut wakers = Wakers::default();
        let deferred = self.with(|client| {
            client.begin_close(&mut wakers);
            client.table.ask_all()
        });
        wakers.wake_all();
        // Closing also waits for deferred results, which may never be read otherwise.
        self.fetch(deferred);
    }

    /// Waits up to `within` while there are calls to wait for. Ends early in a thread that is interrupted.
    fn wait_while(&self, within: Duration, waits: fn(&State) -> bool) -> Result<(), Interrupted> {
        let until = Instant::now().checked_add(within);
        let is_done =
            |state: &mut Locked| (state.client.connection.is_over() || !waits(&state.client)).then_some(());
        block_on_interruptible(&mut None, until, |cx| self.poll_state(cx, is_done)).map(drop)
    }

    fn end_unless(&self, spares: fn(&State) -> bool) {
        let mut wakers = Wakers::default();
        if !self.with(|client| spares(client)) {
            self.end(&mut wakers);
        }
        wakers.wake_all();
    }

    /// Ends a closing client if its last call has ended.
    pub(crate) fn end_if_idle(&self, wakers: &mut Wakers) {
        let (is_closing, is_idle) = self.with(|client| (client.is_closing, client.in_flight() == 0));
        match (is_closing, is_idle) {
            (true, true) => self.end(wakers),
            (true, false) => self.notify(),
            (false, _) => {}
        }
    }

    /// Says goodbye, once. Calls that are still in flight fail.
    fn end(&self, wakers: &mut Wakers) {
        let mut released = Released::new();
        let connection = self.with(|client| client.end(wakers, &mut released));
        self.notify();
        self.dispose(released);
        if let Some(link) = connection.and_then(|connection| connection.link.upgrade()) {
            link.close(None, "", GOODBYE_TIME);
        }
    }
}
