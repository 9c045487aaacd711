//! Groups end when all members have ended, when one fails, when their time is over, and on signals. They
//! restart members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use teleport::proc::{BoxError, sleep};
use teleport::{Group, ProcError, Process, Restart, Stop, Thread};
use teleport_tests::{Scratch, count_marked};

use crate::owners::owner;
use crate::{FOREVER, carrying, idle, nothing_stays};

const MS: Duration = Duration::from_millis(1);

fn done(_: ()) {}

fn fail(reason: String) -> Result<(), BoxError> {
    Err(reason.into())
}

/// Leaves a file in the folder, and fails until there are as many as `runs`.
fn fail_until(argument: (String, u32)) -> Result<(), BoxError> {
    let (folder, runs) = argument;
    let count = std::fs::read_dir(&folder)?.count() as u32;
    std::fs::write(format!("{folder}/{count}"), "")?;
    if count + 1 < runs { Err(format!("run {count} fails").into()) } else { Ok(()) }
}

#[test]
fn a_group_ends_well_when_all_have() {
    nothing_stays(|mark| {
        let group = Group::new()
            .add(carrying(mark, Process::new("done", done, ())))
            .add(Thread::new("thread", |_stop| 7))
            .extend((0..3).map(|index| carrying(mark, Process::new(format!("done-{index}"), done, ()))));
        group.run().unwrap();
        Group::new().run().unwrap();
    });
}

#[test]
fn the_longest_times_of_a_group_never_end() {
    nothing_stays(|mark| {
        let idle = || carrying(mark, Process::new("idle", idle, ())).grace(Duration::MAX);
        let thread =
            || Thread::new("sleeping", |stop| while stop.sleep(Duration::MAX) {}).grace(Duration::MAX);
        let done = carrying(mark, Process::new("done", done, ()));
        Group::new().add(done).duration(Duration::MAX).run().unwrap();
        // While one member waits forever to be restarted, another can fail.
        let again = carrying(mark, Process::new("again", fail, "at first".to_owned()))
            .restart(Restart::OnFailure { limit: 1 })
            .backoff(Duration::MAX, Duration::MAX);
        let failing = Thread::new("failing", |_stop| Err::<(), BoxError>("no luck".into()));
        let group = Group::new().add(idle()).add(thread()).add(again).add(failing);
        assert_eq!(group.duration(Duration::MAX).run().unwrap_err().to_string(), "failing: no luck");
    });
}

#[test]
fn a_failure_ends_the_others_and_is_returned() {
    nothing_stays(|mark| {
        let group = || {
            Group::new()
                .add(carrying(mark, Process::new("idle", idle, ())))
                .add(carrying(
                    mark,
                    Process::stoppable("waiting", |(), stop| while stop.sleep(FOREVER) {}, ()),
                ))
                .add(Thread::new("sleeping", |_stop| sleep(FOREVER)).grace(200 * MS))
        };
        let failing = carrying(mark, Process::new("failing", fail, "out of luck".to_owned()));
        assert_eq!(group().add(failing).run().unwrap_err().to_string(), "failing: out of luck");
        assert_eq!(count_marked(mark), 0);
        let panicking = Thread::new("panicking", |_stop| assert_eq!(1 + 1, 3));
        let error = group().add(panicking).run().unwrap_err();
        assert!(error.failure().is_some_and(|failure| failure.panicked()), "{error}");
        assert_eq!(count_marked(mark), 0);
        let missing = Process::new("running", idle, ());
        missing.start().unwrap();
        let error = group().add(missing).run().unwrap_err();
        assert!(matches!(error, ProcError::AlreadyStarted { .. }), "{error}");
    });
}

#[test]
fn a_group_ends_when_its_time_is_over() {
    nothing_stays(|mark| {
        let group = Group::new()
            .add(carrying(mark, Process::new("idle", idle, ())))
            .add(Thread::new("sleeping", |_stop| sleep(FOREVER)).grace(200 * MS));
        group.duration(20 * MS).run().unwrap();
        assert_eq!(count_marked(mark), 0);
    });
}

#[test]
fn a_failure_is_restarted_up_to_the_limit() {
    nothing_stays(|mark| {
        let folder = Scratch::new();
        let process = |limit| {
            let argument = (folder.folder().display().to_string(), 4);
            let process = carrying(mark, Process::new("failing", fail_until, argument));
            process.backoff(MS, 2 * MS).restart(Restart::OnFailure { limit })
        };
        let error = Group::new().add(process(1)).run().unwrap_err();
        assert_eq!(error.to_string(), "failing: run 1 fails");
        Group::new().add(process(100)).run().unwrap();
        assert_eq!(std::fs::read_dir(folder.folder()).unwrap().count(), 4);
    });
}

#[test]
fn success_is_restarted_only_by_always() {
    nothing_stays(|_mark| {
        for (policy, expected) in
            [(Restart::Never, 1), (Restart::OnFailure { limit: 3 }, 1), (Restart::Always { limit: 3 }, 4)]
        {
            let runs = Arc::new(AtomicU32::new(0));
            let counting = runs.clone();
            let thread = Thread::new("counting", move |_stop| {
                counting.fetch_add(1, Ordering::SeqCst);
            });
            Group::new().add(thread.restart(policy).backoff(MS, MS)).run().unwrap();
            assert_eq!(runs.load(Ordering::SeqCst), expected, "{policy:?}");
        }
    });
}

#[test]
fn a_thread_that_does_not_end_is_an_error() {
    nothing_stays(|_mark| {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let deaf = Thread::new("deaf", move |_stop| assert!(receiver.recv().is_err())).grace(2 * MS);
        let error = Group::new().add(deaf).duration(MS).run().unwrap_err();
        assert!(matches!(&error, ProcError::ThreadRuns { name, .. } if name == "deaf"), "{error}");
        drop(sender);
    });
}

#[test]
fn a_signal_ends_all_in_reverse_order() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        nothing_stays(move |_mark| {
            let mut owner = owner(&["group"]);
            let mut started: Vec<_> = (0..3).map(|_| owner.line()).collect();
            started.sort_unstable();
            assert_eq!(started, ["a starts", "b starts", "c starts"]);
            owner.signal(signal);
            let mark = owner.mark();
            let ended = owner.wait();
            assert!(ended.status.success(), "{}", ended.errors);
            let lines: Vec<_> = ended.output.lines().skip(3).collect();
            assert_eq!(lines, ["c ends", "b ends", "a ends", "Ok(())"]);
            teleport_tests::until_none_left(&mark);
        });
    }
}

#[test]
fn a_second_signal_ends_all_at_once() {
    nothing_stays(|_mark| {
        let mut owner = owner(&["deaf-group"]);
        assert_eq!([owner.line(), owner.line()], ["ready", "ready"]);
        owner.signal(Signal::SIGINT);
        assert_eq!(owner.line(), "goes on");
        owner.signal(Signal::SIGINT);
        let mark = owner.mark();
        let ended = owner.wait();
        assert!(ended.status.success(), "{}", ended.errors);
        assert_eq!(ended.output.lines().last(), Some("Ok(())"));
        teleport_tests::until_none_left(&mark);
    });
}

#[test]
fn a_group_in_a_thread_ends_with_it() {
    nothing_stays(|mark| {
        let mark_of_it = mark.to_owned();
        let thread = Thread::new("group", move |_stop| {
            let process = carrying(&mark_of_it, Process::stoppable("waiting", wait, ()));
            Group::new().add(process).run()
        });
        thread.start().unwrap();
        teleport_tests::until_marked(mark, 1);
        thread.grace(FOREVER).kill().unwrap();
    });
}

fn wait(_: (), stop: &Stop) {
    while stop.sleep(FOREVER) {}
}
