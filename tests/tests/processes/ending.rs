//! Ending processes twice, from several threads, and by dropping them.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use teleport::{ProcError, Process};
use teleport_tests::{until_marked, until_none_left};

use crate::{carrying, idle, nothing_stays};

#[test]
fn kill_twice_and_join_after_it() {
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("idle", idle, ()));
        process.kill().unwrap(); // it was not started
        process.start().unwrap();
        process.kill().unwrap();
        process.kill().unwrap();
        assert!(matches!(process.join(), Err(ProcError::Killed { .. })));
        assert!(matches!(process.join(), Err(ProcError::Killed { .. })));
        process.check().unwrap();
    });
}

#[test]
fn several_threads_kill_and_join_at_once() {
    nothing_stays(|mark| {
        let process = Arc::new(carrying(mark, Process::new("idle", idle, ())));
        process.start().unwrap();
        let act = |kill: bool| {
            let process = process.clone();
            thread::spawn(move || {
                if kill {
                    process.kill().unwrap();
                }
                assert!(matches!(process.join(), Err(ProcError::Killed { .. })));
            })
        };
        let threads: Vec<_> = (0..16).map(|index| act(index % 2 == 0)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn dropping_a_process_ends_it() {
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("idle", idle, ()));
        process.start().unwrap();
        until_marked(mark, 1);
        drop(process);
        until_none_left(mark);
    });
}

#[test]
fn two_hundred_at_once() {
    nothing_stays(|mark| {
        let processes: Vec<_> = (0..200)
            .map(|index| {
                let process = carrying(mark, Process::new(format!("idle-{index}"), idle, ()));
                process.start().unwrap();
                process.grace(Duration::from_secs(5))
            })
            .collect();
        until_marked(mark, 200);
        drop(processes);
        until_none_left(mark);
    });
}

#[test]
fn many_threads_start_at_once() {
    nothing_stays(|mark| {
        thread::scope(|scope| {
            for index in 0..16u32 {
                scope.spawn(move || {
                    let process = carrying(mark, Process::new("double", |x: u32| 2 * x, index));
                    process.start().unwrap();
                    assert_eq!(process.join().unwrap(), 2 * index);
                });
            }
        });
    });
}
