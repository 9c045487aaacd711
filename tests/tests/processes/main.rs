//! Functions in processes of their own. Nothing of them is left, whatever they do and whichever process is
//! killed.
//!
//! Every process of a test carries the mark of the test. At its end no process may have it. The program
//! `owner` starts processes in tests that kill their owner.

mod cgroups;
mod ending;
mod groups;
mod owners;
mod results;
mod tokio;
mod traced;
mod trees;

use std::time::Duration;

use teleport::Process;
use teleport_tests::{marked, new_mark, until_none_left, watched};

teleport::init_before_main!();

/// Longer than the watchdog waits, so that a test that waits for it fails.
const FOREVER: Duration = Duration::from_secs(3600);

/// Runs a test whose processes carry a mark, and waits until none of them is left.
fn nothing_stays(test: impl FnOnce(&str) + Send + 'static) {
    watched(|| {
        let mark = new_mark();
        test(&mark);
        until_none_left(&mark);
    });
}

/// Gives a process a mark.
fn carrying<R>(mark: &str, process: Process<R>) -> Process<R> {
    marked(mark).into_iter().fold(process, |process, (name, value)| process.env(name, value))
}

/// Waits forever.
fn idle(_: ()) {
    loop {
        std::thread::park();
    }
}
