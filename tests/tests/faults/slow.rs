//! Networks that deliver late, slowly or piece by piece: everything arrives unchanged.

use std::time::Duration;

use teleport::{Client, Tree, tree};
use teleport_tests::{Proxy, Toward, until};

use crate::{HOUR, Scene, bytes, for_each_address};

/// Makes various calls through a proxy that `slow` has slowed down and checks the answers. The largest array
/// has `large` bytes.
fn check(large: usize, slow: impl Fn(&Proxy) + Send + Sync + 'static) {
    for_each_address(move |address| {
        let scene = Scene::start(address, HOUR);
        // The handshake is slow too.
        slow(&scene.proxy);
        let client = scene.client(HOUR);
        let sent: Vec<Tree> = vec![
            Tree::Null,
            tree!({"text": "hello", "list": [1, 2.5, null, (bytes(1000))]}),
            bytes(large),
            bytes(large / 2 + 1),
            bytes(1),
        ];
        let calls: Vec<_> =
            sent.iter().map(|tree| client.call("echo", tree.clone()).send().unwrap()).collect();
        for (call, sent) in calls.into_iter().zip(&sent) {
            assert!(call.wait().unwrap() == *sent, "the answer differs");
        }
        goes_well(&client, &scene);
    });
}

fn goes_well(client: &Client, scene: &Scene) {
    assert_eq!(client.stats().connects, 1);
    client.close().unwrap();
    scene.is_alone();
    scene.server.check().unwrap();
    scene.server.close().unwrap();
}

#[test]
fn streams_in_single_bytes_arrive_whole() {
    check(3000, |proxy| proxy.split(1));
}

#[test]
fn streams_in_odd_pieces_arrive_whole() {
    // The first is eager, the second is granted and has several chunks.
    check(300_000, |proxy| proxy.split(31));
    check(5_000_000, |proxy| proxy.split(4099));
}

#[test]
fn late_streams_arrive_whole() {
    check(5_000_000, |proxy| proxy.delay(Duration::from_millis(20)));
}

#[test]
fn slow_streams_arrive_whole() {
    check(2_000_000, |proxy| proxy.limit_rate(4_000_000));
    check(2000, |proxy| proxy.limit_rate(10_000));
}

#[test]
fn late_slow_and_split_streams_arrive_whole() {
    check(200_000, |proxy| {
        proxy.delay(Duration::from_millis(5));
        proxy.limit_rate(1_000_000);
        proxy.split(997);
    });
}

#[test]
fn streams_that_pause_in_the_middle_of_frames_arrive_whole() {
    for_each_address(|address| {
        let scene = Scene::start(address, HOUR);
        let client = scene.client(HOUR);
        let sent = bytes(3_000_000);
        for passed in [1, 500_000, 1_500_000, 2_500_000] {
            for toward in [Toward::Server, Toward::Client] {
                scene.proxy.stall_after_payload(toward, passed);
                let call = client.call("echo", sent.clone()).send().unwrap();
                until("the stream pauses", || scene.proxy.is_stalled(toward));
                // Another call during the pause is answered too.
                let other = client.call("echo", tree!("other")).send().unwrap();
                scene.proxy.resume();
                assert!(call.wait().unwrap() == sent, "the answer differs");
                assert_eq!(other.wait().unwrap(), tree!("other"));
            }
        }
        goes_well(&client, &scene);
    });
}
