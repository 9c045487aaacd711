//! Models of threads that share a link, in every possible order of their steps.
//!
//! Loom runs each model again and again. A model fails if an assertion fails, if two threads use a cell
//! at once, or if no thread can go on.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::super::sleeper::WakeState;
use super::super::status::{QuietTimeout, Status};
use super::super::write_token::WriteToken;

// ---- The write token ----

/// A send queue, and a socket that accepts one item and is then full once.
struct Queue {
    items: Vec<u32>,
    token: WriteToken<Socket>,
    /// The event loop must watch for the socket to become writable.
    is_watched: bool,
}

#[derive(Default)]
struct Socket {
    written: Vec<u32>,
    was_full: bool,
}

impl Socket {
    /// Returns false if the socket is full.
    fn write(&mut self, item: u32) -> bool {
        let is_full = self.written.len() == 1 && !std::mem::replace(&mut self.was_full, true);
        if !is_full {
            self.written.push(item);
        }
        !is_full
    }
}

fn queue() -> Arc<Mutex<Queue>> {
    let token = WriteToken::Free(Socket::default());
    Arc::new(Mutex::new(Queue { items: Vec::new(), token, is_watched: false }))
}

/// Stages under the lock and writes outside of it, as `Writer` does.
fn write(queue: &Mutex<Queue>, mut socket: Socket) {
    loop {
        let mut locked = queue.lock().expect("no thread panics");
        let Some(item) = locked.items.first().copied() else { return locked.token.free(socket) };
        drop(locked);
        let is_written = socket.write(item);
        let mut locked = queue.lock().expect("no thread panics");
        if !is_written {
            locked.is_watched = true;
            return locked.token.block(socket);
        }
        locked.items.remove(0);
    }
}

fn push_and_write(queue: &Mutex<Queue>, item: u32) {
    let mut locked = queue.lock().expect("no thread panics");
    locked.items.push(item);
    let taken = locked.token.take();
    drop(locked);
    if let Some(socket) = taken {
        write(queue, socket);
    }
}

fn on_writable(queue: &Mutex<Queue>) {
    let mut locked = queue.lock().expect("no thread panics");
    let taken = if locked.is_watched { locked.token.unblock() } else { None };
    drop(locked);
    if let Some(socket) = taken {
        write(queue, socket);
    }
}

#[test]
fn nothing_queued_is_left_behind() {
    loom::model(|| {
        let queue = queue();
        let threads = [1, 2].map(|item| {
            let queue = queue.clone();
            thread::spawn(move || push_and_write(&queue, item))
        });
        // The event loop may look before the socket is full.
        on_writable(&queue);
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
        let locked = queue.lock().expect("no thread panics");
        let (left, is_blocked) = (locked.items.len(), matches!(locked.token, WriteToken::Blocked(_)));
        assert!(left == 0 || (is_blocked && locked.is_watched), "{left} left");
        drop(locked);
        on_writable(&queue);
        let mut locked = queue.lock().expect("no thread panics");
        let mut written = locked.token.take().expect("nobody writes").written;
        written.sort_unstable();
        assert_eq!(written, [1, 2]);
    });
}

// ---- The read role ----

#[test]
fn one_thread_leads_at_a_time() {
    loom::model(|| {
        // Loom fails if two threads use the cell at once.
        let shared = Arc::new((Status::new(), UnsafeCell::new(())));
        let lead = |shared: &(Status, UnsafeCell<()>)| {
            if shared.0.lead().is_some() {
                shared.1.with_mut(|_| ());
                shared.0.leave();
            }
        };
        let threads = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || lead(&shared))
        });
        lead(&shared);
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
        assert!(shared.0.lead().is_some(), "all have left");
    });
}

/// The state under the lock of the send queue, and the requests to the event loop.
#[derive(Default)]
struct Calls {
    open: u32,
    is_checked: bool,
    is_timed: bool,
    /// The kernel watches the socket.
    is_registered: bool,
}

/// A link without a socket.
struct ReadModel {
    status: Status,
    calls: Mutex<Calls>,
}

impl ReadModel {
    fn new() -> Arc<ReadModel> {
        let calls = Mutex::new(Calls { is_registered: true, ..Calls::default() });
        Arc::new(ReadModel { status: Status::new(), calls })
    }

    fn apply(&self, calls: &mut Calls) {
        calls.is_registered = self.status.interest().is_some();
    }

    /// Works as `leave_unread` of a link: the event loop must look soon, or must watch at once if a
    /// thread waits.
    fn leave_unread(&self, calls: &mut Calls, is_waited_for: bool) {
        if !is_waited_for {
            calls.is_checked |= self.status.is_unread();
        } else if self.status.watch_if_unread() {
            self.apply(calls);
        }
    }

    fn call(&self, is_waited_for: bool) {
        let mut calls = self.calls.lock().expect("no thread panics");
        calls.open += 1;
        self.leave_unread(&mut calls, is_waited_for);
    }

    fn lead_and_leave(&self) {
        let Some(was_watched) = self.status.lead() else { return };
        if was_watched {
            self.apply(&mut self.calls.lock().expect("no thread panics"));
        }
        let is_registered = self.calls.lock().expect("no thread panics").is_registered;
        assert!(!is_registered, "the event loop reads too");
        let is_timed = self.status.leave();
        let mut calls = self.calls.lock().expect("no thread panics");
        calls.is_timed |= is_timed;
        if calls.open > 0 {
            self.leave_unread(&mut calls, false);
        }
    }

    /// Runs the event loop's timeout, if one was requested.
    fn time_out(&self, seen: &mut u32) {
        let is_timed = std::mem::take(&mut self.calls.lock().expect("no thread panics").is_timed);
        if !is_timed {
            return;
        }
        let quiet = self.status.handle_quiet_timeout(seen);
        let mut calls = self.calls.lock().expect("no thread panics");
        match quiet {
            QuietTimeout::Again => calls.is_timed = true,
            QuietTimeout::Watch => self.apply(&mut calls),
            QuietTimeout::Done => {}
        }
    }

    /// Checks the state after all threads have left.
    fn assert_is_read(&self) {
        let calls = self.calls.lock().expect("no thread panics");
        assert_eq!(calls.is_registered, self.status.interest().is_some(), "the kernel knows");
        let is_left = self.status.is_unread() && !calls.is_checked && !calls.is_timed;
        assert!(!is_left, "{} calls are open, and nobody will read", calls.open);
    }
}

#[test]
fn open_calls_are_read_or_the_event_loop_looks() {
    for is_waited_for in [false, true] {
        loom::model(move || {
            let model = ReadModel::new();
            let leader = model.clone();
            let leader = thread::spawn(move || leader.lead_and_leave());
            let caller = model.clone();
            let caller = thread::spawn(move || caller.call(is_waited_for));
            let mut seen = 0;
            (0..2).for_each(|_| model.time_out(&mut seen));
            leader.join().expect("it does not panic");
            caller.join().expect("it does not panic");
            model.assert_is_read();
        });
    }
}

#[test]
fn the_event_loop_reads_again_once_no_thread_leads() {
    loom::model(|| {
        let model = ReadModel::new();
        let leader = model.clone();
        let leader = thread::spawn(move || leader.lead_and_leave());
        let mut seen = 0;
        model.time_out(&mut seen);
        leader.join().expect("it does not panic");
        (0..2).for_each(|_| model.time_out(&mut seen));
        model.assert_is_read();
        assert!(model.status.interest().is_some(), "nobody reads");
    });
}

#[test]
fn a_thread_that_waits_has_somebody_read() {
    loom::model(|| {
        let model = ReadModel::new();
        // A thread has led before, so nobody reads.
        model.lead_and_leave();
        let leader = model.clone();
        let leader = thread::spawn(move || leader.lead_and_leave());
        let waiter = model.clone();
        let waiter = thread::spawn(move || {
            waiter.call(true);
            // This thread acts as `expect_answers` does.
            if waiter.status.watch_if_unread() {
                waiter.apply(&mut waiter.calls.lock().expect("no thread panics"));
            }
        });
        leader.join().expect("it does not panic");
        waiter.join().expect("it does not panic");
        let is_checked = model.calls.lock().expect("no thread panics").is_checked;
        assert!(model.status.interest().is_some() || is_checked, "its answer is read soon");
        model.assert_is_read();
    });
}

// ---- Threads that sleep ----

/// Models `poll(2)` on a flag and a socket.
#[derive(Default)]
struct Kernel {
    raised_and_ended: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Kernel {
    fn change(&self, change: impl FnOnce(&mut (bool, bool))) {
        change(&mut self.raised_and_ended.lock().expect("no thread panics"));
        self.changed.notify_all();
    }

    /// Lowers the flag, and returns true if the socket was shut down.
    fn poll(&self) -> bool {
        let mut state = self.raised_and_ended.lock().expect("no thread panics");
        while *state == (false, false) {
            state = self.changed.wait(state).expect("no thread panics");
        }
        state.0 = false;
        state.1
    }
}

struct SleepModel {
    state: WakeState,
    kernel: Kernel,
    /// Models the socket of a link. A sleeping thread shares it, so closing does not wait for the thread.
    socket: Mutex<Option<Arc<()>>>,
}

impl SleepModel {
    fn new() -> Arc<SleepModel> {
        let socket = Mutex::new(Some(Arc::new(())));
        Arc::new(SleepModel { state: WakeState::new(), kernel: Kernel::default(), socket })
    }

    /// Sleeps once. Returns true if the socket is closed or shut down.
    fn sleep(&self) -> bool {
        let Some(_socket) = self.socket.lock().expect("no thread panics").clone() else { return true };
        let is_readable = self.state.begin_poll() && self.kernel.poll();
        self.state.end_poll();
        is_readable
    }
}

#[test]
fn a_thread_that_is_woken_does_not_sleep_on() {
    loom::model(|| {
        let model = SleepModel::new();
        let result = Arc::new(AtomicBool::new(false));
        let (waker, ready) = (model.clone(), result.clone());
        let waker = thread::spawn(move || {
            ready.store(true, Ordering::SeqCst);
            if waker.state.wake() {
                waker.kernel.change(|state| state.0 = true);
            }
        });
        loop {
            model.state.reset();
            if result.load(Ordering::SeqCst) {
                break;
            }
            model.sleep();
        }
        waker.join().expect("it does not panic");
    });
}

#[test]
fn closing_wakes_a_thread_that_sleeps_on_the_socket() {
    loom::model(|| {
        let model = SleepModel::new();
        let closer = model.clone();
        let closer = thread::spawn(move || {
            // A link shuts its socket down before it gives it up, since the sleeper would keep it open.
            closer.kernel.change(|state| state.1 = true);
            drop(closer.socket.lock().expect("no thread panics").take());
        });
        while !model.sleep() {}
        closer.join().expect("it does not panic");
    });
}
