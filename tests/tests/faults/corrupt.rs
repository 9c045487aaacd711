//! A flipped bit: with checksums, it fails one call with a checksum error and affects nothing else.

use teleport::wire::ErrorKind;
use teleport::{CallError, CallFuture, Ran, Tree};
use teleport_tests::{Random, Toward, until};

use crate::{HOUR, Scene, bytes, for_each_address, is_answered};

/// Sizes of arguments. Small ones are eager, large ones wait for a grant and are sent in several chunks.
const SIZES: [usize; 12] =
    [1, 8, 100, 1000, 3000, 30_000, 30_001, 300_000, 1_000_000, 1_500_000, 3_000_000, 5_000_000];

/// Starts server and client with `checksums` set as given for each. One side that sets it is enough.
fn scene(address: &str, checksums: [bool; 2]) -> (Scene, teleport::Client) {
    let scene = Scene::with(address, |server| server.checksum(checksums[0]));
    let client = scene.builder(HOUR).checksum(checksums[1]).connect().unwrap();
    (scene, client)
}

/// Makes many calls of `echo` at once and flips a bit in a random byte of one of them.
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
            Ok(answer) => assert!(answer == *sent, "a flipped bit in byte {at} was not detected"),
            Err(error) => failures.push(error),
        }
    }
    let [error] = &failures[..] else {
        panic!("with a flipped bit in byte {at}, {} calls failed: {failures:?}", failures.len())
    };
    let CallError::Remote(failure) = error else { panic!("{error:?}") };
    assert_eq!(failure.kind(), ErrorKind::Checksum);
    assert!(error.to_string().contains("checksum"), "{error}");
    assert_eq!(error.ran(), if toward == Toward::Server { Ran::No } else { Ran::Yes });

    is_answered(&client);
    assert_eq!(client.stats().connects, 1);
    until("all memory is freed", || scene.server.stats().held_bytes == 0);
    client.close().unwrap();
    scene.server.close().unwrap();
}

#[test]
fn a_flipped_bit_of_arguments_fails_one_call() {
    for_each_address(|address| {
        let mut random = Random::from_environment();
        for checksums in [[true, true], [false, true], [true, false]].repeat(2) {
            check(address, Toward::Server, checksums, &mut random);
        }
    });
}

#[test]
fn a_flipped_bit_of_a_result_fails_one_call() {
    for_each_address(|address| {
        let mut random = Random::from_environment();
        for checksums in [[true, true], [false, true], [true, false]].repeat(2) {
            check(address, Toward::Client, checksums, &mut random);
        }
    });
}

/// The credit of a dropped message comes back. Otherwise the connection would soon stall.
#[test]
fn many_corrupt_messages_use_up_no_credit() {
    for_each_address(|address| {
        let (scene, client) = scene(address, [true, true]);
        for toward in [Toward::Server, Toward::Client] {
            for round in 0..40 {
                scene.proxy.corrupt_payload(toward, round * 1000);
                // In one chunk, so that nothing of a message is on its way when its error has arrived.
                let error = client.call("echo", bytes(200_000)).wait().unwrap_err();
                assert!(error.to_string().contains("checksum"), "{error}");
            }
        }
        is_answered(&client);
        assert_eq!(client.stats().connects, 1);
        // No call with corrupt arguments ran.
        assert_eq!(scene.server.stats().calls, 41);
        client.close().unwrap();
    });
}

/// Headers and metadata always have checksums. A corrupt one ends the connection, and the client connects
/// again.
#[test]
fn a_flipped_bit_of_a_header_or_of_metadata_ends_the_connection() {
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
