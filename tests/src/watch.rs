//! Waits for conditions and stops tests that hang. The time limits measure no performance.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::program;

/// A test that takes longer hangs, however busy the machine is.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// The interval at which [`until`] checks its condition.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Runs a test on a thread of its own. If it does not end within [`WATCHDOG`], kills all programs that this
/// process started and ends the process, since a hanging test may block the others.
///
/// # Panics
/// If the test panics.
pub fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let run = move || {
        // Sends when dropped, so also when the test panics.
        let _done: mpsc::Sender<()> = done;
        test();
    };
    let thread = thread::Builder::new().name(name.clone()).spawn(run).expect("a thread can be started");
    match ended.recv_timeout(WATCHDOG * 4) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            eprintln!("{name} hangs: ending all tests of this file");
            program::kill_all();
            std::process::exit(101);
        }
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Polls until `is_so` returns true, for conditions that send no notification.
///
/// # Panics
/// If that takes longer than [`WATCHDOG`]. The message contains `what`, the condition in words.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < WATCHDOG, "timed out waiting until {what}");
        thread::park_timeout(LOOK_AGAIN);
    }
}
