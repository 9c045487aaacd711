//! A well-behaved client that works all the time, and must not notice what others do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use teleport::{Array, Client, Tree, tree};

use crate::watch::until;

/// Rounds after which the server's memory has reached what this client needs: each has small arrays, and large ones
/// that wait for a grant.
const WARM_UP: u64 = 6;

/// A thread that calls `echo` and `add` of the example `serve` without a pause, and compares each answer.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Steady {
    /// Connects, and returns once the server is warm.
    pub fn start(address: &str) -> Steady {
        let client = Client::builder(address).name("steady").connect().expect("the server listens");
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, done) = (stop.clone(), rounds.clone());
        let work = move || {
            while !is_over.load(Ordering::Relaxed) {
                round(&client, done.load(Ordering::Relaxed));
                done.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(client.stats().connects, 1, "its connection never broke");
            client.close().expect("no call failed");
        };
        let thread = thread::Builder::new().name("steady".into()).spawn(work).expect("there are threads");
        let mut steady = Steady { stop, rounds, thread: Some(thread) };
        steady.works_for(WARM_UP);
        steady
    }

    /// Waits until it has done more work since this was called.
    ///
    /// # Panics
    /// If it noticed anything.
    #[track_caller]
    pub fn works_on(&mut self) {
        // The round that is under way may have begun before.
        self.works_for(2);
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

    /// Ends it.
    ///
    /// # Panics
    /// If it noticed anything.
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

/// Small calls beside one that needs a grant; all are compared.
fn round(client: &Client, round: u64) {
    let large = Tree::from(Array::from((0..400_000).map(|i| i ^ round).collect::<Vec<u64>>()));
    let under_way = client.call("echo", large.clone()).send().expect("it is sent");
    for i in 0..8 {
        let sent = tree!({
            "i": round * 8 + i,
            "text": format!("round {round}"),
            "floats": vec![round as f32; 1000],
            "list": [null, (vec![i as u8; 100])],
        });
        assert_eq!(client.call("echo", sent.clone()).wait().expect("it is answered"), sent);
        let numbers = |n: u64| Array::from(vec![n; 16]);
        let sum = client.call("add", tree!({"foo": numbers(round), "bar": numbers(i)})).wait();
        assert_eq!(sum.expect("it is answered"), tree!({"result": numbers(round + i)}));
    }
    assert_eq!(under_way.wait().expect("it is answered"), large);
}
