//! Clients and servers in a forked process: every use is an error at once, and those of the parent go on
//! undisturbed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "the test forks")]

use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use teleport::{CallError, Client, Methods, Ran, ServeError, Server, Tree, tree};
use teleport_tests::{abstract_address, until, watched};

const SOON: Duration = Duration::from_secs(5);

/// Runs `checks` in a forked process, where all have to be true. Returns the closure, whose values the
/// parent keeps.
#[must_use]
fn in_a_copy<F: FnOnce() -> Vec<bool>>(checks: F) -> F {
    // SAFETY: the copy has one thread. The C library lets it allocate, and it leaves without destructors.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            nix::unistd::alarm::set(20);
            // The exit code is the number of the first check that failed, counted from 1.
            let failed = checks().iter().position(|is_so| !is_so).map_or(0, |index| index as i32 + 1);
            // SAFETY: this only ends the process.
            unsafe { nix::libc::_exit(failed) }
        }
        ForkResult::Parent { child } => {
            let mut ended = WaitStatus::StillAlive;
            until("the copy ends", || {
                ended = waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap();
                ended != WaitStatus::StillAlive
            });
            assert_eq!(
                ended,
                WaitStatus::Exited(child, 0),
                "the exit code is the number of the first check that failed"
            );
            checks
        }
    }
}

fn for_each_address(check: impl Fn(&str) + Send + 'static) {
    watched(move || {
        check("tcp://127.0.0.1:0");
        check(&abstract_address());
    });
}

fn serve(address: &str) -> (teleport::ServerHandle, Client) {
    let server = Server::bind(address).unwrap().start(Methods::new().register("echo", |x: Tree| x)).unwrap();
    let client = Client::connect(&server.address().to_string()).unwrap();
    assert_eq!(client.call("echo", tree!(1)).wait().unwrap(), tree!(1));
    (server, client)
}

fn is_forked(error: Result<Tree, CallError>, ran: Ran) -> bool {
    error.is_err_and(|error| matches!(error, CallError::Forked { .. }) && error.ran() == ran)
}

#[test]
fn a_forked_client_returns_errors_and_leaves_the_connection_alone() {
    for_each_address(|address| {
        let (_server, client) = serve(address);
        let pending = client.call("echo", tree!(2)).send().unwrap();
        let dropped = client.call("echo", tree!(3)).send().unwrap();
        let copy = client.clone();
        let _futures = in_a_copy(move || {
            let address = copy.address().to_owned();
            let checks = vec![
                is_forked(copy.call("echo", tree!(4)).wait(), Ran::No),
                copy.call("echo", tree!(5)).send().is_err(),
                copy.call("echo", tree!(6)).try_send().is_err(),
                is_forked(pollster::block_on(async { copy.call("echo", tree!(7)).await }), Ran::No),
                pending.is_done(),
                is_forked(pending.wait(), Ran::Maybe),
                copy.check().is_ok() && copy.close().is_ok() && copy.stats().server.is_none(),
                // A new client fails at once: the fork has no reactor.
                Client::builder(&address).connect_timeout(SOON).connect().is_err(),
            ];
            drop((dropped, copy));
            checks
        });
        assert_eq!(client.call("echo", tree!(8)).wait().unwrap(), tree!(8));
        assert_eq!(client.stats().connects, 1, "it is the same connection");
    });
}

#[test]
fn a_forked_server_returns_errors_and_closes_nothing() {
    for_each_address(|address| {
        let (server, client) = serve(address);
        let address = server.address().to_string();
        let _server = in_a_copy(move || {
            vec![
                matches!(server.check(), Err(ServeError::Forked)),
                matches!(server.close(), Err(ServeError::Forked)),
                server.stats().clients == 0,
                {
                    drop(server);
                    true
                },
            ]
        });
        assert_eq!(client.call("echo", tree!(9)).wait().unwrap(), tree!(9));
        let another = Client::connect(&address).unwrap();
        assert_eq!(another.call("echo", tree!(10)).wait().unwrap(), tree!(10));
    });
}
