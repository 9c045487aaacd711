//! Counts what calls ask of the C library, in a server and a client process with the interposed library.
//!
//! Flow: `cargo build` of `xtask/interpose` -> [`Pair`]: two processes that preload it -> counters before
//! and after some calls -> [`Tally`] per call and side -> rows. With one call at a time, allocations and
//! copies are the same in every run. The number of system calls depends on time: with many calls in flight,
//! the scheduler decides how many messages go together. So both processes run on one core, and the median of
//! several runs counts. Each run has new processes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Counted;
use super::party::{BATCH, PROBE, PROBE_BYTES};
use super::row::{Bound, Row};
use crate::child::Child;
use crate::failure::Failure;
use crate::{cores, shell};

/// The bytes of a message that each side may copy: what is read together with its header. Values below 1 KiB
/// do not count.
pub(super) const MAX_COPIED_BYTES: f64 = (16 << 10) as f64;

/// The effect of the scheduler on the number of system calls per call. With another busy process on the
/// core, medians differed by up to 0.05.
const SYSTEM_CALL_SLACK: f64 = 0.1;

/// The same with many calls in flight on a pool, where the scheduler decides which messages go together:
/// medians of one row were 0.3 to 0.6. If messages no longer went together, each would take a whole system
/// call more.
const COALESCED_SLACK: f64 = 0.3;

/// The allocations per call of answering the parent and of connecting; less than one call's.
const ALLOCATION_SLACK: f64 = 0.05;

/// The number of runs of which the median counts, for counts that vary.
const RUNS: usize = 5;

const SIDES: [&str; 2] = ["client", "server"];

/// The calls to make.
#[derive(Clone, Copy, Debug)]
struct Work {
    method: &'static str,
    bytes: usize,
    calls: usize,
    in_flight: usize,
}

/// The requests of one side to the C library, for each call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    counters: BTreeMap<String, f64>,
}

impl Tally {
    fn of(&self, name: &str) -> f64 {
        self.counters.get(name).copied().unwrap_or(0.0)
    }

    fn allocations(&self) -> f64 {
        self.of("allocations")
    }

    /// Returns the system calls of all kinds that have wrappers in the C library.
    fn system_calls(&self) -> f64 {
        self.counters.iter().filter(|(name, _)| name.starts_with("sys.")).map(|(_, count)| count).sum()
    }

    /// Returns the bytes that the C library copied in pieces of 1 KiB and more.
    pub(crate) fn copied_bytes(&self) -> f64 {
        self.of("copied_large")
    }

    /// Returns the bytes of the last large array that were sent from, or received into, the memory that
    /// users see.
    fn in_place_bytes(&self) -> f64 {
        self.of("in_place")
    }

    /// Returns the kinds of system calls, most frequent first.
    fn kinds(&self) -> String {
        let kinds =
            self.counters.iter().filter_map(|(name, count)| Some((name.strip_prefix("sys.")?, *count)));
        let mut kinds: Vec<_> = kinds.filter(|(_, count)| *count >= 0.005).collect();
        kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
        kinds.iter().map(|(name, count)| format!("{name} {count:.2}")).collect::<Vec<_>>().join(", ")
    }
}

/// The settings of a pair.
struct Setting {
    /// The library to preload.
    library: PathBuf,
    address: String,
    /// The core for both sides, if they are pinned.
    core: Option<usize>,
}

impl Setting {
    fn new(transport: &str, core: Option<usize>) -> Result<Setting, Failure> {
        Ok(Setting { library: library()?, address: address(transport), core })
    }

    /// Returns the median of several runs, by the number of system calls of each side. Each run has new
    /// processes, because processes adapt to each other and keep what they have learned.
    fn median_tally(&self, work: Work) -> Result<[Tally; 2], Failure> {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(Pair::start(self)?.tally(work)?);
        }
        Ok(std::array::from_fn(|side| {
            let mut tallies: Vec<_> = runs.iter().map(|run| run[side].clone()).collect();
            tallies.sort_by(|a, b| a.system_calls().total_cmp(&b.system_calls()));
            tallies.swap_remove(RUNS / 2)
        }))
    }
}

/// A server and its client, both counted.
struct Pair {
    /// Client, server.
    sides: [Child; 2],
}

impl Pair {
    fn start(setting: &Setting) -> Result<Pair, Failure> {
        let environment = [("LD_PRELOAD", setting.library.to_str().unwrap_or_default())];
        let party = |side: &str, address: &str| {
            let mut arguments = vec!["counts-party".to_owned(), side.to_owned(), address.to_owned()];
            arguments.extend(setting.core.map(|core| format!("--core={core}")));
            Child::start(arguments, &environment)
        };
        let mut server = party("server", &setting.address)?;
        let address = server.line()?;
        let mut client = party("client", &address)?;
        match client.line()? {
            line if line == "ready" => Pair { sides: [client, server] }.checked(),
            line => Err(Failure::bench(line)),
        }
    }

    /// Makes both sides do something that every counter must see. A counter that sees nothing would pass
    /// every limit.
    fn checked(mut self) -> Result<Pair, Failure> {
        let before = self.ask("nothing")?;
        let after = self.ask(PROBE)?;
        for (before, after) in before.iter().zip(&after) {
            let of = |counters: &BTreeMap<String, u64>, name: &str| counters.get(name).copied().unwrap_or(0);
            let grown = |name: &str| of(after, name).saturating_sub(of(before, name));
            let seen = [("copied_large", PROBE_BYTES), ("allocations", 1), ("sys.write", 1), ("sys.read", 1)];
            if let Some((name, _)) = seen.into_iter().find(|(name, least)| grown(name) < *least as u64) {
                return Err(Failure::bench(format!(
                    "the counter `{name}` of the preloaded library does not work"
                )));
            }
        }
        Ok(self)
    }

    /// Counts some calls, after a warm-up.
    fn tally(&mut self, work: Work) -> Result<[Tally; 2], Failure> {
        let Work { method, bytes, calls, in_flight } = work;
        let line = |calls: usize| format!("{method} {bytes} {calls} {in_flight}");
        self.ask(&line(calls.div_ceil(4)))?;
        let before = self.ask("nothing")?;
        let after = self.ask(&line(calls))?;
        Ok(std::array::from_fn(|side| difference(&before[side], &after[side], calls)))
    }

    /// Sends a line to both sides and returns their counters.
    fn ask(&mut self, line: &str) -> Result<[BTreeMap<String, u64>; 2], Failure> {
        let mut counters = [BTreeMap::new(), BTreeMap::new()];
        for (side, counters) in self.sides.iter_mut().zip(&mut counters) {
            side.send_line(line)?;
            *counters = parse(&side.line()?)?;
        }
        Ok(counters)
    }
}

/// Parses `name value name value ...`.
fn parse(line: &str) -> Result<BTreeMap<String, u64>, Failure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let pairs = words.chunks_exact(2).filter_map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?)));
    let counters: BTreeMap<_, _> = pairs.collect();
    if counters.contains_key("allocations") {
        Ok(counters)
    } else {
        Err(Failure::bench(format!("the preloaded library does not answer; the process printed: {line}")))
    }
}

fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, calls: usize) -> Tally {
    let each = |(name, count): (&String, &u64)| match name.as_str() {
        "in_place" => (name.clone(), *count as f64),
        _ => {
            (name.clone(), count.saturating_sub(before.get(name).copied().unwrap_or(0)) as f64 / calls as f64)
        }
    };
    Tally { counters: after.iter().map(each).collect() }
}

/// Builds the library to preload.
fn library() -> Result<PathBuf, Failure> {
    shell::run(&mut shell::cargo("build --quiet --release --package teleport-interpose"))?;
    Ok(shell::target().join("release/libteleport_interpose.so"))
}

/// Returns the reason why calls cannot be counted here, or `None` if they can.
pub(super) fn unavailable() -> Option<&'static str> {
    let possible = cfg!(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"));
    (!possible).then_some("functions of the C library are counted on 64-bit Linux with glibc only")
}

fn address(transport: &str) -> String {
    match transport {
        "tcp" => "tcp://127.0.0.1:0".to_owned(),
        _ => format!("ipc://@teleport-counts-{}", std::process::id()),
    }
}

/// Counts allocations of 1 KiB calls, and system calls of 64 B calls.
pub(super) fn small(transport: &str, counted: &mut Counted) -> Result<(), Failure> {
    let setting = Setting::new(transport, Some(cores::first_allowed()?))?;
    let mut pair = Pair::start(&setting)?;
    for (method, how) in [("echo", "inline"), ("pool_echo", "pool")] {
        let tallies = pair.tally(Work { method, bytes: 1 << 10, calls: 2000, in_flight: 1 })?;
        for (side, tally) in SIDES.iter().zip(&tallies) {
            let name = format!("allocations a call of 1 KiB, {how}, {transport}, {side}");
            counted.rows.push(Row::with_slack(name, tally.allocations(), ALLOCATION_SLACK));
        }
    }
    // Frees its address.
    drop(pair);
    for (method, how) in [("sink", "inline"), ("pool_echo", "pool")] {
        for in_flight in [1, 64] {
            let tallies = setting.median_tally(Work { method, bytes: 64, calls: 4000, in_flight })?;
            for (side, tally) in SIDES.iter().zip(&tallies) {
                let name =
                    format!("system calls a call of 64 B, {how}, {in_flight} in flight, {transport}, {side}");
                counted.notes.push(format!("{name}: {}", tally.kinds()));
                let slack = system_call_slack(how, in_flight);
                counted.rows.push(Row::with_slack(name, tally.system_calls(), slack));
            }
        }
    }
    Ok(())
}

fn system_call_slack(how: &str, in_flight: usize) -> f64 {
    if how == "pool" && in_flight > 1 { COALESCED_SLACK } else { SYSTEM_CALL_SLACK }
}

/// The kinds of large messages: method, calls in flight, and name.
const LARGE_WAYS: [(&str, usize, &str); 4] = [
    ("sink", 1, "argument"),
    ("give", 1, "result"),
    ("sink_rows", BATCH, "argument in a batch"),
    ("give_row", BATCH, "result of a batch"),
];

const MIB: usize = 1 << 20;

/// Counts the bytes of large messages that were copied, and those that were not sent or received in place.
pub(super) fn large(transport: &str, counted: &mut Counted) -> Result<(), Failure> {
    // Not on one core: there no side ever waits within a message, which would test less.
    let mut pair = Pair::start(&Setting::new(transport, None)?)?;
    for (bytes, size, calls) in [(MIB, "1 MiB", 48), (256 * MIB, "256 MiB", 2)] {
        for (method, in_flight, what) in LARGE_WAYS {
            // Batches of the largest messages would test nothing that those of 1 MiB do not.
            if in_flight > calls {
                continue;
            }
            let tallies = pair.tally(Work { method, bytes, calls, in_flight })?;
            for (side, tally) in SIDES.iter().zip(&tallies) {
                let most = Bound::Most(MAX_COPIED_BYTES);
                let name = format!("bytes copied, {what} of {size}, {transport}, {side}");
                counted.rows.push(Row { name, value: tally.copied_bytes(), bound: most });
                let name = format!("bytes not in place, {what} of {size}, {transport}, {side}");
                counted.rows.push(Row { name, value: bytes as f64 - tally.in_place_bytes(), bound: most });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::row::Verdict;
    use super::*;

    #[test]
    fn one_more_system_call_per_call_fails() {
        let row = |how, in_flight, value| Row::with_slack("x", value, system_call_slack(how, in_flight));
        assert!(matches!(row("inline", 64, 0.3).verdict(Some(0.14)), Verdict::Above(_)));
        assert!(matches!(row("pool", 64, 2.26).verdict(Some(1.26)), Verdict::Above(_)));
        assert!(matches!(row("pool", 1, 8.0).verdict(Some(7.0)), Verdict::Above(_)));
        // Both values were measured for one row, on a busy and on an idle machine.
        assert_eq!(row("pool", 64, 0.6).verdict(Some(0.39)), Verdict::Held);
    }

    #[test]
    fn counters_are_divided_among_the_calls() {
        let before = parse("in_place 7 sys.read 1 sys.write 2 allocations 10").expect("it has counters");
        let after = parse("in_place 9 sys.read 1 sys.write 8 allocations 30").expect("it has counters");
        let tally = difference(&before, &after, 4);
        assert_eq!((tally.allocations(), tally.system_calls(), tally.in_place_bytes()), (5.0, 1.5, 9.0));
        assert_eq!(tally.kinds(), "write 1.50");
        assert_eq!(tally.copied_bytes(), 0.0);
    }

    #[test]
    fn a_process_without_the_library_is_detected() {
        assert!(parse("in_place 0").is_err());
    }
}
