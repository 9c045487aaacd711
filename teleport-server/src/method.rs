//! Functions of any accepted form, turned into one: a tree in, a tree out.
//!
//! Flow: `Fn(A) -> R` or `Fn(A, Context) -> R` -> [`Method`] with its options -> [`Function::call`] on a worker.
//! The forms are told apart by marker types that the compiler infers. Nothing here runs a function.

use std::fmt;

use teleport_transport::wire::{FromTree, IntoTree, Tree, TreeError};

use crate::context::Context;
use crate::failure::BoxError;

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

/// What a method runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Shared,
    Own { workers: usize },
    Inline,
}

/// A function with options, for [`Methods::register`](crate::Methods::register).
///
/// ```
/// use teleport_server::{Method, Methods};
/// use teleport_server::wire::{Tree, tree};
///
/// let methods = Methods::new()
///     .register("echo", |x: Tree| x) // the shared pool of workers
///     .register("save", Method::new(|x: Tree| drop(x)).workers(2)) // a pool of its own
///     .register("ping", Method::inline(|x: Tree| x)) // on the poller's thread: must not block
///     .register("step", Method::logged(|x: Tree| (x.clone(), tree!({"seen": x})))); // (reply, logs)
/// ```
pub struct Method {
    pub(crate) function: Erased,
    pub(crate) place: Place,
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
        Method::with(Place::Shared, false, reply_of(function))
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
        Method::with(Place::Inline, false, reply_of(function))
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
        Method::with(Place::Shared, true, function)
    }

    /// Gives the method a pool of `workers` threads (at least 1) of its own, so that it neither waits for other methods
    /// nor holds them up.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Method {
        self.has_workers = true;
        if self.place != Place::Inline {
            self.place = Place::Own { workers: workers.max(1) };
        }
        self
    }

    fn with(place: Place, logged: bool, function: Erased) -> Method {
        Method { function, place, logged, has_workers: false }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method")
            .field("place", &self.place)
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
