//! The benchmark's own contenders, as processes: each runs all its workloads, and ends on request.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Far more time than a contender needs. One that hangs must not hang the tests.
const MAX_WAIT: Duration = Duration::from_secs(60);

struct Contender {
    process: Child,
    /// `None` after the request to end.
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Contender {
    fn start(command: &str, name: &str, address: &str) -> Contender {
        let mut process = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args([command, name, address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || {
            output.lines().map_while(Result::ok).take_while(|line| sender.send(line.clone()).is_ok()).count()
        });
        Contender { input: process.stdin.take(), process, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(MAX_WAIT).unwrap()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        self.line()
    }

    /// Closes the input, and waits until the process has ended.
    fn end(mut self) {
        self.input = None;
        assert!(self.lines.recv_timeout(MAX_WAIT).is_err(), "it says nothing more");
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the number of latencies in an answer.
fn latencies(answer: &str) -> usize {
    let words: Vec<&str> = answer.split(' ').collect();
    assert!(words[0] == "done" && words[1..].iter().all(|word| word.parse::<u64>().is_ok()), "{answer}");
    words.len() - 2
}

#[test]
fn contenders_do_what_they_are_asked_for() {
    for name in ["raw", "raw-spinning", "teleport", "teleport-checked", "teleport-small"] {
        let is_raw = name.starts_with("raw");
        for address in
            ["tcp://127.0.0.1:0".to_owned(), format!("ipc://@contenders-{}-{name}", std::process::id())]
        {
            let server = Contender::start("bench-serve", name, &address);
            let ready = server.line();
            let mut client = Contender::start("bench-client", name, ready.strip_prefix("ready ").unwrap());
            assert!(client.line().starts_with("ready "), "{name}");
            for workload in ["sink", "source", "echo"] {
                assert_eq!(latencies(&client.ask(&format!("round {workload} 1024 9 1"))), 9, "{name}");
                assert_eq!(latencies(&client.ask(&format!("round {workload} 64 1000 64"))), 0, "{name}");
                assert_eq!(latencies(&client.ask(&format!("round {workload} 3000000 2 1"))), 2, "{name}");
            }
            assert_eq!(latencies(&client.ask("round sink 1048576 20 8")), 0, "{name}");
            let ours_alone = ["pool", "dict", "beside_argument", "beside_result"];
            let in_batches = ["policy", "keeping_policy", "batched_policy", "pool_source", "batched_source"];
            for workload in ours_alone.into_iter().chain(in_batches) {
                let answer = client.ask(&format!("round {workload} 8388608 3 1"));
                if is_raw {
                    assert!(answer.starts_with("unsupported "), "{name}: {answer}");
                } else {
                    assert_eq!(latencies(&answer), 3, "{name}");
                }
            }
            if !is_raw {
                assert_eq!(latencies(&client.ask("round batched_policy 12288 200 64")), 0, "{name}");
                assert_eq!(latencies(&client.ask("round batched_source 65536 200 64")), 0, "{name}");
            }
            assert!(client.ask("nonsense").starts_with("failed "), "{name}");
            client.end();
            server.end();
        }
    }
}

#[test]
fn crowds_do_what_they_are_asked_for() {
    for name in ["raw-crowd", "raw-crowd-spinning", "teleport"] {
        for address in
            ["tcp://127.0.0.1:0".to_owned(), format!("ipc://@crowds-{}-{name}", std::process::id())]
        {
            let server = Contender::start("bench-serve", name, &address);
            let ready = server.line();
            let mut client = Contender::start("bench-client", name, ready.strip_prefix("ready ").unwrap());
            assert!(client.line().starts_with("ready "), "{name}");
            // Each crowd is different: more clients than calls, another size, and more than one client takes
            // at once.
            for round in ["12288 7 20", "12288 500 20", "1024 500 30", "3000000 40 10"] {
                assert_eq!(latencies(&client.ask(&format!("round crowd_policy {round}"))), 0, "{name}");
            }
            assert!(client.ask("round crowd_policy 1024 9 1001").starts_with("unsupported "), "{name}");
            client.end();
            server.end();
        }
    }
}
