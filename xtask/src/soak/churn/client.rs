//! A client process of a churn. Two threads make calls of all sizes and check each answer.
//!
//! Flow: on `pause`, the threads stop after their call and the process prints `paused`; on `go`, they
//! continue; on `end`, the process ends. It prints `large` before each large argument, so that it can be
//! killed while it sends one. At the first error it prints `wrong: ...` and ends.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use teleport::{Call, CallError, Client, ErrorKind, OnDisconnect, Pool, Tree, tree};

use super::content::{self, Draw};
use super::{MAX_SILENCE, PING_INTERVAL, POLL, SETTLE_TIME};
use crate::child;
use crate::failure::Failure;

const THREADS: u64 = 2;

/// Larger than eager credit, so that the argument waits for a grant.
const LARGE_WORDS: std::ops::Range<u64> = (2 << 17)..(16 << 17);
const MEDIUM_WORDS: std::ops::Range<u64> = (1 << 13)..(1 << 17);
const SMALL_WORDS: std::ops::Range<u64> = 0..512;

/// A client process of a churn; not for users.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientOptions {
    address: String,
    seed: u64,
    /// The client will be stopped now and then, so lost connections are no error.
    #[arg(long)]
    disturbed: bool,
    /// Calls survive their connection.
    #[arg(long)]
    resume: bool,
    /// Arguments have checksums.
    #[arg(long)]
    checksum: bool,
}

/// A command to the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Go,
    Pause,
    End,
}

/// The current command to the threads, and how many threads pause.
#[derive(Debug)]
struct Gate {
    state: Mutex<(Order, u64)>,
    changed: Condvar,
}

pub(crate) fn run_client(options: &ClientOptions) -> Result<(), Failure> {
    child::follow_parent()?;
    let on_disconnect = if options.resume { OnDisconnect::Resume } else { OnDisconnect::Fail };
    let client = Client::builder(&options.address)
        .on_disconnect(on_disconnect)
        .name("churn")
        .max_inflight(16)
        .ping_interval(PING_INTERVAL)
        .max_silence(MAX_SILENCE)
        .checksum(options.checksum)
        .connect()
        .map_err(Failure::bench)?;
    let gate = Gate { state: Mutex::new((Order::Go, 0)), changed: Condvar::new() };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (caller, gate) = (Caller { client: &client, disturbed: options.disturbed }, &gate);
            scope.spawn(move || caller.work(Draw::new(options.seed.wrapping_add(thread << 32)), gate));
        }
        for command in child::commands() {
            match command.as_str() {
                "go" => gate.order(Order::Go),
                "pause" => {
                    gate.order(Order::Pause);
                    gate.until_all_pause();
                    rest(&client);
                    child::print_line("paused")?;
                }
                _ => break,
            }
        }
        gate.order(Order::End);
        Ok(())
    })?;
    if !options.disturbed && client.stats().connects != 1 {
        give_up(&format!("an undisturbed client connected {} times", client.stats().connects));
    }
    Ok(())
}

/// Waits until nothing is left of any call, canceled and dropped ones included, and gives idle memory back.
fn rest(client: &Client) {
    let start = Instant::now();
    let left = || (client.stats().in_flight, Pool::global().stats().in_use_bytes);
    while left() != (0, 0) {
        if start.elapsed() > SETTLE_TIME {
            let (calls, bytes) = left();
            give_up(&format!(
                "{SETTLE_TIME:?} after the last call, {calls} calls and {bytes} bytes are left"
            ));
        }
        thread::sleep(POLL);
    }
    Pool::global().trim();
}

impl Gate {
    fn order(&self, order: Order) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = order;
        self.changed.notify_all();
    }

    fn until_all_pause(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.changed.wait_while(state, |(_, pausing)| *pausing < THREADS);
        drop(all.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits while the threads must pause. Returns false at the end.
    fn pass(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 == Order::Pause {
            state.1 += 1;
            self.changed.notify_all();
            let waited = self.changed.wait_while(state, |(order, _)| *order == Order::Pause);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.1 -= 1;
        }
        state.0 == Order::Go
    }
}

/// One call: the seed of its content, and the sizes of argument and answer.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    seed: u64,
    words: u64,
    answer_words: u64,
}

#[derive(Clone, Copy)]
struct Caller<'c> {
    client: &'c Client,
    disturbed: bool,
}

impl Caller<'_> {
    fn work(self, mut draw: Draw, gate: &Gate) {
        while gate.pass() {
            let done = self.step(&mut draw).and_then(|()| self.client.check().or_else(|e| self.excuse(e)));
            if let Err(problem) = done {
                give_up(&problem);
            }
        }
    }

    /// Makes one random kind of call.
    fn step(self, draw: &mut Draw) -> Result<(), String> {
        let [small, medium, large] =
            [SMALL_WORDS, MEDIUM_WORDS, LARGE_WORDS].map(|words| draw.within(words.start, words.end));
        let mut exchange = |words, answer_words| Exchange { seed: draw.next(), words, answer_words };
        let up = exchange(large, small);
        let down = exchange(small, large);
        let both = exchange(medium, medium);
        let burst: Vec<Exchange> = (0..8).map(|_| exchange(small, small)).collect();
        let time = Duration::from_millis(draw.within(1, 20));
        match draw.within(0, 100) {
            0..10 => {
                child::print_line("large").map_err(|error| error.to_string())?;
                self.call("exchange", up)
            }
            10..20 => self.call("exchange", down),
            20..40 => self.call("exchange", both),
            40..60 => self.at_once(&burst),
            60..70 => match self.make("exchange", up).deadline(time).wait() {
                Err(CallError::Deadline { .. }) => Ok(()),
                ended => self.judge(up, ended),
            },
            70..75 => {
                let sent = self.make("exchange", if time.subsec_millis() < 10 { up } else { both }).send();
                let canceled = sent.map(|future| future.cancel());
                canceled.map(|_ran| ()).or_else(|error| self.excuse(error))
            }
            _ => self.call("exchange_inline", burst[0]),
        }
    }

    /// Makes several calls at once, and drops every other future.
    fn at_once(self, burst: &[Exchange]) -> Result<(), String> {
        let mut futures = Vec::new();
        for exchange in burst {
            match self.make("exchange", *exchange).send() {
                Ok(future) => futures.push((*exchange, future)),
                Err(error) => self.excuse(error)?,
            }
        }
        futures.into_iter().step_by(2).try_for_each(|(exchange, future)| self.judge(exchange, future.wait()))
    }

    fn call(self, method: &'static str, exchange: Exchange) -> Result<(), String> {
        self.judge(exchange, self.make(method, exchange).wait())
    }

    fn make(self, method: &'static str, Exchange { seed, words, answer_words }: Exchange) -> Call {
        let content = content::make(seed, words as usize).unwrap_or_else(|error| give_up(&error.to_string()));
        let call = tree!({"seed": seed, "words": words, "answer_words": answer_words, "content": content});
        self.client.call(method, call)
    }

    fn judge(self, exchange: Exchange, ended: Result<Tree, CallError>) -> Result<(), String> {
        match ended {
            Ok(Tree::Array(answer)) => {
                content::check(&answer, !exchange.seed, exchange.answer_words as usize)
            }
            Ok(other) => Err(format!("{exchange:?} was answered with {other}")),
            Err(error) => self.excuse(error),
        }
    }

    /// Returns the error as a problem, unless it may happen to a client that is stopped now and then.
    fn excuse(self, error: CallError) -> Result<(), String> {
        let lost = match &error {
            CallError::Disconnected { .. } | CallError::NotAlive { .. } => true,
            // The server needed the memory, or the client was away for longer than its calls are kept.
            CallError::Remote(remote) => matches!(remote.kind(), ErrorKind::TooSlow | ErrorKind::Expired),
            _ => false,
        };
        if lost && self.disturbed { Ok(()) } else { Err(error.to_string()) }
    }
}

/// Prints a problem and ends the process.
fn give_up(problem: &str) -> ! {
    // The parent may have ended.
    let _ = child::print_line(&format!("wrong: {problem}"));
    std::process::exit(1);
}
