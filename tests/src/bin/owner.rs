//! A program that owns processes, for tests that kill the owner or limit what the system gives it.
//!
//! - `owner idle N`: starts N processes that wait forever, prints `ready`, and waits.
//! - `owner stubborn`: starts a process whose tree ignores SIGTERM, has daemons and forks forever; prints
//!   `ready`; waits.
//! - `owner endless`: starts one process after the other and drops none.
//! - `owner fork`: starts a fork that starts a process, prints `ready`, and waits.
//! - `owner forked`: uses forks in several ways, and prints the result of each.
//! - `owner descriptors`, `owner processes`: takes all that the system allows, prints the error of starting
//!   a process, releases some, and starts a process.
//! - `owner group`: runs three members that print when they start and when they end, and prints the result.
//! - `owner deaf-group`: runs members that print `ready` and do not end by themselves, and prints the result.
//! - `owner exec`: starts a process, and executes another program in its own place.
//! - `owner brief`: waits for a line, starts a process, and ends without waiting for it.
//! - `owner suicide`: starts a process that does not want to end, and ends its own tree.
//! - `owner forked-group`: runs a fork that prints `ready` and its id, and prints the result once SIGTERM
//!   has ended it.
//! - `owner subprocs`: starts processes in several ways, ends all, and prints which are left.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, setuid};
use teleport::proc::BoxError;
use teleport::{Group, Process, Stop, Thread, kill_proc, kill_subprocs};

/// Longer than any test waits.
const FOREVER: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    if std::env::var_os("EARLY_THREAD").is_some() {
        std::thread::spawn(|| wait_for_ever());
    }
    teleport::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), BoxError> {
    match arguments {
        ["idle", count] => idle_processes(count.parse()?),
        ["stubborn"] => stubborn(),
        ["endless"] => endless(),
        ["fork"] => fork(),
        ["forked"] => forked(),
        ["descriptors"] => without_descriptors(),
        ["processes"] => without_processes(),
        ["group"] => group(),
        ["deaf-group"] => deaf_group(),
        ["exec"] => execute(),
        ["brief"] => brief(),
        ["subprocs"] => subprocs(),
        ["suicide"] => suicide(),
        ["forked-group"] => forked_group(),
        other => Err(format!("these arguments mean nothing: {other:?}").into()),
    }
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

fn idle(_: ()) {
    wait_for_ever();
}

fn started(name: &str) -> Result<Process, BoxError> {
    let process = Process::new(name, idle, ());
    process.start()?;
    Ok(process)
}

fn idle_processes(count: usize) -> Result<(), BoxError> {
    let _processes = (0..count).map(|_| started("idle")).collect::<Result<Vec<_>, _>>()?;
    println!("ready");
    wait_for_ever()
}

fn shell(script: String) -> Result<(), BoxError> {
    Command::new("bash").args(["-c", &script]).status()?;
    Ok(())
}

fn stubborn() -> Result<(), BoxError> {
    let script =
        "trap '' TERM INT HUP; chain() { chain & }; chain & chain & setsid -f sleep 600; sleep 600; true";
    let process = Process::new("stubborn", shell, script.to_owned());
    process.start()?;
    println!("ready");
    wait_for_ever()
}

fn endless() -> Result<(), BoxError> {
    let mut processes = Vec::new();
    println!("ready");
    loop {
        processes.push(started("idle")?);
    }
}

fn fork() -> Result<(), BoxError> {
    let process = Process::fork("forked", |_stop| -> Result<(), BoxError> {
        let _process = started("nested")?;
        println!("ready");
        wait_for_ever()
    });
    process.start()?;
    wait_for_ever()
}

fn forked() -> Result<(), BoxError> {
    let base = 40;
    let process = Process::fork("adding", move |_stop| base + 2);
    process.start()?;
    println!("{}", process.join()?);
    process.start()?;
    println!("{}", process.join()?);
    let process = Process::fork("panicking", |_stop| assert_eq!(1 + 1, 3, "wrong sum"));
    process.start()?;
    println!("{}", process.join().is_err_and(|error| error.to_string().contains("wrong sum")));
    let process = Process::fork("idle", |stop| while stop.sleep(FOREVER) {});
    process.start()?;
    process.stop(FOREVER)?;
    println!("{:?}", process.join());
    let process = Process::fork("idle", |_stop| idle(()));
    process.start()?;
    process.kill()?;
    println!(
        "{}",
        process.join().is_err_and(|error| error.to_string() == "idle: was killed, so there is no result")
    );
    // A fork cannot end the processes of its parent, and dropping them there does nothing.
    let other = started("other")?;
    let pid = other.pid();
    let process = Process::fork("asking", move |_stop| {
        let error = other.kill().err().map(|error| error.to_string());
        drop(other);
        error.unwrap_or_default()
    });
    process.start()?;
    println!("{}", process.join()?);
    println!("{}", pid.is_some_and(teleport::proc_alive));
    let process = Process::fork("late", |_stop| ());
    let (has_started, started) = std::sync::mpsc::channel();
    let busy = move || {
        // The thread has its name now.
        let _ = has_started.send(());
        wait_for_ever()
    };
    std::thread::Builder::new().name("busy".into()).spawn(busy)?;
    started.recv()?;
    println!("{}", process.start().err().map(|error| error.to_string()).unwrap_or_default());
    Ok(())
}

fn without_descriptors() -> Result<(), BoxError> {
    // The first start needs more descriptors than later ones.
    for _ in 0..2 {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(256), hard)?;
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        // Each time it gets one descriptor more and comes further, until it works.
        let mut failures = 0;
        let process = loop {
            match started("idle") {
                Ok(process) => break process,
                Err(_) => failures += 1,
            }
            taken.pop().ok_or("it fails with all descriptors, too")?;
        };
        println!("{}", failures > 3);
        process.kill()?;
    }
    Ok(())
}

fn without_processes() -> Result<(), BoxError> {
    // The limit does not hold for root.
    if Uid::effective().is_root() {
        setuid(Uid::from_raw(1_000_000 + std::process::id()))?; // no other process has it
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC)?;
    // This process, its zygote, and five processes with their reapers.
    setrlimit(Resource::RLIMIT_NPROC, 12, hard)?;
    let mut processes = Vec::new();
    let error = loop {
        match started("idle") {
            Ok(process) => processes.push(process),
            Err(error) => break error,
        }
    };
    println!("{} {error}", processes.len());
    for process in &processes {
        process.check()?;
    }
    processes.pop().ok_or("no process was started")?.kill()?;
    started("again")?.kill()?;
    println!("again");
    Ok(())
}

fn say(name: String, stop: &Stop) {
    println!("{name} starts");
    while stop.sleep(FOREVER) {}
    println!("{name} ends");
}

fn group() -> Result<(), BoxError> {
    let member = |name: &str| Process::stoppable(name, say, name.to_owned()).grace(FOREVER);
    let thread = Thread::new("b", |stop| say("b".to_owned(), stop)).grace(FOREVER);
    println!("{:?}", Group::new().add(member("a")).add(thread).add(member("c")).run());
    Ok(())
}

fn deaf_group() -> Result<(), BoxError> {
    fn deaf(_: (), stop: &Stop) {
        println!("ready");
        while stop.sleep(FOREVER) {}
        println!("goes on");
        wait_for_ever()
    }
    let member = |name: &str| Process::stoppable(name, deaf, ()).grace(FOREVER);
    println!("{:?}", Group::new().add(member("first")).add(member("second")).run());
    Ok(())
}

fn execute() -> Result<(), BoxError> {
    let _process = started("idle")?;
    println!("ready");
    Err(Command::new("sleep").arg("600").exec().into())
}

fn brief() -> Result<(), BoxError> {
    std::io::stdin().read_line(&mut String::new())?;
    std::mem::forget(started("idle")?);
    Ok(())
}

fn suicide() -> Result<(), BoxError> {
    let _process = started("idle")?;
    let _child = Command::new("bash").args(["-c", "trap '' TERM; sleep 600; true"]).spawn()?;
    kill_proc(std::process::id(), Duration::from_millis(50))?;
    Err("it goes on".into())
}

fn forked_group() -> Result<(), BoxError> {
    let member = Process::fork("forked", |_stop| {
        println!("ready {}", std::process::id());
        idle(());
    });
    println!("{:?}", Group::new().add(member).run());
    Ok(())
}

fn subprocs() -> Result<(), BoxError> {
    let process = started("idle")?;
    let mut child = Command::new("bash").args(["-c", "trap '' TERM; sleep 600; true"]).spawn()?;
    kill_subprocs(Duration::from_millis(50))?;
    println!("{} {}", process.running(), child.try_wait()?.is_some());
    started("again")?.kill()?;
    println!("again");
    Ok(())
}
