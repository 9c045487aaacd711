//! The processes whose work is counted: a server and a client of the real library, and shapes of work in one thread.
//!
//! Flow: a line from the parent -> calls, or nothing -> a line back with all counters. The counters are those of the
//! preloaded library (`xtask/interpose`), which answers when the environment is asked for names that begin with its own;
//! without it nothing is counted and nothing else changes. Nothing here measures time.

use std::collections::VecDeque;
use std::env;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use teleport::{
    Array, Batch, BoxError, CallFuture, Client, Context, FromTree, Method, Methods, Rpc, Server, Tree,
};

use super::shape::{self, Shape};
use crate::failure::Failure;
use crate::{child, cores};

/// Asked for as a variable of the environment, the preloaded library answers with all its counters.
const COUNTERS: &str = "TELEPORT_COUNTERS";

/// Followed by an address and a length: how many of these bytes were sent from (received to) where they lie.
const SENT_FROM: &str = "TELEPORT_SENT_FROM_";
const RECEIVED_INTO: &str = "TELEPORT_RECEIVED_INTO_";

/// Gives so many bytes, in memory of the pool.
const GIVE: Rpc<u64, Array> = Rpc::new("give");

/// The same, as a row of one result for [`BATCH`] calls.
const GIVE_ROW: Rpc<u64, Array> = Rpc::new("give_row");

/// Calls of each batch.
pub(super) const BATCH: usize = 4;

/// Of smaller arrays nobody asks where they lay: asking would show among what a small call costs.
const MIN_LARGE_BYTES: usize = 64 << 10;

/// More than any row asks for, so that no call waits for a place.
const MAX_IN_FLIGHT: usize = 256;

/// What a thread needs at most to note what it has sent, if it runs.
const NOTING_TIME: Duration = Duration::from_millis(1);

/// On a busy machine it may have to wait until it runs. Where something was copied this is in vain, twice for each row.
const MAX_LOOKS: usize = 500;

/// Asks for a copy of so many bytes, by which the counters are tried.
pub(super) const PROBE: &str = "probe";
pub(super) const PROBE_BYTES: usize = 1 << 20;

/// A process whose work is counted; not for users.
#[derive(Debug, Args)]
pub(crate) struct PartyOptions {
    #[command(subcommand)]
    party: Party,
    /// Stay on this core
    #[arg(long, global = true)]
    core: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum Party {
    /// Serves at an address
    Server { address: String },
    /// Makes the calls that its lines ask for
    Client { address: String },
    /// Works so many times, alone
    Shape { shape: Shape, times: u32 },
}

pub(crate) fn run(options: &PartyOptions) -> Result<(), Failure> {
    if let Some(core) = options.core {
        cores::stay_on(core)?;
    }
    match &options.party {
        Party::Server { address } => {
            child::follow_parent().and_then(|()| serve(address).map_err(Failure::bench))
        }
        Party::Client { address } => {
            child::follow_parent().and_then(|()| call(address).map_err(Failure::bench))
        }
        Party::Shape { shape, times } => shape::run(*shape, *times).map_err(Failure::bench),
    }
}

/// How many bytes of the last large argument had been received where the function saw them.
static ARGUMENT_IN_PLACE: AtomicU64 = AtomicU64::new(0);

/// Where the last large result lay, or the rows of it, how long it or a row was, and how many rows there were.
static RESULT_AT: AtomicUsize = AtomicUsize::new(0);
static RESULT_BYTES: AtomicUsize = AtomicUsize::new(0);
static RESULT_ROWS: AtomicUsize = AtomicUsize::new(1);

fn serve(address: &str) -> Result<(), BoxError> {
    let methods = Methods::new()
        .register("sink", Method::inline(sink))
        .register("echo", Method::inline(|x: Tree| x))
        .register("pool_echo", |x: Tree| x)
        .register(GIVE, Method::inline(give))
        .register("sink_rows", Method::batched(Batch::exact(BATCH), sink_rows))
        .register(GIVE_ROW, Method::batched(Batch::exact(BATCH), give_rows));
    // How often a thread looks before it sleeps is a matter of time, which is not what is counted.
    let server = Server::bind(address)?.spin(Duration::ZERO).start(methods)?;
    child::say(&server.address().to_string())?;
    for line in child::commands() {
        if line == PROBE {
            probe();
        }
        // Once: when the counters have been asked for, nobody knows any more where it lay.
        let result_bytes = RESULT_BYTES.swap(0, Ordering::Relaxed);
        let in_place = match result_bytes {
            0 => ARGUMENT_IN_PLACE.load(Ordering::Relaxed),
            _ => result_in_place(result_bytes),
        };
        child::say(&format!("in_place {in_place} {}", counters()))?;
    }
    server.close()?;
    Ok(())
}

/// Allocates and copies; nothing of it lies anywhere afterwards.
fn probe() -> u64 {
    let bytes = black_box(vec![1u8; PROBE_BYTES]);
    drop(black_box(bytes.clone()));
    0
}

fn sink(x: Tree) {
    if let Ok(array) = Array::from_tree(x) {
        ARGUMENT_IN_PLACE.store(received_in_place(&array), Ordering::Relaxed);
        RESULT_BYTES.store(0, Ordering::Relaxed);
    }
}

/// Notes the row of which most is not where it was received.
fn sink_rows(rows: Array) -> Array {
    let in_place = (0..rows.shape()[0]).map(|row| received_in_place(&rows.row(row)));
    ARGUMENT_IN_PLACE.store(in_place.min().unwrap_or(0), Ordering::Relaxed);
    RESULT_BYTES.store(0, Ordering::Relaxed);
    Array::from(vec![0u8; rows.shape()[0]])
}

fn give_rows(bytes: Vec<u64>, cx: Context) -> Result<Array, BoxError> {
    let array = cx.alloc::<u8>([bytes.len(), usize::try_from(bytes[0])?])?;
    note_result(&array, bytes.len());
    Ok(array)
}

fn give(bytes: u64, cx: Context) -> Result<Array, BoxError> {
    let array = cx.alloc::<u8>([usize::try_from(bytes)?])?;
    note_result(&array, 1);
    Ok(array)
}

fn note_result(array: &Array, rows: usize) {
    RESULT_AT.store(array.as_bytes().as_ptr().addr(), Ordering::Relaxed);
    RESULT_BYTES.store(array.bytes() / rows, Ordering::Relaxed);
    RESULT_ROWS.store(rows, Ordering::Relaxed);
}

/// How much of the last result was sent from where it lies; of several rows, of the one of which least was.
fn result_in_place(bytes: usize) -> u64 {
    let (start, rows) = (RESULT_AT.load(Ordering::Relaxed), RESULT_ROWS.load(Ordering::Relaxed));
    (0..rows).map(|row| sent_in_place(start + row * bytes, bytes)).min().unwrap_or(0)
}

/// What the preloaded library has counted so far, as `name value name value ...`; empty without it.
fn counters() -> String {
    env::var(COUNTERS).unwrap_or_default()
}

fn received_in_place(array: &Array) -> u64 {
    in_place(RECEIVED_INTO, array.as_bytes().as_ptr().addr(), array.bytes()).unwrap_or(0)
}

/// How much was sent from where it lies. The peer can have it all before the thread that sent it has come back from the
/// system call and noted where it lay.
fn sent_in_place(at: usize, bytes: usize) -> u64 {
    complete(bytes as u64, || in_place(SENT_FROM, at, bytes), || thread::sleep(NOTING_TIME))
}

/// What `look` gives once that is all, or after so many looks.
fn complete(all: u64, mut look: impl FnMut() -> Option<u64>, mut pause: impl FnMut()) -> u64 {
    let mut seen = look();
    for _ in 1..MAX_LOOKS {
        if seen.is_none_or(|seen| seen >= all) {
            break;
        }
        pause();
        seen = look();
    }
    seen.unwrap_or(0)
}

/// How many of so many bytes from an address were sent from, or received to, where they lie; none without the preloaded
/// library, and of what is small.
fn in_place(question: &str, at: usize, bytes: usize) -> Option<u64> {
    if bytes < MIN_LARGE_BYTES {
        return None;
    }
    env::var(format!("{question}{at:x}_{bytes:x}")).ok()?.parse().ok()
}

/// Makes the calls of lines `METHOD BYTES CALLS IN_FLIGHT`, and answers each line when they are done.
fn call(address: &str) -> Result<(), BoxError> {
    let client = Client::builder(address).max_inflight(MAX_IN_FLIGHT).spin(Duration::ZERO).connect()?;
    child::say("ready")?;
    for line in child::commands() {
        let words: Vec<&str> = line.split(' ').collect();
        let in_place = match words[..] {
            ["give", bytes, calls, "1"] => take(&client, bytes.parse()?, calls.parse()?)?,
            ["give_row", bytes, calls, _] => take_rows(&client, bytes.parse()?, calls.parse()?)?,
            [method, bytes, calls, in_flight] => {
                give_away(&client, method, bytes.parse()?, calls.parse()?, in_flight.parse()?)?
            }
            [PROBE] => probe(),
            _ => 0,
        };
        child::say(&format!("in_place {in_place} {}", counters()))?;
    }
    client.close()?;
    Ok(())
}

/// Asks for results, one after the other; gives how much of the last one was received where the caller sees it.
fn take(client: &Client, bytes: u64, calls: usize) -> Result<u64, BoxError> {
    let mut in_place = 0;
    for _ in 0..calls {
        in_place = received_in_place(&client.call(GIVE, bytes).wait()?);
    }
    Ok(in_place)
}

/// Asks for the results of a whole batch, one batch after the other; gives how much was received where the caller sees it of the
/// result of which least was.
fn take_rows(client: &Client, bytes: u64, calls: usize) -> Result<u64, BoxError> {
    let mut in_place = 0;
    for _ in 0..calls.div_ceil(BATCH) {
        let open: Result<Vec<_>, _> = (0..BATCH).map(|_| client.call(GIVE_ROW, bytes).send()).collect();
        let results = teleport::wait_all(open?)?;
        in_place = results.iter().map(received_in_place).min().unwrap_or(0);
    }
    Ok(in_place)
}

/// Sends arguments, so many at once; gives how much of the last one was sent from where it lies.
fn give_away(
    client: &Client,
    method: &str,
    bytes: usize,
    calls: usize,
    in_flight: usize,
) -> Result<u64, BoxError> {
    let array = Array::from(vec![1u8; bytes]);
    if in_flight == 1 {
        for _ in 0..calls {
            client.call(method, array.clone()).wait()?;
        }
    } else {
        let mut open: VecDeque<CallFuture<Tree>> = VecDeque::with_capacity(in_flight);
        for _ in 0..calls {
            if open.len() == in_flight {
                open.pop_front().map(CallFuture::wait).transpose()?;
            }
            open.push_back(client.call(method, array.clone()).send()?);
        }
        teleport::wait_all(open)?;
    }
    Ok(sent_in_place(array.as_bytes().as_ptr().addr(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_late_is_seen() {
        let (mut looks, mut pauses) = ([0, 3, 7].into_iter(), 0);
        assert_eq!(complete(7, || looks.next(), || pauses += 1), 7);
        assert_eq!(pauses, 2);
    }

    #[test]
    fn what_is_never_noted_is_not_waited_for_for_long() {
        let (mut looks, mut pauses) = (0, 0);
        let look = || {
            looks += 1;
            Some(6)
        };
        assert_eq!(complete(7, look, || pauses += 1), 6);
        assert_eq!((looks, pauses), (MAX_LOOKS, MAX_LOOKS - 1));
        assert_eq!(complete(7, || None, || panic!("nobody counts")), 0);
    }
}
