//! Peers from which nothing comes any more, and peers that only seem so.

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

/// The program `peer`, which takes its times as arguments.
fn peer(arguments: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
    command.args(arguments);
    Program::spawn(command)
}

fn milliseconds(time: Duration) -> String {
    time.as_millis().to_string()
}

#[test]
fn a_cut_off_is_found_out_on_both_sides_with_calls_in_flight() {
    for_each_address(|address| {
        let scene = Scene::start(address, MAX_SILENCE);
        let client = scene.client(MAX_SILENCE);
        let running = client.call("hold", ()).send().unwrap();
        scene.begins();
        scene.proxy.swallow();
        let on_its_way = client.call("echo", tree!(1)).send().unwrap();
        for call in [running, on_its_way] {
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
fn a_cut_off_is_found_out_on_both_sides_while_nobody_calls() {
    for_each_address(|address| {
        let scene = Scene::start(address, MAX_SILENCE);
        let client = scene.client(MAX_SILENCE);
        is_answered(&client);
        scene.proxy.swallow();
        until("the client gives the connection up", || client.stats().server.is_none());
        scene.is_alone();
        scene.proxy.start_anew();
        is_answered(&client);
    });
}

/// Where only one side hears the other, the one that hears nothing gives up, and the other is told by the stream's end.
#[test]
fn a_connection_that_is_lost_in_one_direction_is_lost() {
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

/// As when the power of a machine fails: not even the end of the stream comes.
#[test]
fn a_server_that_dies_without_a_word_is_found_out() {
    for_each_address(|address| {
        let serve = Serve::start(address);
        let proxy = Proxy::start(serve.address());
        let client = |name: &str| {
            let builder = Client::builder(&proxy.address()).name(name);
            builder.ping_interval(PING_INTERVAL).max_silence(MAX_SILENCE).connect().unwrap()
        };
        let (idle, busy) = (client("idle"), client("busy"));
        let call = busy.call("sleep", tree!({"seconds": 1e6})).send().unwrap();
        until("it was sent", || busy.stats().in_flight == 1);
        proxy.swallow();
        serve.kill();
        let error = call.wait().unwrap_err();
        assert!(is_not_alive(&error), "{error:?}");
        until("the idle one finds it out too", || idle.stats().server.is_none());
    });
}

#[test]
fn a_client_that_dies_without_a_word_is_found_out() {
    for_each_address(|address| {
        let scene = Scene::start(address, MAX_SILENCE);
        let busy = peer(&["call", &scene.proxy.address(), &milliseconds(HOUR), "hold"]);
        let mut idle = peer(&["call", &scene.proxy.address(), &milliseconds(HOUR), "-"]);
        scene.begins();
        assert_eq!(idle.line(), "connected");
        until("both are clients", || scene.server.clients() == 2);
        scene.proxy.swallow();
        busy.signal(Signal::SIGKILL);
        idle.signal(Signal::SIGKILL);
        scene.is_alone();
    });
}

#[test]
fn a_stopped_client_is_found_out_while_it_does_nothing() {
    for_each_address(|address| {
        let scene = Scene::start(address, MAX_SILENCE);
        let mut idle = peer(&["call", &scene.proxy.address(), &milliseconds(HOUR), "-"]);
        assert_eq!(idle.line(), "connected");
        idle.stop();
        scene.is_alone();
        idle.go_on();
        until("it finds its server again", || scene.server.clients() == 1);
    });
}

/// Passes the time until a stopped process has missed `max_silence`, with a call that lasts so long.
fn longer_than_max_silence(scene: &Scene, client: &Client) {
    let error = client.call("hold", ()).deadline(MAX_SILENCE * 2).wait().unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error:?}");
    scene.begins();
}

/// It slept, and not its server: what waits in its socket is read before anybody is judged.
#[test]
fn a_client_that_was_stopped_for_long_keeps_its_living_server() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let mut sleeper = peer(&["call", &scene.proxy.address(), &milliseconds(MAX_SILENCE), "echo"]);
        assert_eq!(sleeper.line(), "connected");
        assert_eq!(sleeper.line(), "answered 1, connected 1 times");
        sleeper.stop();
        let other = scene.client(HOUR);
        longer_than_max_silence(&scene, &other);
        sleeper.go_on();
        // Of these, the last cannot be from before it was stopped.
        for _ in 0..=scene.server.stats().calls {
            assert!(sleeper.line().ends_with(", connected 1 times"));
        }
    });
}

/// As above, with nothing in flight: only pings wait in its socket.
#[test]
fn an_idle_client_that_was_stopped_for_long_keeps_its_living_server() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let mut sleeper = peer(&["call", &scene.proxy.address(), &milliseconds(MAX_SILENCE), "-"]);
        assert_eq!(sleeper.line(), "connected");
        let other = scene.client(HOUR);
        sleeper.stop();
        longer_than_max_silence(&scene, &other);
        sleeper.go_on();
        // It would have connected again by then, had it given its server up.
        longer_than_max_silence(&scene, &other);
        assert_eq!((scene.proxy.connections(), scene.proxy.open()), (2, 2));
    });
}

#[test]
fn a_server_that_was_stopped_for_long_keeps_its_living_clients() {
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

/// As when a shell stops all programs of a job: neither side has anything from the other in its socket, and both live.
#[test]
fn two_that_were_stopped_for_long_keep_each_other() {
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
        // It would have connected again by then, had one given the other up.
        longer_than_max_silence(&bystander, &other);
        assert_eq!((proxy.connections(), proxy.open()), (1, 1));
    });
}
