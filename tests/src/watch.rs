//! Waiting for what must happen, and giving up on what never comes.
//!
//! A time that is over here means that something hangs; nothing is measured.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::program;

/// What takes longer hangs, however busy the machine.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// How often [`until`] looks.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Runs a test on a thread of its own. If it does not end, all programs that this process started are killed and the
/// process ends: whatever hangs may hold up the other tests too.
///
/// # Panics
/// If the test does.
pub fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let run = move || {
        // Sent when dropped, so also when the test panics.
        let _done: mpsc::Sender<()> = done;
        test();
    };
    let thread = thread::Builder::new().name(name.clone()).spawn(run).expect("there are threads");
    match ended.recv_timeout(WATCHDOG * 4) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            eprintln!("{name} hangs: ending all tests of this file");
            program::kill_all();
            std::process::exit(101);
        }
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Waits until `is_so`, for what tells nobody when it changes.
///
/// # Panics
/// If that takes longer than [`WATCHDOG`]; `what` says what was waited for.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < WATCHDOG, "this did not happen: {what}");
        thread::park_timeout(LOOK_AGAIN);
    }
}
