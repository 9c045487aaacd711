//! A client in Python, written from `FORMAT.md` alone, against the example `serve`.
//!
//! The tests need Python 3 with NumPy. They use the interpreter in `TELEPORT_PYTHON`, or else the one that
//! `cargo xtask ci` installs in `target/python`, or else `python3`. Without NumPy they print a notice and do
//! nothing, or fail if `TELEPORT_REQUIRE_PYTHON=1` is set.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use teleport_tests::{Ended, Program, Scratch, Serve, abstract_address, watched};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the interpreter that `cargo xtask ci` installs in the target folder of this program.
fn environment_of_ci() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let target = this.ancestors().nth(3).expect("cargo puts test programs into folders");
    target.join("python/bin/python3")
}

/// Returns an interpreter with NumPy, or the reasons why each candidate failed.
fn python() -> Result<PathBuf, String> {
    let chosen = std::env::var_os("TELEPORT_PYTHON").map(|chosen| vec![PathBuf::from(chosen)]);
    let mut tried = String::new();
    for python in chosen.unwrap_or_else(|| vec![environment_of_ci(), "python3".into()]) {
        let mut command = Command::new(&python);
        command.args(["-c", "import sys, numpy; assert sys.version_info >= (3, 9)"]);
        match command.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(python),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                tried += &format!("\n  {}: {}", python.display(), text.lines().last().unwrap_or("it failed"));
            }
            Err(error) => tried += &format!("\n  {}: {error}", python.display()),
        }
    }
    Err(tried)
}

/// Runs `check` with an interpreter, or prints that the test was skipped.
#[track_caller]
fn with_python(test: &str, check: impl FnOnce(&Path) + Send + 'static) {
    match python() {
        Ok(python) => watched(move || check(&python)),
        Err(tried) => {
            let text = format!(
                "SKIPPED: THE PYTHON CLIENT TEST {test} NEEDS PYTHON 3 WITH NUMPY. Tried:{tried}\n\
                Install numpy, or set TELEPORT_PYTHON to an interpreter.\n"
            );
            assert!(std::env::var_os("TELEPORT_REQUIRE_PYTHON").is_none_or(|value| value != "1"), "{text}");
            // Written directly, because the test harness hides the output of passing tests.
            std::io::stderr().write_all(text.as_bytes()).unwrap();
        }
    }
}

/// Runs the client's own tests against a server at `address`. The client must pass, and the server must log
/// only the failures that the client causes on purpose.
#[track_caller]
fn self_test(python: &Path, address: &str) {
    let serve = Serve::start(address);
    let script = workspace().join("tests/python/teleport_client.py");
    let mut command = Command::new(python);
    // `-B` writes no __pycache__ beside the sources.
    command.arg("-B").arg(script).arg(serve.address()).arg("--quick");
    let Ended { status, output, errors } = Program::spawn(command).wait();
    assert!(status.success(), "{status}\n{output}\n{errors}");
    assert!(output.contains(" 0 failed"), "{output}");
    let log = serve.log();
    let complaints: Vec<_> = log.iter().filter(|line| !line.contains("on purpose")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_python_client_works_over_tcp() {
    with_python("the_python_client_works_over_tcp", |python| self_test(python, "tcp://127.0.0.1:0"));
}

#[test]
fn the_python_client_works_over_a_socket_file() {
    with_python("the_python_client_works_over_a_socket_file", |python| {
        self_test(python, &Scratch::new().socket());
    });
}

#[test]
fn the_python_client_works_over_an_abstract_socket() {
    with_python("the_python_client_works_over_an_abstract_socket", |python| {
        self_test(python, &abstract_address());
    });
}
