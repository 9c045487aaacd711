//! Calls that are cancelled, or whose time is over, while the network stands still.

use std::time::Duration;

use teleport::{CallError, Client, Ran, tree};
use teleport_tests::{Cut, Toward, until};

use crate::{HOUR, Scene, bytes, for_each_address, is_answered};

const SOON: Duration = Duration::from_millis(100);

/// An array that takes long enough to be caught on its way.
const LARGE: usize = 64 << 20;

/// Sends an array of [`LARGE`] bytes to `note` and stops the network in the middle of it.
fn half_sent(scene: &Scene, client: &Client) -> teleport::CallFuture {
    let call = client.call("note", bytes(LARGE)).send().unwrap();
    until("it is on its way", || scene.proxy.payload_bytes(Toward::Server) > 2 << 20);
    scene.proxy.stall_toward(Toward::Server);
    assert!(scene.proxy.payload_bytes(Toward::Server) < LARGE as u64);
    call
}

/// Waits until what was withdrawn has left nothing behind, and checks that only the next call of `note` runs.
#[track_caller]
fn nothing_else_runs(scene: &Scene, client: &Client) {
    until("its memory is given back", || scene.server.stats().held_bytes == 0);
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
        // What had not left is not sent.
        assert!(scene.proxy.payload_bytes(Toward::Server) < LARGE as u64 / 2);
    });
}

#[test]
fn a_call_that_is_cancelled_before_it_is_sent_is_never_sent() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        let large = half_sent(&scene, &client);
        // Some go until the socket is full; whether they were sent is known when they are withdrawn.
        let (mut tries, mut unsent) = (0, Vec::new());
        until("the socket takes no more", || {
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
            assert!(!unsent.contains(&ran), "{ran:?} was not sent, and ran");
            if ran == tree!("last") {
                break;
            }
        }
    });
}

#[test]
fn a_call_that_is_cancelled_before_it_starts_never_runs_and_a_running_one_is_told() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        let running: Vec<_> = (0..4).map(|i| client.call("hold", tree!(i)).send().unwrap()).collect();
        running.iter().for_each(|_| drop(scene.begins()));
        let queued = client.call("hold", tree!("queued")).send().unwrap();
        until("it waits for a thread", || scene.server.stats().queued == 1);
        queued.cancel();
        until("it is answered", || scene.server.stats().failed == 1);
        for call in running {
            assert_eq!(call.cancel(), Ran::Maybe);
        }
        until("the functions were told", || scene.server.stats().running == 0);
        nothing_else_runs(&scene, &client);
    });
}

fn is_deadline(error: &CallError) -> bool {
    matches!(error, CallError::Deadline { time: Some(time), .. } if *time == SOON)
}

#[test]
fn a_deadline_ends_a_future_while_nothing_comes() {
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
        scene.proxy.crawl(3 << 20);
        let call = client.call("note", bytes(LARGE)).deadline(SOON * 10).send().unwrap();
        let error = call.wait().unwrap_err();
        assert!(matches!(error, CallError::Deadline { ran: Ran::No, .. }), "{error:?}");
        scene.proxy.heal();
        nothing_else_runs(&scene, &client);
    });
}

#[test]
fn a_deadline_ends_a_call_whose_result_has_come_in_part() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        let sent = bytes(LARGE / 4);
        let call = client.call("echo", sent.clone()).deadline(Duration::from_secs(3)).send().unwrap();
        until("the result is on its way", || scene.proxy.payload_bytes(Toward::Client) > 0);
        scene.proxy.stall_toward(Toward::Client);
        assert!(scene.proxy.payload_bytes(Toward::Client) < LARGE as u64 / 4);
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
        until("the client notices", || client.stats().server.is_none());
        let error = client.call("note", tree!(1)).deadline(SOON).wait().unwrap_err();
        assert!(is_deadline(&error) && error.ran() == Ran::No, "{error:?}");
        scene.proxy.start_anew();
        is_answered(&client);
        assert!(scene.began.try_recv().is_err());
    });
}

/// Not even where the server never hears that the client has given up.
#[test]
fn a_call_whose_time_is_over_is_not_started() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let (client, other) =
            (scene.client(HOUR), Client::connect(&scene.server.address().to_string()).unwrap());
        let running: Vec<_> = (0..4).map(|i| other.call("hold", tree!(i)).send().unwrap()).collect();
        running.iter().for_each(|_| drop(scene.begins()));
        let late = client.call("hold", tree!("late")).deadline(SOON * 5).send().unwrap();
        until("it waits for a thread", || scene.server.stats().queued == 1);
        scene.proxy.swallow();
        let error = late.wait().unwrap_err();
        assert!(matches!(error, CallError::Deadline { ran: Ran::Maybe, .. }), "{error:?}");
        // The server counts from when the call came, which this one, given more time, did later.
        assert!(other.call("hold", tree!("later")).deadline(SOON * 10).wait().is_err());
        for call in running {
            assert_eq!(call.cancel(), Ran::Maybe);
        }
        until("the server has looked at it", || scene.server.stats().queued == 0);
        until("and not started it", || scene.server.stats().running == 0);
        assert!(scene.began.try_recv().is_err());
    });
}
