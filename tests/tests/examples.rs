//! The examples as a user runs them: their output, their exit status, and that Ctrl-C leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use nix::pty::openpty;
use nix::sys::signal::Signal;
use teleport::{Client, Context, Methods, Server, Tree, tree};
use teleport_tests::{
    Ended, Program, Scratch, Serve, abstract_address, example, until, until_none_left, watched,
};

/// Waits until the program ends, checks that it succeeded, and returns its output.
#[track_caller]
fn ends_well(program: Program) -> String {
    let mark = program.mark();
    let Ended { status, output, errors } = program.wait();
    assert!(status.success(), "{status}\n{output}\n{errors}");
    until_none_left(&mark);
    output
}

/// Ends a program as Ctrl-C does and checks that it ends with all that it has started.
#[track_caller]
fn ends_at_once(program: Program) {
    let mark = program.mark();
    program.interrupt();
    program.wait();
    until_none_left(&mark);
}

/// Returns the bytes of a `.npy` file.
fn npy(dtype: &str, shape: &str, items: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), items].concat()
}

/// Returns the header, as text, and the items of a `.npy` file.
fn parts(file: &[u8]) -> (String, Vec<u8>) {
    assert!(file.starts_with(b"\x93NUMPY"), "this is no .npy file");
    let (start, length) = match file[6] {
        1 => (10, u16::from_le_bytes([file[8], file[9]]) as usize),
        _ => (12, u32::from_le_bytes([file[8], file[9], file[10], file[11]]) as usize),
    };
    let header = String::from_utf8(file[start..start + length].to_vec()).unwrap();
    (header, file[start + length..].to_vec())
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn quickstart_prints_the_output_in_the_readme() {
    watched(|| {
        let output = ends_well(Program::start("quickstart", &[]));
        assert!(output.lines().any(|line| line == r#"{"result": 2}"#), "{output}");
        assert!(output.contains("Message from client: Hello"), "{output}");
        let rate = output.lines().last().and_then(|line| line.strip_suffix(" GB/s")).expect("a rate");
        let rate: f64 = rate.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(rate > 0.0, "{output}");
    });
}

#[test]
fn quickstart_ends_on_ctrl_c() {
    watched(|| {
        let mut quickstart = Program::start("quickstart", &[]);
        quickstart.line();
        ends_at_once(quickstart);
    });
}

#[test]
fn quickstart_killed_leaves_no_server() {
    watched(|| {
        let mut quickstart = Program::start("quickstart", &[]);
        quickstart.line();
        let mark = quickstart.mark();
        // Only this process is killed. Its server must notice and end.
        quickstart.signal(Signal::SIGKILL);
        quickstart.wait();
        until_none_left(&mark);
    });
}

#[test]
fn tree_starts_a_tree_of_processes_and_leaves_none() {
    watched(|| {
        let output = ends_well(Program::start("tree", &[]));
        let depths = |depth: &str| output.lines().filter(|line| line.ends_with(depth)).count();
        assert_eq!(
            [depths("depth-0"), depths("depth-1"), depths("depth-2"), depths("depth-3")],
            [1, 2, 4, 8]
        );
        assert!(output.lines().last().unwrap().ends_with(" processes 0 are left"), "{output}");
    });
}

/// Returns the number after the parenthesis in the line that starts with `start`.
fn correct_count(output: &str, start: &str) -> String {
    let line = output.lines().find(|line| line.starts_with(start)).expect("a line with this start");
    line.split_once('(').expect("a number in parentheses").1.split(' ').next().unwrap().to_owned()
}

#[test]
fn digits_has_the_same_accuracy_as_without_teleport() {
    watched(|| {
        let output = ends_well(Program::start("digits", &["--clients", "3"]));
        assert_eq!(
            correct_count(&output, "accuracy "),
            correct_count(&output, "without Teleport "),
            "{output}"
        );
        let count: u32 = correct_count(&output, "accuracy ").parse().unwrap();
        assert!((1700..=1797).contains(&count), "unexpected accuracy: {output}");
        assert!(output.contains("calls per second"), "{output}");
    });
}

#[test]
fn digits_has_the_same_accuracy_with_batches() {
    watched(|| {
        let output = ends_well(Program::start("digits", &["--clients", "3", "--batch", "32"]));
        let one_by_one = correct_count(&output, "without Teleport ");
        assert_eq!(correct_count(&output, "accuracy "), one_by_one, "{output}");
        let line = output.lines().last().unwrap();
        let batches: u32 = line.split_once(" batches of ").expect("a number of batches").0.parse().unwrap();
        assert!((1797 / 32 + 1..1797).contains(&batches), "unexpected number of batches: {line}");
    });
}

#[test]
fn digits_ends_on_ctrl_c() {
    watched(|| {
        let mut digits = Program::start("digits", &[]);
        digits.line();
        ends_at_once(digits);
    });
}

#[test]
fn digits_killed_leaves_no_clients() {
    watched(|| {
        let mut digits = Program::start("digits", &[]);
        digits.line();
        let mark = digits.mark();
        digits.signal(Signal::SIGKILL);
        digits.wait();
        until_none_left(&mark);
    });
}

/// Checks the summary at the end of the output of `policy`: steps, batches, latency.
#[track_caller]
fn sums_up(output: &str, actors: &str) {
    let lines: Vec<&str> = output.lines().rev().take(3).collect();
    let [latency, batches, steps] = lines[..] else { panic!("{output}") };
    let steps = steps.strip_prefix(actors).and_then(|line| line.strip_prefix(" made ")).expect("a summary");
    let steps: u64 = steps.split(' ').next().unwrap().parse().unwrap();
    let batches = batches.split_once(", in ").and_then(|(_, line)| line.split_once(' ')).unwrap().0;
    assert!((1..=steps).contains(&batches.parse().unwrap()), "{output}");
    assert!(latency.starts_with("latency p50 ") && latency.contains(", p99 "), "{output}");
}

#[test]
fn policy_prints_progress_and_a_summary() {
    watched(|| {
        let output = ends_well(Program::start(
            "policy",
            &["--processes", "2", "--actors", "4", "--batch", "8", "--seconds", "2.5"],
        ));
        let shown = output.lines().filter(|line| line.contains(" steps per second, batches of "));
        assert!(shown.count() >= 1, "{output}");
        assert!(
            !output.contains(['\r', '\x1b']),
            "lines were rewritten although the output is no terminal: {output}"
        );
        sums_up(&output, "8 actors in 2 processes");
    });
}

#[test]
fn policy_updates_one_line_in_place_on_a_terminal() {
    watched(|| {
        let terminal = openpty(None, None).unwrap();
        let mut policy = Command::new(example("policy"));
        policy.args(["--processes", "1", "--actors", "2", "--seconds", "2"]);
        let mut process = policy.stdin(Stdio::null()).stdout(terminal.slave).spawn().unwrap();
        // Drops the command's copy of the terminal. Otherwise reading would never end.
        drop(policy);
        let (mut output, mut screen) = (Vec::new(), fs::File::from(terminal.master));
        // An error means that no process has the terminal open any more.
        let _ = screen.read_to_end(&mut output);
        assert!(process.wait().unwrap().success());
        let output = String::from_utf8(output).unwrap();
        let rewritten =
            output.lines().find(|line| line.contains("\x1b[K")).expect("a line that was rewritten");
        assert!(rewritten.matches("\x1b[K").count() >= 2, "{output:?}");
        assert_eq!(output.lines().count(), 5, "{output:?}");
        sums_up(&output, "2 actors in 1 processes");
    });
}

#[test]
fn policy_prints_its_summary_on_ctrl_c() {
    watched(|| {
        let mut policy =
            Program::start("policy", &["--processes", "2", "--actors", "2", "--seconds", "3600"]);
        policy.line();
        // The actors are running.
        policy.line();
        let mark = policy.mark();
        policy.interrupt();
        let Ended { status, output, errors } = policy.wait();
        assert!(status.success(), "{status}\n{output}\n{errors}");
        assert_eq!(errors, "");
        sums_up(&output, "4 actors in 2 processes");
        until_none_left(&mark);
    });
}

#[test]
fn policy_killed_leaves_no_actors() {
    watched(|| {
        let mut policy =
            Program::start("policy", &["--processes", "2", "--actors", "2", "--seconds", "3600"]);
        policy.line();
        policy.line();
        let mark = policy.mark();
        policy.signal(Signal::SIGKILL);
        policy.wait();
        until_none_left(&mark);
    });
}

#[test]
fn call_sends_and_saves_numpy_files() {
    watched(|| {
        let scratch = Scratch::new();
        for address in ["tcp://127.0.0.1:0", &abstract_address(), &scratch.socket()] {
            let serve = Serve::start(address);
            let file = |name: &str| scratch.file(name).to_str().unwrap().to_owned();
            fs::write(scratch.file("foo.npy"), npy("<f4", "(2, 3)", &floats(&[1., 2., 3., 4., 5., 6.])))
                .unwrap();
            fs::write(scratch.file("bar.npy"), npy("<f4", "(2, 3)", &floats(&[10.; 6]))).unwrap();
            let arguments =
                [serve.address(), "add", &file("foo.npy"), &file("bar.npy"), "--save", &file("sum.npy")];
            let output = ends_well(Program::start("call", &arguments));
            assert!(output.contains("11") && output.contains("16"), "{output}");
            let (header, items) = parts(&fs::read(scratch.file("sum.npy")).unwrap());
            assert!(header.contains("<f4") && header.contains("(2, 3"), "{header}");
            assert_eq!(items, floats(&[11., 12., 13., 14., 15., 16.]));
            assert_eq!(serve.log(), [""; 0]);
        }
        assert!(!scratch.files().contains(&"socket".to_owned()));
    });
}

#[test]
fn call_echoes_every_number_type_through_files() {
    watched(|| {
        let serve = Serve::start(&abstract_address());
        let scratch = Scratch::new();
        let (sent, saved) = (scratch.file("sent.npy"), scratch.file("saved.npy"));
        for (dtype, bytes) in [
            ("|b1", 1),
            ("|i1", 1),
            ("<i2", 2),
            ("<i4", 4),
            ("<i8", 8),
            ("|u1", 1),
            ("<u2", 2),
            ("<u4", 4),
            ("<u8", 8),
            ("<f4", 4),
            ("<f8", 8),
        ] {
            let items = [0, 1, 1, 0].repeat(bytes);
            fs::write(&sent, npy(dtype, "(4,)", &items)).unwrap();
            let argument = format!("x={}", sent.display());
            let arguments = [serve.address(), "echo", &argument, "--save", saved.to_str().unwrap()];
            ends_well(Program::start("call", &arguments));
            let (header, received) = parts(&fs::read(&saved).unwrap());
            assert!(header.contains(dtype), "{header}");
            assert_eq!(received, items, "{dtype}");
        }
        serve.log();
    });
}

#[test]
fn call_prints_readable_errors() {
    watched(|| {
        let serve = Serve::start(&abstract_address());
        let fail = |arguments: &[&str]| {
            let ended = Program::start("call", &[&[serve.address()], arguments].concat()).wait();
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            assert_eq!(ended.output, "");
            ended.errors
        };
        assert!(fail(&["fail", "message=out of ink"]).contains("out of ink"));
        assert!(fail(&["panic"]).contains("this method panics"));
        assert!(fail(&["ecko"]).contains("echo"), "the error does not name the methods of the server");
        let missing = fail(&["echo", "/nowhere/x.npy"]);
        assert!(missing.contains("/nowhere/x.npy") && !missing.contains("Os {"), "{missing}");
        // The server logs one line for each function that failed, without the message that a panic prints.
        let log = serve.log();
        assert_eq!(log.iter().filter(|line| line.contains("a call failed")).count(), 2, "{log:#?}");
    });
}

#[test]
fn call_ends_on_ctrl_c_while_it_waits() {
    watched(|| {
        let (sender, began) = mpsc::channel();
        let methods = Methods::new().register("hold", move |_: Tree, cx: Context| {
            sender.send(()).unwrap();
            until("the caller is gone", || cx.is_cancelled());
        });
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().start(methods).unwrap();
        let call = Program::start("call", &[&server.address().to_string(), "hold"]);
        began.recv().unwrap();
        ends_at_once(call);
        until("the server notices that the client has left", || server.clients() == 0);
    });
}

/// Starts `serve` on a socket file and a client with a long call in progress.
fn busy_serve(scratch: &Scratch, seconds: f64) -> (Serve, Client, teleport::CallFuture) {
    let serve = Serve::start(&scratch.socket());
    let client = Client::builder(serve.address()).connect().unwrap();
    let sleeping = client.call("sleep", tree!({"seconds": seconds})).send().unwrap();
    // The same pool takes calls in order, so the long call has begun when this one ends.
    client.call("sleep", tree!({"seconds": 0.0})).wait().unwrap();
    assert!(Path::new(&scratch.file("socket")).exists());
    (serve, client, sleeping)
}

#[test]
fn serve_ends_on_ctrl_c_and_removes_its_socket_file() {
    watched(|| {
        let scratch = Scratch::new();
        let (serve, _client, sleeping) = busy_serve(&scratch, 1e6);
        let mark = serve.program().mark();
        let ended = serve.interrupt();
        assert!(ended.status.code().is_some(), "the signal killed it: {ended:?}");
        until_none_left(&mark);
        assert_eq!(scratch.files(), [""; 0]);
        sleeping.wait().unwrap_err();
    });
}

#[test]
fn serve_lets_running_calls_finish_on_sigterm() {
    watched(|| {
        let scratch = Scratch::new();
        let (serve, client, sleeping) = busy_serve(&scratch, 1.0);
        let mark = serve.program().mark();
        let ended = serve.terminate();
        assert!(ended.status.success(), "{ended:?}");
        until_none_left(&mark);
        assert_eq!(scratch.files(), [""; 0]);
        sleeping.wait().unwrap();
        drop(client);
    });
}

#[test]
fn a_bad_address_is_printed_in_a_readable_error() {
    watched(|| {
        for (program, arguments) in [
            ("serve", &["localhost:2222"][..]),
            ("serve", &["tcp://localhost"]),
            ("serve", &["udp://localhost:1"]),
            ("call", &["tcp//x:1", "echo"]),
        ] {
            let ended = Program::start(program, arguments).wait();
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            assert!(ended.errors.contains(arguments[0]), "{ended:?}");
            assert!(!ended.errors.contains("AddressError"), "{ended:?}");
        }
    });
}
