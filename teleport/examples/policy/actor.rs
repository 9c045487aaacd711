//! A process of actors. Each actor moves in its own small world, by the actions of the policy.
//!
//! Flow: observe -> `act` on the server -> step, in a loop, on a thread for each actor. From time to time
//! `report` sends their latencies to the server. When the process has to stop, each actor finishes its step.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use teleport::{Array, BoxError, Client, Stop, Tree, tree};

use crate::latency::Latencies;

/// Pixels along each side of an observation.
pub(crate) const SIDE: usize = 64;
/// Red, green, blue.
pub(crate) const CHANNELS: usize = 3;

/// How often latencies are reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// An actor that waits longer than this for an action fails.
const MAX_LATENCY: Duration = Duration::from_secs(30);

/// The steps of an episode. Then the world starts again.
const EPISODE: u32 = 200;

/// Pixels along each side of the dot that shows the actor.
const DOT: usize = 6;

/// State that the actors of this process share.
struct Shared {
    client: Client,
    is_over: AtomicBool,
    latencies: Mutex<Latencies>,
}

/// The function of a process of actors: runs them until it has to stop, and waits for their last steps.
pub(crate) fn run((server, index, actors): (String, u32, u32), stop: &Stop) -> Result<(), BoxError> {
    let client = Client::builder(&server)
        .name(&format!("actors-{index}"))
        .max_inflight(actors as usize + 1) // one more for reports
        .connect()?;
    client.call("ready", ()).deadline(MAX_LATENCY).wait()?;
    let shared = Arc::new(Shared { client, is_over: AtomicBool::default(), latencies: Mutex::default() });
    let (fail, failed) = mpsc::channel();
    for actor in index * actors..(index + 1) * actors {
        let (shared, fail) = (shared.clone(), fail.clone());
        thread::spawn(move || {
            if let Err(error) = shared.act(World::new(actor)) {
                // Fails if another actor failed first.
                let _ = fail.send(error);
            }
        });
    }
    drop(fail);
    while stop.sleep(REPORT_EVERY) {
        match failed.try_recv() {
            Err(TryRecvError::Empty) => shared.report()?,
            Err(TryRecvError::Disconnected) => return Ok(()),
            Ok(error) => return Err(error),
        }
    }
    shared.is_over.store(true, Ordering::Relaxed);
    // Waits until each has made its last step.
    failed.into_iter().next().map_or(Ok(()), Err)
}

impl Shared {
    /// Runs one actor.
    fn act(&self, mut world: World) -> Result<(), BoxError> {
        while !self.is_over.load(Ordering::Relaxed) {
            let observation = world.observe()?;
            let start = Instant::now();
            let mut reply = self.client.call("act", observation).deadline(MAX_LATENCY).wait()?;
            let latency = start.elapsed();
            self.latencies.lock().expect("nobody panics with it").note(latency);
            let (action, value): (Array, f32) = (reply.take("action")?, reply.take("value")?);
            if !value.is_finite() {
                return Err(format!("the policy's value is {value}").into());
            }
            world.step(action.as_slice::<f32>()?)?;
        }
        Ok(())
    }

    fn report(&self) -> Result<(), BoxError> {
        let latencies = std::mem::take(&mut *self.latencies.lock().expect("nobody panics with it"));
        self.client.call("report", latencies.counts()).deadline(MAX_LATENCY).wait()?;
        Ok(())
    }
}

/// A dot on a plane with a goal in its middle.
struct World {
    position: [f32; 2],
    velocity: [f32; 2],
    reward: f32,
    steps: u32,
    number: u32,
}

impl World {
    fn new(number: u32) -> World {
        // Spreads the actors over the plane.
        let place = |prime: u32| (number * prime % 97) as f32 / 97.0;
        World { position: [place(31), place(57)], velocity: [0.0; 2], reward: 0.0, steps: 0, number }
    }

    /// An image, u8 [64, 64, 3], and scalars.
    fn observe(&self) -> Result<Tree, BoxError> {
        let mut image = vec![32u8; SIDE * SIDE * CHANNELS];
        let [left, top] = self.position.map(|at| (at * (SIDE - DOT) as f32) as usize);
        for line in image.chunks_exact_mut(SIDE * CHANNELS).skip(top).take(DOT) {
            line[left * CHANNELS..(left + DOT) * CHANNELS].fill(224);
        }
        let image = Array::from_vec(image, [SIDE, SIDE, CHANNELS])?;
        let speed = self.velocity[0].hypot(self.velocity[1]);
        Ok(tree!({"image": image, "reward": self.reward, "speed": speed, "is_first": self.steps == 0}))
    }

    /// Moves the dot: the first two numbers of the action push it.
    fn step(&mut self, action: &[f32]) -> Result<(), BoxError> {
        let [right, down, ..] = action else {
            return Err(format!("an action has at least two numbers, not {}", action.len()).into());
        };
        self.steps += 1;
        if self.steps == EPISODE {
            *self = World::new(self.number);
            return Ok(());
        }
        for (axis, push) in [right, down].into_iter().enumerate() {
            self.velocity[axis] = 0.9 * self.velocity[axis] + 0.01 * push.clamp(-1.0, 1.0);
            self.position[axis] = (self.position[axis] + self.velocity[axis]).clamp(0.0, 1.0);
        }
        let [x, y] = self.position;
        self.reward = 1.0 - (x - 0.5).hypot(y - 0.5);
        Ok(())
    }
}
