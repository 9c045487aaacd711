//! Waits for many futures: for all of them, or for each as it completes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use teleport_transport::wire::FromTree;
use teleport_transport::{block_on_or_unwind, on_poller_thread};

use crate::api::future::CallFuture;
use crate::error::call::CallError;

/// **Blocks** until all calls have ended. Returns their results in the order of the futures.
///
/// # Errors
/// Returns the error of the first future whose call failed. Other failures are reported like those of dropped
/// futures.
pub fn wait_all<R: FromTree>(futures: impl IntoIterator<Item = CallFuture<R>>) -> Result<Vec<R>, CallError> {
    let futures: Vec<_> = futures.into_iter().collect();
    if !on_poller_thread() {
        for future in &futures {
            block_on_or_unwind(&mut future.lead(), None, |cx| future.poll_done(cx));
        }
    }
    futures.into_iter().map(CallFuture::wait).collect()
}

/// Returns the results of many calls in the order of their arrival, each with the index of its future.
///
/// Each step of the iterator **blocks** until the next result. Dropping the iterator detaches from the calls
/// that are left.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use teleport_client::{Client, as_completed, wire::tree};
///
/// let client = Client::connect("tcp://localhost:2222")?;
/// let futures = (0..8).map(|i| client.call("echo", tree!(i)).send()).collect::<Result<Vec<_>, _>>()?;
/// for (index, reply) in as_completed(futures) {
///     println!("{index}: {}", reply?);
/// }
/// # Ok(())
/// # }
/// ```
pub fn as_completed<R: FromTree>(futures: impl IntoIterator<Item = CallFuture<R>>) -> AsCompleted<R> {
    let futures: Vec<_> = futures.into_iter().map(Some).collect();
    let shared = Arc::new(Mutex::new(Ready { indices: (0..futures.len()).collect(), waker: None }));
    let left = futures.len();
    AsCompleted { futures, shared, left }
}

/// The iterator of [`as_completed`].
pub struct AsCompleted<R> {
    futures: Vec<Option<CallFuture<R>>>,
    shared: Arc<Mutex<Ready>>,
    left: usize,
}

impl<R> fmt::Debug for AsCompleted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.left).finish_non_exhaustive()
    }
}

/// The futures that may be done, and the waker of the thread that waits for one.
#[derive(Debug)]
struct Ready {
    indices: VecDeque<usize>,
    waker: Option<Waker>,
}

/// The waker of one of the futures.
struct Bell {
    index: usize,
    shared: Arc<Mutex<Ready>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let waker = {
            let mut ready = self.shared.lock();
            ready.indices.push_back(self.index);
            ready.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<R: FromTree> AsCompleted<R> {
    /// The index of the next future that is done.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            let index = {
                let mut ready = self.shared.lock();
                match ready.indices.pop_front() {
                    Some(index) => index,
                    None => {
                        ready.waker = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                }
            };
            // A future may have woken this more often than it was polled.
            let Some(future) = &self.futures[index] else { continue };
            let waker = Waker::from(Arc::new(Bell { index, shared: self.shared.clone() }));
            if future.poll_done(&Context::from_waker(&waker)).is_ready() {
                return Poll::Ready(index);
            }
        }
    }

    fn take(&mut self, index: usize) -> (usize, Result<R, CallError>) {
        self.left -= 1;
        let future = self.futures[index].take().expect("the caller found it there");
        (index, future.wait())
    }
}

impl<R: FromTree> Iterator for AsCompleted<R> {
    type Item = (usize, Result<R, CallError>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let until = on_poller_thread().then(std::time::Instant::now);
        let mut reader = self.futures.iter().flatten().find_map(CallFuture::lead);
        let next = block_on_or_unwind(&mut reader, until, |cx| self.poll_next(cx));
        // Conversion may run user code that takes long or makes calls. Other threads can read meanwhile.
        drop(reader);
        // A poller's thread must not wait: a call without an outcome fails.
        let index = next.or_else(|| self.futures.iter().position(Option::is_some))?;
        Some(self.take(index))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R: FromTree> ExactSizeIterator for AsCompleted<R> {}
