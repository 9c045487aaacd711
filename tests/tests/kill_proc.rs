//! Ending trees of processes by number: what they started, in whatever way, and also when they do not want to.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::Signal;
use teleport::{kill_proc, proc_alive};
use teleport_tests::{marked, new_mark, until_marked, until_none_left, watched};

/// Longer than the watchdog waits: who waits it out hangs.
const FOREVER: Duration = Duration::from_secs(3600);

/// Starts a script with a mark that all its processes have, in a group of its own: some shells signal all of theirs.
fn shell(script: &str) -> (Child, String) {
    let mark = new_mark();
    let child = Command::new("bash").args(["-c", script]).envs(marked(&mark)).process_group(0).spawn();
    (child.expect("there is bash"), mark)
}

/// Ends the tree of a script that runs as so many processes, and checks that nothing is left of it.
fn ends(script: &'static str, processes: usize, grace: Duration) {
    watched(move || {
        let (mut child, mark) = shell(script);
        until_marked(&mark, processes);
        assert!(proc_alive(child.id()));
        kill_proc(child.id(), grace).expect("it ends");
        assert!(!proc_alive(child.id()), "it is a zombie, which does not run");
        until_none_left(&mark);
        let ended = child.wait().expect("it is a child of this process").signal();
        if grace.is_zero() {
            // Also a shell whose jobs stop before it does: that one would end its group with SIGTERM.
            assert_eq!(
                ended,
                Some(Signal::SIGKILL as i32),
                "it was stopped first of all, so it did nothing of its own"
            );
        }
        kill_proc(child.id(), grace).expect("it ends"); // there is nothing to end any more, which is no error
    });
}

#[test]
fn children_and_grandchildren_end() {
    ends("sleep 600 & (sleep 600; true) & sleep 600; true", 5, FOREVER);
}

#[test]
fn the_longest_grace_is_for_ever() {
    ends("sleep 600 & sleep 600; true", 3, Duration::MAX);
}

#[test]
fn who_is_stopped_ends_too() {
    ends("sleep 600 & kill -STOP $!; sleep 600; true", 3, FOREVER);
}

#[test]
fn who_ignores_sigterm_is_killed_after_the_grace() {
    let script = "trap '' TERM; (while true; do sleep 600; done) & while true; do sleep 600; done";
    ends(script, 4, Duration::from_millis(100));
}

#[test]
fn no_grace_kills_at_once() {
    ends("trap '' TERM; sleep 600; true", 2, Duration::ZERO);
}

#[test]
fn sessions_and_groups_of_their_own_do_not_help() {
    ends("setsid sleep 600 & set -m; sleep 600 & wait", 3, Duration::ZERO);
}
