//! Functions of any accepted form, turned into one form: a tree in, a tree out.
//!
//! Flow: `Fn(A) -> R` or `Fn(A, Context) -> R` -> [`Method`] with its options -> [`Function::call`] on a
//! worker. The compiler tells the forms apart by marker types that it infers. Nothing here runs a function.

use std::fmt;

use teleport_transport::wire::{FromTree, IntoTree, RemoteError, Tree, TreeError};

use crate::api::batch_options::Batch;
use crate::api::error::{BoxError, failed, misfit};
use crate::api::functions::context::Context;
use crate::api::functions::list::{ErasedList, IntoReplies, ListFunction, erase};

/// The call that a function answers, or the calls of a batch.
pub(crate) trait Purpose {
    /// Creates the context of the function.
    fn context(&self) -> Context;

    /// Keeps the logs of a logged method for its done function.
    fn keep_logs(&self, logs: Tree);
}

/// The reason why a function returned no result.
#[derive(Debug)]
pub(crate) enum NoOutput {
    /// The arguments do not fit its type, so it did not run.
    Arguments(Box<TreeError>),
    /// Its own error.
    Failed(BoxError),
}

impl From<NoOutput> for RemoteError {
    fn from(reason: NoOutput) -> RemoteError {
        match reason {
            NoOutput::Arguments(error) => misfit(&error),
            NoOutput::Failed(error) => failed(&error),
        }
    }
}

/// A function of any form, which turns a tree into the reply.
pub(crate) type Erased = Box<dyn Fn(Tree, &dyn Purpose) -> Result<Tree, NoOutput> + Send + Sync>;

/// A method's function.
pub(crate) enum Body {
    /// Takes one call, or all calls of a batch stacked.
    Tree(Erased),
    /// Takes a list of calls.
    List(ErasedList),
}

/// The threads that a method runs on.
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
///     .register("act", Method::batched(Batch::up_to(32), |x: Tree| x)) // once for up to 32 calls
///     .register("step", Method::logged(|x: Tree| (x.clone(), tree!({"seen": x})))); // (reply, logs)
/// ```
pub struct Method {
    pub(crate) function: Body,
    /// `None` if each call runs alone.
    pub(crate) batch: Option<Batch>,
    pub(crate) runs_on: RunsOn,
    pub(crate) logged: bool,
    /// `workers` was called, which is an error for inline methods.
    pub(crate) has_workers: bool,
}

impl Method {
    /// Creates a method that runs on the server's shared pool of workers.
    pub fn new<F, S, K>(function: F) -> Method
    where
        F: Function<S>,
        F::Return: IntoReply<K>,
    {
        Method::with(RunsOn::Shared, false, reply_of(function))
    }

    /// Creates a method that runs once for many calls.
    ///
    /// Calls with the same structure, dtypes and shapes are stacked: each array of shape `[…]` becomes one
    /// of shape `[n, …]` with a row for each call, and each scalar one of shape `[n]`. The function returns
    /// a tree of such arrays, and each caller gets its row. Rows are received directly into the stacked
    /// arrays and sent from there. n is at most the size of the `batch`, or less if that many rows would take
    /// more than an eighth of the memory for calls (three quarters of `max_memory`); see
    /// [`Context::rows_padded`].
    ///
    /// A string or bytes in the arguments is an error for its caller: see [`listed`](Method::listed). If the
    /// function fails, or returns arrays whose first axis is not n, all callers of the batch get the error.
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

    /// Creates a method that runs once for a list of calls. Use it for arguments of different shapes, for
    /// strings, and if each call needs its own result or error.
    ///
    /// The function gets a `Vec` with the arguments of each call. It returns a `Vec` with a reply, or a
    /// `Result` of one, for each call in the same order. It may also return a `Result` of such a `Vec`; its
    /// error goes to all callers. A call whose arguments do not fit gets its own error and is not in the
    /// list.
    ///
    /// ```
    /// use teleport_server::{Batch, BoxError, Method, Methods};
    ///
    /// fn lengths(texts: Vec<String>) -> Vec<Result<usize, BoxError>> {
    ///     let length = |text: String| match text.len() {
    ///         0 => Err("nothing to measure".into()),
    ///         length => Ok(length),
    ///     };
    ///     texts.into_iter().map(length).collect()
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

    /// Creates a method that runs on the thread that received the call. That saves a context switch, for
    /// functions of a few microseconds.
    ///
    /// While the function runs, its thread serves no other connection, so it **must not block** or wait for
    /// another call. The log warns of calls longer than 10 ms.
    ///
    /// Answers of one connection that are made right after each other are sent together. So if a function
    /// that usually takes less than 30 µs takes long, earlier answers wait for it. The time of up to eight
    /// such calls is measured together, so these may all be slow before the server notices. Answers do not
    /// wait for a function that usually takes longer.
    pub fn inline<F, S, K>(function: F) -> Method
    where
        F: Function<S>,
        F::Return: IntoReply<K>,
    {
        Method::with(RunsOn::Inline, false, reply_of(function))
    }

    /// Creates a method whose function returns `(reply, logs)`, or a `Result` of that. The reply is sent to
    /// the caller. The logs go to the method's done function (see [`Server::done`](crate::Server::done)) in
    /// the order in which workers took the calls, or are dropped if there is none.
    pub fn logged<F, S>(function: F) -> Method
    where
        F: Function<S>,
        F::Return: IntoLogged,
    {
        let function: Erased = Box::new(move |arguments, purpose| {
            let returned = function.call(arguments, || purpose.context()).map_err(bad_arguments)?;
            let (reply, logs) = returned.into_logged().map_err(NoOutput::Failed)?;
            purpose.keep_logs(logs);
            Ok(reply)
        });
        Method::with(RunsOn::Shared, true, function)
    }

    /// Gives the method a pool of `workers` threads of its own (at least 1), so that it neither waits for
    /// other methods nor delays them.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Method {
        self.has_workers = true;
        if self.runs_on != RunsOn::Inline {
            self.runs_on = RunsOn::Own { workers: workers.max(1) };
        }
        self
    }

    /// Runs the method once for many calls, as [`batched`](Method::batched) does, with one reply and one
    /// tree of logs for each batch. For [`logged`](Method::logged) methods. Replaces the batch of a
    /// [`listed`](Method::listed) method.
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
    Box::new(move |arguments, purpose| {
        let returned = function.call(arguments, || purpose.context()).map_err(bad_arguments)?;
        returned.into_reply().map_err(NoOutput::Failed)
    })
}

/// A function or [`Method`] that can be registered under a name.
///
/// `Form` is inferred. It tells the compiler which form of function this is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered as a method",
    label = "not a function of a form that a server can call",
    note = "a function is `Fn(A) -> R` or `Fn(A, Context) -> R` with the type of `A` written down, is `Send + Sync + \
            'static`, and returns what implements `IntoTree`, or a `Result` of that"
)]
pub trait IntoMethod<Form> {
    /// Converts to a method.
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
    /// The type that the function returns.
    type Return;

    /// Converts a tree to the function's arguments and calls it. `context` is called only if the function
    /// takes a context.
    ///
    /// # Errors
    /// Fails if the arguments do not fit, with the path to the part that does not. The function has not run
    /// then.
    fn call(&self, arguments: Tree, context: impl FnOnce() -> Context) -> Result<Self::Return, TreeError>;
}

impl<F, A, R> Function<fn(A) -> R> for F
where
    F: Fn(A) -> R + Send + Sync + 'static,
    A: FromTree,
{
    type Return = R;

    fn call(&self, arguments: Tree, _: impl FnOnce() -> Context) -> Result<R, TreeError> {
        Ok(self(A::from_tree(arguments)?))
    }
}

impl<F, A, R> Function<fn(A, Context) -> R> for F
where
    F: Fn(A, Context) -> R + Send + Sync + 'static,
    A: FromTree,
{
    type Return = R;

    fn call(&self, arguments: Tree, context: impl FnOnce() -> Context) -> Result<R, TreeError> {
        Ok(self(A::from_tree(arguments)?, context()))
    }
}

/// Marks a function that returns its reply.
#[derive(Clone, Copy, Debug)]
pub enum Plain {}

/// Marks a function that returns a `Result` of its reply.
#[derive(Clone, Copy, Debug)]
pub enum Fallible {}

/// The types that a function may return: a type that implements [`IntoTree`] (also `()`, which is null), or a
/// `Result` of it.
///
/// `Kind` is inferred.
#[diagnostic::on_unimplemented(
    message = "a function cannot return `{Self}`",
    note = "it returns what implements `IntoTree`, or a `Result` of that whose error converts into `BoxError`"
)]
pub trait IntoReply<Kind> {
    /// Converts to a reply.
    ///
    /// # Errors
    /// Returns the function's own error.
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

/// The types that a [`logged`](Method::logged) function may return: `(reply, logs)`, or a `Result` of that.
#[diagnostic::on_unimplemented(
    message = "a logged function cannot return `{Self}`",
    note = "it returns `(reply, logs)`, both of which implement `IntoTree`, or a `Result` of that"
)]
pub trait IntoLogged {
    /// Converts to a reply and logs.
    ///
    /// # Errors
    /// Returns the function's own error.
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

/// The types that a [`done`](crate::Server::done) function may return: `()`, or a `Result` of that.
#[diagnostic::on_unimplemented(
    message = "a done function cannot return `{Self}`",
    note = "it returns `()`, or a `Result` of that whose error converts into `BoxError`"
)]
pub trait IntoDone {
    /// Converts to a result.
    ///
    /// # Errors
    /// Returns the function's own error.
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
