//! The public API of the facade: the promised names, function signatures and options compile and work.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use teleport::{
    Array, Batch, BoxError, CallError, Client, Context, FromTree, IntoTree, Method, Methods, OnDisconnect,
    Ran, Rpc, Server, Tree, as_completed, tree,
};
use teleport_tests::watched;

const MS: Duration = Duration::from_millis(1);

#[derive(IntoTree, FromTree)]
struct Obs {
    image: Array,
    reward: f32,
}

#[derive(IntoTree, FromTree)]
struct Action {
    action: Array,
}

const ACT: Rpc<Obs, Action> = Rpc::new("act");

fn act(obs: Obs, cx: Context) -> Result<Action, BoxError> {
    if cx.is_cancelled() || cx.time_left().is_some_and(|left| left < MS) {
        return Err(format!("no time left for {}", cx.caller()).into());
    }
    let mut action = cx.alloc::<f32>([1, 7])?;
    action.as_mut_slice::<f32>()?.fill(obs.reward);
    action.as_mut_slice::<f32>()?[0] = obs.image.as_slice::<u8>()?[0].into();
    Ok(Action { action })
}

fn act_on_many(mut x: Tree, cx: Context) -> Result<Tree, BoxError> {
    let image: Array = x.take("image")?; // u8 [n, 8, 8, 3]
    if cx.is_cancelled() || cx.time_left().is_some_and(|left| left < MS) {
        return Err(format!("no time left for {} rows", cx.rows()).into());
    }
    let mut action = cx.alloc::<f32>([cx.rows_padded(), 7])?;
    action.as_mut_slice::<f32>()?.fill(image.as_slice::<u8>()?[0].into());
    Ok(tree!({"action": action}))
}

fn methods(printed: Sender<String>) -> Methods {
    Methods::new()
        .register("add", |x: Tree| -> Result<Tree, BoxError> {
            Ok(tree!({"result": x.field::<i64>("foo")? + x.field::<i64>("bar")?}))
        })
        .register("msg", move |x: Tree| x.field("msg").map(|msg: String| printed.send(msg).unwrap()))
        .register("echo", |x: Tree| x)
        .register("save", Method::new(|x: Tree| drop(x)).workers(2))
        .register("ping", Method::inline(|x: Tree| x))
        .register(ACT, act)
        .register("step", Method::logged(|x: Tree| Ok::<_, BoxError>((x.clone(), tree!({"seen": x})))))
        .register(
            "batch",
            Method::batched(Batch::up_to(32).max_wait(2 * MS).pad_to([8, 16, 32]), act_on_many),
        )
        .register("exact", Method::batched(Batch::exact(4), |x: Tree| x))
        .register(
            "words",
            Method::listed(Batch::up_to(8), |calls: Vec<String>| -> Vec<Result<usize, BoxError>> {
                calls.iter().map(|text| Ok(text.len())).collect() // each call has its own result or error
            }),
        )
        .register("fail", |text: String| -> Result<(), BoxError> { Err(text.into()) })
}

fn served_failing(
    fails: bool,
    test: impl FnOnce(&Client, Receiver<String>, Receiver<String>) + Send + 'static,
) {
    watched(move || {
        let (print, printed) = channel();
        let (log, logged) = channel();
        let server = Server::bind("tcp://127.0.0.1:0")
            .unwrap()
            .workers(4)
            .max_memory(8 << 30)
            .done("step", move |logs| log.send(logs.to_string()).unwrap())
            .start(methods(print))
            .unwrap();
        let address = server.address().to_string();
        let client = Client::builder("slurm://trainer")
            .name("actor-1")
            .max_inflight(64)
            .max_silence(30_000 * MS)
            .resolver("slurm://*", move |_name| Ok::<_, BoxError>(address.clone()))
            .connect()
            .unwrap();
        test(&client, printed, logged);
        // `check` returns only the error of the function that failed.
        assert_eq!(server.check().is_err(), fails);
        server.check().unwrap();
        server.close().unwrap();
    });
}

fn served(test: impl FnOnce(&Client, Receiver<String>, Receiver<String>) + Send + 'static) {
    served_failing(false, test);
}

fn obs() -> Obs {
    Obs { image: Array::zeros::<u8>([64, 64, 3]), reward: 0.5 }
}

#[test]
fn a_call_returns_a_tree_and_a_dropped_future_still_runs() {
    served(|client, printed, _| {
        let reply = client.call("add", tree!({"foo": 1, "bar": 1})).wait().unwrap();
        assert_eq!(reply.to_string(), r#"{"result": 2}"#);
        // A dropped future detaches: the call still runs.
        drop(client.call("msg", tree!({"msg": "Hello"})).send().unwrap());
        assert_eq!(printed.recv().unwrap(), "Hello");
        client.check().unwrap();
    });
}

#[test]
fn one_rpc_constant_types_both_sides() {
    served(|client, _, _| {
        let Action { action } = client.call(ACT, obs()).wait().unwrap();
        assert_eq!(action.shape(), [1, 7]);
        assert_eq!(action.as_slice::<f32>().unwrap(), [0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]);
    });
}

#[test]
fn calls_run_in_batches() {
    served(|client, _, _| {
        let mut reply = client.call("batch", tree!({"image": vec![7u8; 3]})).wait().unwrap();
        let action: Array = reply.take("action").unwrap();
        assert_eq!(action.as_slice::<f32>().unwrap(), [7.0; 7]);
        let sent: Vec<_> = (0..4u64).map(|i| client.call("exact", tree!(i)).send().unwrap()).collect();
        for (i, future) in (0..4u64).zip(sent) {
            assert_eq!(future.wait().unwrap(), tree!(i));
        }
        assert_eq!(client.call("words", "four").wait().unwrap(), tree!(4u64));
    });
}

#[test]
fn futures_can_be_collected_in_the_order_in_which_they_end() {
    served(|client, _, _| {
        let futures =
            (0..64).map(|i| client.call("echo", tree!(i)).send()).collect::<Result<Vec<_>, _>>().unwrap();
        let mut seen: Vec<usize> = as_completed(futures)
            .map(|(i, reply)| {
                assert_eq!(i64::from_tree(reply.unwrap()).unwrap(), i as i64);
                i
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..64).collect::<Vec<_>>());
    });
}

#[test]
fn errors_say_whether_the_call_ran() {
    served_failing(true, |client, _, _| {
        match client.call("fail", "no such weights").deadline(60_000 * MS).wait() {
            Err(CallError::Remote(error)) => {
                assert_eq!((error.code(), error.message()), ("", "no such weights"));
            }
            other => panic!("{other:?}"),
        }
        let error = client.call("nothing", ()).wait().unwrap_err();
        assert_eq!(error.ran(), Ran::No);
    });
}

#[test]
fn logs_go_to_the_done_function() {
    served(|client, _, logged| {
        assert_eq!(client.call("step", tree!(3)).wait().unwrap(), tree!(3));
        assert_eq!(logged.recv().unwrap(), r#"{"seen": 3}"#);
    });
}

async fn act_async(client: &Client, obs: Obs) -> Result<Array, CallError> {
    Ok(client.call(ACT, obs).deadline(60_000 * MS).await?.action)
}

#[test]
fn calls_are_awaited_on_any_executor() {
    served(|client, _, _| {
        let mut frame = client.alloc::<u8>([1080, 1920, 3]).unwrap();
        frame.as_mut_slice::<u8>().unwrap().fill(7);
        let action =
            pollster::block_on(act_async(client, Obs { image: frame.clone(), reward: 1.0 })).unwrap();
        assert_eq!(action.as_slice::<f32>().unwrap()[0], 7.0);
        let save = client.call("save", tree!({"frame": frame, "action": action}));
        save.idempotent().on_disconnect(OnDisconnect::Resume).wait().unwrap();
    });
}
