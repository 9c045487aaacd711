//! The server and the client whose whole calls are counted.
//!
//! Flow: the parent sends a line to each side -> the server serves at once; the client warms up, or makes the
//! calls. [`begin`] and [`end`] enclose what is counted. Callgrind knows them by name: it forgets all counts
//! when a thread enters the first one, and writes them to a file when a thread enters the second one.
//! Arguments are made before, because that is the work of the caller. Nothing here measures time.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use teleport::{
    Array, Batch, BoxError, Call, CallFuture, Client, Dict, IntoTree as _, Method, Methods, OnDisconnect,
    Server, ServerHandle, Tree,
};

use super::work::{Argument, Work};
use crate::child;

/// The patterns by which callgrind finds [`begin`] and [`end`].
pub(super) const BEGIN: &str = "*whole::party::begin*";
pub(super) const END: &str = "*whole::party::end*";

/// The lines for both sides.
pub(super) const BEGIN_LINE: &str = "begin";
pub(super) const END_LINE: &str = "end";
pub(super) const WARM_LINE: &str = "warm";
pub(super) const CALL_LINE: &str = "call";

/// More than any row needs, so that no call waits for a slot.
const MAX_IN_FLIGHT: usize = 1024;

/// Rows of the batched method, as many as there are calls in flight.
const BATCH: usize = 64;

/// Longer than any call takes, also under callgrind.
const DEADLINE: Duration = Duration::from_secs(3600);

#[inline(never)]
fn begin() {
    black_box(BEGIN_LINE);
}

#[inline(never)]
fn end() {
    black_box(END_LINE);
}

/// Serves until the parent ends.
pub(in super::super) fn serve() -> Result<(), BoxError> {
    let server = start()?;
    child::print_line(&server.address().to_string())?;
    for line in child::commands() {
        match line.as_str() {
            BEGIN_LINE => begin(),
            END_LINE => end(),
            _ => {}
        }
        child::print_line("done")?;
    }
    server.close()?;
    Ok(())
}

fn start() -> Result<ServerHandle, BoxError> {
    let methods = Methods::new()
        .register("echo", Method::inline(|x: Tree| x))
        .register("fail", Method::inline(|_: Tree| Err::<Tree, _>(BoxError::from("it fails"))))
        .register("pool", |x: Tree| x)
        .register("batch", Method::batched(Batch::up_to(BATCH), |rows: Tree| rows));
    Ok(Server::bind("tcp://127.0.0.1:0")?.spin(Duration::ZERO).start(methods)?)
}

fn connect(address: &str) -> Result<Client, BoxError> {
    Ok(Client::builder(address).max_inflight(MAX_IN_FLIGHT).spin(Duration::ZERO).connect()?)
}

/// Makes the calls that the parent asks for, at the server at `address`.
pub(in super::super) fn call(address: &str, row: usize) -> Result<(), BoxError> {
    let work = Work::ALL.get(row).ok_or("there is no such row")?;
    let client = connect(address)?;
    child::print_line("ready")?;
    for line in child::commands() {
        let arguments = |calls| arguments(work.argument, calls);
        match line.as_str() {
            WARM_LINE => exchange(&client, work, arguments(work.calls / 4))?,
            CALL_LINE => {
                let arguments = arguments(work.calls);
                begin();
                exchange(&client, work, arguments)?;
                end();
            }
            _ => {}
        }
        child::print_line("done")?;
    }
    client.close()?;
    Ok(())
}

/// Makes arguments for this many calls. Those of arrays share one array, as in a loop that sends it again.
fn arguments(kind: Argument, calls: usize) -> Vec<Tree> {
    match kind {
        Argument::Array(bytes) => vec![Array::from(vec![1u8; bytes]).into_tree(); calls],
        Argument::Scalars => (0..calls).map(scalars).collect(),
    }
}

/// Makes a dict of eight scalars of four dtypes.
fn scalars(call: usize) -> Tree {
    let step = call as i64;
    let mut dict = Dict::new();
    dict.insert("step", step.into_tree());
    dict.insert("reward", (step as f32).into_tree());
    dict.insert("discount", 0.99f32.into_tree());
    dict.insert("value", (step as f64).into_tree());
    dict.insert("first", (step == 0).into_tree());
    dict.insert("last", false.into_tree());
    dict.insert("episode", (step / 100).into_tree());
    dict.insert("seed", 7i64.into_tree());
    Tree::Dict(dict)
}

/// Makes one call with each argument.
fn exchange(client: &Client, work: &Work, arguments: Vec<Tree>) -> Result<(), BoxError> {
    let call = |argument: Tree| -> Call<Tree> {
        let call = client.call(work.method, argument);
        if work.survives { call.deadline(DEADLINE).on_disconnect(OnDisconnect::Resume) } else { call }
    };
    let outcome =
        |answer: Result<Tree, _>| if work.fails == answer.is_err() { Ok(()) } else { answer.map(drop) };
    if work.in_flight == 1 {
        for argument in arguments {
            outcome(call(argument).wait())?;
        }
        return Ok(());
    }
    let mut open: VecDeque<CallFuture<Tree>> = VecDeque::with_capacity(work.in_flight);
    for argument in arguments {
        if open.len() == work.in_flight
            && let Some(oldest) = open.pop_front()
        {
            outcome(oldest.wait())?;
        }
        open.push_back(call(argument).send()?);
    }
    for future in open {
        outcome(future.wait())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_call_works() -> Result<(), BoxError> {
        let server = start()?;
        let client = connect(&server.address().to_string())?;
        for work in &Work::ALL {
            exchange(&client, work, arguments(work.argument, 100))
                .map_err(|error| format!("{}: {error}", work.name))?;
        }
        client.close()?;
        server.close()?;
        Ok(())
    }
}
