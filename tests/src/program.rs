//! The examples as processes.
//!
//! Flow: [`example`] has cargo build the examples, unless `cargo test` has just built them. Then [`Program`]
//! starts one, collects its output, and kills it when dropped. Each process has a mark in its environment,
//! which its children inherit. A test uses the mark to check that none of them outlives it.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::thread::JoinHandle;

use nix::sys::signal::{SigHandler, Signal, kill, killpg, signal};
use nix::unistd::Pid;

use crate::watch::{WATCHDOG, until};

/// The environment variable that holds the mark of every process that a test starts.
const MARK: &str = "TELEPORT_TEST_MARK";

/// Process groups that tests of this process have started and that are still running.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Returns the path of one of the facade's examples, built with the same profile and features as this test.
///
/// # Panics
/// If cargo cannot build it.
pub fn example(name: &str) -> PathBuf {
    static EXAMPLES: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    EXAMPLES.get_or_init(build_examples).get(name).expect("the facade has an example of this name").clone()
}

/// Builds all examples with the profile, features and target folder of this program. Returns their paths by
/// name.
fn build_examples() -> HashMap<String, PathBuf> {
    let this = std::env::current_exe().expect("this program has a path");
    // <target folder>/<profile>/deps/<this program>
    let profile_folder = this.ancestors().nth(2).expect("cargo puts test programs into folders");
    let mut target_folder = profile_folder.parent().expect("cargo puts test programs into folders");
    // With `CARGO_BUILD_TARGET`, cargo puts everything into one more folder of that name, and will again.
    if std::env::var_os("CARGO_BUILD_TARGET").is_some_and(|name| target_folder.ends_with(name)) {
        target_folder = target_folder.parent().expect("cargo puts test programs into folders");
    }
    let profile = match profile_folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    // The whole workspace, so that dependencies have the features that `cargo test --workspace` gives them.
    cargo.args(["build", "--workspace", "--quiet", "--message-format=json"]);
    for name in ["tree", "quickstart", "serve", "call", "digits", "policy"] {
        cargo.args(["--example", name]);
    }
    cargo.args(["--profile", profile]).arg("--target-dir").arg(target_folder);
    if cfg!(all(feature = "half", feature = "ndarray")) {
        cargo.arg("--all-features");
    }
    let output = cargo.stderr(Stdio::inherit()).output().expect("cargo can be started");
    assert!(output.status.success(), "cargo cannot build the examples");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(executable).collect()
}

/// Returns name and path of the program in a message from cargo.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
}

/// A running program. Dropping it kills it and the processes that it has started.
#[derive(Debug)]
pub struct Program {
    child: Child,
    mark: String,
    lines: Receiver<String>,
    printed: Vec<String>,
    errors: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

/// Exit status and output of a program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, or the signal that ended the program.
    pub status: ExitStatus,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Program {
    /// Starts an example.
    pub fn start(name: &str, arguments: &[&str]) -> Program {
        let mut command = Command::new(example(name));
        command.args(arguments);
        Program::spawn(command)
    }

    /// Starts a command in a process group of its own, as a shell does, so that
    /// [`interrupt`](Program::interrupt) can act like Ctrl-C in a terminal.
    pub fn spawn(mut command: Command) -> Program {
        let mark = new_mark();
        command.process_group(0).env(MARK, &mark).env("NO_COLOR", "1").env_remove("RUST_LOG");
        hear_interrupts();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        RUNNING.lock().expect("the lock is not poisoned").push(group(&child));
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut error_output = child.stderr.take().expect("it is piped");
        let errors = Arc::new(Mutex::new(String::new()));
        let collected = errors.clone();
        let readers = vec![
            std::thread::spawn(move || {
                // The receiver is gone once the test is over.
                output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
            }),
            std::thread::spawn(move || collect(&mut error_output, &collected)),
        ];
        Program { child, mark, lines, printed: Vec::new(), errors, readers, ended: None }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line of standard output.
    ///
    /// # Panics
    /// If the program prints no more lines.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(WATCHDOG) {
            Ok(line) => {
                self.printed.push(line.clone());
                line
            }
            Err(error) => panic!(
                "no more lines ({error}) after {:?}; standard error: {}",
                self.printed,
                self.errors_so_far()
            ),
        }
    }

    /// Returns standard error so far.
    pub fn errors_so_far(&self) -> String {
        self.errors.lock().expect("the lock is not poisoned").clone()
    }

    /// Sends a signal to the program but not to its children.
    pub fn signal(&self, signal: Signal) {
        // An error means that the program has ended, which `wait` reports.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// Stops the program by SIGSTOP and waits until none of its threads runs.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        until("every thread is stopped", || threads(self.id()).iter().all(|state| *state == 'T'));
    }

    /// Continues the program after [`stop`](Program::stop).
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Interrupts the program and its children, as Ctrl-C in a terminal does.
    pub fn interrupt(&self) {
        let _ = killpg(group(&self.child), Signal::SIGINT);
    }

    /// Waits until the program has ended.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        until("the program ends", || self.has_ended());
        for reader in self.readers.drain(..) {
            // The pipe closes when the last process that holds it ends.
            until("its output is closed", || reader.is_finished());
            reader.join().expect("the reader does not panic");
        }
        self.printed.extend(self.lines.try_iter());
        let status = self.ended.expect("it was waited for");
        let output = self.printed.iter().map(|line| line.clone() + "\n").collect();
        Ended { status, output, errors: self.errors_so_far() }
    }

    /// Returns true if the program has not ended yet.
    pub fn is_running(&mut self) -> bool {
        !self.has_ended()
    }

    fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("it is a child of this process");
        }
        self.ended.is_some()
    }

    /// Returns the mark of the program's processes, for [`until_none_left`].
    pub fn mark(&self) -> String {
        self.mark.clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = group(&self.child);
        RUNNING.lock().expect("the lock is not poisoned").retain(|running| *running != group);
        if !self.has_ended() {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Returns a new mark, for a process that is started without [`Program`].
pub fn new_mark() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns the environment variable of a mark and its value, for `Command::envs`.
pub fn marked(mark: &str) -> [(&'static str, String); 1] {
    [(MARK, mark.to_owned())]
}

/// Waits until `count` processes have the mark.
#[track_caller]
pub fn until_marked(mark: &str, count: usize) {
    until(&format!("{count} processes run"), || count_marked(mark) == count);
}

/// Returns the number of processes that have the mark.
pub fn count_marked(mark: &str) -> usize {
    processes_with(&format!("{MARK}={mark}")).len()
}

/// Waits until no process has the mark, so neither the program nor a process that it started is left.
#[track_caller]
pub fn until_none_left(mark: &str) {
    let wanted = format!("{MARK}={mark}");
    until("every process that the program has started ends", || processes_with(&wanted).is_empty());
}

/// Returns the processes with `entry` in their environment. Processes that have ended have no environment.
fn processes_with(entry: &str) -> Vec<PathBuf> {
    let folders = fs::read_dir("/proc").expect("this is Linux").filter_map(Result::ok);
    let has_it = |folder: &PathBuf| {
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
    };
    folders.map(|folder| folder.path()).filter(has_it).collect()
}

/// Resets SIGINT to its default, so that programs started from now on end on Ctrl-C. A shell that runs the
/// tests in the background has them ignore SIGINT, and programs inherit that.
fn hear_interrupts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `SIG_DFL` installs no handler, so no code can run at a bad time.
        let default = unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) };
        default.expect("the signal exists");
    });
}

/// Returns the state of each thread of a process. `T` means stopped.
fn threads(process: u32) -> Vec<char> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the process is alive, on Linux");
    // A thread may end between listing and reading.
    let stat = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat")).ok();
    // The state follows the name, which is in parentheses.
    let state = |stat: String| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    threads.filter_map(Result::ok).filter_map(stat).filter_map(state).collect()
}

/// Kills every program that is still running.
pub(crate) fn kill_all() {
    for group in RUNNING.lock().expect("the lock is not poisoned").iter() {
        let _ = killpg(*group, Signal::SIGKILL);
    }
}

fn group(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

fn collect(input: &mut impl Read, text: &Mutex<String>) {
    let mut bytes = [0; 4096];
    // An error ends the output, as when a terminal is closed.
    while let Ok(read @ 1..) = input.read(&mut bytes) {
        text.lock().expect("the lock is not poisoned").push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
}
