//! A server and a client as two processes: small calls, a message, and a 256 MiB array.
//!
//! `cargo run --release --example quickstart`

mod common;

use std::process::ExitCode;
use std::time::Instant;

use common::{Again, end_with_parent};
use teleport::{Array, BoxError, Client, FromTree, Methods, Server, Tree, tree};

const ARRAY_BYTES: usize = 256 << 20;

/// The first time memory is used, the kernel must find and clear it; later times show what the transfer takes.
const TIMES: usize = 5;

fn main() -> ExitCode {
    common::exit(run())
}

fn run() -> Result<(), BoxError> {
    match std::env::args().nth(1).as_deref() {
        Some("server") => server(),
        _ => client(),
    }
}

fn server() -> Result<(), BoxError> {
    let methods = Methods::new()
        .register("add", |x: Tree| -> Result<Tree, BoxError> {
            Ok(tree!({"result": x.field::<i64>("foo")? + x.field::<i64>("bar")?}))
        })
        .register("msg", |x: Tree| x.field("msg").map(|msg: String| println!("Message from client: {msg}")))
        .register("size", |array: Array| array.bytes());
    let server = Server::bind("tcp://127.0.0.1:0")?.start(methods)?;
    println!("{}", server.address()); // tells the client where to find it
    let closer = server.closer();
    end_with_parent(move || closer.close());
    Ok(server.join()?)
}

fn client() -> Result<(), BoxError> {
    let mut server = Again::start(&["server"])?;
    let address = server.line()?;
    println!("a server process listens at {address}");
    let client = Client::connect(&address)?;

    let reply = client.call("add", tree!({"foo": 1, "bar": 1})).wait()?;
    println!("{reply}");

    client.call("msg", tree!({"msg": "Hello"})).wait()?;
    println!("the server printed: {}", server.line()?);

    let array = Array::from(vec![7u8; ARRAY_BYTES]);
    for time in 1..=TIMES {
        let start = Instant::now();
        let reply = client.call("size", array.clone()).wait()?;
        assert_eq!(usize::from_tree(reply)?, ARRAY_BYTES, "the whole array arrives");
        let seconds = start.elapsed().as_secs_f64();
        let rate = ARRAY_BYTES as f64 / 1e9 / seconds;
        println!("{time}. a 256 MiB array in {:.0} ms: {rate:.2} GB/s", seconds * 1e3);
    }
    drop(client);
    server.end()
}
