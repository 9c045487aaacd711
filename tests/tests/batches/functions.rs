//! Functions that return an invalid result or panic fail the calls of their batch, and no others.

use teleport::wire::{ErrorKind, Ran};
use teleport::{Array, Batch, CallError, CallFuture, Client, Method, Methods, ServerHandle, Tree, tree};

use crate::{bind, connect, for_each_address, nothing_is_left};

const ROWS: usize = 4;

/// Number of the misdeed that all calls of a batch request, error kind, and a part of the error text.
const MISDEEDS: [(u8, ErrorKind, &str); 8] = [
    (0, ErrorKind::Failed, "5"),
    (1, ErrorKind::Failed, "3"),
    (2, ErrorKind::Failed, "deep.inside"),
    (3, ErrorKind::Failed, "task"),
    (4, ErrorKind::Failed, "blob"),
    (5, ErrorKind::Failed, "out of ideas"),
    (6, ErrorKind::Panicked, "index out of bounds"),
    (7, ErrorKind::Failed, "no axis"),
];

fn misdeed(how: u8, x: Tree) -> Result<Tree, Box<dyn std::error::Error + Send + Sync>> {
    match how {
        0 => Ok(tree!({"fine": x, "long": vec![0.0f32; ROWS + 1]})),
        1 => Ok(tree!(vec![0.0f32; ROWS - 1])),
        2 => Ok(tree!({"fine": x, "deep": {"inside": 1.5}})),
        3 => Ok(tree!({"task": "a text for all"})),
        4 => Ok(tree!({"fine": x, "blob": (Tree::Bytes(vec![1, 2, 3].into()))})),
        5 => Err("out of ideas".into()),
        6 => panic!("index out of bounds"),
        7 => Ok(Tree::from(Array::scalar(7))),
        _ => Ok(x),
    }
}

fn serve(address: &str) -> ServerHandle {
    let methods = Methods::new()
        .register(
            "act",
            Method::batched(Batch::exact(ROWS), |x: Tree| misdeed(x.field::<Vec<u8>>("how").unwrap()[0], x)),
        )
        .register("other", Method::batched(Batch::up_to(ROWS), |x: Tree| x));
    bind(address).start(methods).unwrap()
}

fn ask(client: &Client, how: u8) -> Vec<CallFuture> {
    let call = |number: usize| client.call("act", tree!({"how": how, "number": number})).send().unwrap();
    (0..ROWS).map(call).collect()
}

#[test]
fn each_bad_result_fails_its_batch_and_the_next_one_runs() {
    for_each_address(|address| {
        let server = serve(address);
        let (client, other) = (connect(&server, 16), connect(&server, 16));
        for (how, kind, text) in MISDEEDS {
            let bad = ask(&client, how);
            let good = other.call("other", how).send().unwrap();
            for future in bad {
                let Err(CallError::Remote(error)) = future.wait() else {
                    panic!("the calls of misdeed {how} succeeded")
                };
                assert_eq!((error.kind(), error.ran()), (kind, Ran::Yes), "{error}");
                assert!(error.message().contains(text), "{error}\nhas no {text:?}");
            }
            assert_eq!(good.wait().unwrap(), tree!(how));
            let told = server.check().unwrap_err().to_string();
            assert!(told.contains("act"), "{told}");
            server.check().unwrap();
            for (number, future) in ask(&client, 99).into_iter().enumerate() {
                assert_eq!(future.wait().unwrap(), tree!({"how": 99u8, "number": number}));
            }
        }
        assert_eq!((client.stats().connects, other.stats().connects), (1, 1));
        nothing_is_left(&server, "act");
        assert_eq!(server.batches("act").unwrap().running, 0);
    });
}

#[test]
fn a_list_function_runs_again_after_a_panic() {
    for_each_address(|address| {
        let listed = |calls: Vec<i64>| -> Vec<i64> {
            assert!(calls.iter().all(|call| *call >= 0), "there is a negative one");
            // Returns one result too few if a call has the value 100.
            calls.into_iter().filter(|call| *call != 100).collect()
        };
        let server =
            bind(address).start(Methods::new().register("list", Method::listed(Batch::exact(2), listed)));
        let server = server.unwrap();
        let client = connect(&server, 16);
        let both = |one: i64, two: i64| {
            let futures = [one, two].map(|call| client.call("list", call).send().unwrap());
            futures.map(|future| future.wait().map_err(|error| error.to_string()))
        };
        let fail = |one, two, text: &str| {
            for result in both(one, two) {
                let error = result.unwrap_err();
                assert!(error.contains(text), "{error}\nhas no {text:?}");
            }
            server.check().unwrap_err();
        };
        fail(1, -1, "there is a negative one");
        assert_eq!(both(1, 2), [Ok(tree!(1)), Ok(tree!(2))]);
        fail(100, 3, "a list of 2 calls and returned 1 results");
        assert_eq!(both(3, 4), [Ok(tree!(3)), Ok(tree!(4))]);
        nothing_is_left(&server, "list");
    });
}
