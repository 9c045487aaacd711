//! Results, errors, panics, exit codes and signals of processes.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use teleport::proc::BoxError;
use teleport::{Exit, ProcError, Process, Stop};

use crate::{FOREVER, carrying, idle, nothing_stays};

fn reversed(text: String) -> String {
    text.chars().rev().collect()
}

#[test]
fn a_result_is_returned_each_time() {
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("reversed", reversed, "abc".to_owned()));
        process.start().unwrap();
        assert_eq!(process.join().unwrap(), "cba");
        assert_eq!(process.join().unwrap(), "cba");
        assert_eq!(process.join_timeout(Duration::ZERO).unwrap().unwrap(), "cba");
        assert_eq!(process.exit(), Some(Exit::Code(0)));
        assert!(!process.running() && process.pid().is_none());
        process.check().unwrap();
        process.kill().unwrap();
        process.stop(FOREVER).unwrap();
        assert_eq!(process.join().unwrap(), "cba");
    });
}

#[test]
fn large_arguments_and_results_arrive_whole() {
    fn more(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.extend_from_within(..);
        bytes
    }
    nothing_stays(|mark| {
        let bytes: Vec<u8> = (0..64 << 20).map(|i: u32| (i % 251) as u8).collect();
        let process = carrying(mark, Process::new("more", more, bytes.clone()));
        process.start().unwrap();
        let result = process.join().unwrap();
        assert!(result[..bytes.len()] == bytes && result[bytes.len()..] == bytes);
    });
}

#[test]
fn an_error_is_returned_each_time() {
    fn fail(code: u8) -> Result<(), BoxError> {
        Err(format!("no such thing: {code}").into())
    }
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("failing", fail, 7));
        process.start().unwrap();
        for _ in 0..3 {
            let error = process.join().unwrap_err();
            assert_eq!(error.to_string(), "failing: no such thing: 7");
            assert!(!error.failure().unwrap().panicked());
            assert_eq!(process.check().unwrap_err().to_string(), error.to_string());
            process.kill().unwrap(); // does not change the error
        }
        assert_eq!(process.exit(), Some(Exit::Code(1)));
    });
}

#[test]
fn a_panic_comes_with_its_place_and_backtrace() {
    fn panic(reason: String) {
        panic!("gone wrong: {reason}");
    }
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("panicking", panic, "oil".to_owned()));
        process.start().unwrap();
        for _ in 0..2 {
            let error = process.join().unwrap_err();
            let failure = error.failure().unwrap();
            assert!(failure.panicked());
            assert!(failure.message().starts_with("gone wrong: oil (at "), "{failure}");
            assert!(failure.message().contains("results.rs:"), "{failure}");
            assert!(failure.backtrace().unwrap().contains("a_panic_comes_with_its_place"), "{failure:?}");
            process.kill().unwrap();
        }
        assert_eq!(process.exit(), Some(Exit::Code(101)));
    });
}

#[test]
fn a_panic_that_aborts_is_returned_too() {
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            panic!("and again");
        }
    }
    fn panic_twice(_: ()) {
        let _again = Again;
        panic!("once");
    }
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("twice", panic_twice, ()));
        process.start().unwrap();
        let error = process.join().unwrap_err();
        assert!(error.failure().unwrap().message().starts_with("and again (at "), "{error}");
        assert_eq!(process.exit(), Some(Exit::Signal(nix::libc::SIGABRT)));
    });
}

/// Panics, and catches the panic.
fn handled() {
    assert!(std::panic::catch_unwind(|| panic!("handled here")).is_err());
}

#[test]
fn a_panic_that_was_caught_is_no_failure() {
    fn connect_and_idle(address: String) -> Result<(), BoxError> {
        handled();
        let _connection = TcpStream::connect(address)?;
        idle(());
        Ok(())
    }
    fn exit(code: i32) {
        handled();
        std::process::exit(code);
    }
    nothing_stays(|mark| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let idling = carrying(mark, Process::new("idling", connect_and_idle, address));
        idling.start().unwrap();
        listener.accept().unwrap();
        idling.kill().unwrap();
        assert!(matches!(idling.join(), Err(ProcError::Killed { .. })));
        idling.check().unwrap();
        let leaving = carrying(mark, Process::new("leaving", exit, 0));
        leaving.start().unwrap();
        let error = leaving.join().unwrap_err();
        assert!(matches!(error, ProcError::Exited { exit: Exit::Code(0), .. }), "{error}");
    });
}

#[test]
fn a_function_that_exits_has_no_result() {
    fn exit(code: i32) {
        std::process::exit(code);
    }
    for code in [0, 3] {
        nothing_stays(move |mark| {
            let process = carrying(mark, Process::new("leaving", exit, code));
            process.start().unwrap();
            let error = process.join().unwrap_err();
            assert!(
                matches!(error, ProcError::Exited { exit: Exit::Code(found), .. } if found == code),
                "{error}"
            );
            assert!(process.check().is_err());
        });
    }
}

#[test]
fn a_signal_from_elsewhere_is_named_in_the_error() {
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("idle", idle, ()));
        process.start().unwrap();
        process.check().unwrap();
        assert!(process.running());
        assert!(process.join_timeout(Duration::from_millis(1)).unwrap().is_none());
        let pid = nix::unistd::Pid::from_raw(process.pid().unwrap() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGUSR1).unwrap();
        let error = process.join().unwrap_err();
        let expected = "idle: the process ended with signal 10 (SIGUSR1), and its function gave no result";
        assert_eq!(error.to_string(), expected);
    });
}

#[test]
fn a_process_that_has_ended_can_be_started_again() {
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("reversed", reversed, "abc".to_owned()));
        assert!(matches!(process.join(), Err(ProcError::NotStarted { .. })));
        process.start().unwrap();
        process.join().unwrap();
        process.start().unwrap();
        assert_eq!(process.join().unwrap(), "cba");
        let process = carrying(mark, Process::new("idle", idle, ()));
        process.start().unwrap();
        assert!(matches!(process.start(), Err(ProcError::AlreadyStarted { .. })));
    });
}

#[test]
fn initializers_run_first_and_in_order() {
    static SEEN: std::sync::Mutex<Vec<u8>> = std::sync::Mutex::new(Vec::new());
    fn seen(_: ()) -> Vec<u8> {
        SEEN.lock().expect("nobody panics with it").clone()
    }
    fn push(number: u8) {
        SEEN.lock().expect("nobody panics with it").push(number);
    }
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("seen", seen, ()));
        let process = process.initializer(|| push(1)).initializer(|| push(2));
        process.start().unwrap();
        assert_eq!(process.join().unwrap(), [1, 2]);
        assert!(SEEN.lock().unwrap().is_empty(), "the process has another memory");
    });
}

#[test]
fn a_panic_hook_of_an_initializer_takes_nothing_away() {
    fn panic(reason: String) {
        panic!("gone wrong: {reason}");
    }
    let quiet: fn() = || std::panic::set_hook(Box::new(|_| ()));
    let leaving: fn() = || std::panic::set_hook(Box::new(|_| std::process::exit(3)));
    let calling: fn() = || {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| previous(info)));
    };
    for (initializer, code) in [(quiet, 101), (leaving, 3), (calling, 101)] {
        nothing_stays(move |mark| {
            let process = carrying(mark, Process::new("panicking", panic, "oil".to_owned()));
            let process = process.initializer(initializer);
            process.start().unwrap();
            let error = process.join().unwrap_err();
            let failure = error.failure().unwrap();
            assert!(failure.message().starts_with("gone wrong: oil (at "), "{failure}");
            assert!(failure.backtrace().unwrap().contains("a_panic_hook_of_an_initializer"), "{failure:?}");
            assert_eq!(process.exit(), Some(Exit::Code(code)));
        });
    }
}

#[test]
fn a_process_has_the_folder_and_environment_of_its_owner() {
    fn tell(variable: String) -> (String, String) {
        let folder = std::env::current_dir().expect("there is one").display().to_string();
        (folder, std::env::var(variable).unwrap_or_default())
    }
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("telling", tell, "A".to_owned())).env("A", "b=c");
        process.start().unwrap();
        let folder = std::env::current_dir().unwrap().display().to_string();
        assert_eq!(process.join().unwrap(), (folder, "b=c".to_owned()));
    });
}

#[test]
fn a_function_that_stops_returns_its_result() {
    fn count(start: u64, stop: &Stop) -> u64 {
        while stop.sleep(FOREVER) {}
        assert!(!stop.running());
        start + 1
    }
    nothing_stays(|mark| {
        let process = carrying(mark, Process::stoppable("count", count, 41));
        process.start().unwrap();
        process.stop(FOREVER).unwrap();
        assert_eq!(process.join().unwrap(), 42);
        process.check().unwrap();
    });
}

#[test]
fn the_longest_times_never_end() {
    fn wait(_: (), stop: &Stop) {
        while stop.sleep(Duration::MAX) {}
    }
    nothing_stays(|mark| {
        let waiting = carrying(mark, Process::stoppable("waiting", wait, ()));
        waiting.start().unwrap();
        waiting.stop(Duration::MAX).unwrap();
        assert_eq!(waiting.join_timeout(Duration::MAX).unwrap(), Some(()));
        let idle = || carrying(mark, Process::new("idle", idle, ())).grace(Duration::MAX);
        let killed = idle();
        killed.start().unwrap();
        killed.kill().unwrap();
        assert_eq!(killed.exit(), Some(Exit::Signal(nix::libc::SIGTERM)));
        assert!(matches!(killed.join(), Err(ProcError::Killed { .. })));
        let dropped = idle();
        dropped.start().unwrap();
        drop(dropped);
    });
}

#[test]
fn a_function_without_a_stop_gets_a_signal() {
    nothing_stays(|mark| {
        let process = carrying(mark, Process::new("idle", idle, ()));
        process.start().unwrap();
        // This would hang if it waited for the grace.
        process.stop(FOREVER).unwrap();
        assert!(matches!(process.join(), Err(ProcError::Killed { .. })));
        let named = Process::new("a\0b", idle, ());
        assert!(named.start().unwrap_err().to_string().contains("its name has a zero byte"));
    });
}

#[test]
fn a_function_that_does_not_stop_is_killed() {
    fn deaf(_: (), _stop: &Stop) {
        idle(());
    }
    nothing_stays(|mark| {
        let process = carrying(mark, Process::stoppable("deaf", deaf, ()));
        process.start().unwrap();
        process.stop(Duration::from_millis(20)).unwrap();
        assert_eq!(process.exit(), Some(Exit::Signal(nix::libc::SIGKILL)));
        assert!(matches!(process.join(), Err(ProcError::Killed { .. })));
        process.check().unwrap(); // it was asked for
    });
}
