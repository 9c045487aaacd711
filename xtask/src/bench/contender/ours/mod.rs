//! Teleport as a contender: the server and the client of a user who has read the documentation.
//!
//! Flow: a client thread sends calls until `in_flight` are open, then waits for the oldest and sends one
//! more. It sends the same array each time, and drops each result on arrival. Results of `source` come from
//! [`Context::alloc`], new for each call, and are not filled; the raw server does not fill them either.
//! `policy` has batched functions; `crowd` is many clients in one process.

mod crowd;
mod policy;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use teleport::IntoTree as _;
use teleport::transport::MemoryError;
use teleport::{
    Array, BoxError, CallError, Client, ClientBuilder, Context, Dict, Method, Methods, Server, ServerHandle,
    Tree,
};

use self::crowd::Crowd;
use super::MAX_CROWD;
use crate::bench::protocol::{Answer, DICT_ARRAYS, Round, SMALL_BYTES, Stopwatch, Workload};

/// The calls that a client may have open; more than any row needs.
const MAX_IN_FLIGHT: usize = 1024;

/// The settings of a server and its clients that are not defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Variant {
    /// Both sides send arrays with checksums.
    pub(super) checksum: bool,
    /// The server's memory limit.
    pub(super) max_memory: Option<u64>,
}

impl Variant {
    /// Returns the settings for the report.
    pub(super) fn settings(self) -> String {
        let mut settings = format!("version {}, defaults", env!("CARGO_PKG_VERSION"));
        if self.checksum {
            settings += ", checksum";
        }
        if let Some(bytes) = self.max_memory {
            settings += &format!(", max_memory {} MiB", bytes >> 20);
        }
        settings
    }

    fn client(self, address: &str) -> ClientBuilder {
        Client::builder(address).checksum(self.checksum)
    }
}

/// Serves on its own threads.
pub(super) fn serve(variant: Variant, address: &str) -> Result<ServerHandle, BoxError> {
    let methods = Methods::new()
        .register("sink", Method::inline(|_: Tree| ()))
        .register("echo", Method::inline(|x: Tree| x))
        .register("source", Method::inline(source))
        .register("pool", |x: Tree| x);
    let methods = policy::register(methods);
    let mut server = Server::bind(address)?.checksum(variant.checksum);
    if let Some(bytes) = variant.max_memory {
        server = server.max_memory(bytes);
    }
    Ok(server.start(methods)?)
}

fn source(bytes: u64, context: Context) -> Result<Array, MemoryError> {
    context.alloc::<u8>([bytes as usize])
}

/// A client of `serve`.
pub(super) struct Party {
    variant: Variant,
    address: String,
    client: Client,
    /// The clients of rounds with many clients; `None` before the first such round.
    crowd: Option<Crowd>,
    /// The arguments of the last round, for others like it.
    kept: Option<((Workload, u64), Call)>,
}

/// A method and its arguments.
type Call = (&'static str, Tree);

impl Party {
    pub(super) fn connect(variant: Variant, address: &str) -> Result<Party, BoxError> {
        let client = variant.client(address).max_inflight(MAX_IN_FLIGHT).connect()?;
        Ok(Party { variant, address: address.to_owned(), client, crowd: None, kept: None })
    }

    pub(super) fn run(&mut self, round: &Round) -> Answer {
        self.try_run(round).unwrap_or_else(|error| Answer::Failed(error.to_string()))
    }

    fn try_run(&mut self, round: &Round) -> Result<Answer, BoxError> {
        let kind = (round.workload, round.bytes);
        let call = match self.kept.take().filter(|kept| kept.0 == kind) {
            Some((_, call)) => call,
            None => self.call(round.workload, round.bytes)?,
        };
        self.kept = Some((kind, call.clone()));
        if round.workload == Workload::CrowdPolicy {
            return self.crowd(round, call);
        }
        if round.is_beside() { self.beside(round, call) } else { self.exchange(round, call) }
    }

    fn crowd(&mut self, round: &Round, call: Call) -> Result<Answer, BoxError> {
        if round.in_flight > MAX_CROWD {
            return Ok(Answer::Unsupported(format!("it has up to {MAX_CROWD} clients")));
        }
        let crowd = match self.crowd.take().filter(|crowd| crowd.fits(round.in_flight)) {
            Some(crowd) => crowd,
            None => Crowd::connect(self.variant, &self.address, round.in_flight)?,
        };
        self.crowd.insert(crowd).exchange(round, call)
    }

    fn exchange(&self, round: &Round, (method, argument): Call) -> Result<Answer, BoxError> {
        let (mut sent, mut open) = (0, VecDeque::with_capacity(round.in_flight as usize));
        let mut watch = Stopwatch::start(round);
        if round.in_flight == 1 {
            for _ in 0..round.messages {
                let start = watch.sent();
                self.client.call(method, argument.clone()).wait()?;
                watch.answered(start);
            }
            return Ok(watch.done());
        }
        while sent < round.messages || !open.is_empty() {
            while sent < round.messages && (open.len() as u64) < round.in_flight {
                open.push_back(self.client.call(method, argument.clone()).send()?);
                sent += 1;
            }
            if let Some(oldest) = open.pop_front() {
                oldest.wait()?;
            }
        }
        Ok(watch.done())
    }

    /// Returns the method of a workload and its arguments.
    fn call(&self, workload: Workload, bytes: u64) -> Result<Call, BoxError> {
        let array = |bytes: u64| {
            let mut array = self.client.alloc::<u8>([bytes as usize])?;
            array.as_mut_slice::<u8>()?.fill(1);
            Ok::<Tree, BoxError>(array.into_tree())
        };
        Ok(match workload {
            Workload::Sink => ("sink", array(bytes)?),
            Workload::Echo => ("echo", array(bytes)?),
            Workload::Pool => ("pool", array(bytes)?),
            Workload::Source | Workload::BesideResult => ("source", bytes.into_tree()),
            Workload::BesideArgument => ("sink", array(bytes)?),
            Workload::Dict => {
                let entry =
                    |index| array(bytes / DICT_ARRAYS).map(|array| (format!("array_{index:02}"), array));
                let entries: Result<Vec<_>, _> = (0..DICT_ARRAYS).map(entry).collect();
                let mut dict = Dict::new();
                for (key, array) in entries? {
                    dict.insert(key, array);
                }
                ("sink", Tree::Dict(dict))
            }
            Workload::Policy => ("policy", policy::image(&self.client, bytes)?),
            Workload::KeepingPolicy => ("keeping_policy", policy::image(&self.client, bytes)?),
            Workload::BatchedPolicy => ("batched_policy", policy::image(&self.client, bytes)?),
            Workload::CrowdPolicy => ("crowd_policy", policy::image(&self.client, bytes)?),
            Workload::PoolSource => ("pool_source", bytes.into_tree()),
            Workload::BatchedSource => ("batched_source", bytes.into_tree()),
        })
    }

    /// Makes small calls while another thread makes large ones.
    fn beside(&self, round: &Round, (large_method, large): Call) -> Result<Answer, BoxError> {
        let (small_method, small) = self.call(Workload::Echo, SMALL_BYTES)?;
        // Odd while a large call is open.
        let (phase, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let start = Instant::now();
        let latencies = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let future = self.client.call(large_method, large.clone()).send()?;
                    phase.fetch_add(1, Ordering::SeqCst);
                    let ended: Result<Tree, CallError> = future.wait();
                    phase.fetch_add(1, Ordering::SeqCst);
                    ended?;
                }
                Ok::<(), CallError>(())
            });
            let mut latencies: Vec<Duration> = Vec::with_capacity(round.messages as usize);
            let measured = loop {
                if latencies.len() as u64 == round.messages || sender.is_finished() {
                    break Ok(latencies);
                }
                let (before, start) = (phase.load(Ordering::SeqCst), Instant::now());
                match self.client.call(small_method, small.clone()).wait() {
                    Err(error) => break Err(error),
                    Ok(_) if before % 2 == 1 && phase.load(Ordering::SeqCst) == before => {
                        latencies.push(start.elapsed());
                    }
                    Ok(_) => {}
                }
            };
            stop.store(true, Ordering::Relaxed);
            sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            measured
        })?;
        Ok(Answer::Done { elapsed: start.elapsed(), latencies })
    }
}
