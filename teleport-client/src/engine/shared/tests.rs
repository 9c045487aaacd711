//! What happens when the system has no thread to connect with.

use std::sync::mpsc;

use super::*;

fn settings(dialler: fn(Arc<Engine>) -> io::Result<()>) -> Settings {
    Settings {
        address: "ipc://@teleport-client-engine-test-nobody".into(),
        max_inflight: 4,
        connect_timeout: None,
        close_timeout: Duration::ZERO,
        errors_from_next_call: false,
        on_disconnect: crate::OnDisconnect::Fail,
        max_memory: 1 << 20,
        resolvers: Vec::new(),
        config: Arc::default(),
        dialler,
    }
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
        // Ends the call that waits, instead of connecting.
        engine.close(Duration::ZERO).unwrap();
        Ok(())
    }
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let engine = Engine::new(settings(starts_at_last)).unwrap();
        let error = crate::Client::new(engine).call("echo", 1).wait().unwrap_err();
        sender.send(error).unwrap();
    });
    let error = ended.recv_timeout(Duration::from_secs(60)).expect("it does not wait for ever");
    assert!(matches!(error, CallError::Closed { ran: Ran::No, .. }), "{error}");
    assert_eq!(ATTEMPTS.load(Ordering::SeqCst), 3);
}

#[test]
fn a_call_tells_that_there_was_no_thread() {
    let connect_timeout = Some(Duration::from_millis(100));
    let engine = Engine::new(Settings { connect_timeout, ..settings(never_starts) }).unwrap();
    let error = crate::Client::new(engine).call("echo", 1).wait().unwrap_err();
    assert!(matches!(error, CallError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("no thread is left"), "{error}");
}

#[test]
fn a_client_that_is_gone_leaves_no_alarm() {
    let engine = Engine::new(settings(never_starts)).unwrap();
    engine.arm(&mut engine.state.lock(), Instant::now() + Duration::from_secs(3600));
    let (timer, alarm) = (engine.timer, engine.alarm);
    assert!(timer.is_set(alarm));
    drop(engine);
    assert!(!timer.is_set(alarm));
}

#[test]
fn a_result_that_is_deferred_while_the_alarm_rings_is_looked_at_again() {
    let engine = Engine::new(settings(never_starts)).unwrap();
    let now = Instant::now();
    {
        let mut state = engine.state.lock();
        // No thread is to be started that connects.
        state.dialing = true;
        // The timer has taken the alarm off its list, and waits for the lock.
        state.armed = Some(now);
        engine.be_patient(&mut state, now);
    }
    engine.ring(now);
    assert!(engine.timer.is_set(engine.alarm));
    engine.ring(now + PATIENCE);
    assert_eq!(engine.state.lock().armed, None, "nothing waits for memory");
}

#[test]
fn a_result_that_is_deferred_after_the_time_that_the_alarm_rings_for_is_looked_at_again() {
    let engine = Engine::new(settings(never_starts)).unwrap();
    let rung = Instant::now();
    let deferred = rung + Duration::from_millis(1);
    {
        let mut state = engine.state.lock();
        state.dialing = true;
        // As above, but for a result that was deferred before, and has come since.
        (state.armed, state.patient_until) = (Some(rung), Some(rung));
        engine.be_patient(&mut state, deferred);
    }
    engine.ring(rung);
    assert_eq!(engine.state.lock().patient_until, Some(deferred + PATIENCE));
    assert!(engine.timer.is_set(engine.alarm));
}

#[test]
fn who_stands_in_line_for_a_slot_waits_for_answers() {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    let engine = Engine::new(settings(|_| Ok(()))).unwrap();
    let client = crate::Client::new(engine.clone());
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
