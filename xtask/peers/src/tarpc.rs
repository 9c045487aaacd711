//! tarpc, over its serde transport with bincode.
//!
//! Flow: calls of a service that the macro generates. Arrays are `bytes::Bytes`, which serde passes as
//! bytes, not one by one. The server runs each request as a task of its runtime, and those for the pool on a
//! blocking thread. tarpc copies each array four times: into bincode's bytes, into the buffer of the socket,
//! and the same on the way back.
//!
//! Bounds: frames of any size; a client has `in_flight` calls open.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use tarpc::client::{Config, RpcError};
use tarpc::context::Context;
use tarpc::serde_transport;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::length_delimited::LengthDelimitedCodec;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Failure;
use crate::asynchronous::{
    Listener, connect_unix, exchange, plain, runtime, serve_until_input_ends, tuned_tcp, tuned_unix,
};
use crate::protocol::{Answer, DICT_ARRAYS, Round, Workload};
use crate::rounds::{answer_rounds, no_calls_beside};

/// Longer than any call takes.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// The requests and answers between tasks; more than any row has open.
const MAX_QUEUED: usize = 1024;

const SETTINGS: &str = "tarpc 0.38; serde transport with bincode, arrays as bytes::Bytes, max_frame_length unlimited, \
                        pending_request_buffer and pending_response_buffer 1024, deadline 600 s, TCP_NODELAY; \
                        one thread a side; pool through spawn_blocking";

#[tarpc::service]
trait Peer {
    async fn sink(array: Bytes);
    async fn dict(arrays: Vec<(String, Bytes)>);
    async fn source(bytes: u64) -> Bytes;
    async fn echo(array: Bytes) -> Bytes;
    async fn pool(array: Bytes) -> Bytes;
}

#[derive(Clone)]
struct Service;

impl Peer for Service {
    async fn sink(self, _: Context, _array: Bytes) {}

    async fn dict(self, _: Context, _arrays: Vec<(String, Bytes)>) {}

    async fn source(self, _: Context, bytes: u64) -> Bytes {
        vec![0; bytes as usize].into()
    }

    async fn echo(self, _: Context, array: Bytes) -> Bytes {
        array
    }

    async fn pool(self, _: Context, array: Bytes) -> Bytes {
        tokio::task::spawn_blocking(|| array).await.unwrap_or_default()
    }
}

/// Serves until standard input ends.
pub(crate) fn serve(address: &str) -> Result<(), Failure> {
    let runtime = runtime()?;
    let (listener, place) = {
        let _guard = runtime.enter();
        Listener::bind(address)?
    };
    let serve = async {
        loop {
            match &listener {
                Listener::Tcp(listener) => attend(tuned_tcp(listener.accept().await?.0)?),
                Listener::Unix(listener) => attend(tuned_unix(listener.accept().await?.0)?),
            }
        }
    };
    serve_until_input_ends(place, serve, &runtime)
}

/// Serves one client until it disconnects.
fn attend(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let transport = serde_transport::new(framing().new_framed(stream), Bincode::default());
    let config = tarpc::server::Config { pending_response_buffer: MAX_QUEUED };
    let requests = BaseChannel::new(config, transport).execute(Service.serve());
    tokio::spawn(requests.for_each(|request| async {
        tokio::spawn(request);
    }));
}

fn framing() -> tarpc::tokio_util::codec::length_delimited::Builder {
    let mut framing = LengthDelimitedCodec::builder();
    framing.length_field_length(8).max_frame_length(usize::MAX);
    framing
}

/// Runs rounds until standard input ends.
pub(crate) fn client(address: &str) -> Result<(), Failure> {
    let runtime = runtime()?;
    let client = runtime.block_on(connect(address))?;
    let mut kept = None;
    let run = |round: &Round| {
        if round.is_beside() {
            return no_calls_beside();
        }
        let kind = (round.workload, round.bytes);
        let argument = match kept.take().filter(|(of, _)| *of == kind) {
            Some((_, argument)) => argument,
            None => Argument::of(round),
        };
        kept = Some((kind, argument.clone()));
        let answer = runtime.block_on(exchange(round, || call(&client, round, argument.clone())));
        answer.unwrap_or_else(|failure| Answer::Failed(failure.to_string()))
    };
    answer_rounds(SETTINGS, run)
}

async fn connect(address: &str) -> io::Result<PeerClient> {
    let mut config = Config::default();
    config.max_in_flight_requests = MAX_QUEUED;
    config.pending_request_buffer = MAX_QUEUED;
    match address.strip_prefix("ipc://@") {
        Some(name) => Ok(start(config, connect_unix(name)?)),
        None => {
            let stream = tokio::net::TcpStream::connect(plain(address)).await?;
            Ok(start(config, tuned_tcp(stream)?))
        }
    }
}

fn start(config: Config, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> PeerClient {
    let transport = serde_transport::new(framing().new_framed(stream), Bincode::default());
    PeerClient::new(config, transport).spawn()
}

/// The argument of a round's calls.
#[derive(Clone)]
enum Argument {
    Array(Bytes),
    Dict(Arc<Vec<(String, Bytes)>>),
}

impl Argument {
    fn of(round: &Round) -> Argument {
        let array = |bytes: u64| Bytes::from(vec![1; bytes as usize]);
        match round.workload {
            Workload::Dict => {
                let entry = |index| (format!("array_{index:02}"), array(round.bytes / DICT_ARRAYS));
                Argument::Dict(Arc::new((0..DICT_ARRAYS).map(entry).collect()))
            }
            Workload::Source => Argument::Array(Bytes::new()),
            _ => Argument::Array(array(round.bytes)),
        }
    }
}

async fn call(client: &PeerClient, round: &Round, argument: Argument) -> Result<u64, Failure> {
    let mut context = tarpc::context::current();
    context.deadline = Instant::now() + MAX_WAIT;
    let length = |result: Result<Bytes, RpcError>| result.map(|bytes| bytes.len() as u64);
    let result = match (round.workload, argument) {
        (Workload::Source, _) => length(client.source(context, round.bytes).await),
        (Workload::Echo, Argument::Array(array)) => length(client.echo(context, array).await),
        (Workload::Pool, Argument::Array(array)) => length(client.pool(context, array).await),
        (_, Argument::Array(array)) => client.sink(context, array).await.map(|()| 0),
        (_, Argument::Dict(arrays)) => client.dict(context, arrays.to_vec()).await.map(|()| 0),
    };
    Ok(result?)
}
