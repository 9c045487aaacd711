//! A server without descriptors for more connections keeps serving its clients. Others wait until some leave.

use teleport_tests::{Raw, Serve, Steady, descriptors, until};

use crate::for_each_address;

/// The descriptor limit: low, but more than the server needs for itself.
const MAX_DESCRIPTORS: usize = 40;

/// The number of connections. More of them wait than leave at once.
const WAITING: usize = 60;

/// Returns how many more descriptors the process may open. Inherited ones may have numbers above the limit.
fn free_descriptors(process: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let numbers = open.map(|entry| entry.unwrap().file_name().to_string_lossy().parse::<usize>().unwrap());
    MAX_DESCRIPTORS - numbers.filter(|number| *number < MAX_DESCRIPTORS).count()
}

#[test]
fn connections_wait_for_free_descriptors() {
    for_each_address(|address| {
        let serve = Serve::with_few_descriptors(address, MAX_DESCRIPTORS);
        let process = serve.program().id();
        let mut steady = Steady::start(serve.address());
        let alone = descriptors(process);

        let mut let_in = Vec::new();
        while free_descriptors(process) > 0 {
            let_in.push(Raw::introduced(serve.address()).0);
        }
        assert!(let_in.len() > 10, "the server needs {alone} descriptors for itself and one client");
        let mut waiting: Vec<Raw> = (0..WAITING).map(|_| Raw::connect(serve.address())).collect();
        until("the server runs out of descriptors", || {
            serve.program().errors_so_far().contains("Too many open files")
        });
        steady.works_on();
        assert_eq!(free_descriptors(process), 0);

        // When a group leaves, as many waiting connections are accepted, in the order in which they came.
        while !waiting.is_empty() {
            let next = let_in.len().min(waiting.len());
            let_in.clear();
            let_in.extend(waiting.drain(..next));
            for peer in &mut let_in {
                peer.introduce(&Raw::hello());
            }
            steady.works_on();
        }
        drop(let_in);
        until("the server has closed their sockets", || descriptors(process) == alone);
        steady.end();
        // The log reports the shortage, but not each attempt to accept.
        let log = serve.log();
        let told = log.iter().filter(|line| line.contains("Too many open files")).count();
        assert!((1..=100).contains(&told), "{told} lines of {}", log.len());
    });
}
