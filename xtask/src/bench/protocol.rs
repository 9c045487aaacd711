//! The protocol between the harness and its contenders: plain sockets, Teleport, and every peer.
//!
//! Each contender is two programs. `PROGRAM serve NAME ADDRESS` prints `ready ADDRESS` and serves until its
//! standard input ends. `PROGRAM client NAME ADDRESS` prints `ready SETTINGS`. For each line `round WORKLOAD
//! BYTES MESSAGES IN_FLIGHT` that it reads, it prints one line: `done ELAPSED_NS [LATENCY_NS ...]`,
//! `unsupported WHY` or `failed WHY`.
//!
//! Flow: harness -> [`Round`] as a line -> the client's [`answer_rounds`] -> [`Answer`] as a line ->
//! harness. It needs only the standard library, because the package of the peers includes this file.
#![allow(dead_code, reason = "harness, contenders and peers use a part each")]

use std::fmt;
use std::io::{self, BufRead, Write};
use std::str::{FromStr, SplitWhitespace};
use std::time::{Duration, Instant};

/// A round with more calls reports no single times, because reading the clock would add to the costs.
pub(crate) const MAX_LATENCIES: u64 = 20_000;

/// The payload of the calls that are made beside a large one.
pub(crate) const SMALL_BYTES: u64 = 1 << 10;

/// The largest batch.
pub(crate) const BATCH: usize = 32;

/// The images that a [`Workload::KeepingPolicy`] keeps: a batch that runs and the next one that arrives.
pub(crate) const KEPT: usize = 2 * BATCH;

/// The largest batch where many clients send calls.
pub(crate) const CROWD_BATCH: usize = 256;

/// The arrays in the argument of a [`Workload::Dict`].
pub(crate) const DICT_ARRAYS: u64 = 64;

/// The kind of a round's calls. One thread of the client keeps `in_flight` of them open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Workload {
    /// An argument of `bytes`, answered with null or one byte.
    Sink,
    /// A tiny argument, and a result of `bytes`, for which the server allocates new memory.
    Source,
    /// An argument of `bytes`, returned by the thread that received it.
    Echo,
    /// The same, returned by a thread of a pool.
    Pool,
    /// An argument of `bytes` as [`DICT_ARRAYS`] arrays of equal size, each with its own key.
    Dict,
    /// Latencies of echoes of [`SMALL_BYTES`], while another thread sends one argument of `bytes` after the
    /// other on the same connection. Only echoes that began and ended within one large call count.
    BesideArgument,
    /// The same beside large results.
    BesideResult,
    /// An image of `bytes` for a function on a worker, which answers with one f32.
    Policy,
    /// The same for a function that keeps its last [`KEPT`] images.
    KeepingPolicy,
    /// The same for a function that runs once for up to [`BATCH`] calls.
    BatchedPolicy,
    /// The same for a function that runs once for up to [`CROWD_BATCH`] calls. One process has as many
    /// clients as calls are in flight.
    CrowdPolicy,
    /// A number, and a result of `bytes`, for which a worker allocates new memory.
    PoolSource,
    /// The same, with up to [`BATCH`] results as rows of one array.
    BatchedSource,
}

impl Workload {
    const ALL: [Workload; 13] = [
        Workload::Sink,
        Workload::Source,
        Workload::Echo,
        Workload::Pool,
        Workload::Dict,
        Workload::BesideArgument,
        Workload::BesideResult,
        Workload::Policy,
        Workload::KeepingPolicy,
        Workload::BatchedPolicy,
        Workload::CrowdPolicy,
        Workload::PoolSource,
        Workload::BatchedSource,
    ];

    /// Returns the name in the lines of the protocol.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Sink => "sink",
            Workload::Source => "source",
            Workload::Echo => "echo",
            Workload::Pool => "pool",
            Workload::Dict => "dict",
            Workload::BesideArgument => "beside_argument",
            Workload::BesideResult => "beside_result",
            Workload::Policy => "policy",
            Workload::KeepingPolicy => "keeping_policy",
            Workload::BatchedPolicy => "batched_policy",
            Workload::CrowdPolicy => "crowd_policy",
            Workload::PoolSource => "pool_source",
            Workload::BatchedSource => "batched_source",
        }
    }

    /// Returns true for calls that run in batches, which few libraries have.
    pub(crate) fn is_about_batches(self) -> bool {
        use Workload::*;
        matches!(self, Policy | KeepingPolicy | BatchedPolicy | CrowdPolicy | PoolSource | BatchedSource)
    }
}

/// One round, as the harness asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) workload: Workload,
    pub(crate) bytes: u64,
    /// The number of calls; at least 1.
    pub(crate) messages: u64,
    /// The calls to keep open, until no more are left to send; at least 1.
    pub(crate) in_flight: u64,
}

impl Round {
    /// Returns true if the answer has the latency of each call.
    pub(crate) fn wants_latencies(&self) -> bool {
        self.in_flight == 1 && self.messages <= MAX_LATENCIES
    }

    /// Returns true if small calls are made beside large ones.
    pub(crate) fn is_beside(&self) -> bool {
        matches!(self.workload, Workload::BesideArgument | Workload::BesideResult)
    }
}

/// The outcome of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The time from the first send to the last answer. With [`Round::wants_latencies`], also the time of
    /// each call from its send to its answer.
    Done {
        elapsed: Duration,
        latencies: Vec<Duration>,
    },
    /// The contender cannot do this; it continues with other rounds.
    Unsupported(String),
    Failed(String),
}

/// A line that is not part of this protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    line: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.line.chars().take(80).collect();
        write!(f, "a line of a contender that cannot be read: {start:?}")
    }
}

impl std::error::Error for Unreadable {}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Round { workload, bytes, messages, in_flight } = self;
        write!(f, "round {} {bytes} {messages} {in_flight}", workload.name())
    }
}

impl FromStr for Round {
    type Err = Unreadable;

    fn from_str(line: &str) -> Result<Round, Unreadable> {
        parse_round(line.split_whitespace()).ok_or_else(|| Unreadable { line: line.to_owned() })
    }
}

fn parse_round(mut words: SplitWhitespace<'_>) -> Option<Round> {
    words.next().filter(|word| *word == "round")?;
    let name = words.next()?;
    let workload = Workload::ALL.into_iter().find(|workload| workload.name() == name)?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let round = Round { workload, bytes: number()?, messages: number()?, in_flight: number()? };
    let is_whole = words.next().is_none() && round.messages > 0 && round.in_flight > 0;
    is_whole.then_some(round)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done { elapsed, latencies } => {
                write!(f, "done {}", elapsed.as_nanos())?;
                latencies.iter().try_for_each(|time| write!(f, " {}", time.as_nanos()))
            }
            Answer::Unsupported(why) => write!(f, "unsupported {}", one_line(why)),
            Answer::Failed(why) => write!(f, "failed {}", one_line(why)),
        }
    }
}

impl FromStr for Answer {
    type Err = Unreadable;

    fn from_str(line: &str) -> Result<Answer, Unreadable> {
        let unreadable = || Unreadable { line: line.to_owned() };
        let (kind, rest) = line.trim().split_once(' ').ok_or_else(unreadable)?;
        match kind {
            "done" => {
                let times = rest.split_whitespace().map(|word| word.parse().map(Duration::from_nanos));
                let mut times = times.collect::<Result<Vec<_>, _>>().map_err(|_| unreadable())?;
                if times.is_empty() {
                    return Err(unreadable());
                }
                let elapsed = times.remove(0);
                Ok(Answer::Done { elapsed, latencies: times })
            }
            "unsupported" => Ok(Answer::Unsupported(rest.to_owned())),
            "failed" => Ok(Answer::Failed(rest.to_owned())),
            _ => Err(unreadable()),
        }
    }
}

/// Joins the lines of a reason, because an answer is one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs a client: prints that it is ready, then runs each round that it reads until standard input ends.
/// `settings` are its version and configuration, for the report.
pub(crate) fn answer_rounds(settings: &str, mut run: impl FnMut(&Round) -> Answer) -> io::Result<()> {
    say(&format!("ready {}", one_line(settings)))?;
    for line in io::stdin().lock().lines() {
        let answer = match line?.parse::<Round>() {
            Ok(round) => run(&round),
            Err(error) => Answer::Failed(error.to_string()),
        };
        say(&answer.to_string())?;
    }
    Ok(())
}

/// Prints the address of a server whose threads already serve, and waits until standard input ends.
pub(crate) fn serve_until_input_ends(address: &str) -> io::Result<()> {
    say(&format!("ready {address}"))?;
    io::stdin().lock().lines().try_for_each(|line| line.map(drop))
}

/// Returns the text behind `ready` in the first line of a server or client.
pub(crate) fn ready(line: &str) -> Result<&str, Unreadable> {
    let rest = line.strip_prefix("ready").filter(|rest| rest.is_empty() || rest.starts_with(' '));
    rest.map(str::trim).ok_or_else(|| Unreadable { line: line.to_owned() })
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// Measures a round with one call at a time.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    start: Instant,
    latencies: Vec<Duration>,
    is_wanted: bool,
}

impl Stopwatch {
    /// Starts the clock.
    pub(crate) fn start(round: &Round) -> Stopwatch {
        let is_wanted = round.wants_latencies();
        let latencies = Vec::with_capacity(if is_wanted { round.messages as usize } else { 0 });
        Stopwatch { start: Instant::now(), latencies, is_wanted }
    }

    /// Returns the time at which a call is sent, or `None` if latencies are not needed.
    pub(crate) fn sent(&self) -> Option<Instant> {
        self.is_wanted.then(Instant::now)
    }

    /// Records the answer to a call.
    pub(crate) fn answered(&mut self, sent: Option<Instant>) {
        self.latencies.extend(sent.map(|sent| sent.elapsed()));
    }

    /// Ends the round after the last answer.
    pub(crate) fn done(self) -> Answer {
        Answer::Done { elapsed: self.start.elapsed(), latencies: self.latencies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_survive_a_line() {
        for workload in Workload::ALL {
            let round = Round { workload, bytes: 1 << 30, messages: 7, in_flight: 64 };
            assert_eq!(round.to_string().parse(), Ok(round));
        }
        for line in ["", "round", "round sink 1 2", "round sink 1 2 3 4", "round sink 1 0 1", "round x 1 1 1"]
        {
            assert!(line.parse::<Round>().is_err(), "{line}");
        }
    }

    #[test]
    fn answers_survive_a_line() {
        let times = [5, 6].map(Duration::from_nanos).to_vec();
        let answers = [
            Answer::Done { elapsed: Duration::from_nanos(11), latencies: times },
            Answer::Done { elapsed: Duration::from_secs(9), latencies: Vec::new() },
            Answer::Unsupported("no dicts".to_owned()),
        ];
        for answer in answers {
            assert_eq!(answer.to_string().parse(), Ok(answer));
        }
        assert_eq!(Answer::Failed("a\nb".to_owned()).to_string(), "failed a b");
        for line in ["", "done", "done ", "done x", "else 1"] {
            assert!(line.parse::<Answer>().is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_ready_says_where() {
        assert_eq!(ready("ready tcp://127.0.0.1:4"), Ok("tcp://127.0.0.1:4"));
        assert!(ready("already").is_err() && ready("readyx").is_err());
    }
}
