//! Processes in programs that use tokio.

use teleport::{ProcError, Process};
use teleport_tests::count_marked;

use crate::{carrying, idle, nothing_stays};

#[test]
fn tasks_on_many_threads_start_join_and_kill() {
    nothing_stays(|mark| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
        let double = |index: u32| {
            let mark = mark.to_owned();
            move || {
                let process = carrying(&mark, Process::new("double", |x: u32| 2 * x, index));
                process.start().unwrap();
                assert_eq!(process.join().unwrap(), 2 * index);
            }
        };
        let killed = || {
            let mark = mark.to_owned();
            async move {
                let process = carrying(&mark, Process::new("idle", idle, ()));
                process.start().unwrap();
                // Another thread may drive the task from here on.
                tokio::task::yield_now().await;
                process.kill().unwrap();
                assert!(matches!(process.join(), Err(ProcError::Killed { .. })));
            }
        };
        runtime.block_on(async {
            let mut tasks: Vec<_> = (0..8).map(|index| tokio::task::spawn_blocking(double(index))).collect();
            tasks.extend((0..8).map(|_| tokio::spawn(killed())));
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(count_marked(mark), 0);
    });
}

#[test]
fn a_process_can_use_a_runtime() {
    fn sum(numbers: u32) -> u32 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("there are threads");
        runtime.block_on(async move {
            let tasks: Vec<_> = (0..numbers).map(|number| tokio::spawn(async move { number })).collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.expect("it does not panic");
            }
            sum
        })
    }
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("sum", sum, 100));
        process.start().unwrap();
        assert_eq!(process.join().unwrap(), 4950);
    });
}
