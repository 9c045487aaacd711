//! A server or client process with shorter timeouts than the examples, for tests that stop or kill it.
//!
//! - `peer serve ADDRESS MAX_SILENCE_MS`: has the methods `echo` and `hold` (which returns once its caller is
//!   gone), prints `listening at …`, and ends on SIGKILL only.
//! - `peer call ADDRESS MAX_SILENCE_MS METHOD`: calls the method with 1, 2, … in a loop. After each answer it
//!   prints the number of connections so far. With `-` as the method it makes no calls.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use teleport::{Client, Context, Method, Methods, Server, Tree, tree};

const PING_INTERVAL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    match arguments {
        ["serve", address, max_silence] => serve(address, milliseconds(max_silence)?),
        ["call", address, max_silence, method] => call(address, milliseconds(max_silence)?, method),
        other => Err(format!("unknown arguments: {other:?}").into()),
    }
}

fn milliseconds(text: &str) -> Result<Duration, Box<dyn Error>> {
    Ok(Duration::from_millis(text.parse()?))
}

fn serve(address: &str, max_silence: Duration) -> Result<(), Box<dyn Error>> {
    let hold = |_: Tree, cx: Context| teleport_tests::until("the caller is gone", || cx.is_cancelled());
    let methods = Methods::new().register("echo", |x: Tree| x).register("hold", Method::new(hold).workers(4));
    let server = Server::bind(address)?.name("peer").ping_interval(PING_INTERVAL).max_silence(max_silence);
    let server = server.start(methods)?;
    println!("listening at {}", server.address());
    Ok(server.join()?)
}

fn call(address: &str, max_silence: Duration, method: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::builder(address).name("peer").ping_interval(PING_INTERVAL).max_silence(max_silence);
    let client = client.connect()?;
    println!("connected");
    if method == "-" {
        loop {
            std::thread::park();
        }
    }
    for number in 1.. {
        client.call(method, tree!(number)).wait()?;
        println!("answered {number}, connected {} times", client.stats().connects);
    }
    Ok(())
}
