//! The processes whose work is counted: a server and a client, and shapes of work in one thread.
//!
//! Flow: a line from the parent -> calls, or nothing -> a line back with all counters. The counters are
//! those of the preloaded library (`xtask/interpose`), which answers when certain environment variables are
//! read. Without it nothing is counted and nothing else changes. Nothing here measures time.

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
use super::whole;
use crate::failure::Failure;
use crate::{child, cores};

/// The environment variable for which the preloaded library returns all its counters.
const COUNTERS: &str = "TELEPORT_COUNTERS";

/// With an address and a length appended, the variables that say how many of these bytes were sent
/// (received) in place.
const SENT_FROM: &str = "TELEPORT_SENT_FROM_";
const RECEIVED_INTO: &str = "TELEPORT_RECEIVED_INTO_";

/// Returns an array of this many bytes, from the pool.
const GIVE: Rpc<u64, Array> = Rpc::new("give");

/// Returns the same as a row of one result for [`BATCH`] calls.
const GIVE_ROW: Rpc<u64, Array> = Rpc::new("give_row");

/// The calls in each batch.
pub(super) const BATCH: usize = 4;

/// The place of smaller arrays is not checked, because the check would add to the costs of a small call.
const MIN_LARGE_BYTES: usize = 64 << 10;

/// More than any row needs, so that no call waits for a slot.
const MAX_IN_FLIGHT: usize = 256;

/// The time that a running thread needs at most to record what it has sent.
const RECORD_TIME: Duration = Duration::from_millis(1);

/// On a busy machine the thread may wait until it runs. If bytes were copied, all these checks are made
/// twice per row.
const MAX_CHECKS: usize = 500;

/// Asks for a copy of [`PROBE_BYTES`] bytes, which tests the counters.
pub(super) const PROBE: &str = "probe";
pub(super) const PROBE_BYTES: usize = 1 << 20;

/// A process whose work is counted; not for users.
#[derive(Debug, Args)]
pub(crate) struct PartyOptions {
    #[command(subcommand)]
    party: Party,
    /// The core to run on
    #[arg(long, global = true)]
    core: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum Party {
    /// Serves at an address
    Server { address: String },
    /// Makes the calls that its input asks for
    Client { address: String },
    /// Repeats a shape of work
    Shape { shape: Shape, times: u32 },
    /// Serves the calls that are counted as a whole
    WholeServer,
    /// Makes them, for one row
    WholeClient { address: String, row: usize },
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
        Party::WholeServer => child::follow_parent().and_then(|()| whole::serve().map_err(Failure::bench)),
        Party::WholeClient { address, row } => {
            child::follow_parent().and_then(|()| whole::call(address, *row).map_err(Failure::bench))
        }
    }
}

/// The bytes of the last large argument that were received into the memory that the function saw.
static ARGUMENT_IN_PLACE: AtomicU64 = AtomicU64::new(0);

/// The address of the last large result, the length of each of its rows, and their number.
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
    // How often a thread spins depends on time, which is not counted.
    let server = Server::bind(address)?.spin(Duration::ZERO).start(methods)?;
    child::print_line(&server.address().to_string())?;
    for line in child::commands() {
        if line == PROBE {
            probe();
        }
        // Reading the counters forgets where the result was, so this is read once.
        let result_bytes = RESULT_BYTES.swap(0, Ordering::Relaxed);
        let in_place = match result_bytes {
            0 => ARGUMENT_IN_PLACE.load(Ordering::Relaxed),
            _ => result_in_place(result_bytes),
        };
        child::print_line(&format!("in_place {in_place} {}", counters()))?;
    }
    server.close()?;
    Ok(())
}

/// Allocates and copies. Returns that nothing is in place.
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

/// Records the row of which the fewest bytes are in place.
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

/// Returns the bytes of the last result that were sent in place. Of several rows, the smallest number
/// counts.
fn result_in_place(bytes: usize) -> u64 {
    let (start, rows) = (RESULT_AT.load(Ordering::Relaxed), RESULT_ROWS.load(Ordering::Relaxed));
    (0..rows).map(|row| sent_in_place(start + row * bytes, bytes)).min().unwrap_or(0)
}

/// Returns the counters of the preloaded library as `name value name value ...`. Empty without the library.
fn counters() -> String {
    env::var(COUNTERS).unwrap_or_default()
}

fn received_in_place(array: &Array) -> u64 {
    in_place(RECEIVED_INTO, array.as_bytes().as_ptr().addr(), array.bytes()).unwrap_or(0)
}

/// Returns the bytes that were sent in place. The peer can receive them before the sending thread has
/// returned from the system call and recorded their place, so this waits for it.
fn sent_in_place(at: usize, bytes: usize) -> u64 {
    complete(bytes as u64, || in_place(SENT_FROM, at, bytes), || thread::sleep(RECORD_TIME))
}

/// Calls `check` until it returns `all`, at most [`MAX_CHECKS`] times, and returns its last value.
fn complete(all: u64, mut check: impl FnMut() -> Option<u64>, mut pause: impl FnMut()) -> u64 {
    let mut seen = check();
    for _ in 1..MAX_CHECKS {
        if seen.is_none_or(|seen| seen >= all) {
            break;
        }
        pause();
        seen = check();
    }
    seen.unwrap_or(0)
}

/// Returns how many of these bytes were sent or received in place. `None` for small arrays and without the
/// preloaded library.
fn in_place(question: &str, at: usize, bytes: usize) -> Option<u64> {
    if bytes < MIN_LARGE_BYTES {
        return None;
    }
    env::var(format!("{question}{at:x}_{bytes:x}")).ok()?.parse().ok()
}

/// Makes the calls of lines `METHOD BYTES CALLS IN_FLIGHT`, and answers each line when they are done.
fn call(address: &str) -> Result<(), BoxError> {
    let client = Client::builder(address).max_inflight(MAX_IN_FLIGHT).spin(Duration::ZERO).connect()?;
    child::print_line("ready")?;
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
        child::print_line(&format!("in_place {in_place} {}", counters()))?;
    }
    client.close()?;
    Ok(())
}

/// Asks for results, one after the other. Returns the bytes of the last one that were received in place.
fn take(client: &Client, bytes: u64, calls: usize) -> Result<u64, BoxError> {
    let mut in_place = 0;
    for _ in 0..calls {
        in_place = received_in_place(&client.call(GIVE, bytes).wait()?);
    }
    Ok(in_place)
}

/// Asks for the results of whole batches, one after the other. Returns the smallest number of bytes of a
/// result that were received in place.
fn take_rows(client: &Client, bytes: u64, calls: usize) -> Result<u64, BoxError> {
    let mut in_place = 0;
    for _ in 0..calls.div_ceil(BATCH) {
        let open: Result<Vec<_>, _> = (0..BATCH).map(|_| client.call(GIVE_ROW, bytes).send()).collect();
        let results = teleport::wait_all(open?)?;
        in_place = results.iter().map(received_in_place).min().unwrap_or(0);
    }
    Ok(in_place)
}

/// Sends arguments, with `in_flight` calls open. Returns the bytes of the last one that were sent in place.
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
    fn bytes_that_are_recorded_late_are_counted() {
        let (mut checks, mut pauses) = ([0, 3, 7].into_iter(), 0);
        assert_eq!(complete(7, || checks.next(), || pauses += 1), 7);
        assert_eq!(pauses, 2);
    }

    #[test]
    fn the_wait_for_bytes_that_are_never_recorded_ends() {
        let (mut checks, mut pauses) = (0, 0);
        let check = || {
            checks += 1;
            Some(6)
        };
        assert_eq!(complete(7, check, || pauses += 1), 6);
        assert_eq!((checks, pauses), (MAX_CHECKS, MAX_CHECKS - 1));
        assert_eq!(complete(7, || None, || panic!("nothing is counted")), 0);
    }
}
