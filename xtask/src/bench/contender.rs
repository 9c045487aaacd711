//! Who is measured: each has a server process of its own, and a client in this one.

use std::sync::{Mutex, PoisonError};

use teleport::{Array, BoxError, Client, Method, Methods, Server, Tree};

use super::{Cores, raw};
use crate::child::{self, Child};
use crate::failure::Failure;

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Who {
    /// Plain sockets.
    Raw,
    /// This library.
    Teleport,
    /// This library, with a checksum of the payload.
    Checked,
}

impl Who {
    /// As the report calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Who::Raw => "raw",
            Who::Teleport => "teleport",
            Who::Checked => "with checksum",
        }
    }
}

/// A connected client and its server.
pub(super) struct Contender {
    client: Connected,
    _server: Child,
}

enum Connected {
    Raw(raw::Client),
    Teleport { client: Client, message: Array },
}

/// Runs a server in this process, for ever. Prints where it listens.
pub(super) fn serve(who: Who, address: &str) -> Result<(), BoxError> {
    match who {
        Who::Raw => {
            let (server, address) = raw::Server::bind(address)?;
            child::say(&address)?;
            server.serve()?;
        }
        Who::Teleport | Who::Checked => {
            let methods = Methods::new()
                .register("sink", Method::inline(|_: Tree| ()))
                .register("echo", Method::inline(|x: Tree| x))
                .register("give", Method::inline(give()))
                .register("pool_echo", |x: Tree| x);
            let server = Server::bind(address)?.checksum(who == Who::Checked).start(methods)?;
            child::say(&server.address().to_string())?;
            server.join()?;
        }
    }
    Ok(())
}

/// Gives so many bytes, which are made when they are first asked for.
fn give() -> impl Fn(u64) -> Array + Send + Sync + 'static {
    let kept = Mutex::new(Array::from(Vec::<u8>::new()));
    move |bytes| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() as u64 != bytes {
            *kept = Array::from(vec![1u8; bytes as usize]);
        }
        kept.clone()
    }
}

impl Contender {
    /// Starts a server process at `address` and connects to it.
    pub(super) fn start(who: Who, address: &str, cores: Cores) -> Result<Contender, Failure> {
        let name = format!("{who:?}").to_lowercase();
        let core = if cores == Cores::One { "0" } else { "1" };
        let mut server = Child::start(["bench-server", &name, address, core], &[])?;
        let client = Connected::to(who, &server.line()?)?;
        Ok(Contender { client, _server: server })
    }

    /// The client, where it is one of this library.
    pub(super) fn client(&self) -> Option<&Client> {
        match &self.client {
            Connected::Teleport { client, .. } => Some(client),
            Connected::Raw(_) => None,
        }
    }

    /// Sends `bytes` bytes and waits for the answer.
    pub(super) fn call(&mut self, bytes: usize, answer: Answer) -> Result<(), Failure> {
        match &mut self.client {
            Connected::Raw(client) => client.call(bytes, answer != Answer::Nothing).map_err(Failure::bench),
            Connected::Teleport { client, message } => {
                if message.len() != bytes {
                    *message = Array::from(vec![1u8; bytes]);
                }
                let method = match answer {
                    Answer::Nothing => "sink",
                    Answer::Same => "echo",
                    Answer::SameFromPool => "pool_echo",
                };
                client.call(method, message.clone()).wait().map(drop).map_err(Failure::bench)
            }
        }
    }
}

/// What a server answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Null, or one byte of a raw server.
    Nothing,
    /// The message, from the thread that received it.
    Same,
    /// The message, from a pool of workers; a raw server has none.
    SameFromPool,
}

impl Connected {
    fn to(who: Who, address: &str) -> Result<Connected, Failure> {
        match who {
            Who::Raw => Ok(Connected::Raw(raw::Client::connect(address).map_err(Failure::bench)?)),
            Who::Teleport | Who::Checked => {
                let client = Client::builder(address).checksum(who == Who::Checked).connect();
                let client = client.map_err(Failure::bench)?;
                Ok(Connected::Teleport { client, message: Array::from(Vec::<u8>::new()) })
            }
        }
    }
}
