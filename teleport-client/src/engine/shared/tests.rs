//! Clients without a thread to connect with, their end, and the check of deferred results.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Waker;

use teleport_transport::Handler;

use super::*;
use crate::api::client::Client;
use crate::api::on_disconnect::OnDisconnect;
use crate::calls::deferred_results::PATIENCE;
use crate::engine::timer::Alarm;

fn settings(dialer: fn(Arc<Engine>) -> io::Result<()>) -> Settings {
    Settings {
        address: "ipc://@teleport-client-engine-test-nobody".into(),
        max_inflight: 4,
        connect_timeout: None,
        close_timeout: Duration::ZERO,
        errors_from_next_call: false,
        max_memory: 1 << 20,
        resolvers: Vec::new(),
        config: Arc::default(),
        dialer,
    }
}

fn client(engine: &Arc<Engine>) -> Client {
    Client::new(engine.clone(), OnDisconnect::Fail)
}

fn never_starts(_: Arc<Engine>) -> io::Result<()> {
    Err(io::Error::other("no thread is left"))
}

#[test]
fn a_call_waits_until_there_is_a_thread_to_connect_with() {
    static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);
    fn starts_at_last(engine: Arc<Engine>) -> io::Result<()> {
        if ATTEMPTS.fetch_add(1, Ordering::SeqCst) < 2 {
            return never_starts(engine);
        }
        // The waiting call ends here, instead of connecting.
        engine.close(Duration::ZERO).unwrap();
        Ok(())
    }
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let engine = Engine::new(settings(starts_at_last)).unwrap();
        let error = client(&engine).call("echo", 1).wait().unwrap_err();
        sender.send(error).unwrap();
    });
    let error = ended.recv_timeout(Duration::from_secs(60)).expect("the call ends");
    assert!(matches!(error, CallError::Closed { ran: Ran::No, .. }), "{error}");
    assert_eq!(ATTEMPTS.load(Ordering::SeqCst), 3);
}

#[test]
fn a_call_reports_that_there_was_no_thread() {
    let connect_timeout = Some(Duration::from_millis(100));
    let engine = Engine::new(Settings { connect_timeout, ..settings(never_starts) }).unwrap();
    let error = client(&engine).call("echo", 1).wait().unwrap_err();
    assert!(matches!(error, CallError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("no thread is left"), "{error}");
}

#[test]
fn a_client_without_a_connection_goes_with_its_last_handle() {
    let engine = Engine::new(settings(|_| Ok(()))).unwrap();
    let weak = Arc::downgrade(&engine);
    let client = client(&engine);
    drop(engine);
    let mut running = client.call("echo", 1).into_future();
    assert!(Pin::new(&mut running).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(client);
    assert!(weak.upgrade().is_some(), "the call that waits holds it");
    drop(running);
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_result_that_is_deferred_while_the_alarm_rings_is_checked_again() {
    let engine = Engine::new(settings(never_starts)).unwrap();
    let now = Instant::now();
    {
        let mut state = engine.state.lock();
        // The client must not start a thread that connects.
        state.client.connection.is_dialing = true;
        // The alarm has left the timer's list, and waits for the lock.
        let at = state.client.deferred.defer(now);
        state.alarm.ring_by(at);
    }
    engine.ring(now);
    assert!(engine.state.lock().alarm.is_set());
    engine.ring(now + PATIENCE);
    assert!(!engine.state.lock().alarm.is_set(), "nothing waits for memory");
}

#[test]
fn a_result_that_is_deferred_after_the_time_that_the_alarm_rings_for_is_checked_again() {
    let engine = Engine::new(settings(never_starts)).unwrap();
    let rung = Instant::now();
    {
        let mut state = engine.state.lock();
        state.client.connection.is_dialing = true;
        // An earlier result was deferred, and has arrived since.
        let rings = state.client.deferred.defer(rung - PATIENCE);
        assert_eq!(rings, rung);
        let at = state.client.deferred.defer(rung + Duration::from_millis(1));
        state.alarm.ring_by(at);
    }
    engine.ring(rung);
    let state = engine.state.lock();
    assert_eq!(state.client.deferred.check_at(), Some(rung + Duration::from_millis(1) + PATIENCE));
    assert!(state.alarm.is_set());
}

#[test]
fn a_call_in_line_for_a_slot_waits_for_answers() {
    let engine = Engine::new(settings(|_| Ok(()))).unwrap();
    let client = client(&engine);
    let mut running = client.call("echo", 1).into_future();
    assert!(!engine.is_waited_for());
    for _ in 0..2 {
        assert!(Pin::new(&mut running).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(engine.is_waited_for());
    }
    let mut other = client.call("echo", 2).into_future();
    assert!(Pin::new(&mut other).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(running);
    assert!(engine.is_waited_for());
    engine.close(Duration::ZERO).unwrap();
    assert!(Pin::new(&mut other).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    assert!(!engine.is_waited_for());
}
