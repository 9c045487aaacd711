//! A real workload: several client processes send handwritten digits to a server, which classifies each by
//! its nearest neighbour among the others. The accuracy must equal that of the same computation without
//! Teleport.
//!
//! `cargo run --release --example digits -- --clients 4 --workers 2`
//!
//! With `--batch 32` the function of the server runs for up to 32 calls at once, with their images stacked.
//! The accuracy stays the same.

#[path = "../common/mod.rs"]
mod common;
mod neighbour;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use neighbour::Digits;
use teleport::{Array, Batch, BoxError, Client, Method, Methods, Process, Server, ServerHandle, Tree, tree};

/// Classify handwritten digits on a server, from several client processes.
#[derive(Parser)]
struct Options {
    /// Client processes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
    /// Threads of the server that classify
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Largest number of digits to classify at once; one by one without it
    #[arg(long, value_name = "DIGITS")]
    batch: Option<usize>,
}

fn main() -> ExitCode {
    teleport::init(); // first line: a client process starts its function here and never returns
    common::exit(serve(&Options::parse()))
}

fn serve(options: &Options) -> Result<(), BoxError> {
    let digits = Arc::new(Digits::load()?);
    let methods = Methods::new().register("classify", classify(digits.clone(), options.batch));
    let server = Server::bind("tcp://127.0.0.1:0")?.workers(options.workers).start(methods)?;
    println!("{} digits, {} client processes, {} workers", digits.len(), options.clients, options.workers);

    let start = Instant::now();
    let address = server.address().to_string();
    let mut processes = Vec::new();
    for index in 0..options.clients {
        let process =
            Process::new(format!("client-{index}"), client, (address.clone(), index, options.clients));
        process.start()?;
        processes.push(process);
    }
    let mut correct = 0;
    for process in &processes {
        correct += process.join()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    server.check()?;

    let expected = (0..digits.len()).filter(|index| digits.is_right(*index)).count();
    let percent = |right: usize| 100.0 * right as f64 / digits.len() as f64;
    println!("accuracy {:.2} % ({correct} of {} right)", percent(correct), digits.len());
    println!("without Teleport {:.2} % ({expected} right)", percent(expected));
    println!("{:.0} calls per second, with the start of the processes", digits.len() as f64 / seconds);
    show_batches(&server);
    if correct == expected { Ok(()) } else { Err("the accuracies differ".into()) }
}

/// Returns the method that classifies images, one by one or many at once.
fn classify(digits: Arc<Digits>, batch: Option<usize>) -> Method {
    let one = move |image: &Array, index: usize| -> Result<u8, BoxError> {
        Ok(digits.classify(image.as_slice::<u8>()?, index)) // a digit must not be its own neighbour
    };
    match batch {
        None => Method::new(move |mut x: Tree| -> Result<Tree, BoxError> {
            Ok(tree!({"label": one(&x.take("image")?, x.take("index")?)?}))
        }),
        Some(most) => Method::batched(Batch::up_to(most), move |mut x: Tree| -> Result<Tree, BoxError> {
            let images: Array = x.take("image")?; // u8 [n, 8, 8]
            let indices: Vec<usize> = x.take("index")?;
            let labels = indices.into_iter().enumerate().map(|(row, index)| one(&images.row(row), index));
            Ok(tree!({"label": labels.collect::<Result<Vec<u8>, BoxError>>()?}))
        }),
    }
}

fn show_batches(server: &ServerHandle) {
    if let Some(stats) = server.batches("classify") {
        println!("{} batches of {:.1} digits in the mean", stats.batches, stats.mean_rows());
    }
}

/// The function of a client process: sends every n-th digit, and counts the right answers.
fn client((server, index, clients): (String, u32, u32)) -> Result<usize, BoxError> {
    let digits = Digits::load()?;
    let client = Client::builder(&server).name(&format!("client-{index}")).connect()?;
    let mine = (index as usize..digits.len()).step_by(clients as usize);
    let futures = mine
        .map(|index| {
            let image = digits.image(index);
            // Waits while `max_inflight` calls are in flight.
            Ok((index, client.call("classify", tree!({"image": image, "index": index})).send()?))
        })
        .collect::<Result<Vec<_>, BoxError>>()?;
    let mut correct = 0;
    for (index, future) in futures {
        let label: u8 = future.wait()?.take("label")?;
        correct += usize::from(label == digits.label(index));
    }
    Ok(correct)
}
