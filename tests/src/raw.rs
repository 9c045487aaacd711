//! A peer that sends arbitrary bytes over a plain socket.
//!
//! Flow: [`Raw::connect`] sends nothing, [`Raw::introduced`] exchanges preface and hello. Then [`Raw::send`]
//! sends bytes, and [`Raw::receive`] and [`Raw::until_closed`] return the peer's frames.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use teleport::wire::{FrameHeader, Header, Hello, Id128, Kind, Limits, Message, Preface, encode_frame};

use crate::watch::WATCHDOG;

/// A peer that reads nothing for this long waits until its own bytes are read.
const TAKES_NO_MORE: Duration = Duration::from_secs(1);

/// The bytes that [`Raw::flood`] sends at once.
const IDS_PER_WRITE: usize = 1000;

/// A received frame.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its header.
    pub header: Header,
    /// Its body, without an inline payload.
    pub body: Vec<u8>,
    /// The inline payload of a call or result. It may be empty.
    pub payload: Vec<u8>,
}

/// A connection that need not follow the protocol.
#[derive(Debug)]
pub struct Raw {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Raw {
    /// Connects and sends nothing.
    pub fn connect(address: &str) -> Raw {
        let socket = if let Some(place) = address.strip_prefix("tcp://") {
            Socket::Tcp(TcpStream::connect(place).expect("the server listens"))
        } else if let Some(name) = address.strip_prefix("ipc://@") {
            let address = SocketAddr::from_abstract_name(name).expect("the name is short");
            Socket::Unix(UnixStream::connect_addr(&address).expect("the server listens"))
        } else {
            let path = address.strip_prefix("ipc://").expect("tcp or ipc");
            Socket::Unix(UnixStream::connect(path).expect("the server listens"))
        };
        Raw::new(socket)
    }

    /// Accepts the next client of this listener. The test plays the server.
    pub fn accept(listener: &TcpListener) -> Raw {
        Raw::new(Socket::Tcp(listener.accept().expect("a client connects").0))
    }

    fn new(socket: Socket) -> Raw {
        let set = match &socket {
            Socket::Tcp(stream) => {
                stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(WATCHDOG)))
            }
            Socket::Unix(stream) => stream.set_read_timeout(Some(WATCHDOG)),
        };
        set.expect("the timeout is not zero");
        Raw { socket }
    }

    /// Connects and exchanges preface and hello.
    pub fn introduced(address: &str) -> (Raw, Hello) {
        let mut raw = Raw::connect(address);
        let hello = raw.introduce(&Raw::hello());
        (raw, hello)
    }

    /// Sends preface and hello and returns the peer's hello.
    pub fn introduce(&mut self, hello: &Hello) -> Hello {
        self.send(&Preface::BYTES);
        self.send(&encode_frame(Kind::Hello, 0, &hello.encode()));
        let mut preface = [0; Preface::LENGTH];
        self.socket.read_exact(&mut preface).expect("the peer sends a preface");
        assert_eq!(preface, Preface::BYTES);
        let frame = self.receive().expect("a hello");
        assert_eq!(frame.header.kind, Kind::Hello);
        Hello::decode(&frame.body).expect("the hello is valid")
    }

    /// Returns the default hello: a client's, with much credit.
    pub fn hello() -> Hello {
        Hello {
            features: 0,
            limits: Limits::default(),
            eager_credit_bytes: 1 << 20,
            max_open_calls: 0,
            instance: Id128([7; 16]),
            session: Id128::NONE,
            name: "raw".into(),
            auth: Vec::new(),
        }
    }

    /// Sends bytes. It is no error if the peer has closed, as many tests expect that.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes);
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// If the peer has closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Sends `make(id)` for each id from 1 to `ids` and reads nothing. Stops when the peer has closed or
    /// reads no more.
    pub fn flood(&mut self, ids: u64, make: impl Fn(u64) -> Vec<u8>) {
        let mut ids = 1..=ids;
        loop {
            let bytes: Vec<u8> = ids.by_ref().take(IDS_PER_WRITE).flat_map(&make).collect();
            if bytes.is_empty() || !self.pour(&bytes) {
                return;
            }
        }
    }

    /// Sends bytes and reads nothing. Returns false if the peer closed or stopped reading before all were
    /// sent.
    pub fn pour(&mut self, bytes: &[u8]) -> bool {
        let set = match &self.socket {
            Socket::Tcp(stream) => stream.set_write_timeout(Some(TAKES_NO_MORE)),
            Socket::Unix(stream) => stream.set_write_timeout(Some(TAKES_NO_MORE)),
        };
        set.expect("the timeout is not zero");
        self.try_send(bytes).is_ok()
    }

    /// Sends the head frame of a call or result.
    pub fn send_head(&mut self, id: u64, message: &Message, eager: bool) {
        self.send(&message.header(id, eager));
        self.send(message.metadata());
    }

    /// Sends a whole message with its payload, in frames of its own, without waiting for a grant.
    pub fn send_eager(&mut self, id: u64, message: &Message) {
        self.send_head(id, message, message.payload_bytes() > 0);
        for part in message.payload() {
            self.send(&Header::data(id, part.len() as u64, None).encode());
            self.send(part);
        }
    }

    /// Returns the next frame, or `None` if the peer has closed.
    pub fn receive(&mut self) -> Option<Received> {
        let mut bytes = [0; Header::BYTES];
        self.read(&mut bytes)?;
        let limits = Limits { max_metadata_bytes: u32::MAX, ..Limits::default() };
        let FrameHeader::Known(header) =
            Header::decode(&bytes, &limits).expect("the library sends valid frames")
        else {
            panic!("the library sent a frame of an unknown kind")
        };
        let mut body = vec![0; header.length as usize];
        self.read(&mut body)?;
        let (body, payload) = header.split_body(&body, &limits).expect("the library sends valid bodies");
        header.check_body(body).expect("the library sends correct checksums");
        Some(Received { header, body: body.to_vec(), payload: payload.to_vec() })
    }

    /// Returns the next frame of this kind and skips others.
    ///
    /// # Panics
    /// If the peer closes first.
    #[track_caller]
    pub fn next_of(&mut self, kind: Kind) -> Received {
        let mut others = Vec::new();
        while let Some(frame) = self.receive() {
            if frame.header.kind == kind {
                return frame;
            }
            others.push(frame.header);
        }
        panic!("the peer closed before it sent a {kind} frame; it sent {others:?}");
    }

    /// Waits until the peer has closed and returns the frames that came before.
    pub fn until_closed(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.receive()).collect()
    }

    /// Waits until the peer has closed and ignores the bytes that come before.
    pub fn until_silent_end(&mut self) {
        let mut bytes = [0; 4096];
        while self.read_some(&mut bytes) > 0 {}
    }

    /// Shuts down the sending half of the connection.
    pub fn finish(&mut self) {
        let _ = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Fills `bytes`. Returns `None` at the end of the stream.
    fn read(&mut self, mut bytes: &mut [u8]) -> Option<()> {
        while !bytes.is_empty() {
            match self.read_some(bytes) {
                0 => return None,
                read => bytes = &mut bytes[read..],
            }
        }
        Some(())
    }

    /// Returns 0 at the end of the stream. A reset counts as an end: the peer closed before it had read
    /// everything.
    fn read_some(&mut self, bytes: &mut [u8]) -> usize {
        loop {
            match self.socket.read(bytes) {
                Ok(read) => return read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the peer sent nothing for too long")
                }
                Err(_) => return 0,
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(bytes),
            Socket::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
