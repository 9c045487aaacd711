//! Ends trees of processes by the id of the first, also processes that do not want to end.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::Signal;
use teleport::{kill_proc, proc_alive};
use teleport_tests::{marked, new_mark, until_marked, until_none_left, watched};

/// Longer than the watchdog waits, so that a test that waits for it fails.
const FOREVER: Duration = Duration::from_secs(3600);

/// Starts a script whose processes have a mark. It has its own group, since some shells send signals to
/// theirs.
fn shell(script: &str) -> (Child, String) {
    let mark = new_mark();
    let child = Command::new("bash").args(["-c", script]).envs(marked(&mark)).process_group(0).spawn();
    (child.expect("there is bash"), mark)
}

/// Ends the tree of a script that runs as this many processes, and checks that nothing is left of it.
fn ends(script: &'static str, processes: usize, grace: Duration) {
    watched(move || {
        let (mut child, mark) = shell(script);
        until_marked(&mark, processes);
        assert!(proc_alive(child.id()));
        kill_proc(child.id(), grace).expect("it ends");
        assert!(!proc_alive(child.id()), "it is a zombie, which is not running");
        until_none_left(&mark);
        let ended = child.wait().expect("it is a child of this process").signal();
        if grace.is_zero() {
            // A shell that sees its jobs stop may end its group with SIGTERM.
            assert_eq!(ended, Some(Signal::SIGKILL as i32), "it was stopped first, so it could not react");
        }
        kill_proc(child.id(), grace).expect("it is no error if there is none"); // it has ended
    });
}

#[test]
fn children_and_grandchildren_end() {
    ends("sleep 600 & (sleep 600; true) & sleep 600; true", 5, FOREVER);
}

#[test]
fn the_longest_grace_never_ends() {
    ends("sleep 600 & sleep 600; true", 3, Duration::MAX);
}

#[test]
fn stopped_processes_end() {
    ends("sleep 600 & kill -STOP $!; sleep 600; true", 3, FOREVER);
}

#[test]
fn processes_that_ignore_sigterm_are_killed_after_the_grace() {
    let script = "trap '' TERM; (while true; do sleep 600; done) & while true; do sleep 600; done";
    ends(script, 4, Duration::from_millis(100));
}

#[test]
fn a_grace_of_zero_kills_at_once() {
    ends("trap '' TERM; sleep 600; true", 2, Duration::ZERO);
}

#[test]
fn processes_with_their_own_session_or_group_end() {
    ends("setsid sleep 600 & set -m; sleep 600 & wait", 3, Duration::ZERO);
}
