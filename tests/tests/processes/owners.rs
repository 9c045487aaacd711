//! Processes whose owner ends by itself or by SIGKILL, at any moment, and owners whose system refuses to
//! start them.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::Signal;
use teleport_tests::{Program, Random, count_marked, new_mark, until, until_none_left, watched};

use crate::traced;

/// One of this many system calls is tested. The seed says which.
const STRIDE: usize = 32;

pub(crate) fn owner(arguments: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_owner"));
    command.args(arguments);
    Program::spawn(command)
}

/// Starts an owner, waits until it is ready, kills it, and checks that nothing is left.
fn killed_owner(arguments: &'static [&'static str]) {
    watched(|| {
        let mut owner = owner(arguments);
        assert_eq!(owner.line(), "ready");
        owner.signal(Signal::SIGKILL);
        until_none_left(&owner.mark());
    });
}

/// Runs an owner to its end, and checks its output.
fn printed(arguments: &'static [&'static str], check: impl FnOnce(&str) + Send + 'static) {
    watched(move || {
        let owner = owner(arguments);
        let mark = owner.mark();
        let ended = owner.wait();
        assert!(ended.status.success(), "{}", ended.errors);
        check(&ended.output);
        until_none_left(&mark);
    });
}

#[test]
fn processes_of_a_killed_owner_end() {
    killed_owner(&["idle", "20"]);
}

#[test]
fn stubborn_processes_of_a_killed_owner_end() {
    killed_owner(&["stubborn"]);
}

#[test]
fn forks_of_a_killed_owner_end() {
    killed_owner(&["fork"]);
}

#[test]
fn processes_end_when_their_owner_executes_another_program() {
    watched(|| {
        let mut owner = owner(&["exec"]);
        assert_eq!(owner.line(), "ready");
        let mark = owner.mark();
        // Only the other program is left.
        until("one is left", || count_marked(&mark) == 1);
        drop(owner);
        until_none_left(&mark);
    });
}

#[test]
fn an_owner_killed_while_it_starts_processes_leaves_none() {
    watched(|| {
        let mut random = Random::from_environment();
        for _ in 0..10 {
            let mut owner = owner(&["endless"]);
            assert_eq!(owner.line(), "ready");
            let mark = owner.mark();
            // The owner may be at any step by now.
            let count = random.below(12);
            until("some have started", || count_marked(&mark) > count);
            owner.signal(Signal::SIGKILL);
            until_none_left(&mark);
        }
    });
}

#[test]
fn an_owner_killed_at_any_system_call_leaves_none() {
    watched(|| {
        let mut random = Random::from_environment();
        let mut stop = random.below(STRIDE);
        while !traced::killed_at(stop, &new_mark()) {
            stop += STRIDE;
        }
        assert!(stop > 300, "starting a process takes many calls; this ended after {stop}");
    });
}

#[test]
fn killed_zygotes_and_reapers_leave_nothing() {
    watched(|| {
        for victims in [&["zygote"][..], &["reapers"], &["zygote", "owner"], &["reapers", "owner"]] {
            let mut owner = owner(&["idle", "3"]);
            assert_eq!(owner.line(), "ready");
            let mark = owner.mark();
            let zygote = children(owner.id()).pop().expect("it has a zygote");
            let reapers = children(zygote);
            assert_eq!(reapers.len(), 3);
            for victim in victims {
                match *victim {
                    "zygote" => kill(zygote),
                    "reapers" => reapers.iter().for_each(|reaper| kill(*reaper)),
                    _ => owner.signal(Signal::SIGKILL),
                }
            }
            if victims == ["reapers"] {
                // The zygote has adopted and ended their processes.
                until("the owner and its zygote are left", || count_marked(&mark) == 2);
            }
            owner.signal(Signal::SIGKILL);
            until_none_left(&mark);
        }
    });
}

#[test]
fn forks_behave_like_processes() {
    printed(&["forked"], |output| {
        let lines: Vec<_> = output.lines().collect();
        let expected = [
            "42",
            "42",
            "true",
            "Ok(())",
            "true",
            "other: belongs to the process that this one was forked from: ask that one instead",
            "true",
            "late: a process with 2 threads (owner, busy) cannot be forked, since locks that the others hold would stay \
            locked: use `Process::new`, or fork before they start",
        ];
        assert_eq!(lines, expected);
    });
}

#[test]
fn without_descriptors_starting_fails_and_leaves_nothing() {
    printed(&["descriptors"], |output| assert_eq!(output, "true\ntrue\n"));
}

#[test]
fn without_processes_starting_fails_and_leaves_nothing() {
    printed(&["processes"], |output| {
        let (first, rest) = output.split_once('\n').unwrap();
        assert_eq!(first, "5 idle: no process can be made: Resource temporarily unavailable (os error 11)");
        assert_eq!(rest, "again\n");
    });
}

#[test]
fn an_owner_that_ends_its_own_tree_ends_last() {
    watched(|| {
        let owner = owner(&["suicide"]);
        let mark = owner.mark();
        let ended = owner.wait();
        assert_eq!(ended.status.signal(), Some(Signal::SIGKILL as i32), "{}", ended.errors);
        until_none_left(&mark);
    });
}

#[test]
fn early_threads_are_an_error_with_a_remedy() {
    watched(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_owner"));
        command.args(["idle", "1"]).env("EARLY_THREAD", "1");
        let owner = Program::spawn(command);
        let mark = owner.mark();
        let ended = owner.wait();
        let expected = "idle: this program had 2 threads when it reached `init()`: call it first in `main`, before a runtime (as \
            that of `#[tokio::main]`, in which its `main` runs), a logger or anything else starts threads\n";
        assert_eq!(ended.errors, expected);
        until_none_left(&mark);
    });
}

#[test]
fn signals_for_the_parent_s_group_do_not_reach_a_fork() {
    watched(|| {
        let mut owner = owner(&["forked-group"]);
        let mark = owner.mark();
        let ready = owner.line();
        let pid =
            ready.strip_prefix("ready ").and_then(|pid| pid.parse().ok()).expect("it prints its process id");
        signal(pid, Signal::SIGTERM);
        assert_eq!(owner.line(), "Err(Exited { name: \"forked\", exit: Signal(15) })");
        assert!(owner.wait().status.success());
        until_none_left(&mark);
    });
}

#[test]
fn kill_subprocs_ends_processes_too() {
    printed(&["subprocs"], |output| assert_eq!(output, "false true\nagain\n"));
}

pub(crate) fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let text = std::fs::read_to_string(path).expect("it is alive, on Linux");
    text.split_whitespace().map(|pid| pid.parse().expect("it is a number")).collect()
}

pub(crate) fn kill(process: u32) {
    signal(process, Signal::SIGKILL);
}

pub(crate) fn signal(process: u32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process as i32), signal).expect("it is there");
}
