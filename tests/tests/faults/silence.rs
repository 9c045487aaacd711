//! Peers that have become silent, and living peers that only seem silent.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use teleport::{CallError, Client, Ran, tree};
use teleport_tests::{Program, Proxy, Serve, Toward, until};

use crate::{HOUR, MAX_SILENCE, PING_INTERVAL, Scene, for_each_address, is_answered};

fn is_not_alive(error: &CallError) -> bool {
    matches!(error, CallError::NotAlive { silence, max_silence, .. }
        if silence >= max_silence && *max_silence == MAX_SILENCE)
}

/// Starts the program `peer`, which takes its timeouts as arguments.
fn peer(arguments: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
    command.args(arguments);
    Program::spawn(command)
}

fn milliseconds(time: Duration) -> String {
    time.as_millis().to_string()
}

#[test]
fn both_sides_detect_lost_packets_with_calls_in_flight() {
    for_each_address(|address| {
        let scene = Scene::start(address, MAX_SILENCE);
        let client = scene.client(MAX_SILENCE);
        let running = client.call("hold", ()).send().unwrap();
        scene.begins();
        scene.proxy.swallow();
        let sent = client.call("echo", tree!(1)).send().unwrap();
        for call in [running, sent] {
            let error = call.wait().unwrap_err();
            assert!(is_not_alive(&error), "{error:?}");
            assert_eq!(error.ran(), Ran::Maybe);
        }
        scene.is_alone();
        scene.proxy.start_anew();
        is_answered(&client);
    });
}

#[test]
fn both_sides_detect_lost_packets_without_calls() {
    for_each_address(|address| {
        let scene = Scene::start(address, MAX_SILENCE);
        let client = scene.client(MAX_SILENCE);
        is_answered(&client);
        scene.proxy.swallow();
        until("the client gives up the connection", || client.stats().server.is_none());
        scene.is_alone();
        scene.proxy.start_anew();
        is_answered(&client);
    });
}

/// The side that receives nothing gives up, and the other side sees the end of the stream.
#[test]
fn a_connection_that_is_lost_in_one_direction_ends_on_both_sides() {
    for_each_address(|address| {
        for (lost, servers, clients) in
            [(Toward::Server, MAX_SILENCE, HOUR), (Toward::Client, HOUR, MAX_SILENCE)]
        {
            let scene = Scene::start(address, servers);
            let client = scene.client(clients);
            let held = client.call("hold", ()).send().unwrap();
            scene.begins();
            scene.proxy.swallow_toward(lost);
            let error = held.wait().unwrap_err();
            assert_eq!(error.ran(), Ran::Maybe);
            scene.is_alone();
            scene.proxy.start_anew();
            is_answered(&client);
        }
    });
}

/// As when the power of a machine fails: not even the end of the stream arrives.
#[test]
fn clients_detect_a_server_that_vanishes() {
    for_each_address(|address| {
        let serve = Serve::start(address);
        let proxy = Proxy::start(serve.address());
        let client = |name: &str| {
            let builder = Client::builder(&proxy.address()).name(name);
            builder.ping_interval(PING_INTERVAL).max_silence(MAX_SILENCE).connect().unwrap()
        };
        let (idle, busy) = (client("idle"), client("busy"));
        let call = busy.call("sleep", tree!({"seconds": 1e6})).send().unwrap();
        until("the call is in flight", || busy.stats().in_flight == 1);
        proxy.swallow();
        serve.kill();
        let error = call.wait().unwrap_err();
        assert!(is_not_alive(&error), "{error:?}");
        until("the idle client detects it too", || idle.stats().server.is_none());
    });
}

#[test]
fn a_server_detects_clients_that_vanish() {
    for_each_address(|address| {
        let scene = Scene::start(address, MAX_SILENCE);
        let busy = peer(&["call", &scene.proxy.address(), &milliseconds(HOUR), "hold"]);
        let mut idle = peer(&["call", &scene.proxy.address(), &milliseconds(HOUR), "-"]);
        scene.begins();
        assert_eq!(idle.line(), "connected");
        until("both clients are connected", || scene.server.clients() == 2);
        scene.proxy.swallow();
        busy.signal(Signal::SIGKILL);
        idle.signal(Signal::SIGKILL);
        scene.is_alone();
    });
}

#[test]
fn a_server_detects_a_stopped_idle_client() {
    for_each_address(|address| {
        let scene = Scene::start(address, MAX_SILENCE);
        let mut idle = peer(&["call", &scene.proxy.address(), &milliseconds(HOUR), "-"]);
        assert_eq!(idle.line(), "connected");
        idle.stop();
        scene.is_alone();
        idle.go_on();
        until("the client connects again", || scene.server.clients() == 1);
    });
}

/// Waits for longer than `max_silence`, by means of a call with a deadline.
fn longer_than_max_silence(scene: &Scene, client: &Client) {
    let error = client.call("hold", ()).deadline(MAX_SILENCE * 2).wait().unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error:?}");
    scene.begins();
}

/// The client was stopped and its server was not. It reads the bytes in its socket before it judges the
/// server.
#[test]
fn a_client_that_was_stopped_for_long_keeps_its_connection() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let mut sleeper = peer(&["call", &scene.proxy.address(), &milliseconds(MAX_SILENCE), "echo"]);
        assert_eq!(sleeper.line(), "connected");
        assert_eq!(sleeper.line(), "answered 1, connected 1 times");
        sleeper.stop();
        let other = scene.client(HOUR);
        longer_than_max_silence(&scene, &other);
        sleeper.go_on();
        // The last of these lines must have been written after the stop.
        for _ in 0..=scene.server.stats().calls {
            assert!(sleeper.line().ends_with(", connected 1 times"));
        }
    });
}

/// No calls are in flight: only pings wait in the client's socket.
#[test]
fn an_idle_client_that_was_stopped_for_long_keeps_its_connection() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let mut sleeper = peer(&["call", &scene.proxy.address(), &milliseconds(MAX_SILENCE), "-"]);
        assert_eq!(sleeper.line(), "connected");
        let other = scene.client(HOUR);
        sleeper.stop();
        longer_than_max_silence(&scene, &other);
        sleeper.go_on();
        // Had the client given up its server, it would have connected again by now.
        longer_than_max_silence(&scene, &other);
        assert_eq!((scene.proxy.connections(), scene.proxy.open()), (2, 2));
    });
}

#[test]
fn a_server_that_was_stopped_for_long_keeps_its_clients() {
    for_each_address(|address| {
        let mut server = peer(&["serve", address, &milliseconds(MAX_SILENCE)]);
        let address = server.line().strip_prefix("listening at ").unwrap().to_owned();
        let client =
            || Client::builder(&address).ping_interval(PING_INTERVAL).max_silence(HOUR).connect().unwrap();
        let (idle, busy) = (client(), client());
        is_answered(&idle);
        is_answered(&busy);
        server.stop();
        let waits = busy.call("echo", tree!("while it is stopped")).send().unwrap();
        let bystander = Scene::start("tcp://127.0.0.1:0", HOUR);
        let other = bystander.client(HOUR);
        longer_than_max_silence(&bystander, &other);
        server.go_on();
        assert_eq!(waits.wait().unwrap(), tree!("while it is stopped"));
        is_answered(&idle);
        assert_eq!((idle.stats().connects, busy.stats().connects), (1, 1));
    });
}

/// As when a shell stops all programs of a job: both sides live, and neither has received bytes from the
/// other.
#[test]
fn a_connection_survives_a_long_stop_of_both_sides() {
    for_each_address(|address| {
        let mut server = peer(&["serve", address, &milliseconds(MAX_SILENCE)]);
        let address = server.line().strip_prefix("listening at ").unwrap().to_owned();
        let proxy = Proxy::start(&address);
        let mut idle = peer(&["call", &proxy.address(), &milliseconds(MAX_SILENCE), "-"]);
        assert_eq!(idle.line(), "connected");
        let both = [&server, &idle];
        both.iter().for_each(|program| program.stop());
        let bystander = Scene::start("tcp://127.0.0.1:0", HOUR);
        let other = bystander.client(HOUR);
        longer_than_max_silence(&bystander, &other);
        both.iter().for_each(|program| program.go_on());
        // Had one side given up the other, the client would have connected again by now.
        longer_than_max_silence(&bystander, &other);
        assert_eq!((proxy.connections(), proxy.open()), (1, 1));
    });
}
