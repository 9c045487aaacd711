//! A program that is built with `panic = "abort"`, and prints the results of processes and a thread.

use teleport_proc::{BoxError, Process, Thread};

fn halve(x: i64) -> i64 {
    assert!(x % 2 == 0, "{x} is odd");
    x / 2
}

fn main() -> Result<(), BoxError> {
    teleport_proc::init();
    for x in [8, 7] {
        let process = Process::new("halve", halve, x);
        process.start()?;
        match process.join() {
            Ok(half) => println!("{half}"),
            Err(error) => println!("{error}"),
        }
    }
    let thread = Thread::new("worker", |_stop| ());
    if let Err(error) = thread.start() {
        println!("{error}");
    }
    Ok(())
}
