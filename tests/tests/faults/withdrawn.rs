//! Calls that are cancelled or expire while the network is stalled or slow.

use std::time::Duration;

use teleport::{CallError, Client, Ran, tree};
use teleport_tests::{Cut, Toward, until};

use crate::{HOUR, Scene, bytes, for_each_address, is_answered};

const SOON: Duration = Duration::from_millis(100);

/// The size of an array that takes long enough to be interrupted half-sent.
const LARGE: usize = 64 << 20;

/// Sends an array of [`LARGE`] bytes to `note` and stalls the network in the middle of it.
fn half_sent(scene: &Scene, client: &Client) -> teleport::CallFuture {
    scene.proxy.stall_after_payload(Toward::Server, 2 << 20);
    let call = client.call("note", bytes(LARGE)).send().unwrap();
    until("it is half sent", || scene.proxy.is_stalled(Toward::Server));
    call
}

/// Waits until the server has freed the memory of withdrawn calls and checks that only the next call of
/// `note` runs.
#[track_caller]
fn nothing_else_runs(scene: &Scene, client: &Client) {
    until("its memory is freed", || scene.server.stats().held_bytes == 0);
    client.call("note", tree!("next")).wait().unwrap();
    assert_eq!(scene.begins(), tree!("next"));
    assert!(scene.began.try_recv().is_err());
    assert_eq!(client.stats().connects, 1);
}

#[test]
fn a_half_sent_call_that_is_cancelled_never_runs() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        let call = half_sent(&scene, &client);
        assert_eq!(call.cancel(), Ran::No);
        scene.proxy.resume();
        nothing_else_runs(&scene, &client);
        // The rest is not sent.
        assert!(scene.proxy.payload_bytes(Toward::Server) < LARGE as u64 / 2);
    });
}

#[test]
fn a_call_that_is_cancelled_before_it_is_sent_is_never_sent() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        let large = half_sent(&scene, &client);
        // Calls are sent until the socket is full. Cancelling one returns whether it was sent.
        let (mut tries, mut unsent) = (0, Vec::new());
        until("the socket is full", || {
            tries += 1;
            let call = client.call("note", tree!(tries)).send().unwrap();
            if call.cancel() == Ran::No {
                unsent.push(tree!(tries));
            }
            unsent.len() == 20
        });
        scene.proxy.resume();
        large.wait().unwrap();
        client.call("note", tree!("last")).wait().unwrap();
        loop {
            let ran = scene.begins();
            assert!(!unsent.contains(&ran), "{ran:?} ran but was reported as not sent");
            if ran == tree!("last") {
                break;
            }
        }
    });
}

#[test]
fn a_queued_call_that_is_cancelled_never_runs_and_a_running_one_is_notified() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        let running: Vec<_> = (0..4).map(|i| client.call("hold", tree!(i)).send().unwrap()).collect();
        running.iter().for_each(|_| drop(scene.begins()));
        let queued = client.call("hold", tree!("queued")).send().unwrap();
        until("the call is queued", || scene.server.stats().queued == 1);
        queued.cancel();
        until("the queued call is answered", || scene.server.stats().failed == 1);
        for call in running {
            assert_eq!(call.cancel(), Ran::Maybe);
        }
        until("the functions have ended", || scene.server.stats().running == 0);
        nothing_else_runs(&scene, &client);
    });
}

fn is_deadline(error: &CallError) -> bool {
    matches!(error, CallError::Deadline { time: Some(time), .. } if *time == SOON)
}

#[test]
fn a_deadline_ends_a_future_when_no_bytes_arrive() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        is_answered(&client);
        scene.proxy.swallow();
        let error = client.call("echo", tree!(1)).deadline(SOON).wait().unwrap_err();
        assert!(is_deadline(&error) && error.ran() == Ran::Maybe, "{error:?}");
    });
}

#[test]
fn a_deadline_ends_a_call_that_is_half_sent() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        scene.proxy.limit_rate(3 << 20);
        let call = client.call("note", bytes(LARGE)).deadline(SOON * 10).send().unwrap();
        let error = call.wait().unwrap_err();
        assert!(matches!(error, CallError::Deadline { ran: Ran::No, .. }), "{error:?}");
        scene.proxy.heal();
        nothing_else_runs(&scene, &client);
    });
}

#[test]
fn a_deadline_ends_a_call_whose_result_is_half_received() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        let sent = bytes(LARGE / 4);
        scene.proxy.stall_after_payload(Toward::Client, 1 << 20);
        let call = client.call("echo", sent.clone()).deadline(Duration::from_secs(3)).send().unwrap();
        until("the result is half received", || scene.proxy.is_stalled(Toward::Client));
        let error = call.wait().unwrap_err();
        assert!(matches!(error, CallError::Deadline { .. }) && error.ran() != Ran::No, "{error:?}");
        scene.proxy.resume();
        assert!(client.call("echo", sent.clone()).wait().unwrap() == sent);
        assert_eq!(client.stats().connects, 1);
    });
}

#[test]
fn a_deadline_ends_a_call_that_waits_for_a_connection() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        scene.proxy.swallow();
        scene.proxy.cut(Cut::End);
        until("the client notices the cut", || client.stats().server.is_none());
        let error = client.call("note", tree!(1)).deadline(SOON).wait().unwrap_err();
        assert!(is_deadline(&error) && error.ran() == Ran::No, "{error:?}");
        scene.proxy.start_anew();
        is_answered(&client);
        assert!(scene.began.try_recv().is_err());
    });
}

/// The server never learns that the client has given up, and enforces the deadline itself.
#[test]
fn the_server_does_not_start_an_expired_call() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let (client, other) =
            (scene.client(HOUR), Client::connect(&scene.server.address().to_string()).unwrap());
        let running: Vec<_> = (0..4).map(|i| other.call("hold", tree!(i)).send().unwrap()).collect();
        running.iter().for_each(|_| drop(scene.begins()));
        let late = client.call("hold", tree!("late")).deadline(SOON * 5).send().unwrap();
        until("the call is queued", || scene.server.stats().queued == 1);
        scene.proxy.swallow();
        let error = late.wait().unwrap_err();
        assert!(matches!(error, CallError::Deadline { ran: Ran::Maybe, .. }), "{error:?}");
        // The server counts from the arrival of a call. This call arrives later and has more time.
        assert!(other.call("hold", tree!("later")).deadline(SOON * 10).wait().is_err());
        for call in running {
            assert_eq!(call.cancel(), Ran::Maybe);
        }
        until("the expired call left the queue", || scene.server.stats().queued == 0);
        until("no call runs", || scene.server.stats().running == 0);
        assert!(scene.began.try_recv().is_err());
    });
}
