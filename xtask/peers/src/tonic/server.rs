//! The server: five methods that take a stream of messages and answer with one.
//!
//! Flow: a connection -> tonic's server -> [`Peer::call`] by path -> the array in one piece ->
//! [`Method::answer`].

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::{Grpc, StreamingService};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};
use tower::Service;

use super::codec::{Item, Plain, arrays};
use super::{DICT, ECHO, MAX_FRAME_BYTES, POOL, SINK, SOURCE, WINDOW_BYTES, announce, pieces, whole};
use crate::Failure;
use crate::asynchronous::{Listener, runtime, serve_until_input_ends, tuned_tcp, tuned_unix};

type Answering<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Serves until standard input ends.
pub(crate) fn serve(address: &str) -> Result<(), Failure> {
    let runtime = runtime()?;
    let (listener, place) = {
        let _guard = runtime.enter();
        Listener::bind(address)?
    };
    let serve = async {
        match listener {
            Listener::Tcp(listener) => {
                attend(TcpListenerStream::new(listener).map(|stream| tuned_tcp(stream?))).await
            }
            Listener::Unix(listener) => {
                attend(UnixListenerStream::new(listener).map(|stream| tuned_unix(stream?))).await
            }
        }
    };
    serve_until_input_ends(place, serve, &runtime)
}

async fn attend<S>(streams: impl Stream<Item = io::Result<S>>) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let server = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES);
    Ok(server.serve_with_incoming(Peer, streams).await?)
}

#[derive(Clone)]
struct Peer;

impl Service<http::Request<Body>> for Peer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = match request.uri().path() {
            SINK => Method::Sink,
            DICT => Method::Dict,
            SOURCE => Method::Source,
            ECHO => Method::Echo,
            POOL => Method::Pool,
            _ => return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) }),
        };
        Box::pin(async move {
            let mut grpc = Grpc::new(Plain).max_decoding_message_size(usize::MAX);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

#[derive(Clone, Copy)]
enum Method {
    Sink,
    Dict,
    Source,
    Echo,
    Pool,
}

impl Method {
    async fn answer(self, argument: Bytes) -> Result<Bytes, Status> {
        match self {
            Method::Sink => Ok(Bytes::new()),
            Method::Dict => arrays(argument).map(|_| Bytes::new()),
            Method::Echo => Ok(argument),
            Method::Source => {
                let bytes = argument[..].try_into().map_err(|_| Status::invalid_argument("no size"))?;
                Ok(vec![0; u64::from_le_bytes(bytes) as usize].into())
            }
            Method::Pool => tokio::task::spawn_blocking(|| argument)
                .await
                .map_err(|error| Status::internal(error.to_string())),
        }
    }
}

impl StreamingService<Bytes> for Method {
    type Response = Item;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Item, Status>> + Send>>;
    type Future = Answering<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let method = *self;
        Box::pin(async move {
            let (metadata, _, stream) = request.into_parts();
            let result = method.answer(whole(&metadata, stream).await?).await?;
            let bytes = result.len();
            let items = futures_util::stream::iter(pieces(result).map(|piece| Ok(Item::Array(piece))));
            let mut response: Response<Self::ResponseStream> = Response::new(Box::pin(items));
            announce(response.metadata_mut(), bytes);
            Ok(response)
        })
    }
}
