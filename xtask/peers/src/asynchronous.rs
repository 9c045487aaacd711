//! The parts that the peers on tokio share: a runtime, sockets, and rounds of calls that are futures.
//!
//! Flow of a round: poll `in_flight` calls -> wait for the oldest -> start the next one. The runtime has one
//! thread, because a side has one core in most rows, where a second thread only adds costs.
#![allow(dead_code, reason = "zenoh has sockets and threads of its own")]

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{Either, select, try_join};
use futures_util::stream::FuturesOrdered;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};

use crate::Failure;
use crate::protocol::{Answer, Round, Stopwatch};
use crate::rounds::check;

/// Ends a round whose small calls never end within a large one, before the harness gives up.
const MAX_BESIDE: Duration = Duration::from_secs(40);

pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Serves on this thread. Another thread waits for the end of standard input, and then ends the process.
pub(crate) fn serve_until_input_ends(
    place: String,
    serve: impl Future<Output = Result<(), Failure>>,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || sender.send(crate::protocol::serve_until_input_ends(&place)));
    runtime.block_on(async {
        match select(pin!(serve), receiver).await {
            Either::Left((ended, _)) => ended,
            Either::Right((told, _)) => Ok(told??),
        }
    })
}

/// A listening socket.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens at an address of the benchmark, and returns where. Must be called in a runtime.
    pub(crate) fn bind(address: &str) -> io::Result<(Listener, String)> {
        if let Some(name) = address.strip_prefix("ipc://@") {
            let listener = unix::UnixListener::bind_addr(&unix::SocketAddr::from_abstract_name(name)?)?;
            listener.set_nonblocking(true)?;
            return Ok((Listener::Unix(UnixListener::from_std(listener)?), address.to_owned()));
        }
        let listener = std::net::TcpListener::bind(plain(address))?;
        let place = format!("tcp://{}", listener.local_addr()?);
        listener.set_nonblocking(true)?;
        Ok((Listener::Tcp(TcpListener::from_std(listener)?), place))
    }
}

/// Returns `HOST:PORT` of an address.
pub(crate) fn plain(address: &str) -> &str {
    address.strip_prefix("tcp://").unwrap_or(address)
}

/// Sets `TCP_NODELAY`.
pub(crate) fn tuned_tcp(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Enlarges the buffers of a Unix socket: the default ones are much slower. The kernel has its own limit.
pub(crate) fn tuned_unix(stream: UnixStream) -> io::Result<UnixStream> {
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::SndBuf, &(1 << 20))?;
    Ok(stream)
}

/// Connects to `ipc://@name`.
pub(crate) fn connect_unix(name: &str) -> io::Result<UnixStream> {
    let stream = unix::UnixStream::connect_addr(&unix::SocketAddr::from_abstract_name(name)?)?;
    stream.set_nonblocking(true)?;
    tuned_unix(UnixStream::from_std(stream)?)
}

/// Makes the calls of a round; each returns the bytes of its result.
pub(crate) async fn exchange<C>(round: &Round, call: impl Fn() -> C) -> Result<Answer, Failure>
where
    C: Future<Output = Result<u64, Failure>>,
{
    let mut watch = Stopwatch::start(round);
    if round.in_flight == 1 {
        for _ in 0..round.messages {
            let start = watch.sent();
            check(round, call().await?)?;
            watch.answered(start);
        }
        return Ok(watch.done());
    }
    let (mut sent, mut open) = (0, FuturesOrdered::new());
    while sent < round.messages || !open.is_empty() {
        while sent < round.messages && (open.len() as u64) < round.in_flight {
            open.push_back(call());
            sent += 1;
        }
        if let Some(bytes) = open.next().await {
            check(round, bytes?)?;
        }
    }
    Ok(watch.done())
}

/// Makes small calls beside large ones, one of each at a time.
pub(crate) async fn beside<L, S>(
    round: &Round,
    large: impl Fn() -> L,
    small: impl Fn() -> S,
) -> Result<Answer, Failure>
where
    L: Future<Output = Result<u64, Failure>>,
    S: Future<Output = Result<u64, Failure>>,
{
    let (phase, stop, start) = (Cell::new(0_u64), Cell::new(false), Instant::now());
    // Odd while a large call is open.
    let next = || phase.set(phase.get() + 1);
    let sending = async {
        while !stop.get() {
            next();
            check(round, large().await?)?;
            next();
        }
        Ok::<(), Failure>(())
    };
    let measuring = async {
        let mut latencies = Vec::with_capacity(round.messages as usize);
        while (latencies.len() as u64) < round.messages {
            if start.elapsed() > MAX_BESIDE {
                return Err("too few small calls ended within a large one".into());
            }
            let (before, sent) = (phase.get(), Instant::now());
            small().await?;
            if before % 2 == 1 && phase.get() == before {
                latencies.push(sent.elapsed());
            }
        }
        stop.set(true);
        Ok(latencies)
    };
    let ((), latencies) = try_join(sending, measuring).await?;
    Ok(Answer::Done { elapsed: start.elapsed(), latencies })
}
