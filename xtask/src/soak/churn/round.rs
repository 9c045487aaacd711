//! The clients of a churn: steady ones, which stay and must not fail, and a crowd for each round, which is
//! stopped and killed.
//!
//! Each disturbed client has a time for its next disturbance. The main thread waits for the earliest of
//! these times or for a line that a client prints. A thread for each client reads its lines, and ends with
//! it.

use std::io::BufRead;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::content::Draw;
use super::{ALLOCATOR, MAX_SILENCE, SETTLE_TIME, Tally};
use crate::child::Child;
use crate::failure::Failure;

/// Disturbed clients at once, half over TCP.
const CLIENTS: usize = 6;

/// A condemned client is killed when it begins to send a large argument, and at the latest after this time.
const MAX_REPRIEVE: Duration = Duration::from_secs(1);

/// A client's number and the line that it printed, or `None` at its end.
type News = (usize, Option<String>);

/// A client process with its number.
#[derive(Debug)]
struct Process {
    child: Child,
    number: usize,
}

impl Process {
    fn start(
        number: usize,
        address: &str,
        seed: u64,
        flags: &[&str],
        news: &Sender<News>,
    ) -> Result<Process, Failure> {
        let seed = seed.to_string();
        let mut child = Child::start([&["soak-client", address, &seed], flags].concat(), &ALLOCATOR)?;
        let (output, news) = (child.take_output(), news.clone());
        thread::spawn(move || {
            // The receiver is gone when the round is over.
            for line in output.lines().map_while(Result::ok) {
                let _ = news.send((number, Some(line)));
            }
            let _ = news.send((number, None));
        });
        Ok(Process { child, number })
    }

    /// Asks the client to end, and waits until it has.
    fn end(mut self, news: &Receiver<News>) -> Result<(), Failure> {
        self.child.send_line("end")?;
        loop {
            match news.recv_timeout(SETTLE_TIME) {
                Ok((number, line)) if number == self.number && line.is_none() => break,
                Ok((_, Some(line))) => good(&line)?,
                Ok((_, None)) => {}
                Err(_) => return Err(hangs("end")),
            }
        }
        if self.child.wait()? {
            Ok(())
        } else {
            Err(Failure::Soak { problems: vec!["a client ended with a failure; it is printed above".into()] })
        }
    }
}

/// Returns an error if the line reports a problem.
fn good(line: &str) -> Result<(), Failure> {
    match line.strip_prefix("wrong: ") {
        Some(problem) => Err(Failure::Soak { problems: vec![format!("a client: {problem}")] }),
        None => Ok(()),
    }
}

fn hangs(what: &str) -> Failure {
    Failure::Soak { problems: vec![format!("a client did not {what} within {SETTLE_TIME:?}")] }
}

/// One client for each transport, which is never disturbed.
#[derive(Debug)]
pub(super) struct Steady {
    clients: [Process; 2],
    news: Receiver<News>,
}

impl Steady {
    pub(super) fn start(addresses: &[String; 2], seed: u64) -> Result<Steady, Failure> {
        let (sender, news) = mpsc::channel();
        let [tcp, ipc] = [0, 1].map(|n| Process::start(n, &addresses[n], seed ^ n as u64, &[], &sender));
        Ok(Steady { clients: [tcp?, ipc?], news })
    }

    pub(super) fn ids(&self) -> [u32; 2] {
        [self.clients[0].child.id(), self.clients[1].child.id()]
    }

    pub(super) fn go(&mut self) -> Result<(), Failure> {
        self.clients.iter_mut().try_for_each(|client| client.child.send_line("go"))
    }

    /// Lets the clients finish their calls, and waits until they have.
    pub(super) fn pause(&mut self) -> Result<(), Failure> {
        self.clients.iter_mut().try_for_each(|client| client.child.send_line("pause"))?;
        let mut left = self.clients.len();
        while left > 0 {
            match self.news.recv_timeout(SETTLE_TIME) {
                Ok((_, Some(line))) if line == "paused" => left -= 1,
                Ok((_, Some(line))) => good(&line)?,
                Ok((_, None)) => return Err(Failure::Ended { process: "a steady client".into() }),
                Err(_) => return Err(hangs("pause")),
            }
        }
        Ok(())
    }

    pub(super) fn end(self) -> Result<(), Failure> {
        let Steady { clients, news } = self;
        clients.into_iter().try_for_each(|client| client.end(&news))
    }
}

/// The state of a disturbed client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Works,
    Stopped,
    /// It is killed when it next sends a large argument.
    Condemned,
}

#[derive(Debug)]
struct Disturbed {
    process: Process,
    address: usize,
    mood: Mood,
    next: Instant,
}

/// Clients that are stopped, killed and replaced.
#[derive(Debug)]
pub(super) struct Crowd<'a> {
    addresses: &'a [String; 2],
    clients: Vec<Disturbed>,
    started: usize,
    sender: Sender<News>,
    news: Receiver<News>,
}

impl<'a> Crowd<'a> {
    pub(super) fn start(
        addresses: &'a [String; 2],
        draw: &mut Draw,
        tally: &mut Tally,
    ) -> Result<Crowd<'a>, Failure> {
        let (sender, news) = mpsc::channel();
        let mut crowd = Crowd { addresses, clients: Vec::new(), started: 0, sender, news };
        for client in 0..CLIENTS {
            crowd.join(client % 2, draw, tally)?;
        }
        Ok(crowd)
    }

    /// Starts one more client.
    fn join(&mut self, address: usize, draw: &mut Draw, tally: &mut Tally) -> Result<(), Failure> {
        let number = self.started;
        // Both addresses get all four kinds.
        let flags: &[&str] = match number / 2 % 4 {
            0 => &["--disturbed"],
            1 => &["--disturbed", "--resume"],
            2 => &["--disturbed", "--checksum"],
            _ => &["--disturbed", "--resume", "--checksum"],
        };
        let process = Process::start(number, &self.addresses[address], draw.next(), flags, &self.sender)?;
        self.started += 1;
        tally.starts += 1;
        self.clients.push(Disturbed { process, address, mood: Mood::Works, next: soon(draw) });
        Ok(())
    }

    /// Disturbs the clients for `time`.
    pub(super) fn disturb(
        &mut self,
        time: Duration,
        draw: &mut Draw,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            let next = self.clients.iter().map(|client| client.next).min().unwrap_or(until).min(until);
            match self.news.recv_timeout(next.saturating_duration_since(now)) {
                Ok((number, Some(line))) => self.hear(number, &line, draw, tally)?,
                Ok((number, None)) if self.clients.iter().any(|client| client.process.number == number) => {
                    return Err(Failure::Ended { process: "a client that nobody killed".into() });
                }
                Ok((_, None)) | Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) if next == until => return Ok(()),
                Err(RecvTimeoutError::Timeout) => self.act(draw, tally)?,
            }
        }
    }

    /// Disturbs the client whose time has come.
    fn act(&mut self, draw: &mut Draw, tally: &mut Tally) -> Result<(), Failure> {
        let now = Instant::now();
        let Some(index) = self.clients.iter().position(|client| client.next <= now) else { return Ok(()) };
        let client = &mut self.clients[index];
        match client.mood {
            Mood::Condemned => return self.kill(index, draw, tally),
            Mood::Stopped => {
                client.process.child.signal(Signal::SIGCONT);
                (client.mood, client.next) = (Mood::Works, soon(draw));
            }
            Mood::Works if draw.within(0, 2) == 0 => {
                (client.mood, client.next) = (Mood::Condemned, now + MAX_REPRIEVE);
            }
            Mood::Works => {
                client.process.child.signal(Signal::SIGSTOP);
                let long = draw.within(0, 8) == 0;
                let time = if long { MAX_SILENCE + MAX_SILENCE / 2 } else { soon(draw) - now };
                (client.mood, client.next) = (Mood::Stopped, now + time);
                tally.stops += 1;
                tally.long_stops += u64::from(long);
            }
        }
        Ok(())
    }

    fn hear(&mut self, number: usize, line: &str, draw: &mut Draw, tally: &mut Tally) -> Result<(), Failure> {
        good(line)?;
        let condemned =
            |client: &Disturbed| client.process.number == number && client.mood == Mood::Condemned;
        match self.clients.iter().position(condemned) {
            Some(index) if line == "large" => {
                tally.kills_while_sending += 1;
                self.kill(index, draw, tally)
            }
            _ => Ok(()),
        }
    }

    /// Kills a client and starts another in its place.
    fn kill(&mut self, index: usize, draw: &mut Draw, tally: &mut Tally) -> Result<(), Failure> {
        let address = self.clients[index].address;
        // Dropping the client kills it.
        drop(self.clients.swap_remove(index));
        tally.kills += 1;
        self.join(address, draw, tally)
    }

    /// Ends all clients. Kills about half of them, even if they are stopped.
    pub(super) fn end(self, draw: &mut Draw, tally: &mut Tally) -> Result<(), Failure> {
        for client in self.clients {
            if draw.within(0, 2) == 0 {
                tally.kills += 1;
                continue;
            }
            client.process.child.signal(Signal::SIGCONT);
            client.process.end(&self.news)?;
        }
        Ok(())
    }
}

/// Returns a random time for a client's next disturbance.
fn soon(draw: &mut Draw) -> Instant {
    Instant::now() + Duration::from_millis(draw.within(100, 1000))
}
