//! tonic, with a codec of plain bytes instead of protocol buffers, so that only tonic itself copies.
//!
//! Flow: each call is a stream of messages both ways. An array is one message, or several from
//! [`MAX_MESSAGE_BYTES`] on, as gRPC's guides recommend; then metadata give the total size, and the receiver
//! puts the array together. A dict is one message of names and arrays. `server` answers; requests for the
//! pool run on a blocking thread.
//!
//! Bounds: windows of 2 GiB; a client has `in_flight` calls open.

mod codec;
mod server;

use std::sync::Arc;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use self::codec::{Item, Plain};
pub(crate) use self::server::serve;
use crate::Failure;
use crate::asynchronous::{beside, connect_unix, exchange, plain, runtime};
use crate::protocol::{Answer, DICT_ARRAYS, Round, SMALL_BYTES, Workload};
use crate::rounds::answer_rounds;

/// The largest message. tonic's copies are faster in pieces that stay in a cache, as measured.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// HTTP/2's largest window, so that no side waits for it.
const WINDOW_BYTES: u32 = (1 << 31) - 1;

/// HTTP/2's largest frame.
const MAX_FRAME_BYTES: u32 = 1 << 20;

const SINK: &str = "/peers.Peer/Sink";
const DICT: &str = "/peers.Peer/Dict";
const SOURCE: &str = "/peers.Peer/Source";
const ECHO: &str = "/peers.Peer/Echo";
const POOL: &str = "/peers.Peer/Pool";

/// The metadata key for the total size of an array in several messages.
const WHOLE: &str = "whole-bytes";

const SETTINGS: &str = "tonic 0.14; codec of plain bytes, arrays above 1 MiB as a stream of such pieces and put together again, \
                        windows of streams and connections 2 GiB, max_frame_size 1 MiB, message sizes unlimited, \
                        TCP_NODELAY; one thread a side; pool through spawn_blocking";

/// Cuts an array into messages.
fn pieces(array: Bytes) -> impl Iterator<Item = Bytes> + Send + 'static {
    let count = array.len().div_ceil(MAX_MESSAGE_BYTES).max(1);
    (0..count).map(move |index| {
        let start = index * MAX_MESSAGE_BYTES;
        array.slice(start..array.len().min(start + MAX_MESSAGE_BYTES))
    })
}

/// Adds the total size to the metadata, if the array comes in pieces.
fn announce(metadata: &mut MetadataMap, bytes: usize) {
    if bytes > MAX_MESSAGE_BYTES {
        metadata.insert(WHOLE, bytes.into());
    }
}

/// Reads the array of a stream.
async fn whole(metadata: &MetadataMap, mut stream: Streaming<Bytes>) -> Result<Bytes, Status> {
    let first = stream.message().await?.unwrap_or_default();
    let bytes = metadata.get(WHOLE).and_then(|text| text.to_str().ok()?.parse::<usize>().ok());
    let array = match bytes {
        None => first,
        Some(bytes) => {
            let mut array = Vec::with_capacity(bytes);
            array.extend_from_slice(&first);
            drop(first);
            while array.len() < bytes {
                let piece = stream.message().await?.ok_or_else(|| Status::data_loss("a piece is missing"))?;
                array.extend_from_slice(&piece);
            }
            array.into()
        }
    };
    match stream.message().await? {
        None => Ok(array),
        Some(_) => Err(Status::data_loss("a piece too much")),
    }
}

/// Runs rounds until standard input ends.
pub(crate) fn client(address: &str) -> Result<(), Failure> {
    let runtime = runtime()?;
    let client = Client { channel: runtime.block_on(connect(address))? };
    let mut kept = None;
    let run = |round: &Round| {
        let kind = (round.workload, round.bytes);
        let call = match kept.take().filter(|(of, _)| *of == kind) {
            Some((_, call)) => call,
            None => Call::of(round.workload, round.bytes),
        };
        kept = Some((kind, call.clone()));
        let answer = runtime.block_on(client.run(round, call));
        answer.unwrap_or_else(|failure| Answer::Failed(failure.to_string()))
    };
    answer_rounds(SETTINGS, run)
}

async fn connect(address: &str) -> Result<Channel, Failure> {
    let endpoint = |uri: String| {
        let endpoint = Endpoint::from_shared(uri)?.initial_stream_window_size(WINDOW_BYTES);
        let endpoint = endpoint.initial_connection_window_size(WINDOW_BYTES).max_frame_size(MAX_FRAME_BYTES);
        Ok::<_, Failure>(endpoint.tcp_nodelay(true))
    };
    match address.strip_prefix("ipc://@").map(str::to_owned) {
        None => Ok(endpoint(format!("http://{}", plain(address)))?.connect().await?),
        Some(name) => {
            let connector = tower::service_fn(move |_| {
                let stream = connect_unix(&name).map(TokioIo::new);
                async { stream }
            });
            Ok(endpoint("http://localhost".to_owned())?.connect_with_connector(connector).await?)
        }
    }
}

/// A method and its argument.
#[derive(Clone)]
struct Call {
    path: PathAndQuery,
    argument: Argument,
}

#[derive(Clone)]
enum Argument {
    Array(Bytes),
    Dict(Arc<Vec<(String, Bytes)>>),
}

impl Call {
    fn of(workload: Workload, bytes: u64) -> Call {
        let array = |bytes: u64| Bytes::from(vec![1; bytes as usize]);
        let (path, argument) = match workload {
            Workload::Echo => (ECHO, Argument::Array(array(bytes))),
            Workload::Pool => (POOL, Argument::Array(array(bytes))),
            Workload::Source | Workload::BesideResult => {
                (SOURCE, Argument::Array(Bytes::copy_from_slice(&bytes.to_le_bytes())))
            }
            Workload::Dict => {
                let entry = |index| (format!("array_{index:02}"), array(bytes / DICT_ARRAYS));
                (DICT, Argument::Dict(Arc::new((0..DICT_ARRAYS).map(entry).collect())))
            }
            _ => (SINK, Argument::Array(array(bytes))),
        };
        Call { path: PathAndQuery::from_static(path), argument }
    }
}

struct Client {
    channel: Channel,
}

impl Client {
    async fn run(&self, round: &Round, call: Call) -> Result<Answer, Failure> {
        if !round.is_beside() {
            return exchange(round, || self.call(call.clone())).await;
        }
        let small = Call::of(Workload::Echo, SMALL_BYTES);
        beside(round, || self.call(call.clone()), || self.call(small.clone())).await
    }

    /// Makes a call and returns the bytes of its result.
    async fn call(&self, Call { path, argument }: Call) -> Result<u64, Failure> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await?;
        let response = match argument {
            Argument::Array(array) => {
                let bytes = array.len();
                let mut request = Request::new(futures_util::stream::iter(pieces(array).map(Item::Array)));
                announce(request.metadata_mut(), bytes);
                grpc.streaming(request, path, Plain).await?
            }
            Argument::Dict(arrays) => {
                let item = futures_util::stream::iter([Item::Dict(arrays)]);
                grpc.streaming(Request::new(item), path, Plain).await?
            }
        };
        let (metadata, stream, _) = response.into_parts();
        Ok(whole(&metadata, stream).await?.len() as u64)
    }
}
