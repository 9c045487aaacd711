//! A bit that flips on the way: with checksums, the one call fails and says so, and nothing else does.

use teleport::wire::ErrorKind;
use teleport::{CallError, CallFuture, Ran, Tree};
use teleport_tests::{Random, Toward, until};

use crate::{HOUR, Scene, bytes, for_each_address, is_answered};

/// Sizes of arguments: eager ones, and some that wait for a grant and come in several chunks.
const SIZES: [usize; 12] =
    [1, 8, 100, 1000, 3000, 30_000, 30_001, 300_000, 1_000_000, 1_500_000, 3_000_000, 5_000_000];

/// The server's wish for checksums and the client's: that of either is enough.
fn scene(address: &str, checksums: [bool; 2]) -> (Scene, teleport::Client) {
    let scene = Scene::with(address, |server| server.checksum(checksums[0]));
    let client = scene.builder(HOUR).checksum(checksums[1]).connect().unwrap();
    (scene, client)
}

/// Makes many calls of `echo` at once, of which one is changed on its way at a byte drawn at random.
fn check(address: &str, toward: Toward, checksums: [bool; 2], random: &mut Random) {
    let (scene, client) = scene(address, checksums);
    let at = random.below(SIZES.iter().sum());
    scene.proxy.corrupt_payload(toward, at as u64);
    let sent: Vec<Tree> = SIZES.iter().map(|size| bytes(*size)).collect();
    let calls: Vec<CallFuture> =
        sent.iter().map(|tree| client.call("echo", tree.clone()).send().unwrap()).collect();
    let mut failures = Vec::new();
    for (call, sent) in calls.into_iter().zip(&sent) {
        match call.wait() {
            Ok(answer) => assert!(answer == *sent, "a bit flipped at {at} and nobody noticed"),
            Err(error) => failures.push(error),
        }
    }
    let [error] = &failures[..] else { panic!("at {at}, {} calls failed: {failures:?}", failures.len()) };
    let CallError::Remote(failure) = error else { panic!("{error:?}") };
    assert_eq!(failure.kind(), ErrorKind::Checksum);
    assert!(error.to_string().contains("checksum"), "{error}");
    assert_eq!(error.ran(), if toward == Toward::Server { Ran::No } else { Ran::Yes });

    is_answered(&client);
    assert_eq!(client.stats().connects, 1);
    until("all memory is given back", || scene.server.stats().held_bytes == 0);
    client.close().unwrap();
    scene.server.close().unwrap();
}

#[test]
fn one_bit_of_the_arguments() {
    for_each_address(|address| {
        let mut random = Random::from_environment();
        for checksums in [[true, true], [false, true], [true, false]].repeat(2) {
            check(address, Toward::Server, checksums, &mut random);
        }
    });
}

#[test]
fn one_bit_of_a_result() {
    for_each_address(|address| {
        let mut random = Random::from_environment();
        for checksums in [[true, true], [false, true], [true, false]].repeat(2) {
            check(address, Toward::Client, checksums, &mut random);
        }
    });
}

/// What a dropped message had taken of the credit comes back, or the connection would soon stand still.
#[test]
fn again_and_again() {
    for_each_address(|address| {
        let (scene, client) = scene(address, [true, true]);
        for toward in [Toward::Server, Toward::Client] {
            for round in 0..40 {
                scene.proxy.corrupt_payload(toward, round * 1000);
                let error = client.call("echo", bytes(300_000)).wait().unwrap_err();
                assert!(error.to_string().contains("checksum"), "{error}");
            }
        }
        is_answered(&client);
        assert_eq!(client.stats().connects, 1);
        // Of the calls whose arguments were changed, none ran.
        assert_eq!(scene.server.stats().calls, 41);
        client.close().unwrap();
    });
}

/// Frames themselves always have checksums: a stream that makes no sense any more is ended, and a new one begun.
#[test]
fn one_bit_of_a_header_or_of_metadata() {
    for_each_address(|address| {
        for toward in [Toward::Server, Toward::Client] {
            let (scene, client) = scene(address, [true, true]);
            for at in [0, 9, 17, 31, 32, 40] {
                is_answered(&client);
                scene.proxy.corrupt_byte(toward, at);
                let error = client.call("echo", bytes(1000)).wait().unwrap_err();
                let is_told = matches!(error, CallError::Protocol { .. } | CallError::Disconnected { .. });
                assert!(is_told, "{error:?}");
                assert_eq!(error.ran(), Ran::Maybe);
            }
            is_answered(&client);
        }
    });
}
