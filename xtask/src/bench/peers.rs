//! The peers: other libraries, each in a program that speaks the benchmark's protocol.
//!
//! Flow: `--peers` -> [`available`] builds `xtask/peers` in release mode and makes a Python environment,
//! both in `target/bench` -> the runner starts the commands, with the address as their last argument. A peer
//! that cannot be built is left out, and the report says why. The peers in Rust are built together; if that
//! fails, each is built alone. UCX is a program in C, for which the system must have UCX.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::placement::Placement;
use crate::failure::Failure;
use crate::{python, shell};

/// The environment of all peers. They allocate new memory for each large message, and the kernel's small
/// pages then cost more than the message itself: huge pages make ZeroMQ, nng and tarpc about twice as fast
/// at 256 MiB, and nothing slower.
const ENVIRONMENT: &str = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1";

/// Starts each command so that the kernel ends it with its parent, even while it is stopped.
const START: [&str; 5] = ["setpriv", "--pdeathsig", "KILL", "env", ENVIRONMENT];

/// The peers in the Rust package; each is a feature and a command.
const IN_RUST: [InRust; 6] = [
    InRust { name: "zeromq", feature: "zmq", tools: &["c++"] },
    InRust { name: "nng", feature: "nng", tools: &["cc", "cmake"] },
    InRust { name: "tonic", feature: "tonic", tools: &[] },
    InRust { name: "tarpc", feature: "tarpc", tools: &[] },
    InRust { name: "connectrpc", feature: "connectrpc", tools: &[] },
    InRust { name: "zenoh", feature: "zenoh", tools: &[] },
];

/// Names and files of the peers in Python.
const IN_PYTHON: [(&str, &str); 3] = [
    ("portal", "portal_peer.py"),
    ("arrow-flight", "flight_peer.py"),
    (PORTAL_BATCHES, "portal_batch_peer.py"),
];

/// portal with its server that batches.
const PORTAL_BATCHES: &str = "portal-BatchServer";

/// UCX with two sides that never sleep.
const UCX: &str = "ucx";

/// The rows in which a peer takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the others.
    Usual,
    /// The rows about batches.
    Batches,
    /// The row of UCX.
    Spinning,
}

/// One other library.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The name in tables and plots and for `bench --serve`: one word.
    pub(super) name: String,
    /// Program and arguments that start a server; an address follows.
    pub(super) server: Vec<String>,
    /// The same for a client.
    pub(super) client: Vec<String>,
    /// The placement with which it is fastest, or `None` for that of the row.
    pub(super) placement: Option<Placement>,
    pub(super) part: Part,
}

impl Peer {
    /// Returns a peer whose commands are `words`, then `serve` or `client`, then `rest`.
    fn new(name: &str, words: &[&str], rest: &[&str]) -> Peer {
        let command = |verb: &str| {
            let all = START.iter().chain(words).copied().chain([verb]).chain(rest.iter().copied());
            all.map(str::to_owned).collect()
        };
        let (server, client) = (command("serve"), command("client"));
        let part = match name {
            PORTAL_BATCHES => Part::Batches,
            UCX => Part::Spinning,
            _ => Part::Usual,
        };
        Peer { name: name.to_owned(), server, client, placement: None, part }
    }
}

/// The peers that can run, and those that cannot.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    pub(super) ready: Vec<Peer>,
    /// A sentence for each peer that could not be built.
    pub(super) missing: Vec<String>,
}

impl Peers {
    /// Adds one missing peer, or several names with commas.
    fn miss(&mut self, names: &str, reason: &str) {
        self.missing.push(sentence(names, reason));
    }
}

/// Makes the sentence for the report, from the last line of the reason.
fn sentence(names: &str, reason: &str) -> String {
    let line = reason.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("unknown reason");
    format!("Not measured: {names}: {}.", line.trim().trim_end_matches('.'))
}

/// Builds all peers that can be built.
pub(super) fn available() -> Result<Peers, Failure> {
    let mut peers = Peers::default();
    let cargo = Cargo { folder: shell::target().join("bench/peers") };
    eprintln!("building the peers; the first time takes a few minutes");
    let ready = built(&IN_RUST, &mut peers, &has_tool, &|features| cargo.build(features));
    let program = cargo.folder.join("release/peers").to_string_lossy().into_owned();
    let in_rust = ready.iter().map(|one| Peer::new(one.name, &[&program], &[one.feature]));
    peers.ready.extend(in_rust);
    in_python(&mut peers);
    in_c(&mut peers);
    Ok(peers)
}

/// A peer that is a feature of the package in Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InRust {
    name: &'static str,
    feature: &'static str,
    /// The programs that its build needs in addition to cargo.
    tools: &'static [&'static str],
}

/// Builds the peers and returns those that can be built. `build` takes features, separated by commas.
fn built(
    all: &[InRust],
    peers: &mut Peers,
    has_tool: &dyn Fn(&str) -> bool,
    build: &dyn Fn(&str) -> Result<(), String>,
) -> Vec<InRust> {
    let mut ready = Vec::new();
    for one in all {
        match one.tools.iter().find(|tool| !has_tool(tool)) {
            None => ready.push(*one),
            Some(tool) => {
                peers.miss(one.name, &format!("its build needs `{tool}`, which is not installed"));
            }
        }
    }
    if ready.is_empty() || build(&features(&ready)).is_ok() {
        return ready;
    }
    ready.retain(|one| match build(one.feature) {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("{}: {reason}", one.name);
            peers.miss(one.name, &reason);
            false
        }
    });
    // The last build has only one of them.
    if let Err(reason) = build(&features(&ready)) {
        ready.drain(..).for_each(|one| peers.miss(one.name, &reason));
    }
    ready
}

fn features(peers: &[InRust]) -> String {
    peers.iter().map(|one| one.feature).collect::<Vec<_>>().join(",")
}

/// The Rust package, with its own target folder, because it shares nothing with the workspace.
struct Cargo {
    folder: PathBuf,
}

impl Cargo {
    fn build(&self, features: &str) -> Result<(), String> {
        let build =
            "build --quiet --locked --release --manifest-path xtask/peers/Cargo.toml --no-default-features";
        let mut command = shell::cargo(build);
        command.args(["--features", features, "--target-dir"]).arg(&self.folder);
        python::quiet(&mut command).map(drop)
    }
}

fn has_tool(name: &str) -> bool {
    python::quiet(Command::new(name).arg("--version")).is_ok()
}

fn in_python(peers: &mut Peers) {
    let sources = shell::root().join("xtask/peers/python");
    let folder = shell::target().join("bench/python-peers");
    match python::environment(&folder, &sources.join("requirements.txt")) {
        Ok(python) => {
            let peer = |(name, file)| python_peer(name, &python, &sources.join(file));
            peers.ready.extend(IN_PYTHON.map(peer));
        }
        Err(reason) => {
            eprintln!("the peers in Python: {reason}");
            peers.miss(&IN_PYTHON.map(|(name, _)| name).join(", "), &reason);
        }
    }
}

fn python_peer(name: &str, python: &Path, file: &Path) -> Peer {
    Peer::new(name, &[&python.to_string_lossy(), &file.to_string_lossy()], &[])
}

/// Compiles the peer in C against the UCX of the system.
fn in_c(peers: &mut Peers) {
    let source = shell::root().join("xtask/peers/c/ucx_peer.c");
    let program = shell::target().join("bench/ucx-peer");
    let mut command = Command::new("cc");
    command.args(["-O2", "-std=gnu11", "-o"]).arg(&program).arg(&source).args(["-lucp", "-lucs"]);
    match python::quiet(&mut command) {
        Ok(_) => peers.ready.push(Peer::new(UCX, &[&program.to_string_lossy()], &[])),
        Err(reason) => {
            eprintln!("{UCX}: NOT MEASURED: {reason}");
            peers.miss(UCX, "its build needs `cc` and the headers of UCX (Debian's libucx-dev)");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Builds with these features broken. Returns the ready peers, the messages, and the builds.
    fn build_without(broken: &[&str], tools: &[&str]) -> (Vec<&'static str>, Vec<String>, Vec<String>) {
        let (mut peers, builds) = (Peers::default(), RefCell::new(Vec::new()));
        let build = |features: &str| {
            builds.borrow_mut().push(features.to_owned());
            let is_broken = features.split(',').any(|feature| broken.contains(&feature));
            if is_broken { Err("line one\nit is broken.\n".to_owned()) } else { Ok(()) }
        };
        let ready = built(&IN_RUST, &mut peers, &|tool| tools.contains(&tool), &build);
        (ready.iter().map(|one| one.name).collect(), peers.missing, builds.into_inner())
    }

    #[test]
    fn all_are_built_at_once() {
        let (ready, missing, builds) = build_without(&[], &["cc", "c++", "cmake"]);
        assert_eq!(ready, ["zeromq", "nng", "tonic", "tarpc", "connectrpc", "zenoh"]);
        assert!(missing.is_empty());
        assert_eq!(builds, ["zmq,nng,tonic,tarpc,connectrpc,zenoh"]);
    }

    #[test]
    fn one_without_its_tools_is_not_tried() {
        let (ready, missing, builds) = build_without(&[], &["cc", "c++"]);
        assert_eq!(ready, ["zeromq", "tonic", "tarpc", "connectrpc", "zenoh"]);
        assert_eq!(missing, ["Not measured: nng: its build needs `cmake`, which is not installed."]);
        assert_eq!(builds, ["zmq,tonic,tarpc,connectrpc,zenoh"]);
    }

    #[test]
    fn one_that_does_not_build_takes_no_other_with_it() {
        let (ready, missing, builds) = build_without(&["tonic"], &["cc", "c++", "cmake"]);
        assert_eq!(ready, ["zeromq", "nng", "tarpc", "connectrpc", "zenoh"]);
        assert_eq!(missing, ["Not measured: tonic: it is broken."]);
        assert_eq!(builds.last().unwrap(), "zmq,nng,tarpc,connectrpc,zenoh");
    }

    #[test]
    fn commands_end_where_the_address_follows() {
        let peer = Peer::new("zeromq", &["peers"], &["zmq"]);
        assert_eq!(
            peer.server,
            ["setpriv", "--pdeathsig", "KILL", "env", ENVIRONMENT, "peers", "serve", "zmq"]
        );
        assert_eq!(
            peer.client,
            ["setpriv", "--pdeathsig", "KILL", "env", ENVIRONMENT, "peers", "client", "zmq"]
        );
        let peer = python_peer("portal", Path::new("python3"), Path::new("p.py"));
        assert_eq!(
            peer.server,
            ["setpriv", "--pdeathsig", "KILL", "env", ENVIRONMENT, "python3", "p.py", "serve"]
        );
    }

    #[test]
    fn peers_for_one_kind_of_row_take_no_other_part() {
        let part = |name| Peer::new(name, &["peer"], &[]).part;
        assert_eq!([PORTAL_BATCHES, UCX, "zeromq"].map(part), [Part::Batches, Part::Spinning, Part::Usual]);
    }

    #[test]
    fn names_are_words_and_files_are_there() {
        let names = IN_RUST.map(|one| one.name).into_iter().chain(IN_PYTHON.map(|(name, _)| name));
        assert!(names.into_iter().all(|name| !name.contains(' ')), "`bench --serve` reads them as words");
        let sources = shell::root().join("xtask/peers/python");
        assert!(IN_PYTHON.iter().all(|(_, file)| sources.join(file).exists()));
        assert!(sources.join("requirements.txt").exists() && sources.join("../c/ucx_peer.c").exists());
    }
}
