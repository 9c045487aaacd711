//! nng, by the crate `nng`: REQ and REP, with a context for each open call.
//!
//! Flow: a request is one message of an operation and its argument. nng answers on its own threads, in
//! callbacks. A client keeps its contexts; each tells the client's thread through a channel that its answer
//! has arrived.
//!
//! nng's messages have no parts and share no bytes, so each request is copied into its own message; the
//! arrays of a dict follow a list of their names and sizes. An echo is the received message, and results are
//! in memory that the server allocates for each, which nng fills with zeros.
//!
//! Bounds: [`SERVED`] requests at a time; a client has `in_flight` calls open.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};

use nng::options::protocol::reqrep::ResendTime;
use nng::options::transport::tcp::{BoundPort, NoDelay};
use nng::options::{Options, RecvMaxSize};
use nng::{Aio, AioResult, Context, Listener, Message, Protocol, Socket};

use crate::Failure;
use crate::blocking::{Calls, exchange};
use crate::protocol::{self, Answer, DICT_ARRAYS, Round, Workload};
use crate::rounds::{answer_rounds, no_calls_beside};

/// The requests that a server handles at a time: as many as four clients with 64 each have open.
const SERVED: usize = 256;

/// The bytes before the payload: an operation and a number. The payload stays aligned.
const HEAD_BYTES: usize = 16;

const SINK: u8 = b's';
const SOURCE: u8 = b'r';
const ECHO: u8 = b'e';

const SETTINGS: &str = "crate nng 1.0.1, nng 1.4.0; REQ and REP with a context for each open call, RECVMAXSZ unlimited, \
                        RESENDTIME infinite, NODELAY; requests are copied into messages, since nng's are not shared; \
                        dict concatenated in one message; each echo is answered by a thread of nng's pool";

/// Returns the address in nng's form.
fn url(address: &str) -> String {
    match address.strip_prefix("ipc://@") {
        Some(name) => format!("abstract://{name}"),
        None => address.to_owned(),
    }
}

fn socket(protocol: Protocol, address: &str) -> Result<Socket, Failure> {
    let socket = Socket::new(protocol)?;
    socket.set_opt::<RecvMaxSize>(0)?;
    if address.starts_with("tcp") {
        socket.set_opt::<NoDelay>(true)?;
    }
    Ok(socket)
}

/// Serves until standard input ends.
pub(crate) fn serve(address: &str) -> Result<(), Failure> {
    let socket = socket(Protocol::Rep0, address)?;
    let contexts: Result<Vec<_>, Failure> = (0..SERVED).map(|_| serving(&socket)).collect();
    let contexts = contexts?;
    let listener = Listener::new(&socket, &url(address))?;
    for (context, aio) in &contexts {
        context.recv(aio)?;
    }
    let place = match address.strip_prefix("tcp://").and_then(|place| place.rsplit_once(':')) {
        Some((host, _)) => format!("tcp://{host}:{}", listener.get_opt::<BoundPort>()?),
        None => address.to_owned(),
    };
    Ok(protocol::serve_until_input_ends(&place)?)
}

/// Serves one request at a time, in a loop.
fn serving(socket: &Socket) -> Result<(Context, Aio), Failure> {
    let context = Context::new(socket)?;
    let own = context.clone();
    let aio = Aio::new(move |aio, result| {
        let next = match result {
            AioResult::Recv(Ok(request)) => own.send(&aio, answer(request)).map_err(|(_, error)| error),
            // The client may have gone.
            _ => own.recv(&aio),
        };
        // This fails when the socket closes, with the process.
        if next.is_err() {
            eprintln!("nng: a context ended");
        }
    })?;
    Ok((context, aio))
}

fn answer(request: Message) -> Message {
    match request.first() {
        Some(&SINK) => Message::from(&[1u8][..]),
        Some(&SOURCE) => {
            let bytes = request[8..HEAD_BYTES].try_into().map_or(0, u64::from_le_bytes);
            Message::with_zeros(bytes as usize)
        }
        _ => request,
    }
}

/// Runs rounds until standard input ends.
pub(crate) fn client(address: &str) -> Result<(), Failure> {
    let socket = socket(Protocol::Req0, address)?;
    socket.set_opt::<ResendTime>(None)?;
    socket.dial(&url(address))?;
    let mut client =
        Client { socket, free: VecDeque::new(), open: VecDeque::new(), request: Vec::new(), kept: None };
    let run = |round: &Round| client.run(round).unwrap_or_else(|failure| Answer::Failed(failure.to_string()));
    answer_rounds(SETTINGS, run)
}

/// The context of one call at a time.
struct Slot {
    context: Context,
    aio: Aio,
    answers: Receiver<Result<Message, nng::Error>>,
}

impl Slot {
    fn new(socket: &Socket) -> Result<Slot, Failure> {
        let context = Context::new(socket)?;
        let (own, (sender, answers)) = (context.clone(), channel());
        let aio = Aio::new(move |aio, result| {
            let answer = match result {
                AioResult::Send(Ok(())) => match own.recv(&aio) {
                    Ok(()) => return,
                    Err(error) => Err(error),
                },
                AioResult::Send(Err((_, error))) => Err(error),
                AioResult::Recv(answer) => answer,
                AioResult::Sleep(_) => return,
            };
            // The receiver is gone if the round has failed.
            let _ = sender.send(answer);
        })?;
        Ok(Slot { context, aio, answers })
    }
}

struct Client {
    socket: Socket,
    free: VecDeque<Slot>,
    /// The open calls, the oldest first.
    open: VecDeque<Slot>,
    /// The message that each call of the round copies, and its kind.
    request: Vec<u8>,
    kept: Option<(Workload, u64)>,
}

impl Client {
    fn run(&mut self, round: &Round) -> Result<Answer, Failure> {
        if round.is_beside() {
            return Ok(no_calls_beside());
        }
        let kind = (round.workload, round.bytes);
        if self.kept != Some(kind) {
            self.request = request(round);
            self.kept = Some(kind);
        }
        exchange(round, self)
    }
}

/// Makes a message: an operation, a number in the second half of the head, and the payload.
fn request(round: &Round) -> Vec<u8> {
    let operation = match round.workload {
        Workload::Echo | Workload::Pool => ECHO,
        Workload::Source | Workload::BesideResult => SOURCE,
        _ => SINK,
    };
    let mut head = vec![operation; HEAD_BYTES / 2];
    head.extend(round.bytes.to_le_bytes());
    let payload = vec![1; if operation == SOURCE { 0 } else { round.bytes as usize }];
    let names = match round.workload {
        Workload::Dict => (0..DICT_ARRAYS).map(|index| entry(index, round.bytes / DICT_ARRAYS)).collect(),
        _ => Vec::new(),
    };
    [head, names.concat(), payload].concat()
}

/// Returns the entry for one array in the list before a dict's arrays.
fn entry(index: u64, bytes: u64) -> Vec<u8> {
    [format!("array_{index:02}\n").as_bytes(), &bytes.to_le_bytes()].concat()
}

impl Calls for Client {
    fn send(&mut self) -> Result<(), Failure> {
        let slot = match self.free.pop_front() {
            Some(slot) => slot,
            None => Slot::new(&self.socket)?,
        };
        slot.context.send(&slot.aio, &self.request[..]).map_err(|(_, error)| error)?;
        self.open.push_back(slot);
        Ok(())
    }

    fn wait(&mut self) -> Result<u64, Failure> {
        let slot = self.open.pop_front().ok_or("no call is open")?;
        let answer = slot.answers.recv()??;
        self.free.push_back(slot);
        // An echo comes with the head of its request.
        let is_echo = matches!(self.kept, Some((Workload::Echo | Workload::Pool, _)));
        Ok((answer.len() - if is_echo { HEAD_BYTES } else { 0 }) as u64)
    }
}
