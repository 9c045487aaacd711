//! A well-behaved client that calls without a pause and must not be affected by other clients.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use teleport::{Array, Client, Tree, tree};

use crate::watch::until;

/// Rounds after which the server has allocated all the memory that this client needs. Each round sends small
/// arrays and large ones that wait for a grant.
const WARM_UP: u64 = 6;

/// A thread that calls `echo` and `add` of the example `serve` without a pause and checks each answer.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    /// The latency of each small call.
    times: Arc<Mutex<Vec<Duration>>>,
    thread: Option<JoinHandle<()>>,
}

/// Latencies of calls, for people to read. No test depends on them.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// Ascending.
    sorted: Vec<Duration>,
}

impl Times {
    /// Returns the number of calls.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// Returns the latency that `percent` percent of the calls did not exceed, or zero if there were no
    /// calls.
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.sorted.len() * percent).div_ceil(100).saturating_sub(1);
        self.sorted.get(at).copied().unwrap_or_default()
    }

    /// Merges both sets of latencies.
    pub fn and(&self, others: &Times) -> Times {
        Times::from([&self.sorted[..], &others.sorted].concat())
    }
}

impl From<Vec<Duration>> for Times {
    fn from(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times { sorted: times }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, p50, p99) = (self.count(), self.percentile(50), self.percentile(99));
        write!(f, "{count} calls, p50 {p50:.1?}, p99 {p99:.1?}")
    }
}

impl Steady {
    /// Connects and returns once the server is warm.
    pub fn start(address: &str) -> Steady {
        let client = Client::builder(address).name("steady").connect().expect("the server listens");
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let times = Arc::new(Mutex::new(Vec::new()));
        let (is_over, done, took) = (stop.clone(), rounds.clone(), times.clone());
        let work = move || {
            while !is_over.load(Ordering::Relaxed) {
                let times = round(&client, done.load(Ordering::Relaxed));
                took.lock().expect("the lock is not poisoned").extend(times);
                done.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(client.stats().connects, 1, "the connection broke");
            client.close().expect("no call failed");
        };
        let thread =
            thread::Builder::new().name("steady".into()).spawn(work).expect("a thread can be started");
        let mut steady = Steady { stop, rounds, times, thread: Some(thread) };
        steady.works_for(WARM_UP);
        steady
    }

    /// Waits until the client has finished a round that began after this call.
    ///
    /// # Panics
    /// If a call failed, an answer was wrong, or the connection broke.
    #[track_caller]
    pub fn works_on(&mut self) {
        // The current round may have begun earlier.
        self.works_for(2);
    }

    /// Returns and clears the latencies of the small calls.
    pub fn times(&self) -> Times {
        std::mem::take(&mut *self.times.lock().expect("the lock is not poisoned")).into()
    }

    #[track_caller]
    fn works_for(&mut self, rounds: u64) {
        let (before, mut failed) = (self.rounds.load(Ordering::Relaxed), false);
        until("the steady client works on", || {
            failed = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            failed || self.rounds.load(Ordering::Relaxed) >= before + rounds
        });
        if failed {
            self.join();
        }
    }

    /// Stops the client.
    ///
    /// # Panics
    /// If a call failed, an answer was wrong, or the connection broke.
    pub fn end(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Makes small calls during one large call that needs a grant, and checks all answers. Returns the latencies
/// of the small calls.
fn round(client: &Client, round: u64) -> Vec<Duration> {
    let large = Tree::from(Array::from((0..400_000).map(|i| i ^ round).collect::<Vec<u64>>()));
    let under_way = client.call("echo", large.clone()).send().expect("it is sent");
    let mut times = Vec::new();
    let mut call = |method: &str, sent: Tree, expected: &Tree| {
        let start = Instant::now();
        let answer = client.call(method, sent).wait().expect("it is answered");
        times.push(start.elapsed());
        assert_eq!(answer, *expected);
    };
    for i in 0..8 {
        let sent = tree!({
            "i": round * 8 + i,
            "text": format!("round {round}"),
            "floats": vec![round as f32; 1000],
            "list": [null, (vec![i as u8; 100])],
        });
        call("echo", sent.clone(), &sent);
        let numbers = |n: u64| Array::from(vec![n; 16]);
        let sum = tree!({"result": numbers(round + i)});
        call("add", tree!({"foo": numbers(round), "bar": numbers(i)}), &sum);
    }
    assert_eq!(under_way.wait().expect("it is answered"), large);
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_latencies() {
        let times = Times::from((1..=200).rev().map(Duration::from_millis).collect::<Vec<_>>());
        assert_eq!(times.percentile(50), Duration::from_millis(100));
        assert_eq!(times.percentile(99), Duration::from_millis(198));
        assert_eq!(times.percentile(100), Duration::from_millis(200));
        assert_eq!(Times::default().percentile(99), Duration::ZERO);
        assert_eq!(times.and(&times).count(), 400);
        assert_eq!(Times::from(vec![Duration::from_millis(2)]).to_string(), "1 calls, p50 2.0ms, p99 2.0ms");
    }
}
