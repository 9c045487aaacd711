//! What a process that was forked from one with clients and servers can do with them: nothing, and it is told so at once. The
//! parent's go on as if it were not there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "to fork is what is tested")]

use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use teleport::{CallError, Client, Methods, Ran, ServeError, Server, Tree, tree};
use teleport_tests::{abstract_address, until, watched};

const SOON: Duration = Duration::from_secs(5);

/// What `checks` gives in a forked process is true, each of it. Gives back what it holds, which the parent still has.
#[must_use]
fn in_a_copy<F: FnOnce() -> Vec<bool>>(checks: F) -> F {
    // SAFETY: the copy has one thread. It allocates, which the C library provides for, and leaves without destructors.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            nix::unistd::alarm::set(20);
            // Which of them failed: the first is 1.
            let failed = checks().iter().position(|is_so| !is_so).map_or(0, |index| index as i32 + 1);
            // SAFETY: ends the process, and nothing else.
            unsafe { nix::libc::_exit(failed) }
        }
        ForkResult::Parent { child } => {
            let mut ended = WaitStatus::StillAlive;
            until("the copy ends", || {
                ended = waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap();
                ended != WaitStatus::StillAlive
            });
            assert_eq!(ended, WaitStatus::Exited(child, 0), "the exit code is the first check that failed");
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
fn a_copy_of_a_client_says_what_it_is_and_leaves_the_connection_alone() {
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
                // One of its own finds no poller, and says so at once.
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
fn a_copy_of_a_server_says_what_it_is_and_closes_nothing() {
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
