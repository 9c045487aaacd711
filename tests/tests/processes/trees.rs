//! A whole tree of processes ends with the one that started it.

use std::process::Command;
use std::time::Duration;

use teleport::proc::BoxError;
use teleport::{ProcError, Process};
use teleport_tests::until_marked;

use crate::{FOREVER, carrying, idle, nothing_stays};

/// Runs a script to its end.
fn shell(script: String) -> Result<(), BoxError> {
    let status = Command::new("bash").args(["-c", &script]).status()?;
    if status.success() { Ok(()) } else { Err(format!("the script ended with {status}").into()) }
}

/// Starts a script, waits until this many processes run, kills the first, and checks that none is left.
fn kill_ends(script: &'static str, processes: usize, grace: Duration) {
    nothing_stays(move |mark| {
        let process = carrying(mark, Process::new("shell", shell, script.to_owned())).grace(grace);
        process.start().expect("it can be started");
        until_marked(mark, processes);
        process.kill().expect("it ends");
        assert!(matches!(process.join(), Err(ProcError::Killed { .. })));
    });
}

#[test]
fn children_and_grandchildren() {
    kill_ends("sleep 600 & (sleep 600; true) & sleep 600; true", 6, FOREVER);
}

#[test]
fn processes_that_ignore_sigterm() {
    kill_ends(
        "trap '' TERM; (while true; do sleep 600; done) & sleep 600; true",
        5,
        Duration::from_millis(50),
    );
}

#[test]
fn processes_with_their_own_session_or_group() {
    kill_ends("setsid sleep 600 & set -m; sleep 600 & wait", 4, FOREVER);
}

#[test]
fn daemons_whose_parents_have_ended() {
    let script = "setsid -f bash -c 'trap \"\" TERM; sleep 600; true'; (setsid sleep 600 &); sleep 600; true";
    kill_ends(script, 6, Duration::from_millis(50));
}

#[test]
fn processes_that_fork_forever() {
    // In each of eight chains, a process starts the next one and ends. At no moment are all of them there.
    let script =
        "chain() { chain & }; trap '' TERM; for i in 1 2 3 4 5 6 7 8; do chain & done; sleep 600; true";
    nothing_stays(move |mark| {
        let process = carrying(mark, Process::new("bomb", shell, script.to_owned()));
        process.start().unwrap();
        teleport_tests::until("it forks", || teleport_tests::count_marked(mark) > 3);
        process.stop(Duration::from_millis(50)).unwrap();
        assert!(matches!(process.join(), Err(ProcError::Killed { .. })));
    });
}

#[test]
fn processes_left_by_a_function_that_returned() {
    nothing_stays(|mark| {
        let script =
            "setsid -f sleep 600; sleep 600 & trap '' TERM; (while true; do sleep 600; done) & exit 0";
        let process = carrying(mark, Process::new("shell", shell, script.to_owned()));
        process.start().unwrap();
        process.join().unwrap();
        assert_eq!(teleport_tests::count_marked(mark), 0, "`join` waits for all of them");
    });
}

/// Starts a process that does the same, down to this depth, and waits for it.
fn nested(depth: u32) -> Result<u32, BoxError> {
    if depth == 0 {
        idle(());
    }
    let process = Process::new(format!("depth-{depth}"), nested, depth - 1);
    process.start()?;
    Ok(process.join()? + 1)
}

#[test]
fn processes_of_processes() {
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("top", nested, 4));
        process.start().unwrap();
        // Each of the four has a zygote and a reaper, which inherit the mark.
        until_marked(mark, 5 + 4 * 2);
        process.kill().unwrap();
        assert_eq!(teleport_tests::count_marked(mark), 0);
    });
}

#[test]
fn a_failure_passes_through_nested_processes() {
    fn failing(depth: u32) -> Result<(), BoxError> {
        if depth == 0 {
            return Err("at the bottom".into());
        }
        let idle = Process::new("idle", idle, ());
        idle.start()?;
        let process = Process::new(format!("depth-{depth}"), failing, depth - 1);
        process.start()?;
        Ok(process.join()?)
    }
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("top", failing, 3));
        process.start().unwrap();
        let error = process.join().unwrap_err();
        assert_eq!(error.to_string(), "top: depth-3: depth-2: depth-1: at the bottom");
    });
}

#[test]
fn other_children_of_the_owner_are_left_alone() {
    nothing_stays(|mark| {
        let mut child = Command::new("sleep").arg("600").envs(teleport_tests::marked(mark)).spawn().unwrap();
        let process = carrying(mark, Process::new("idle", idle, ()));
        process.start().unwrap();
        process.kill().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    });
}
