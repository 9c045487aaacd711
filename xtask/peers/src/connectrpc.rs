//! connectrpc: the Connect protocol over HTTP/2, with protocol buffers of one field of bytes.
//!
//! Flow: each call is a unary call with a `BytesValue`. The server's handlers read views of the received
//! message, and an echo's answer shares its bytes. An owned message of the client is copied into each call.
//! A dict is one field of names and arrays, one after the other. Requests for the pool run on a blocking
//! thread.
//!
//! Bounds: windows of 2 GiB; a client has `in_flight` calls open.

use std::future::Future;
use std::sync::Arc;

use buffa_types::google::protobuf::{BytesValue, BytesValueView};
use connectrpc::__codegen::encode_view_body_segments;
use connectrpc::client::{CallOptions, ClientConfig, Http2Connection, SharedHttp2Connection, call_unary};
use connectrpc::{
    CodecFormat, ConnectError, ConnectRpcService, Encodable, EncodedResponse, Limits, Protocol, Response,
    Router, Spec, StreamType, view_handler_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Failure;
use crate::asynchronous::{
    Listener, beside, connect_unix, exchange, plain, runtime, serve_until_input_ends, tuned_tcp, tuned_unix,
};
use crate::protocol::{Answer, DICT_ARRAYS, Round, SMALL_BYTES, Workload};
use crate::rounds::answer_rounds;

/// HTTP/2's largest window, so that no side waits for it.
const WINDOW_BYTES: u32 = (1 << 31) - 1;

/// HTTP/2's largest frame.
const MAX_FRAME_BYTES: u32 = 1 << 20;

/// The requests that wait for the connection; more than any row has open.
const MAX_QUEUED: usize = 1024;

const SERVICE: &str = "peers.Peer";
const SINK: Spec = Spec::client("/peers.Peer/Sink", StreamType::Unary);
const SOURCE: Spec = Spec::client("/peers.Peer/Source", StreamType::Unary);
const ECHO: Spec = Spec::client("/peers.Peer/Echo", StreamType::Unary);
const POOL: Spec = Spec::client("/peers.Peer/Pool", StreamType::Unary);

const SETTINGS: &str = "connectrpc 0.9; Connect over HTTP/2, unary calls of BytesValue, views at the receiver, no compression, \
                        windows of streams and connections 2 GiB, max_frame_size 1 MiB, limits unlimited, \
                        TCP_NODELAY; one thread a side; pool through spawn_blocking";

/// A received message, whose array is not copied.
type View = buffa::view::OwnedView<BytesValueView<'static>>;

/// Serves until standard input ends.
pub(crate) fn serve(address: &str) -> Result<(), Failure> {
    let runtime = runtime()?;
    let (listener, place) = {
        let _guard = runtime.enter();
        Listener::bind(address)?
    };
    let service = ConnectRpcService::new(methods()).with_limits(Limits::unlimited());
    let serve = async {
        loop {
            match &listener {
                Listener::Tcp(listener) => attend(tuned_tcp(listener.accept().await?.0)?, service.clone()),
                Listener::Unix(listener) => attend(tuned_unix(listener.accept().await?.0)?, service.clone()),
            }
        }
    };
    serve_until_input_ends(place, serve, &runtime)
}

/// Serves one client until it disconnects.
fn attend(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, service: ConnectRpcService) {
    tokio::spawn(async move {
        let mut builder = Builder::new(TokioExecutor::new()).http2_only();
        builder
            .http2()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES);
        // The client may have gone.
        let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
    });
}

fn methods() -> Router {
    Router::new()
        .route_view(
            SERVICE,
            "Sink",
            view_handler_fn(|_, _: View, format| async move { owned(Vec::new(), format) }),
        )
        .route_view(
            SERVICE,
            "Source",
            view_handler_fn(|_, request: View, format| async move {
                let bytes = request
                    .reborrow()
                    .value
                    .try_into()
                    .map_err(|_| ConnectError::invalid_argument("no size"))?;
                owned(vec![0; u64::from_le_bytes(bytes) as usize], format)
            }),
        )
        .route_view(
            SERVICE,
            "Echo",
            view_handler_fn(|_, request: View, format| async move { same(&request, format) }),
        )
        .route_view(
            SERVICE,
            "Pool",
            view_handler_fn(|_, request: View, format| async move {
                let answer = tokio::task::spawn_blocking(move || same(&request, format));
                answer.await.map_err(|error| ConnectError::internal(error.to_string()))?
            }),
        )
}

/// Answers with a new array.
fn owned(value: Vec<u8>, format: CodecFormat) -> Result<EncodedResponse, ConnectError> {
    let answer = BytesValue { value, ..Default::default() };
    Ok(Response::new(Encodable::<BytesValue>::encode(&answer, format)?.into()))
}

/// Answers with the array of the request.
fn same(request: &View, format: CodecFormat) -> Result<EncodedResponse, ConnectError> {
    Ok(Response::new(encode_view_body_segments(request.reborrow(), request.bytes(), format)?))
}

/// Runs rounds until standard input ends.
pub(crate) fn client(address: &str) -> Result<(), Failure> {
    let runtime = runtime()?;
    let client = runtime.block_on(Client::connect(address))?;
    let mut kept = None;
    let run = |round: &Round| {
        let kind = (round.workload, round.bytes);
        let call = match kept.take().filter(|(of, _)| *of == kind) {
            Some((_, call)) => call,
            None => Call::of(round.workload, round.bytes),
        };
        let (_, call) = kept.insert((kind, call));
        let answer = runtime.block_on(client.run(round, call));
        answer.unwrap_or_else(|failure| Answer::Failed(failure.to_string()))
    };
    answer_rounds(SETTINGS, run)
}

/// A method and its argument.
struct Call {
    spec: Spec,
    argument: BytesValue,
}

impl Call {
    fn of(workload: Workload, bytes: u64) -> Call {
        let (spec, value) = match workload {
            Workload::Echo => (ECHO, vec![1; bytes as usize]),
            Workload::Pool => (POOL, vec![1; bytes as usize]),
            Workload::Source | Workload::BesideResult => (SOURCE, bytes.to_le_bytes().to_vec()),
            Workload::Dict => (SINK, dict(bytes / DICT_ARRAYS)),
            _ => (SINK, vec![1; bytes as usize]),
        };
        Call { spec, argument: BytesValue { value, ..Default::default() } }
    }
}

/// Returns names and sizes of a dict's arrays, each before its array.
fn dict(bytes: u64) -> Vec<u8> {
    let entry =
        |index| [format!("array_{index:02} {bytes}\n").into_bytes(), vec![1; bytes as usize]].concat();
    (0..DICT_ARRAYS).flat_map(entry).collect()
}

struct Client {
    connection: SharedHttp2Connection,
    config: ClientConfig,
}

impl Client {
    async fn connect(address: &str) -> Result<Client, Failure> {
        let builder = Http2Connection::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .h2_settings(|settings| {
                settings.max_frame_size(MAX_FRAME_BYTES);
            });
        let (connection, uri) = match address.strip_prefix("ipc://@").map(Arc::<str>::from) {
            None => {
                let uri: http::Uri = format!("http://{}", plain(address)).parse()?;
                (builder.connect_plaintext(uri.clone()).await?, uri)
            }
            Some(name) => {
                let uri = http::Uri::from_static("http://localhost");
                let connector = tower::service_fn(move |_| {
                    let stream = connect_unix(&name).map(TokioIo::new);
                    async { stream }
                });
                (builder.connect_with_connector(connector, uri.clone()).await?, uri)
            }
        };
        let config = ClientConfig::new(uri)
            .with_protocol(Protocol::Connect)
            .with_default_max_message_size(usize::MAX)
            .with_default_element_memory_limit(usize::MAX);
        Ok(Client { connection: connection.shared(MAX_QUEUED), config })
    }

    async fn run(&self, round: &Round, call: &Call) -> Result<Answer, Failure> {
        if !round.is_beside() {
            return exchange(round, || self.call(call)).await;
        }
        let small = Call::of(Workload::Echo, SMALL_BYTES);
        beside(round, || self.call(call), || self.call(&small)).await
    }

    /// Makes a call and returns the bytes of its result.
    fn call(&self, call: &Call) -> impl Future<Output = Result<u64, Failure>> {
        let argument = call.argument.clone();
        let options = CallOptions::default();
        async move {
            let answer = call_unary::<_, _, BytesValueView<'static>>(
                &self.connection,
                &self.config,
                call.spec,
                argument,
                options,
            );
            Ok(answer.await?.view().value.len() as u64)
        }
    }
}
