//! What a large message on its way costs the small calls on the same connection.
//!
//! Flow: a client whose other thread sends one large argument after the other, or gets one large result after the other ->
//! small calls meanwhile, of which those count that began and ended within one large call -> p50 and p99, against
//! those of a round without the large one just before.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use teleport::{Array, Client, Tree};

use super::contender::{Contender, Who};
use super::outcome::{Contended, Kind, Outcome, Plot, Point, Unit};
use super::stats::quantile;
use super::{Cores, transport_name};
use crate::failure::Failure;

const SMALL_BYTES: usize = 1 << 10;

/// Small calls of a round that count. Of so many the 99th percentile is the third worst; the report takes the median over rounds.
const CALLS: usize = 300;

/// Calls without a large one at its side, in a round; each is short.
const CALLS_ALONE: usize = 1000;

/// Where the large message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Argument,
    Result,
}

impl Direction {
    pub(super) const ALL: [Direction; 2] = [Direction::Argument, Direction::Result];

    /// The names of its two rows.
    pub(super) fn rows(self) -> [&'static str; 2] {
        match self {
            Direction::Argument => {
                ["1 KiB call beside a large argument, p50", "1 KiB call beside a large argument, p99"]
            }
            Direction::Result => {
                ["1 KiB call beside a large result, p50", "1 KiB call beside a large result, p99"]
            }
        }
    }
}

/// Measures both rows of one direction.
pub(super) fn measure(
    direction: Direction,
    transport: &'static str,
    address: &str,
    large_bytes: usize,
    rounds: usize,
) -> Result<[Outcome; 2], Failure> {
    let contender = Contender::start(Who::Teleport, address, Cores::Two)?;
    let client = contender.client().expect("it is a client of this library");
    let large = Array::from(vec![1u8; large_bytes]);
    let (mut alone, mut beside) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    // The first round makes memory warm.
    for round in 0..=rounds {
        let rounds =
            [(&mut alone, calls_alone(client)?), (&mut beside, calls_beside(client, direction, &large)?)];
        for (values, mut times) in rounds {
            times.sort_by(f64::total_cmp);
            if round > 0 {
                values[0].push(quantile(&times, 0.5));
                values[1].push(quantile(&times, 0.99));
            }
        }
    }
    let contended = |name: &str, kind, values| Contended {
        contender: name.to_owned(),
        kind,
        values,
        latencies_us: Vec::new(),
        settings: String::new(),
    };
    let [p50, p99] = direction.rows();
    let outcome = |name: &str, alone, beside| Outcome {
        row: name.to_owned(),
        transport: transport_name(transport),
        unit: Unit::Micros,
        results: vec![
            contended("alone", Kind::Ceiling, alone),
            contended("teleport", Kind::Teleport, beside),
        ],
        goal: None,
        point: Some(Point { plot: Plot::Beside, x: large_bytes as f64 }),
    };
    let ([alone_p50, alone_p99], [beside_p50, beside_p99]) = (alone, beside);
    Ok([outcome(p50, alone_p50, beside_p50), outcome(p99, alone_p99, beside_p99)])
}

/// One small call, in microseconds.
fn small(client: &Client, message: &Array) -> Result<f64, Failure> {
    let start = Instant::now();
    client.call("echo", message.clone()).wait().map_err(Failure::bench)?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

fn calls_alone(client: &Client) -> Result<Vec<f64>, Failure> {
    let message = Array::from(vec![1u8; SMALL_BYTES]);
    (0..CALLS_ALONE).map(|_| small(client, &message)).collect()
}

fn calls_beside(client: &Client, direction: Direction, large: &Array) -> Result<Vec<f64>, Failure> {
    let message = Array::from(vec![1u8; SMALL_BYTES]);
    // Odd while a large call is under way.
    let (phase, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let call = match direction {
                    Direction::Argument => client.call("sink", large.clone()),
                    Direction::Result => client.call("give", large.len() as u64),
                };
                let future = call.send().map_err(Failure::bench)?;
                phase.fetch_add(1, Ordering::SeqCst);
                let ended: Result<Tree, _> = future.wait();
                phase.fetch_add(1, Ordering::SeqCst);
                ended.map_err(Failure::bench)?;
            }
            Ok::<(), Failure>(())
        });
        let mut times = Vec::with_capacity(CALLS);
        let measured = loop {
            let before = phase.load(Ordering::SeqCst);
            match small(client, &message) {
                Ok(time) if before % 2 == 1 && phase.load(Ordering::SeqCst) == before => times.push(time),
                Ok(_) => {}
                Err(failure) => break Err(failure),
            }
            if times.len() == CALLS || sender.is_finished() {
                break Ok(times);
            }
        };
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        measured
    })
}
