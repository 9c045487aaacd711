//! Functions of any accepted form, turned into one: a tree in, a tree out.
//!
//! Flow: `Fn(A) -> R` or `Fn(A, Context) -> R` -> [`Method`] with its options -> [`Function::call`] on a worker.
//! The forms are told apart by marker types that the compiler infers. Nothing here runs a function.

use std::fmt;

use teleport_transport::wire::{FromTree, IntoTree, Tree, TreeError};

use crate::api::batch_options::Batch;
use crate::api::context::Context;
use crate::api::error::BoxError;
use crate::api::list::{ErasedList, IntoReplies, ListFunction, erase};

/// What a function gave.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) reply: Tree,
    /// For the method's done function; none unless the method is logged.
    pub(crate) logs: Option<Tree>,
}

/// Why a function gave nothing.
#[derive(Debug)]
pub(crate) enum NoOutput {
    /// The arguments do not fit its type: it did not run.
    Arguments(Box<TreeError>),
    /// Its own error.
    Failed(BoxError),
}

/// A function of any form, called with a tree.
pub(crate) type Erased = Box<dyn Fn(Tree, Context) -> Result<Output, NoOutput> + Send + Sync>;

/// A method's function.
pub(crate) enum Body {
    /// Of one call, or of all calls of a batch stacked.
    Tree(Erased),
    /// Of a list of calls.
    List(ErasedList),
}

/// What a method runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunsOn {
    Shared,
    Own { workers: usize },
    Inline,
}

/// A function with options, for [`Methods::register`](crate::Methods::register).
///
/// ```
/// use teleport_server::{Batch, Method, Methods};
/// use teleport_server::wire::{Tree, tree};
///
/// let methods = Methods::new()
///     .register("echo", |x: Tree| x) // the shared pool of workers
///     .register("save", Method::new(|x: Tree| drop(x)).workers(2)) // a pool of its own
///     .register("ping", Method::inline(|x: Tree| x)) // on the poller's thread: must not block
///     .register("act", Method::batched(Batch::up_to(32), |x: Tree| x)) // once for up to 32 calls: arrays [n, …]
///     .register("step", Method::logged(|x: Tree| (x.clone(), tree!({"seen": x})))); // (reply, logs)
/// ```
pub struct Method {
    pub(crate) function: Body,
    /// None: each call runs alone.
    pub(crate) batch: Option<Batch>,
    pub(crate) runs_on: RunsOn,
    pub(crate) logged: bool,
    /// Whether `workers` was called, which an inline method has no use for.
    pub(crate) has_workers: bool,
}

impl Method {
    /// A method on the server's shared pool of workers.
    pub fn new<F, S, K>(function: F) -> Method
    where
        F: Function<S>,
        F::Return: IntoReply<K>,
    {
        Method::with(RunsOn::Shared, false, reply_of(function))
    }

    /// A method that runs once for many calls. Calls with the same structure, dtypes and shapes are put together: each array of
    /// shape `[…]` becomes one of shape `[n, …]` with a row for each call, each scalar one of shape `[n]`. The function
    /// returns a tree of such arrays, and each call gets its row of all of them. Rows are received where they lie and sent from
    /// there. n is at most what `batch` says, [`Context::rows_padded`], and less where so many rows would take more
    /// than an eighth of the memory for calls (three quarters of `max_memory`).
    ///
    /// A string or bytes in the arguments is an error for its caller: see [`listed`](Method::listed). Calls of other shapes are
    /// never in the same batch. A failure of the function, or a result with another first axis than n, goes to all calls of
    /// the batch.
    ///
    /// ```
    /// use std::time::Duration;
    /// use teleport_server::{Batch, BoxError, Context, Method, Methods};
    /// use teleport_server::wire::{Array, Tree, tree};
    ///
    /// fn act(mut x: Tree, cx: Context) -> Result<Tree, BoxError> {
    ///     let image: Array = x.take("image")?; // u8 [n, 64, 64, 3]
    ///     assert_eq!(image.shape()[0], cx.rows_padded());
    ///     let mut action = cx.alloc::<f32>([cx.rows_padded(), 7])?;
    ///     action.as_mut_slice::<f32>()?.fill(0.5);
    ///     Ok(tree!({"action": action})) // each caller gets f32 [7]
    /// }
    /// let batch = Batch::up_to(32).max_wait(Duration::from_millis(2)).pad_to([8, 16, 32]);
    /// let methods = Methods::new().register("act", Method::batched(batch, act));
    /// ```
    pub fn batched<F, S, K>(batch: Batch, function: F) -> Method
    where
        F: Function<S>,
        F::Return: IntoReply<K>,
    {
        Method::new(function).batch(batch)
    }

    /// A method that runs once for many calls, and gets them in a list: for arguments of different shapes, for strings, and
    /// where each call has a result or an error of its own. The function gets a `Vec` of the calls' arguments and returns a
    /// `Vec` with one reply, or `Result` of one, for each, in the same order; or a `Result` of such a `Vec`, whose error
    /// goes to all. A call whose arguments do not fit gets its error alone and is not in the list.
    ///
    /// ```
    /// use teleport_server::{Batch, BoxError, Method, Methods};
    ///
    /// fn lengths(texts: Vec<String>) -> Vec<Result<usize, BoxError>> {
    ///     texts.iter().map(|text| if text.is_empty() { Err("nothing to measure".into()) } else { Ok(text.len()) }).collect()
    /// }
    /// let methods = Methods::new().register("length", Method::listed(Batch::up_to(8), lengths));
    /// ```
    pub fn listed<F, S, K>(batch: Batch, function: F) -> Method
    where
        F: ListFunction<S>,
        F::Return: IntoReplies<K>,
    {
        let body = Body::List(erase(function));
        Method {
            function: body,
            batch: Some(batch),
            runs_on: RunsOn::Shared,
            logged: false,
            has_workers: false,
        }
    }

    /// A method that runs on the thread that received the call, without a change of threads: the shortest way for
    /// functions of a few microseconds. While it runs, no other connection of that thread is served, so it **must not
    /// block**; the log warns of calls longer than 10 ms. It may wait for no other call.
    ///
    /// Answers of one connection that are made right after each other leave together. So one that usually takes less than
    /// 30 µs and then takes long also holds up those before it that their callers could have by then; before one that
    /// usually takes longer they leave at once.
    pub fn inline<F, S, K>(function: F) -> Method
    where
        F: Function<S>,
        F::Return: IntoReply<K>,
    {
        Method::with(RunsOn::Inline, false, reply_of(function))
    }

    /// A method whose function returns `(reply, logs)`, or a `Result` of that. The reply goes to the caller, and the logs
    /// to the function that [`Server::done`](crate::Server::done) has for this method, in the order in which workers
    /// took the calls. Without such a function the logs are dropped.
    pub fn logged<F, S>(function: F) -> Method
    where
        F: Function<S>,
        F::Return: IntoLogged,
    {
        let function: Erased = Box::new(move |arguments, context| {
            let returned = function.call(arguments, context).map_err(bad_arguments)?;
            let (reply, logs) = returned.into_logged().map_err(NoOutput::Failed)?;
            Ok(Output { reply, logs: Some(logs) })
        });
        Method::with(RunsOn::Shared, true, function)
    }

    /// Gives the method a pool of `workers` threads (at least 1) of its own, so that it neither waits for other methods
    /// nor holds them up.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Method {
        self.has_workers = true;
        if self.runs_on != RunsOn::Inline {
            self.runs_on = RunsOn::Own { workers: workers.max(1) };
        }
        self
    }

    /// Runs once for many calls, as [`batched`](Method::batched) says, with one reply and one tree of logs for each batch: for
    /// methods that are [`logged`](Method::logged). Of a [`listed`](Method::listed) method it replaces the batch that it has.
    #[must_use]
    pub fn batch(mut self, batch: Batch) -> Method {
        self.batch = Some(batch);
        self
    }

    fn with(runs_on: RunsOn, logged: bool, function: Erased) -> Method {
        Method { function: Body::Tree(function), batch: None, runs_on, logged, has_workers: false }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method")
            .field("runs_on", &self.runs_on)
            .field("batch", &self.batch)
            .field("logged", &self.logged)
            .finish_non_exhaustive()
    }
}

fn bad_arguments(error: TreeError) -> NoOutput {
    NoOutput::Arguments(Box::new(error))
}

fn reply_of<F, S, K>(function: F) -> Erased
where
    F: Function<S>,
    F::Return: IntoReply<K>,
{
    Box::new(move |arguments, context| {
        let returned = function.call(arguments, context).map_err(bad_arguments)?;
        let reply = returned.into_reply().map_err(NoOutput::Failed)?;
        Ok(Output { reply, logs: None })
    })
}

/// What can be registered under a name: a function, or a [`Method`] with options.
///
/// `Form` is inferred; it only tells the compiler which form of function it has before it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a method",
    label = "not a function of a form that a server can call",
    note = "a function is `Fn(A) -> R` or `Fn(A, Context) -> R` with the type of `A` written down, is `Send + Sync + \
            'static`, and returns what implements `IntoTree`, or a `Result` of that"
)]
pub trait IntoMethod<Form> {
    /// The method.
    fn into_method(self) -> Method;
}

impl IntoMethod<()> for Method {
    fn into_method(self) -> Method {
        self
    }
}

impl<F, S, K> IntoMethod<(S, K)> for F
where
    F: Function<S>,
    F::Return: IntoReply<K>,
{
    fn into_method(self) -> Method {
        Method::new(self)
    }
}

/// A function that a server can call: `Fn(A) -> R` or `Fn(A, Context) -> R`, with `A: FromTree`.
///
/// `Signature` is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no function that a server can call",
    note = "it is `Fn(A) -> R` or `Fn(A, Context) -> R` with the type of `A` written down, and `Send + Sync + 'static`"
)]
pub trait Function<Signature>: Send + Sync + 'static {
    /// What the function returns.
    type Return;

    /// Makes the function's arguments of a tree and calls it.
    ///
    /// # Errors
    /// If the arguments do not fit its type, with the path to what does not; the function did not run then.
    fn call(&self, arguments: Tree, context: Context) -> Result<Self::Return, TreeError>;
}

impl<F, A, R> Function<fn(A) -> R> for F
where
    F: Fn(A) -> R + Send + Sync + 'static,
    A: FromTree,
{
    type Return = R;

    fn call(&self, arguments: Tree, _: Context) -> Result<R, TreeError> {
        Ok(self(A::from_tree(arguments)?))
    }
}

impl<F, A, R> Function<fn(A, Context) -> R> for F
where
    F: Fn(A, Context) -> R + Send + Sync + 'static,
    A: FromTree,
{
    type Return = R;

    fn call(&self, arguments: Tree, context: Context) -> Result<R, TreeError> {
        Ok(self(A::from_tree(arguments)?, context))
    }
}

/// Marks a function that returns its reply.
#[derive(Clone, Copy, Debug)]
pub enum Plain {}

/// Marks a function that returns a `Result` of its reply.
#[derive(Clone, Copy, Debug)]
pub enum Fallible {}

/// What a function may return: what implements [`IntoTree`] (also `()`, which is null), or a `Result` of that.
///
/// `Kind` is inferred.
#[diagnostic::on_unimplemented(
    message = "a function cannot return `{Self}`",
    note = "it returns what implements `IntoTree`, or a `Result` of that whose error converts into `BoxError`"
)]
pub trait IntoReply<Kind> {
    /// The reply.
    ///
    /// # Errors
    /// The function's own.
    fn into_reply(self) -> Result<Tree, BoxError>;
}

impl<T: IntoTree> IntoReply<Plain> for T {
    fn into_reply(self) -> Result<Tree, BoxError> {
        Ok(self.into_tree())
    }
}

impl<T: IntoTree, E: Into<BoxError>> IntoReply<Fallible> for Result<T, E> {
    fn into_reply(self) -> Result<Tree, BoxError> {
        self.map(IntoTree::into_tree).map_err(Into::into)
    }
}

/// What a [`logged`](Method::logged) function may return: `(reply, logs)`, or a `Result` of that.
#[diagnostic::on_unimplemented(
    message = "a logged function cannot return `{Self}`",
    note = "it returns `(reply, logs)`, both of which implement `IntoTree`, or a `Result` of that"
)]
pub trait IntoLogged {
    /// Reply and logs.
    ///
    /// # Errors
    /// The function's own.
    fn into_logged(self) -> Result<(Tree, Tree), BoxError>;
}

impl<T: IntoTree, L: IntoTree> IntoLogged for (T, L) {
    fn into_logged(self) -> Result<(Tree, Tree), BoxError> {
        Ok((self.0.into_tree(), self.1.into_tree()))
    }
}

impl<T: IntoTree, L: IntoTree, E: Into<BoxError>> IntoLogged for Result<(T, L), E> {
    fn into_logged(self) -> Result<(Tree, Tree), BoxError> {
        let (reply, logs) = self.map_err(Into::into)?;
        Ok((reply.into_tree(), logs.into_tree()))
    }
}

/// What a [`done`](crate::Server::done) function may return: `()`, or a `Result` of that.
#[diagnostic::on_unimplemented(
    message = "a done function cannot return `{Self}`",
    note = "it returns `()`, or a `Result` of that whose error converts into `BoxError`"
)]
pub trait IntoDone {
    /// Whether it succeeded.
    ///
    /// # Errors
    /// The function's own.
    fn into_done(self) -> Result<(), BoxError>;
}

impl IntoDone for () {
    fn into_done(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> IntoDone for Result<(), E> {
    fn into_done(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}
