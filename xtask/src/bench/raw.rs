//! The machine's own ceiling: plain sockets, tuned, with the same messages, buffers and replies as the contender.
//!
//! The server reads each message with reads of at most 1 MiB into one warm buffer, and answers with one byte, or with
//! the message itself where the row asks for it. A message is its length and a flag, then its bytes.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

/// The largest read: measured, larger ones are slower since they leave the cache.
const MAX_READ_BYTES: usize = 1 << 20;

/// Length (8 bytes) and whether to send the message back (1 byte).
const HEAD_BYTES: usize = 9;

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A listening socket.
pub(super) enum Server {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Listens at `tcp://HOST:PORT` or `ipc://@NAME`, and says where.
    pub(super) fn bind(address: &str) -> io::Result<(Server, String)> {
        if let Some(name) = address.strip_prefix("ipc://@") {
            let place = SocketAddr::from_abstract_name(name)?;
            return Ok((Server::Unix(UnixListener::bind_addr(&place)?), address.to_owned()));
        }
        let listener = TcpListener::bind(address.trim_start_matches("tcp://"))?;
        let address = format!("tcp://{}", listener.local_addr()?);
        Ok((Server::Tcp(listener), address))
    }

    /// Serves one client after the other, for ever.
    pub(super) fn serve(&self) -> io::Result<()> {
        loop {
            match self {
                Server::Unix(listener) => answer(listener.accept()?.0)?,
                Server::Tcp(listener) => {
                    let stream = listener.accept()?.0;
                    stream.set_nodelay(true)?;
                    answer(stream)?;
                }
            }
        }
    }
}

fn answer(mut stream: impl Stream) -> io::Result<()> {
    let mut buffer = vec![0; MAX_READ_BYTES];
    loop {
        // A client sends nothing before its answer, so that one read gets a small message with its head.
        let mut filled = 0;
        while filled < HEAD_BYTES {
            match stream.read(&mut buffer[filled..MAX_READ_BYTES])? {
                0 => return Ok(()),
                bytes => filled += bytes,
            }
        }
        let length: [u8; 8] = buffer[..8].try_into().expect("eight bytes");
        let end = HEAD_BYTES + u64::from_le_bytes(length) as usize;
        if buffer.len() < end {
            buffer.resize(end, 0);
        }
        read(&mut stream, &mut buffer[filled..end])?;
        stream.write_all(if buffer[8] == 1 { &buffer[HEAD_BYTES..end] } else { &[0] })?;
    }
}

fn read(stream: &mut impl Stream, buffer: &mut [u8]) -> io::Result<()> {
    buffer.chunks_mut(MAX_READ_BYTES).try_for_each(|chunk| stream.read_exact(chunk))
}

/// A client of `serve`.
pub(super) struct Client {
    stream: Box<dyn Stream>,
    message: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    pub(super) fn connect(address: &str) -> io::Result<Client> {
        let stream: Box<dyn Stream> = match address.strip_prefix("ipc://@") {
            Some(name) => Box::new(UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?),
            None => {
                let stream = TcpStream::connect(address.trim_start_matches("tcp://"))?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        Ok(Client { stream, message: Vec::new(), answer: Vec::new() })
    }

    /// Sends `bytes` bytes and waits for the answer: the same bytes if `echo`, else one.
    pub(super) fn call(&mut self, bytes: usize, echo: bool) -> io::Result<()> {
        // The head lies before the message, so that both go in one system call.
        self.message.resize(HEAD_BYTES + bytes, 1);
        self.message[..8].copy_from_slice(&(bytes as u64).to_le_bytes());
        self.message[8] = u8::from(echo);
        self.stream.write_all(&self.message)?;
        self.answer.resize(if echo { bytes } else { 1 }, 0);
        read(&mut self.stream, &mut self.answer)
    }
}
