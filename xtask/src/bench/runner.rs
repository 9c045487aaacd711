//! Runs a row: all contenders side by side, round by round.
//!
//! Flow: a pair of processes per contender -> warm-up rounds, which also find out how many calls make a
//! round -> rounds in turn, so that a machine that slows down slows all contenders -> more of them while a
//! verdict is unclear, see `again` -> an [`Outcome`], or two for p50 and p99. A contender that fails or lacks
//! the workload is left out, and the report says so. All other processes are stopped while one is measured.

use std::ops::Range;
use std::time::Duration;

use super::again::{self, Remarks};
use super::outcome::{Compared, Contended, Goal, Kind, Outcome, Unit};
use super::pair::{Pair, Place, Program, Sample};
use super::peak;
use super::protocol::{MAX_LATENCIES, Round, Workload};
use super::rows::{Measure, Row};
use super::stats::{median, quantile};
use crate::failure::Failure;

/// The default number of rounds: dozens, each long enough to measure.
const ROUNDS: usize = 30;
const MIN_ROUNDS: usize = 7;
const MAX_ROUND: Duration = Duration::from_millis(150);
const MIN_ROUND: Duration = Duration::from_millis(15);

/// The calls of a round that measures a 99th percentile.
const MIN_LATENCIES: u64 = 200;

/// The latencies that are kept of each contender, for the plots.
const MAX_SAMPLE: usize = 2000;

/// The settings for all rows.
pub(super) struct Runner {
    pub(super) place: Place,
    /// The number of rounds, if the user sets it.
    pub(super) rounds: Option<usize>,
    pub(super) peers: Vec<Program>,
    /// Whole sentences for the report.
    pub(super) notes: Vec<String>,
    pub(super) remarks: Remarks,
}

/// A contender in a row.
struct Runs {
    label: String,
    kind: Kind,
    pair: Pair,
    round: Round,
    values: [Vec<f64>; 2],
    latencies_us: Vec<f64>,
    /// The reason why it takes no further part.
    left_out: Option<String>,
    /// True if the row is run again without it.
    rests: bool,
}

impl Runner {
    /// Measures a row over "tcp" or "unix".
    pub(super) fn measure(&mut self, row: &Row, transport: &'static str) -> Result<Vec<Outcome>, Failure> {
        let mut all = self.start(row, transport)?;
        let rounds = self.warm_up(row, &mut all)?;
        let (mut done, mut times) = (0, 0);
        let outcomes = loop {
            run_rounds(row, &mut all, done..done + rounds)?;
            (done, times) = (done + rounds, times + 1);
            let outcomes = outcomes(row, transport, &all);
            match again::needed(&outcomes).filter(|_| times < again::MAX_TIMES) {
                Some(needed) => all.iter_mut().for_each(|runs| runs.rests = !needed.contains(&runs.label)),
                None => break outcomes,
            }
        };
        for runs in &all {
            if let Some(why) = &runs.left_out {
                self.notes.push(format!("{} over {transport}: {} {why}.", row.name, runs.label));
            }
        }
        Ok(self.remarks.settle(outcomes, done, times))
    }

    fn start(&mut self, row: &Row, transport: &'static str) -> Result<Vec<Runs>, Failure> {
        let mut all = Vec::new();
        for entry in &row.entries {
            let program = Program::own(entry.contender)?;
            let pair = Pair::start(&program, &self.place, transport, row.placement, row.clients)?;
            all.push(Runs::new(entry.label.to_owned(), entry.kind, pair, row, entry.workload));
        }
        let workload = row.peers.unwrap_or(Workload::Echo);
        let takes_part = |peer: &&Program| row.peers.is_some() && peer.part == row.part;
        for peer in self.peers.iter().filter(takes_part) {
            match Pair::start(peer, &self.place, transport, row.placement, row.clients) {
                Ok(pair) => all.push(Runs::new(peer.name.clone(), Kind::Peer, pair, row, workload)),
                Err(failure) => {
                    let name = &peer.name;
                    self.notes
                        .push(format!("{} over {transport}: {name} did not start: {failure}.", row.name));
                }
            }
        }
        Ok(all)
    }

    /// Warms up, finds out how many calls make a round, and returns how many rounds fit into the row's time.
    fn warm_up(&self, row: &Row, all: &mut [Runs]) -> Result<usize, Failure> {
        let wanted = self.rounds.unwrap_or(ROUNDS);
        let target = row.time / (all.len().max(1) * wanted) as u32;
        let target = target.clamp(MIN_ROUND, MAX_ROUND);
        let mut slowest = Duration::ZERO;
        for runs in all {
            let mut elapsed = Duration::ZERO;
            for _ in 0..2 {
                match runs.pair.round(&runs.round)? {
                    Ok(sample) => elapsed = sample.elapsed,
                    Err(why) => {
                        runs.left_out = Some(why);
                        break;
                    }
                }
                if row.messages.is_none() {
                    runs.round.messages = calls(row, &runs.round, elapsed, target);
                }
            }
            // The time of the last round, which has as many calls as the next ones.
            slowest += elapsed;
        }
        if self.rounds.is_some() {
            return Ok(wanted);
        }
        let fit = row.time.as_secs_f64() / slowest.as_secs_f64().max(1e-6);
        Ok((fit as usize).clamp(MIN_ROUNDS, ROUNDS))
    }
}

/// Runs these rounds of all contenders in turn.
fn run_rounds(row: &Row, all: &mut [Runs], rounds: Range<usize>) -> Result<(), Failure> {
    let count = all.len();
    for number in rounds {
        for place in 0..count {
            // Each round starts with another contender, in case the order matters.
            let runs = &mut all[(number + place) % count];
            if runs.left_out.is_none() && !runs.rests {
                runs.round(row)?;
            }
        }
    }
    Ok(())
}

/// Returns the contenders that were not left out, with the best ceiling alone.
fn shown<'a>(row: &Row, all: &'a [Runs]) -> Vec<&'a Runs> {
    let more_is_better = matches!(row.measure, Measure::Throughput | Measure::CallsPerSecond);
    let rank = |values: &[f64]| if more_is_better { -median(values) } else { median(values) };
    let run: Vec<&Runs> = all.iter().filter(|runs| runs.left_out.is_none()).collect();
    let ceilings = run.iter().copied().filter(|runs| runs.kind == Kind::Ceiling);
    let best = ceilings.min_by(|a, b| rank(&a.values[0]).total_cmp(&rank(&b.values[0])));
    let is_best = |runs: &Runs| best.is_some_and(|best| std::ptr::eq(best, runs));
    run.into_iter().filter(|runs| runs.kind != Kind::Ceiling || is_best(runs)).collect()
}

/// Returns the number of calls that take about `target`, judging by the last round.
fn calls(row: &Row, round: &Round, elapsed: Duration, target: Duration) -> u64 {
    let each = elapsed.as_secs_f64() / round.messages as f64;
    let calls = (target.as_secs_f64() / each.max(1e-9)) as u64;
    let calls = match row.measure {
        Measure::Latency => calls.clamp(MIN_LATENCIES, MAX_LATENCIES),
        _ => calls.clamp(2 * round.in_flight - round.in_flight.min(2), 1 << 24).max(1),
    };
    calls.next_multiple_of(row.batch)
}

impl Runs {
    fn new(label: String, kind: Kind, pair: Pair, row: &Row, workload: Workload) -> Runs {
        // The first round shows how long a call takes.
        let few = if row.bytes <= 64 << 10 { 200 } else { 1 };
        let beside = matches!(workload, Workload::BesideArgument | Workload::BesideResult);
        let messages = if beside { MIN_LATENCIES } else { few.max(row.in_flight) };
        let messages = row.messages.unwrap_or(messages.next_multiple_of(row.batch));
        let round = Round { workload, bytes: row.bytes, messages, in_flight: row.in_flight };
        Runs {
            label,
            kind,
            pair,
            round,
            values: Default::default(),
            latencies_us: Vec::new(),
            left_out: None,
            rests: false,
        }
    }

    fn round(&mut self, row: &Row) -> Result<(), Failure> {
        let server = self.pair.server_id().filter(|_| row.measure == Measure::Memory);
        if let Some(server) = server {
            peak::forget_peak_memory(server)?;
        }
        let sample = match self.pair.round(&self.round)? {
            Ok(sample) => sample,
            Err(why) => {
                self.left_out = Some(why);
                return Ok(());
            }
        };
        let calls = (self.round.messages * row.clients as u64) as f64 / sample.elapsed.as_secs_f64();
        match row.measure {
            Measure::Throughput => self.values[0].push(calls * row.bytes as f64 / 1e9),
            Measure::CallsPerSecond => self.values[0].push(calls),
            Measure::Latency => self.add_latencies(&sample),
            Measure::Memory => match server {
                Some(server) => {
                    self.values[0].push(peak::peak_memory_bytes(server)? as f64 / f64::from(1 << 20));
                }
                None => self.left_out = Some("runs on another machine".to_owned()),
            },
        }
        Ok(())
    }

    fn add_latencies(&mut self, sample: &Sample) {
        let mut times: Vec<f64> = sample.latencies.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        if times.is_empty() {
            self.left_out = Some("gave no time of any call".to_owned());
            return;
        }
        times.sort_by(f64::total_cmp);
        self.values[0].push(quantile(&times, 0.5));
        self.values[1].push(quantile(&times, 0.99));
        self.latencies_us.extend(times);
    }

    fn contended(&self, index: usize) -> Contended {
        let mut all = self.latencies_us.clone();
        all.sort_by(f64::total_cmp);
        // The sample is even over all ranks and keeps the slowest call, because plots show the tail.
        let count = all.len().min(MAX_SAMPLE);
        let rank = |at: usize| all[at * (all.len() - 1) / (count - 1).max(1)];
        let latencies_us = (0..count).map(rank).collect();
        Contended {
            contender: self.label.clone(),
            kind: self.kind,
            values: self.values[index].clone(),
            latencies_us,
            settings: self.pair.settings.clone(),
        }
    }
}

fn outcomes(row: &Row, transport: &'static str, all: &[Runs]) -> Vec<Outcome> {
    let all = shown(row, all);
    let unit = match row.measure {
        Measure::Throughput => Unit::GBs,
        Measure::CallsPerSecond => Unit::CallsPerSecond,
        Measure::Latency => Unit::Micros,
        Measure::Memory => Unit::MiB,
    };
    let against_peers = row.name_against_peers();
    let names = row.names().into_iter().enumerate();
    let outcome = |(index, name): (usize, String)| {
        let is_against_peers = against_peers.as_ref() == Some(&name);
        let index = if is_against_peers { 0 } else { index };
        // Other ceilings and peers have rows of their own.
        let is_shown = |runs: &&&Runs| match runs.kind {
            Kind::Ceiling => !is_against_peers,
            Kind::Peer => is_against_peers || against_peers.is_none(),
            Kind::Teleport => true,
        };
        Outcome {
            transport,
            unit,
            results: all.iter().filter(is_shown).map(|runs| runs.contended(index)).collect(),
            goal: if is_against_peers {
                row.goal_against_peers.map(Goal::OfBestPeer)
            } else {
                row.goals[index]
            },
            row: name,
            point: row.point,
            compared: Compared::Pairs,
        }
    };
    names.map(outcome).collect()
}
