//! How the benchmark speaks with its contenders: plain sockets, Teleport, and every peer.
//!
//! Each contender is two programs, a process each. `PROGRAM serve NAME ADDRESS` prints `ready ADDRESS`
//! and serves until its standard input ends. `PROGRAM client NAME ADDRESS` prints `ready SETTINGS` and
//! then, for each line `round WORKLOAD BYTES MESSAGES IN_FLIGHT` that it reads, one line: `done
//! ELAPSED_NS [LATENCY_NS ...]`, `unsupported WHY` or `failed WHY`.
//!
//! Flow: harness -> [`Round`] as a line -> the client's [`answer_rounds`] -> [`Answer`] as a line -> harness.
//! It needs nothing but the standard library, since the package of the peers includes this very file.
#![allow(dead_code, reason = "harness, contenders and peers use a part each")]

use std::fmt;
use std::io::{self, BufRead, Write};
use std::str::{FromStr, SplitWhitespace};
use std::time::{Duration, Instant};

/// A round with more calls than this says nothing about each: the times themselves would cost.
pub(crate) const MAX_LATENCIES: u64 = 20_000;

/// Bytes of the calls that are made beside a large one.
pub(crate) const SMALL_BYTES: u64 = 1 << 10;

/// Calls that run together at most.
pub(crate) const BATCH: usize = 32;

/// The same where many clients send them.
pub(crate) const CROWD_BATCH: usize = 256;

/// Arrays of a [`Workload::Dict`].
pub(crate) const DICT_ARRAYS: u64 = 64;

/// What the calls of a round are. One thread of the client keeps so many of them open as the round says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Workload {
    /// So many bytes go to the server, which answers with null or one byte.
    Sink,
    /// A tiny argument, and so many bytes back, in memory that the server gets anew for each.
    Source,
    /// So many bytes both ways, answered by the thread that received them.
    Echo,
    /// The same, answered by a thread of a pool.
    Pool,
    /// So many bytes, as [`DICT_ARRAYS`] arrays of equal size, each under a key of its own, go to the server.
    Dict,
    /// Times of echoes of [`SMALL_BYTES`], while another thread sends one argument of so many bytes
    /// after the other on the same connection. Only those count that began and ended within one large
    /// call.
    BesideArgument,
    /// The same beside large results.
    BesideResult,
    /// An image of so many bytes goes to a function on a worker, which answers with one f32.
    Policy,
    /// The same to a function that runs once for up to [`BATCH`] calls.
    BatchedPolicy,
    /// The same to a function that runs once for up to [`CROWD_BATCH`] calls, from as many clients in
    /// one process as calls are in flight.
    CrowdPolicy,
    /// A number, and so many bytes back, in memory that a worker gets anew for each.
    PoolSource,
    /// The same, up to [`BATCH`] of them as rows of one result.
    BatchedSource,
}

impl Workload {
    const ALL: [Workload; 12] = [
        Workload::Sink,
        Workload::Source,
        Workload::Echo,
        Workload::Pool,
        Workload::Dict,
        Workload::BesideArgument,
        Workload::BesideResult,
        Workload::Policy,
        Workload::BatchedPolicy,
        Workload::CrowdPolicy,
        Workload::PoolSource,
        Workload::BatchedSource,
    ];

    /// As the lines have it.
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
            Workload::BatchedPolicy => "batched_policy",
            Workload::CrowdPolicy => "crowd_policy",
            Workload::PoolSource => "pool_source",
            Workload::BatchedSource => "batched_source",
        }
    }

    /// Whether it is about calls that run together, which hardly any library has.
    pub(crate) fn is_about_batches(self) -> bool {
        use Workload::*;
        matches!(self, Policy | BatchedPolicy | CrowdPolicy | PoolSource | BatchedSource)
    }
}

/// One round, as the harness asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) workload: Workload,
    pub(crate) bytes: u64,
    /// Calls in all; at least 1.
    pub(crate) messages: u64,
    /// Calls that are open at any time, as long as there are calls left; at least 1.
    pub(crate) in_flight: u64,
}

impl Round {
    /// Whether the answer is to have the time of each call.
    pub(crate) fn wants_latencies(&self) -> bool {
        self.in_flight == 1 && self.messages <= MAX_LATENCIES
    }

    /// Whether small calls are made beside large ones.
    pub(crate) fn is_beside(&self) -> bool {
        matches!(self.workload, Workload::BesideArgument | Workload::BesideResult)
    }
}

/// What became of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// From the first send to the last answer, and for each call from its send to its answer, where
    /// [`Round::wants_latencies`].
    Done {
        elapsed: Duration,
        latencies: Vec<Duration>,
    },
    /// The contender cannot do this; it goes on with others.
    Unsupported(String),
    Failed(String),
}

/// A line that is not of this protocol.
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

/// A reason may come from anywhere; a line must stay one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The life of a client: says that it is ready, then runs each round that it is asked for, until
/// standard input ends. `settings` are its version and how it is configured, for the reader of the
/// report.
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

/// What a server does while its other threads serve: says where, then waits for the end of standard input.
pub(crate) fn serve_until_told(address: &str) -> io::Result<()> {
    say(&format!("ready {address}"))?;
    io::stdin().lock().lines().try_for_each(|line| line.map(drop))
}

/// What stands behind `ready`, of a server's or a client's first line.
pub(crate) fn ready(line: &str) -> Result<&str, Unreadable> {
    let rest = line.strip_prefix("ready").filter(|rest| rest.is_empty() || rest.starts_with(' '));
    rest.map(str::trim).ok_or_else(|| Unreadable { line: line.to_owned() })
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// The clock of a round with one call at a time.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    start: Instant,
    latencies: Vec<Duration>,
    is_wanted: bool,
}

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start(round: &Round) -> Stopwatch {
        let is_wanted = round.wants_latencies();
        let latencies = Vec::with_capacity(if is_wanted { round.messages as usize } else { 0 });
        Stopwatch { start: Instant::now(), latencies, is_wanted }
    }

    /// The moment at which a call is sent; none where nobody asks for its time.
    pub(crate) fn sent(&self) -> Option<Instant> {
        self.is_wanted.then(Instant::now)
    }

    /// Its answer has come.
    pub(crate) fn answered(&mut self, sent: Option<Instant>) {
        self.latencies.extend(sent.map(|sent| sent.elapsed()));
    }

    /// The last answer has come.
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
