//! A server and a client as two processes: small calls, a message, and a 256 MiB array.
//!
//! `cargo run --release --example quickstart`

mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use teleport::{Array, BoxError, Client, FromTree, Methods, Process, Server, Stop, Tree, free_port, tree};

const ARRAY_BYTES: usize = 256 << 20;

/// The first transfer includes the time in which the kernel finds and clears memory.
const TIMES: usize = 5;

fn main() -> ExitCode {
    teleport::init(); // first line: the server's process starts its function here and never returns
    common::exit(client())
}

/// The function of the server's process.
fn server(address: String, stop: &Stop) -> Result<(), BoxError> {
    let methods = Methods::new()
        .register("add", |x: Tree| -> Result<Tree, BoxError> {
            Ok(tree!({"result": x.field::<i64>("foo")? + x.field::<i64>("bar")?}))
        })
        .register("msg", |x: Tree| x.field("msg").map(|msg: String| println!("Message from client: {msg}")))
        .register("size", |array: Array| array.bytes());
    let server = Server::bind(&address)?.start(methods)?;
    while stop.sleep(Duration::from_secs(1)) {
        server.check()?;
    }
    Ok(server.close()?)
}

fn client() -> Result<(), BoxError> {
    let address = format!("tcp://127.0.0.1:{}", free_port()?);
    let process = Process::stoppable("server", server, address.clone());
    process.start()?;
    println!("a server process will listen at {address}");
    let client = Client::connect(&address)?; // waits for its server

    let reply = client.call("add", tree!({"foo": 1, "bar": 1})).wait()?;
    println!("{reply}");

    client.call("msg", tree!({"msg": "Hello"})).wait()?; // the server prints it

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
    process.stop(Duration::from_secs(5))?;
    Ok(process.join()?)
}
