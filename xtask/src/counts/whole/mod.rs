//! Counts whole calls of a real server and a real client over loopback TCP: executed instructions, locked
//! instructions and allocations of a call, for each side and for both.
//!
//! Flow: [`Pair`]: two processes of [`mod@party`] under callgrind -> warm-up -> 10,000 calls of one kind of
//! [`work`] -> how often each instruction ran on each side ([`executed`]), and which instructions are
//! [`locked`] -> rows. With `--profile`, the counts are also shown by function and by line of source
//! ([`profile`]).
//!
//! Only the calls are counted: callgrind forgets what came before them, and the arguments are made before.
//! Instructions of the kernel are not counted. Spinning is off. Callgrind runs the threads of a process one
//! at a time, and both processes run on one core, so locks are hardly ever contended. With each process on a
//! core of its own the counts differ by less than 4 %. Two runs differ by 0.2 % on an idle machine, and by up
//! to 1 % on a busy one, where the locked instructions of calls on a pool differ by up to 2 %.

mod executed;
mod locked;
mod party;
mod profile;
mod work;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use self::executed::Executed;
use self::locked::Locked;
use self::party::{BEGIN, BEGIN_LINE, CALL_LINE, END, END_LINE, WARM_LINE};
pub(super) use self::party::{call, serve};
use self::work::Work;
use super::Counted;
use super::row::Row;
use crate::child::Child;
use crate::failure::Failure;
use crate::{cores, shell};

/// The sides of a call, in the order in which they are shown.
const SIDES: [&str; 2] = ["client", "server"];

/// What to count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chosen<'a> {
    /// Only the kind of calls with this name, or those with this text in their name.
    pub(super) row: Option<&'a str>,
    /// Also show this many functions, locked lines and allocating lines of each.
    pub(super) profile: Option<usize>,
}

impl Chosen<'_> {
    /// Returns the indices in [`Work::ALL`].
    fn rows(self) -> Result<Vec<usize>, Failure> {
        let names = || Work::ALL.iter().map(|work| work.name);
        let Some(text) = self.row else { return Ok((0..names().count()).collect()) };
        let exact = names().any(|name| name == text);
        let chosen =
            names().enumerate().filter(|(_, name)| if exact { *name == text } else { name.contains(text) });
        let rows: Vec<usize> = chosen.map(|(row, _)| row).collect();
        if rows.is_empty() {
            let all = names().collect::<Vec<_>>().join("; ");
            return Err(Failure::bench(format!("no row has `{text}` in its name; the rows are: {all}")));
        }
        Ok(rows)
    }
}

/// Returns the reason why whole calls cannot be counted here, or `None` if they can.
pub(super) fn unavailable() -> Option<&'static str> {
    let installed = |program: &str| {
        let quiet =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet.is_ok_and(|status| status.success())
    };
    if !installed("objdump") {
        return Some("objdump is not installed (apt-get install binutils)");
    }
    super::instructions::unavailable()
}

/// Adds rows for each kind of call, and prints the counts of each side.
pub(super) fn count(chosen: Chosen<'_>, counted: &mut Counted) -> Result<(), Failure> {
    let mut locked = Locked::default();
    for row in chosen.rows()? {
        let (work, sides) = (&Work::ALL[row], Pair::start(row)?.executed()?);
        if let Some(top) = chosen.profile {
            profile::print(work, &sides, &mut locked, top)?;
        }
        let mut counts = [[0.0; 4]; 2];
        for (counts, executed) in counts.iter_mut().zip(&sides) {
            let [own, library] = locked_times(executed, &mut locked)?;
            let all = [executed.instructions(), own + library, executed.allocations(), library];
            *counts = all.map(|count| count as f64 / work.calls as f64);
        }
        let [client, server] = counts;
        let both = std::array::from_fn(|index| client[index] + server[index]);
        let texts = [("client", client), ("server", server), ("both", both)].map(text);
        println!("{}: {}", work.name, texts.join("; "));
        push(counted, work, "", both);
        if work.server_apart {
            push(counted, work, ", server", server);
        }
    }
    Ok(())
}

fn text((side, [instructions, locked, allocations, library]): (&str, [f64; 4])) -> String {
    format!(
        "{side} {instructions:.0} instructions, {locked:.1} locked ({library:.1} in the C library), \
         {allocations:.2} allocations"
    )
}

/// What is counted, and how much of it the scheduler decides: how many calls one read or write takes, and how
/// often a lock is contended.
const COUNTS: [(&str, f64); 3] = [("instructions", 0.0), ("locked instructions", 0.5), ("allocations", 0.05)];

/// Adds a row for each of the first counts. Locked instructions of the C library are only shown, because the
/// row of all locked instructions includes them.
fn push(counted: &mut Counted, work: &Work, side: &str, counts: [f64; 4]) {
    for ((what, slack), count) in COUNTS.iter().zip(counts) {
        let name = format!("{what} a whole call, {}{side}", work.name);
        counted.rows.push(Row::close(name, count, *slack));
    }
}

/// Returns the number of locked instructions, of this program and of libraries.
fn locked_times(executed: &Executed, locked: &mut Locked) -> Result<[u64; 2], Failure> {
    let program = std::env::current_exe().map_err(Failure::bench)?;
    let mut sums = [0; 2];
    for (place, times) in &executed.instructions {
        if locked.contains(place)? {
            sums[usize::from(!place.is_of(&program))] += times.times;
        }
    }
    Ok(sums)
}

/// A server and its client under callgrind.
struct Pair {
    /// Client, server.
    sides: [Child; 2],
    files: [PathBuf; 2],
}

impl Pair {
    /// Starts both for a kind of call.
    fn start(row: usize) -> Result<Pair, Failure> {
        let folder = shell::target().join("counts");
        std::fs::create_dir_all(&folder).map_err(Failure::file(&folder))?;
        let files = SIDES.map(|side| folder.join(format!("whole-{row}-{side}.callgrind")));
        for file in files.iter().map(|file| dump(file)).filter(|file| file.exists()) {
            // A file of another run would be taken for the counts of this one.
            std::fs::remove_file(&file).map_err(Failure::file(&file))?;
        }
        let core = cores::first_allowed()?;
        let mut server = party(&files[1], core, &["whole-server"])?;
        let address = server.line()?;
        let mut client = party(&files[0], core, &["whole-client", &address, &row.to_string()])?;
        match client.line()? {
            line if line == "ready" => Ok(Pair { sides: [client, server], files }),
            line => Err(Failure::bench(line)),
        }
    }

    /// Makes the calls. Returns what each side executed for them.
    fn executed(mut self) -> Result<[Executed; 2], Failure> {
        for (side, line) in [(0, WARM_LINE), (1, BEGIN_LINE), (0, CALL_LINE), (1, END_LINE)] {
            self.sides[side].send_line(line)?;
            self.sides[side].line()?;
        }
        let [client, server] = &self.files;
        Ok([read(client)?, read(server)?])
    }
}

fn party(file: &Path, core: usize, arguments: &[&str]) -> Result<Child, Failure> {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--fair-sched=yes", "--dump-instr=yes", "--dump-line=no"]);
    command.args(["--compress-strings=no", "--compress-pos=no"]);
    command.args([format!("--zero-before={BEGIN}"), format!("--dump-before={END}")]);
    command.arg(format!("--callgrind-out-file={}", file.display()));
    command.arg(std::env::current_exe().map_err(Failure::bench)?);
    command.arg("counts-party").args(arguments).arg(format!("--core={core}"));
    Child::of(command)
}

/// Returns the path of the first dump of a process, to which callgrind adds a number.
fn dump(file: &Path) -> PathBuf {
    let mut dump = file.as_os_str().to_owned();
    dump.push(".1");
    PathBuf::from(dump)
}

/// Reads the only dump of a process.
fn read(file: &Path) -> Result<Executed, Failure> {
    let unreadable = |problem| Failure::Output { command: "valgrind --tool=callgrind".into(), problem };
    let dump = dump(file);
    let executed = Executed::parse(&shell::read(&dump)?).map_err(unreadable)?;
    if executed.instructions.is_empty() {
        return Err(unreadable(format!("nothing was counted in {}", dump.display())));
    }
    Ok(executed)
}
