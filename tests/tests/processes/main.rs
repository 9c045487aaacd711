//! Functions in processes of their own, and that nothing of them is left, whatever they do and whoever is killed.
//!
//! Every process of a test carries its mark; at its end none may have it. `owner` is the program whose processes lose
//! their owner.

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

/// Longer than the watchdog waits: who waits it out hangs.
const FOREVER: Duration = Duration::from_secs(3600);

/// Runs a test whose processes carry a mark, and waits until none of them is left.
fn nothing_stays(test: impl FnOnce(&str) + Send + 'static) {
    watched(|| {
        let mark = new_mark();
        test(&mark);
        until_none_left(&mark);
    });
}

/// A process that carries a mark.
fn carrying<R>(mark: &str, process: Process<R>) -> Process<R> {
    marked(mark).into_iter().fold(process, |process, (name, value)| process.env(name, value))
}

/// Waits for ever.
fn idle(_: ()) {
    loop {
        std::thread::park();
    }
}
