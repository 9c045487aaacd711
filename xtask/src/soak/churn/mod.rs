//! A churn: one server runs for a long time, over TCP and Unix sockets, while its clients are stopped,
//! killed in the middle of large messages, and replaced.
//!
//! Flow: rounds of a few seconds -> at the end of each, the disturbed clients end, the steady ones pause,
//! and all processes are measured -> the last round's memory, descriptors and threads are compared with
//! those of the first rounds. Both sides check every payload. A steady client must not fail. A disturbed
//! client may lose its connection; the calls of every other one survive that.
//!
//! Bounds: one server, and the clients that `round` counts. No process outlives this one (see
//! [`crate::child`]).

mod client;
mod content;
mod round;
mod server;

use std::time::{Duration, Instant, SystemTime};

pub(crate) use self::client::{ClientOptions, run_client};
pub(crate) use self::server::{ServerOptions, run_server};

use self::content::Draw;
use self::round::{Crowd, Steady};
use crate::child::Child;
use crate::failure::Failure;
use crate::usage::Usage;

/// Both sides give up a peer that is silent for this time, so that they notice stopped processes within
/// seconds.
const MAX_SILENCE: Duration = Duration::from_secs(3);
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Settings with which the C library's allocator gives freed memory back to the system. By default it keeps
/// up to some 20 MiB of freed buffers, and the amount varies.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_ARENA_MAX", "1")];

/// The longest time that processes may take to come to rest once nothing disturbs them.
const SETTLE_TIME: Duration = Duration::from_secs(30);

/// The time between two checks of a process that is coming to rest.
const POLL: Duration = Duration::from_millis(10);

/// The time for which clients are disturbed between two measurements.
const ROUND: Duration = Duration::from_secs(4);

/// The rounds with which the last one is compared. By then the server has made everything that it makes on
/// first use.
const WARM_UP: usize = 2;

/// The growth of a process's memory after the warm-up that is allowed. Over three minutes with 679
/// connections and 116,000 calls, 0.9 MiB were measured, nearly all of it within the first minute. So this
/// limit detects a leak of 3 KiB for each connection, or of 18 bytes for each call, and smaller leaks in a
/// longer run.
const MAX_GROWTH_BYTES: u64 = 2 << 20;

/// The counts of what a churn did to its clients.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    kills_while_sending: u64,
    stops: u64,
    long_stops: u64,
    starts: u64,
}

/// The measurements at the end of a round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The server, then the steady clients.
    processes: [Usage; 3],
}

const PROCESSES: [&str; 3] = ["the server", "the steady client over tcp", "the steady client over ipc"];

/// Runs for about `time`, and for at least two rounds after the warm-up.
pub(super) fn run(time: Duration) -> Result<String, Failure> {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    println!("churn with seed {seed}: stops and kills clients for {time:.0?}");
    let start = Instant::now();
    let (mut draw, mut tally, mut samples) = (Draw::new(seed), Tally::default(), Vec::new());
    let name = format!("ipc://@teleport-soak-{}", std::process::id());
    let mut server = Child::start(["soak-server", "tcp://127.0.0.1:0", &name], &ALLOCATOR)?;
    let addresses = [server.line()?, server.line()?];
    let mut steady = Steady::start(&addresses, draw.next())?;
    let mut last = serde_json::Value::Null;
    while samples.len() < WARM_UP + 2 || start.elapsed() < time {
        steady.go()?;
        let mut crowd = Crowd::start(&addresses, &mut draw, &mut tally)?;
        crowd.disturb(ROUND, &mut draw, &mut tally)?;
        crowd.end(&mut draw, &mut tally)?;
        steady.pause()?;
        last = settle(&mut server)?;
        samples.push(sample(&server, &steady)?);
    }
    steady.end()?;
    report(&samples);
    let problems = growth(&samples);
    if !problems.is_empty() {
        return Err(Failure::Soak { problems });
    }
    Ok(summary(&tally, &last, &samples))
}

/// Waits until the server has come to rest, and returns its report.
fn settle(server: &mut Child) -> Result<serde_json::Value, Failure> {
    server.send_line("settle 2")?;
    let line = server.line()?;
    let report: serde_json::Value = serde_json::from_str(&line).map_err(Failure::bench)?;
    if report["settled"] == true && report["wrong"] == 0 {
        return Ok(report);
    }
    let problem = if report["settled"] == true {
        "the server received wrong content".to_owned()
    } else {
        format!("{SETTLE_TIME:?} after its clients left, the server has not come to rest")
    };
    Err(Failure::Soak { problems: vec![format!("{problem}: {line}")] })
}

fn sample(server: &Child, steady: &Steady) -> Result<Sample, Failure> {
    let [tcp, ipc] = steady.ids();
    let [server, tcp, ipc] = [server.id(), tcp, ipc].map(Usage::of);
    Ok(Sample { processes: [server?, tcp?, ipc?] })
}

fn report(samples: &[Sample]) {
    println!("{:<28}{:>14}{:>16}{:>14}", "at rest", "memory, MiB", "descriptors", "threads");
    for (index, name) in PROCESSES.iter().enumerate() {
        for (when, sample) in
            [("first", samples.first()), ("warm", samples.get(WARM_UP - 1)), ("last", samples.last())]
        {
            let Some(Usage { memory_bytes, descriptors, threads, .. }) = sample.map(|s| s.processes[index])
            else {
                continue;
            };
            let memory = memory_bytes as f64 / f64::from(1 << 20);
            println!("{:<28}{memory:>14.1}{descriptors:>16}{threads:>14}", format!("{name}, {when}"));
        }
    }
}

/// Returns a problem for each value that has grown since the warm-up.
fn growth(samples: &[Sample]) -> Vec<String> {
    let (warm, last) = (&samples[..WARM_UP], samples[samples.len() - 1]);
    let mut problems = Vec::new();
    for (index, name) in PROCESSES.iter().enumerate() {
        let most = |value: fn(&Usage) -> u64| {
            warm.iter().map(|sample| value(&sample.processes[index])).max().unwrap_or_default()
        };
        let mut compare = |what: &str, value: fn(&Usage) -> u64, allowed: u64| {
            let (before, after) = (most(value), value(&last.processes[index]));
            if after > before + allowed {
                problems.push(format!("{name} has {after} {what}; after the warm-up it had {before}"));
            }
        };
        compare("bytes of memory", |usage| usage.memory_bytes, MAX_GROWTH_BYTES);
        compare("descriptors", |usage| usage.descriptors, 0);
        compare("threads", |usage| usage.threads, 0);
    }
    problems
}

fn summary(tally: &Tally, server: &serde_json::Value, samples: &[Sample]) -> String {
    let Tally { kills, kills_while_sending, stops, long_stops, starts } = tally;
    let gib = server["bytes"].as_u64().unwrap_or_default() as f64 / f64::from(1 << 30);
    format!(
        "{} rounds, {} calls with {gib:.1} GiB of arguments checked; {starts} clients, {kills} killed ({kills_while_sending} \
        while sending), {stops} stops ({long_stops} longer than the allowed silence)",
        samples.len(),
        server["calls"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(memory_bytes: u64, threads: u64) -> Sample {
        Sample { processes: [Usage { memory_bytes, threads, ..Usage::default() }; 3] }
    }

    #[test]
    fn growth_is_reported_and_noise_is_not() {
        let noise = [sample(10 << 20, 4), sample(12 << 20, 5), sample(30 << 20, 9), sample(14 << 20, 5)];
        assert_eq!(growth(&noise), Vec::<String>::new());
        let grown = [sample(10 << 20, 4), sample(12 << 20, 4), sample(15 << 20, 5)];
        let problems = growth(&grown);
        assert_eq!(problems.len(), 6, "memory and threads of three processes: {problems:?}");
        assert!(
            problems[0]
                .starts_with("the server has 15728640 bytes of memory; after the warm-up it had 12582912")
        );
    }
}
