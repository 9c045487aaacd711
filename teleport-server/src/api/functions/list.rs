//! Functions that get the calls of a batch in a list.
//!
//! Flow: the tree of each call becomes an item, or its caller gets an error -> the function gets the items
//! -> one reply or error for each. Nothing here answers a call.

use teleport_transport::wire::{ErrorKind, FromTree, Ran, RemoteError, Tree, TreeError};

use crate::api::error::{BoxError, failed};
use crate::api::functions::context::Context;
use crate::api::functions::method::IntoReply;

/// The reason why a list function returned no replies.
#[derive(Debug)]
pub(crate) enum NoReplies {
    /// Its own error, for all callers.
    Failed(BoxError),
    /// It returned more or fewer results than it got calls.
    Count { calls: usize, results: usize },
}

impl From<NoReplies> for RemoteError {
    fn from(reason: NoReplies) -> RemoteError {
        match reason {
            NoReplies::Failed(error) => failed(&error),
            NoReplies::Count { calls, results } => {
                let text = format!("the function got a list of {calls} calls and returned {results} results");
                RemoteError::new(ErrorKind::Failed, Ran::Yes, text)
            }
        }
    }
}

/// A reply or error for each call whose arguments fit.
pub(crate) type Replies = Result<Vec<Result<Tree, BoxError>>, NoReplies>;

/// Gets, for each call, the error if its arguments do not fit. Returns the context of the calls that fit.
pub(crate) type Sorter<'a> = dyn FnMut(Vec<Option<TreeError>>) -> Context + 'a;

/// A list function of any form.
pub(crate) type ErasedList = Box<dyn Fn(Vec<Tree>, &mut Sorter<'_>) -> Replies + Send + Sync>;

/// Erases the types of a list function.
pub(crate) fn erase<F, S, K>(function: F) -> ErasedList
where
    F: ListFunction<S>,
    F::Return: IntoReplies<K>,
{
    Box::new(move |trees, sort| {
        let (mut items, mut misfits) = (Vec::with_capacity(trees.len()), Vec::with_capacity(trees.len()));
        for tree in trees {
            match F::Item::from_tree(tree) {
                Ok(item) => {
                    items.push(item);
                    misfits.push(None);
                }
                Err(error) => misfits.push(Some(error)),
            }
        }
        let (calls, context) = (items.len(), sort(misfits));
        if calls == 0 {
            return Ok(Vec::new());
        }
        let replies = function.call(items, context).into_replies().map_err(NoReplies::Failed)?;
        let results = replies.len();
        if results == calls { Ok(replies) } else { Err(NoReplies::Count { calls, results }) }
    })
}

/// A function for [`Method::listed`](crate::Method::listed): `Fn(Vec<A>) -> R` or `Fn(Vec<A>, Context) ->
/// R`, with `A: FromTree`.
///
/// `Signature` is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no function that can be called with a list of calls",
    note = "it is `Fn(Vec<A>) -> R` or `Fn(Vec<A>, Context) -> R` with the type of `A` written down, and `Send + Sync + \
            'static`"
)]
pub trait ListFunction<Signature>: Send + Sync + 'static {
    /// The arguments of one call.
    type Item: FromTree;
    /// The type that the function returns.
    type Return;

    /// Calls the function.
    fn call(&self, items: Vec<Self::Item>, context: Context) -> Self::Return;
}

impl<F, A, R> ListFunction<fn(Vec<A>) -> R> for F
where
    F: Fn(Vec<A>) -> R + Send + Sync + 'static,
    A: FromTree,
{
    type Item = A;
    type Return = R;

    fn call(&self, items: Vec<A>, _: Context) -> R {
        self(items)
    }
}

impl<F, A, R> ListFunction<fn(Vec<A>, Context) -> R> for F
where
    F: Fn(Vec<A>, Context) -> R + Send + Sync + 'static,
    A: FromTree,
{
    type Item = A;
    type Return = R;

    fn call(&self, items: Vec<A>, context: Context) -> R {
        self(items, context)
    }
}

/// Marks a function that returns a list of replies, each of the kind `K`.
#[derive(Clone, Copy, Debug)]
pub struct Each<K>(K);

/// Marks a function that returns a `Result` of such a list.
#[derive(Clone, Copy, Debug)]
pub struct AllOrNone<K>(K);

/// The types that a list function may return: a `Vec` with one reply for each call, in the same order, or a
/// `Result` of that, whose error all callers get. A reply implements
/// [`IntoTree`](teleport_transport::wire::IntoTree), or is a `Result` of that.
///
/// `Kind` is inferred.
#[diagnostic::on_unimplemented(
    message = "a list function cannot return `{Self}`",
    note = "it returns a `Vec` of what implements `IntoTree` or of `Result`s of that, or a `Result` of such a `Vec`"
)]
pub trait IntoReplies<Kind> {
    /// Converts to replies.
    ///
    /// # Errors
    /// Returns the function's own error, for all calls.
    fn into_replies(self) -> Result<Vec<Result<Tree, BoxError>>, BoxError>;
}

impl<T: IntoReply<K>, K> IntoReplies<Each<K>> for Vec<T> {
    fn into_replies(self) -> Result<Vec<Result<Tree, BoxError>>, BoxError> {
        Ok(self.into_iter().map(IntoReply::into_reply).collect())
    }
}

impl<T: IntoReply<K>, K, E: Into<BoxError>> IntoReplies<AllOrNone<K>> for Result<Vec<T>, E> {
    fn into_replies(self) -> Result<Vec<Result<Tree, BoxError>>, BoxError> {
        self.map_err(Into::into)?.into_replies()
    }
}
