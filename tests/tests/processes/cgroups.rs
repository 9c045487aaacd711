//! Processes with a cgroup of their own, where one was delegated, also if all are killed at the same time.
//!
//! Delegating a cgroup takes the superuser and writable cgroups of version 2. Elsewhere these tests say so
//! and pass.
#![allow(unsafe_code, reason = "no crate here reads and writes attributes of files")]

use std::ffi::CString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use teleport_tests::{Program, count_marked, new_mark, until, until_none_left, watched};

use crate::owners::{children, kill, signal};

/// A cgroup for a test, below that of the test program.
struct Own {
    folder: PathBuf,
}

impl Own {
    /// Returns `None` if no cgroup can be made.
    fn new() -> Option<Own> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").expect("this is Linux");
        let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("this is Linux");
        let mount =
            mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let made = own.zip(mount).map(|(own, mount)| {
            let folder = PathBuf::from(mount).join(own).join(format!("test-{}", new_mark()));
            fs::create_dir(&folder).map(|()| Own { folder })
        });
        match made {
            Some(Ok(own)) => Some(own),
            other => {
                eprintln!(
                    "no cgroup can be made here, so the test checks nothing: {:?}",
                    other.and_then(Result::err)
                );
                None
            }
        }
    }

    /// As [`new`](Own::new), with the mark of systemd for a delegated cgroup.
    fn delegated() -> Option<Own> {
        let own = Own::new()?;
        let folder = CString::new(own.folder.to_str().expect("it is text")).expect("it has no zeros");
        // SAFETY: both strings end with a zero byte, and the value is one byte long.
        let result =
            unsafe { libc::setxattr(folder.as_ptr(), c"user.delegate".as_ptr(), c"1".as_ptr().cast(), 1, 0) };
        Errno::result(result).expect("Linux has these since 5.7");
        Some(own)
    }

    /// Starts a program in the cgroup.
    fn start(&self, program: &str, arguments: &str) -> Program {
        let enter = format!("echo 0 > '{}/cgroup.procs'", self.folder.display());
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{enter} && exec '{program}' {arguments}")]);
        Program::spawn(command)
    }

    /// Starts an owner in the cgroup, and waits until it is ready.
    fn owner(&self, arguments: &str) -> Program {
        let mut owner = self.start(env!("CARGO_BIN_EXE_owner"), arguments);
        assert_eq!(owner.line(), "ready");
        owner
    }

    /// Returns how many cgroups are below this one.
    fn below(&self) -> usize {
        let entries = fs::read_dir(&self.folder).expect("it is there");
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir())).count()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // This fails if anything is left in the cgroup. Then the test has failed already.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Kills a program, and waits until nothing is left of what it started.
fn ends_killed(program: &Program) {
    program.signal(Signal::SIGKILL);
    until_none_left(&program.mark());
}

/// Runs a test in a cgroup, and checks that it is empty afterwards.
fn leaves_none(own: fn() -> Option<Own>, test: impl FnOnce(&Own) + Send + 'static) {
    watched(move || {
        if let Some(own) = own() {
            test(&own);
            until("no cgroup is left", || own.below() == 0);
            until("nothing is left in it", || fs::remove_dir(&own.folder).is_ok());
        }
    });
}

#[test]
fn each_process_has_a_cgroup_for_as_long_as_it_runs() {
    leaves_none(Own::delegated, |own| {
        let owner = own.owner("idle 3");
        assert_eq!(own.below(), 3);
        ends_killed(&owner);
    });
}

#[test]
fn without_delegation_there_are_no_cgroups() {
    leaves_none(Own::new, |own| {
        let owner = own.owner("idle 3");
        assert_eq!(own.below(), 0);
        ends_killed(&owner);
    });
}

#[test]
fn tests_of_trees_and_owners_pass_with_and_without_cgroups() {
    for own in [Own::delegated, Own::new] {
        leaves_none(own, |own| {
            let this = std::env::current_exe().expect("it has a path");
            let tests = own.start(this.to_str().expect("it is text"), "--skip cgroups:: trees:: owners::");
            let mark = tests.mark();
            let ended = tests.wait();
            assert!(ended.status.success(), "{}", ended.output);
            until_none_left(&mark);
        });
    }
}

#[test]
fn forks_have_cgroups_and_their_processes_have_some_below() {
    leaves_none(Own::delegated, |own| {
        // The fork has started another process, whose cgroup is below that of the fork.
        let owner = own.owner("fork");
        assert_eq!(own.below(), 1);
        ends_killed(&owner);
    });
}

#[test]
fn a_killed_reaper_leaves_no_cgroup() {
    leaves_none(Own::delegated, |own| {
        let owner = own.owner("idle 3");
        let zygote = children(owner.id()).pop().expect("it has a zygote");
        kill(children(zygote)[0]);
        until("its cgroup is gone", || own.below() == 2);
        ends_killed(&owner);
    });
}

#[test]
fn a_cgroup_of_others_with_such_a_name_is_left_alone() {
    leaves_none(Own::delegated, |own| {
        let other = Own { folder: own.folder.join("teleport-proc-1-0") };
        fs::create_dir(&other.folder).expect("it can be made");
        let mut stranger = other.start("sleep", "600");
        until("it is there", || {
            fs::read_to_string(other.folder.join("cgroup.procs")).is_ok_and(|list| !list.is_empty())
        });
        let owner = own.owner("idle 1");
        ends_killed(&owner);
        assert!(stranger.is_running());
        ends_killed(&stranger);
        until("it can be removed", || fs::remove_dir(&other.folder).is_ok());
    });
}

#[test]
fn leftovers_of_an_owner_end_before_the_next_starts_a_process() {
    leaves_none(Own::delegated, |own| {
        let owner = own.owner("idle 3");
        let mark = owner.mark();
        let zygote = children(owner.id()).pop().expect("it has a zygote");
        let reapers = children(zygote);
        let all = || reapers.iter().copied().chain([zygote]);
        // They are stopped first, so that none of them reacts.
        all().for_each(|process| signal(process, Signal::SIGSTOP));
        all().for_each(kill);
        owner.signal(Signal::SIGKILL);
        until("only the three processes are left", || count_marked(&mark) == 3);
        let next = own.owner("idle 1");
        assert_eq!(count_marked(&mark), 0);
        assert_eq!(own.below(), 1);
        ends_killed(&next);
    });
}
