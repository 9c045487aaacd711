//! Each peer, as processes: it runs all its workloads over each transport, and ends on request.
//!
//! The peer in C is compiled against the system's UCX. Without that it is skipped, with a message.
//!
//! Peers in Python are tested with the interpreter in `PEERS_PYTHON`, which must have the packages in
//! `python/requirements.txt`. Without it they are skipped, with a message.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Far more time than a peer needs. One that hangs must not hang the tests.
const MAX_WAIT: Duration = Duration::from_secs(60);

struct Contender {
    process: Child,
    /// `None` after the request to end.
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Contender {
    fn start(words: &[String], address: &str) -> Contender {
        let mut process = Command::new(&words[0])
            .args(&words[1..])
            .arg(address)
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

/// A server and its client.
struct Pair {
    server: Contender,
    client: Contender,
}

impl Pair {
    fn start(command: impl Fn(&str) -> Vec<String>, address: &str) -> Pair {
        let server = Contender::start(&command("serve"), address);
        let ready = server.line();
        let client = Contender::start(&command("client"), ready.strip_prefix("ready ").unwrap());
        assert!(client.line().starts_with("ready "));
        Pair { server, client }
    }

    /// Returns the number of latencies in the answer, or `None` if the round is not supported.
    fn round(&mut self, round: &str) -> Option<usize> {
        let answer = self.client.ask(&format!("round {round}"));
        if answer.starts_with("unsupported ") {
            return None;
        }
        let words: Vec<&str> = answer.split(' ').collect();
        let is_right = words[0] == "done" && words[1..].iter().all(|word| word.parse::<u64>().is_ok());
        assert!(is_right, "{round}: {answer}");
        Some(words.len() - 2)
    }

    fn end(mut self) {
        assert!(self.client.ask("nonsense").starts_with("failed "));
        self.client.end();
        self.server.end();
    }
}

/// Tests all workloads of a peer; `has_streams` is true if it can make small calls beside large ones.
fn does_all(name: &str, command: impl Fn(&str) -> Vec<String>, address: &str, has_streams: bool) {
    let mut pair = Pair::start(command, address);
    for workload in ["sink", "source", "echo", "pool"] {
        assert_eq!(pair.round(&format!("{workload} 1024 9 1")), Some(9), "{name}");
        assert_eq!(pair.round(&format!("{workload} 64 1000 64")), Some(0), "{name}");
        assert_eq!(pair.round(&format!("{workload} 5000003 2 1")), Some(2), "{name}");
    }
    assert_eq!(pair.round("sink 1048576 20 8"), Some(0), "{name}");
    assert_eq!(pair.round("dict 1048576 20 8"), Some(0), "{name}");
    for workload in ["beside_argument", "beside_result"] {
        let calls = pair.round(&format!("{workload} 134217728 3 1"));
        assert_eq!(calls, has_streams.then_some(3), "{name}");
    }
    assert_eq!(pair.round("echo 64 200 128"), Some(0), "{name}");
    assert_eq!(pair.round("batched_policy 64 64 64"), None, "{name} runs nothing in batches");
    pair.end();
}

fn addresses(name: &str) -> [String; 2] {
    ["tcp://127.0.0.1:0".to_owned(), format!("ipc://@peers-{}-{name}", std::process::id())]
}

fn in_rust(name: &str, has_streams: bool) {
    let command = |verb: &str| [env!("CARGO_BIN_EXE_peers"), verb, name].map(str::to_owned).to_vec();
    for address in addresses(name) {
        does_all(name, command, &address, has_streams);
    }
}

/// Returns the command of a peer in Python, if there is an interpreter for it.
fn in_python(file: &str) -> Option<impl Fn(&str) -> Vec<String>> {
    let Ok(python) = std::env::var("PEERS_PYTHON") else {
        eprintln!("{file}: NOT TESTED, SINCE PEERS_PYTHON IS NOT SET");
        return None;
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(file);
    let file = file.to_string_lossy().into_owned();
    Some(move |verb: &str| vec![python.clone(), file.clone(), verb.to_owned()])
}

#[test]
#[cfg(feature = "zmq")]
fn zmq_does_what_it_is_asked_for() {
    in_rust("zmq", false);
}

#[test]
#[cfg(feature = "nng")]
fn nng_does_what_it_is_asked_for() {
    in_rust("nng", false);
}

#[test]
#[cfg(feature = "tonic")]
fn tonic_does_what_it_is_asked_for() {
    in_rust("tonic", true);
}

#[test]
#[cfg(feature = "tarpc")]
fn tarpc_does_what_it_is_asked_for() {
    in_rust("tarpc", false);
}

#[test]
#[cfg(feature = "connectrpc")]
fn connectrpc_does_what_it_is_asked_for() {
    in_rust("connectrpc", true);
}

#[test]
#[cfg(feature = "zenoh")]
fn zenoh_does_what_it_is_asked_for() {
    in_rust("zenoh", true);
}

#[test]
fn ucx_echoes_one_call_at_a_time() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ucx-peer");
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program);
    compile.arg(folder.join("c/ucx_peer.c")).args(["-lucp", "-lucs"]);
    if !compile.status().is_ok_and(|status| status.success()) {
        eprintln!("ucx: NOT TESTED, SINCE IT DOES NOT COMPILE: ARE `cc` AND LIBUCX-DEV INSTALLED?");
        return;
    }
    let command = |verb: &str| vec![program.to_string_lossy().into_owned(), verb.to_owned()];
    let [tcp, unix] = addresses("ucx");
    let mut pair = Pair::start(command, &tcp);
    assert_eq!(pair.round("echo 1024 9 1"), Some(9));
    assert_eq!(pair.round("echo 1000003 2 1"), Some(2));
    assert_eq!(pair.round("echo 64 64 64"), None, "one call at a time");
    assert_eq!(pair.round("sink 64 9 1"), None, "it only echoes");
    pair.end();
    let mut pair = Pair::start(command, &unix);
    assert_eq!(pair.round("echo 64 10 1"), None, "it has TCP only");
    pair.end();
}

#[test]
fn portal_does_what_it_is_asked_for() {
    let Some(command) = in_python("portal_peer.py") else { return };
    let [tcp, unix] = addresses("portal");
    does_all("portal", &command, &tcp, false);
    let mut pair = Pair::start(&command, &unix);
    assert_eq!(pair.round("echo 64 10 1"), None, "it has TCP only");
    pair.end();
}

#[test]
fn portal_does_batches() {
    let Some(command) = in_python("portal_batch_peer.py") else { return };
    let [tcp, unix] = addresses("portal-batches");
    let mut pair = Pair::start(&command, &tcp);
    assert_eq!(pair.round("batched_policy 12288 320 64"), Some(0));
    assert_eq!(pair.round("batched_policy 1024 64 32"), Some(0));
    assert_eq!(pair.round("batched_policy 1024 65 32"), None, "the last batch would never be full");
    assert_eq!(pair.round("echo 64 10 1"), None, "others measure that");
    pair.end();
    let mut pair = Pair::start(&command, &unix);
    assert_eq!(pair.round("batched_policy 64 64 64"), None, "it has TCP only");
    pair.end();
}

#[test]
fn arrow_flight_does_what_it_is_asked_for() {
    let Some(command) = in_python("flight_peer.py") else { return };
    for address in addresses("flight") {
        does_all("flight", &command, &address, true);
    }
}
