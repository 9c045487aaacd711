//! ZeroMQ, by the crate `zmq`: a DEALER per client, and a ROUTER with one thread that answers.
//!
//! Flow: a request is one frame of an operation and its argument. From [`MIN_APART_BYTES`] on, the array has
//! its own frame, which is not copied: all requests of a round share the client's array. The arrays of a
//! dict are copied into one frame; a frame for each of 16 KiB was measured to be a third to a fifth as fast.
//! The server sends echoes as the messages that it received, and allocates memory for each result. Requests
//! for the pool go through a DEALER to threads that the first such request starts.
//!
//! Bounds: none on the queues; a client has `in_flight` calls open.

mod sys;

use std::sync::Arc;
use std::thread;

use zmq::{Context, DONTWAIT, Message, PollItem, SNDMORE, Socket, SocketType};

use self::sys::{Shared, send_shared, send_uninitialized};
use crate::Failure;
use crate::blocking::{Calls, exchange};
use crate::protocol::{self, Answer, DICT_ARRAYS, Round, Workload};
use crate::rounds::{answer_rounds, no_calls_beside};

/// Smaller arrays are copied behind their operation, because a frame of their own costs more.
const MIN_APART_BYTES: u64 = 4 << 10;

/// The buffers of Unix sockets, whose default size is slower. TCP adapts its own. The kernel has its own
/// limit.
const UNIX_BUFFER_BYTES: i32 = 1 << 20;

/// The threads of the pool.
const WORKERS: usize = 2;

/// The address of the pool.
const POOL: &str = "inproc://pool";

const SINK: u8 = b's';
const SOURCE: u8 = b'r';
const ECHO: u8 = b'e';
const POOLED: u8 = b'p';

fn socket(context: &Context, kind: SocketType, address: &str) -> Result<Socket, Failure> {
    let socket = context.socket(kind)?;
    socket.set_sndhwm(0)?;
    socket.set_rcvhwm(0)?;
    if address.starts_with("ipc") {
        socket.set_sndbuf(UNIX_BUFFER_BYTES)?;
        socket.set_rcvbuf(UNIX_BUFFER_BYTES)?;
    }
    Ok(socket)
}

fn settings(address: &str) -> String {
    let (major, minor, patch) = zmq::version();
    let buffers = if address.starts_with("ipc") { ", SNDBUF and RCVBUF 1 MiB" } else { "" };
    format!(
        "crate zmq 0.10, libzmq {major}.{minor}.{patch}; DEALER and ROUTER, one I/O thread, SNDHWM and RCVHWM \
         unlimited{buffers}; sends of 4 KiB and more without a copy; dict as a frame of names and one of all arrays, copied; pool through inproc"
    )
}

/// Serves until standard input ends.
pub(crate) fn serve(address: &str) -> Result<(), Failure> {
    let context = Context::new();
    let router = socket(&context, SocketType::ROUTER, address)?;
    router.bind(address)?;
    let place = router.get_last_endpoint()?.map_err(|_| "an address that is no text")?;
    let mut server = Server { context, router, pool: None };
    thread::spawn(move || {
        if let Err(failure) = server.run() {
            eprintln!("zmq: {failure}");
        }
    });
    Ok(protocol::serve_until_input_ends(&place)?)
}

struct Server {
    context: Context,
    router: Socket,
    /// `None` until a request needs the pool: polling one socket costs less than polling two.
    pool: Option<Socket>,
}

impl Server {
    fn run(&mut self) -> Result<(), Failure> {
        loop {
            match &self.pool {
                None => self.answer(receive(&self.router, 0)?)?,
                Some(pool) => {
                    let mut items = [self.router.as_poll_item(zmq::POLLIN), pool.as_poll_item(zmq::POLLIN)];
                    zmq::poll(&mut items, -1)?;
                    let [asked, answered] = items.map(|item: PollItem<'_>| item.is_readable());
                    if answered {
                        forward(pool, &self.router)?;
                    }
                    if asked {
                        self.answer(receive(&self.router, DONTWAIT)?)?;
                    }
                }
            }
        }
    }

    fn answer(&mut self, (client, head, rest): (Message, Message, Vec<Message>)) -> Result<(), Failure> {
        match head.first() {
            Some(&ECHO) => {
                self.router.send(client, SNDMORE)?;
                send(&self.router, head, rest)
            }
            Some(&SINK) => {
                self.router.send(client, SNDMORE)?;
                // The array is freed before the answer goes, as a function would free its argument.
                drop(rest);
                Ok(self.router.send(&[1u8][..], 0)?)
            }
            Some(&SOURCE) => {
                let bytes = u64::from_le_bytes(head[1..].try_into()?);
                self.router.send(client, SNDMORE)?;
                Ok(send_uninitialized(&mut self.router, bytes as usize)?)
            }
            Some(&POOLED) => {
                let pool = self.pool()?;
                pool.send(client, SNDMORE)?;
                send(pool, head, rest)
            }
            _ => Err("a request that no client sends".into()),
        }
    }

    fn pool(&mut self) -> Result<&Socket, Failure> {
        if self.pool.is_none() {
            let pool = socket(&self.context, SocketType::DEALER, POOL)?;
            pool.bind(POOL)?;
            for _ in 0..WORKERS {
                let worker = socket(&self.context, SocketType::DEALER, POOL)?;
                worker.connect(POOL)?;
                thread::spawn(move || while forward(&worker, &worker).is_ok() {});
            }
            self.pool = Some(pool);
        }
        Ok(self.pool.as_ref().expect("it was set above"))
    }
}

/// A request or an answer: client, head, rest.
fn receive(socket: &Socket, flags: i32) -> Result<(Message, Message, Vec<Message>), zmq::Error> {
    let client = socket.recv_msg(flags)?;
    let head = socket.recv_msg(0)?;
    let mut rest = Vec::new();
    let mut has_more = head.get_more();
    while has_more {
        let part = socket.recv_msg(0)?;
        has_more = part.get_more();
        rest.push(part);
    }
    Ok((client, head, rest))
}

fn send(socket: &Socket, head: Message, rest: Vec<Message>) -> Result<(), Failure> {
    let mut left = rest.len();
    socket.send(head, if left > 0 { SNDMORE } else { 0 })?;
    for part in rest {
        left -= 1;
        socket.send(part, if left > 0 { SNDMORE } else { 0 })?;
    }
    Ok(())
}

fn forward(from: &Socket, to: &Socket) -> Result<(), Failure> {
    let (client, head, rest) = receive(from, 0)?;
    to.send(client, SNDMORE)?;
    send(to, head, rest)
}

/// Runs rounds until standard input ends.
pub(crate) fn client(address: &str) -> Result<(), Failure> {
    let context = Context::new();
    let dealer = socket(&context, SocketType::DEALER, address)?;
    dealer.set_linger(0)?;
    dealer.connect(address)?;
    let mut client = Client { dealer, head: Vec::new(), arrays: Vec::new(), kept: None };
    let run = |round: &Round| client.run(round).unwrap_or_else(|failure| Answer::Failed(failure.to_string()));
    answer_rounds(&settings(address), run)
}

struct Client {
    dealer: Socket,
    /// The operation, and a small array behind it.
    head: Vec<u8>,
    /// A large array in its own frame, or those of a dict.
    arrays: Vec<Shared>,
    /// The kind of the calls.
    kept: Option<(Workload, u64)>,
}

impl Client {
    fn run(&mut self, round: &Round) -> Result<Answer, Failure> {
        if round.is_beside() {
            return Ok(no_calls_beside());
        }
        let kind = (round.workload, round.bytes);
        if self.kept != Some(kind) {
            (self.head, self.arrays) = request(round);
            self.kept = Some(kind);
        }
        exchange(round, self)
    }
}

/// Sends the parts of a request.
fn request(round: &Round) -> (Vec<u8>, Vec<Shared>) {
    let array = |bytes: u64| Arc::new(vec![1; bytes as usize]);
    let arrays = |operation| match round.bytes {
        0..MIN_APART_BYTES => ([vec![operation], vec![1; round.bytes as usize]].concat(), Vec::new()),
        bytes => (vec![operation], vec![array(bytes)]),
    };
    match round.workload {
        Workload::Echo => arrays(ECHO),
        Workload::Pool => arrays(POOLED),
        Workload::Source | Workload::BesideResult => {
            ([&[SOURCE], &round.bytes.to_le_bytes()[..]].concat(), Vec::new())
        }
        // A frame of names and sizes, then one of all arrays.
        Workload::Dict => {
            let bytes = round.bytes / DICT_ARRAYS;
            let names: String = (0..DICT_ARRAYS).map(|index| format!("array_{index:02} {bytes}\n")).collect();
            ([&[SINK], names.as_bytes()].concat(), (0..DICT_ARRAYS).map(|_| array(bytes)).collect())
        }
        _ => arrays(SINK),
    }
}

/// Copies the arrays of a dict, one after the other, into memory that libzmq then owns.
fn gathered(arrays: &[Shared]) -> Message {
    let mut all = Vec::with_capacity(arrays.iter().map(|array| array.len()).sum());
    arrays.iter().for_each(|array| all.extend_from_slice(array));
    Message::from(all)
}

impl Calls for Client {
    fn send(&mut self) -> Result<(), Failure> {
        self.dealer.send(&self.head[..], if self.arrays.is_empty() { 0 } else { SNDMORE })?;
        match &self.arrays[..] {
            [] => {}
            [array] => send_shared(&mut self.dealer, array, 0)?,
            arrays => self.dealer.send(gathered(arrays), 0)?,
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<u64, Failure> {
        let first = self.dealer.recv_msg(0)?;
        if first.get_more() {
            return Ok(self.dealer.recv_msg(0)?.len() as u64);
        }
        // The echo of a small array follows its operation, as in the request.
        let is_echo = matches!(self.kept, Some((Workload::Echo | Workload::Pool, _)));
        Ok(first.len() as u64 - u64::from(is_echo))
    }
}
