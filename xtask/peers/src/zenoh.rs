//! zenoh, peer to peer: queries of a client, and queryables of a server that reply to each.
//!
//! Flow: a call is a query by a declared querier, with the argument as its payload -> the queryable's
//! callback replies on the thread that received the query. For the pool and for a large result it hands the
//! query to another thread, because a thread that sends receives nothing -> the reply's callback completes
//! the call. Payloads are shared, not copied; zenoh cuts large ones into batches of 64 KiB.
//!
//! Each side has two sessions, because zenoh's documentation has settings for each of two purposes:
//! [`Use::Fast`] for small calls one at a time, and [`Use::Bulk`] for all others. There, small calls beside
//! large ones have a higher priority. A client asks for the address of the server's fast session.
//!
//! Bounds: messages of up to 1 GiB, zenoh's default; a client has `in_flight` calls open.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use zenoh::bytes::ZBytes;
use zenoh::config::Config;
use zenoh::qos::{CongestionControl, Priority};
use zenoh::query::{ConsolidationMode, Querier, Query, QueryTarget, Reply};
use zenoh::{Session, Wait};

use crate::Failure;
use crate::asynchronous::{beside, exchange, plain};
use crate::protocol::{self, Answer, DICT_ARRAYS, Round, SMALL_BYTES, Workload};
use crate::rounds::answer_rounds;

/// Longer than any call takes.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// The fast transport cannot cut a message, which has to fit a batch of 64 KiB.
const MAX_FAST_BYTES: u64 = 32 << 10;

/// Results of this size and more are sent by a thread of their own.
const MIN_LARGE_BYTES: usize = 1 << 20;

const SINK: &str = "peers/sink";
const SOURCE: &str = "peers/source";
const ECHO: &str = "peers/echo";
const POOL: &str = "peers/pool";

/// The key whose queryable knows the port or path of the fast session.
const FAST: &str = "peers/fast";

const SETTINGS: &str = "zenoh 1.10; peers without scouting, declared queriers, consolidation none, congestion control block; \
                        one call of up to 32 KiB at a time: transport lowlatency without qos, express; all others: tx queue \
                        of 16 batches, rx buffer 16 MiB, small calls beside large ones with priority real-time; \
                        zenoh's own threads; pool is one thread";

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Fast,
    Bulk,
}

impl Use {
    fn of(round: &Round) -> Use {
        let is_fast = round.in_flight == 1 && round.bytes <= MAX_FAST_BYTES && !round.is_beside();
        if is_fast { Use::Fast } else { Use::Bulk }
    }

    /// Opens a session that listens at `listen` or connects to `connect`, if they are not empty.
    fn open(self, listen: &str, connect: &str) -> Result<Session, Failure> {
        let endpoints =
            |endpoint: &str| if endpoint.is_empty() { "[]".to_owned() } else { format!("[\"{endpoint}\"]") };
        let (listen, connect) = (endpoints(listen), endpoints(connect));
        let mut config = Config::default();
        let common = [
            ("mode", "\"peer\""),
            ("scouting/multicast/enabled", "false"),
            ("scouting/gossip/enabled", "false"),
            ("listen/endpoints", &listen),
            ("connect/endpoints", &connect),
        ];
        let own = match self {
            Use::Fast => {
                [("transport/unicast/lowlatency", "true"), ("transport/unicast/qos/enabled", "false")]
            }
            Use::Bulk => {
                [("transport/link/tx/queue/size/data", "16"), ("transport/link/rx/buffer_size", "16777216")]
            }
        };
        // The transport refuses to be fast while it has priorities.
        for (key, value) in common.into_iter().chain(own.into_iter().rev()) {
            config.insert_json5(key, value)?;
        }
        zenoh::open(config).wait()
    }
}

/// Returns the path of a Unix socket. zenoh has no abstract names; this folder is build output.
fn path(name: &str) -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    Ok(program.with_file_name(name))
}

/// Returns an address in zenoh's form.
fn endpoint(address: &str) -> Result<String, Failure> {
    match address.strip_prefix("ipc://@") {
        Some(name) => Ok(format!("unixsock-stream/{}", path(name)?.display())),
        None => Ok(format!("tcp/{}", plain(address))),
    }
}

/// Returns an address with a port that is free now. zenoh's sessions do not tell their port.
fn free(address: &str) -> Result<String, Failure> {
    match address.strip_prefix("tcp://") {
        Some(place) => Ok(format!("tcp://{}", std::net::TcpListener::bind(place)?.local_addr()?)),
        None => Ok(address.to_owned()),
    }
}

/// Serves until standard input ends.
pub(crate) fn serve(address: &str) -> Result<(), Failure> {
    let place = free(address)?;
    let fast_place = if address.starts_with("tcp") { free(address)? } else { format!("{address}-fast") };
    let bulk = Use::Bulk.open(&endpoint(&place)?, "")?;
    let fast = Use::Fast.open(&endpoint(&fast_place)?, "")?;
    let known = fast_place.clone();
    let tell = move |query: Query| reply(&query, known.clone());
    bulk.declare_queryable(FAST).callback(tell).background().wait()?;
    for session in [&bulk, &fast] {
        register(session)?;
    }
    Ok(protocol::serve_until_input_ends(&place)?)
}

fn register(session: &Session) -> Result<(), Failure> {
    let in_pool = on_a_thread(|query| reply(query, argument(query)));
    let large = on_a_thread(|query| reply(query, vec![0; result_bytes(query)]));
    let in_turn = move |query| match result_bytes(&query) {
        0..MIN_LARGE_BYTES => reply(&query, vec![0; result_bytes(&query)]),
        _ => large(query),
    };
    session.declare_queryable(SINK).callback(|query| reply(&query, [1])).background().wait()?;
    session.declare_queryable(SOURCE).callback(in_turn).background().wait()?;
    session.declare_queryable(ECHO).callback(|query| reply(&query, argument(&query))).background().wait()?;
    session.declare_queryable(POOL).callback(in_pool).background().wait()?;
    Ok(())
}

fn argument(query: &Query) -> ZBytes {
    query.payload().cloned().unwrap_or_default()
}

/// Returns a callback that passes queries to a thread, which answers them.
fn on_a_thread(answer: impl Fn(&Query) + Send + 'static) -> impl Fn(Query) + Send + Sync + 'static {
    let (sender, queries) = channel::<Query>();
    thread::spawn(move || queries.iter().for_each(|query| answer(&query)));
    move |query| {
        // The thread lives as long as its queue.
        let _ = sender.send(query);
    }
}

/// Returns the size of the result that a query asks for.
fn result_bytes(query: &Query) -> usize {
    argument(query).to_bytes()[..].try_into().map_or(0, u64::from_le_bytes) as usize
}

fn reply(query: &Query, payload: impl Into<ZBytes>) {
    if let Err(error) = query.reply(query.key_expr().clone(), payload).wait() {
        eprintln!("zenoh: {error}");
    }
}

/// Runs rounds until standard input ends.
pub(crate) fn client(address: &str) -> Result<(), Failure> {
    let bulk = Use::Bulk.open("", &endpoint(address)?)?;
    let fast = connect_fast(&bulk, address)?;
    // zenoh's calls block in place, which a runtime of one thread does not allow.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut kept: Option<(Round, Call)> = None;
    let mut run = |round: &Round| -> Result<Answer, Failure> {
        let kind = Round { messages: 1, ..*round };
        let call = match kept.take().filter(|(of, _)| *of == kind) {
            Some((_, call)) => call,
            None => Call::of(if Use::of(round) == Use::Fast { &fast } else { &bulk }, round)?,
        };
        let (_, call) = kept.insert((kind, call));
        if !round.is_beside() {
            return runtime.block_on(exchange(round, || call.make()));
        }
        let small = Round { workload: Workload::Echo, bytes: SMALL_BYTES, ..*round };
        let small = Call::with(&bulk, &small, Priority::RealTime)?;
        runtime.block_on(beside(round, || call.make_elsewhere(), || small.make()))
    };
    answer_rounds(SETTINGS, |round| run(round).unwrap_or_else(|failure| Answer::Failed(failure.to_string())))
}

fn connect_fast(bulk: &Session, address: &str) -> Result<Session, Failure> {
    let told = bulk.get(FAST).wait()?.recv()?.into_result().map_err(|_| "the server has no fast session")?;
    let told = told.payload().try_to_string()?.into_owned();
    let fast = match (address.rsplit_once(':'), told.rsplit_once(':')) {
        // The server knows its port, and this side the host.
        (Some((host, _)), Some((_, port))) if address.starts_with("tcp") => format!("{host}:{port}"),
        _ => told,
    };
    Use::Fast.open("", &endpoint(&fast)?)
}

/// A method and its argument.
#[derive(Clone)]
struct Call {
    querier: Arc<Querier<'static>>,
    argument: ZBytes,
}

impl Call {
    fn of(session: &Session, round: &Round) -> Result<Call, Failure> {
        Call::with(session, round, Priority::Data)
    }

    fn with(session: &Session, round: &Round, priority: Priority) -> Result<Call, Failure> {
        let array = |bytes: u64| ZBytes::from(vec![1; bytes as usize]);
        let (key, argument) = match round.workload {
            Workload::Echo => (ECHO, array(round.bytes)),
            Workload::Pool => (POOL, array(round.bytes)),
            Workload::Source | Workload::BesideResult => (SOURCE, ZBytes::from(&round.bytes.to_le_bytes())),
            Workload::Dict => (SINK, dict(round.bytes / DICT_ARRAYS, array)),
            _ => (SINK, array(round.bytes)),
        };
        let querier = session
            .declare_querier(key)
            .target(QueryTarget::BestMatching)
            .consolidation(ConsolidationMode::None)
            .timeout(MAX_WAIT)
            .congestion_control(CongestionControl::Block)
            .priority(priority)
            .express(round.in_flight == 1)
            .wait()?;
        Ok(Call { querier: Arc::new(querier), argument })
    }

    /// Makes the call and returns the bytes of its result.
    async fn make(&self) -> Result<u64, Failure> {
        let receiver = self.send()?;
        Ok(receiver.await??)
    }

    /// The same, with a thread that sends the argument, because sending blocks.
    async fn make_elsewhere(&self) -> Result<u64, Failure> {
        let call = self.clone();
        let receiver = tokio::task::spawn_blocking(move || call.send()).await??;
        Ok(receiver.await??)
    }

    /// Sends the query. The receiver gets the bytes of the result.
    fn send(&self) -> Result<oneshot::Receiver<Result<u64, &'static str>>, Failure> {
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        let answered = move |reply: Reply| {
            let bytes = reply.result().map(|sample| sample.payload().len() as u64).map_err(|_| "an error");
            if let Some(sender) = sender.take() {
                // The receiver is gone if the round has failed.
                let _ = sender.send(bytes);
            }
        };
        self.querier.get().payload(self.argument.clone()).callback_mut(answered).wait()?;
        Ok(receiver)
    }
}

/// Returns the names and sizes of a dict's arrays, and then the arrays, which are not copied.
fn dict(bytes: u64, array: impl Fn(u64) -> ZBytes) -> ZBytes {
    let mut all = ZBytes::writer();
    let names: String = (0..DICT_ARRAYS).map(|index| format!("array_{index:02} {bytes}\n")).collect();
    all.append(ZBytes::from(names));
    (0..DICT_ARRAYS).for_each(|_| all.append(array(bytes)));
    all.finish()
}
