//! Names of methods: strings, and names with types that the compiler checks against the function's.
//!
//! [`IntoMethod`](crate::IntoMethod) infers a form for each function: the types that it takes and returns. A
//! string implements the trait for all forms, and an [`Rpc`] for the forms of its types.

use teleport_transport::wire::Rpc;

use crate::api::functions::context::Context;
use crate::api::functions::method::{Fallible, Plain};

/// The name of a method: a string, or an [`Rpc<A, R>`](Rpc), whose function must take `A` and return `R` or
/// a `Result` of it.
///
/// A [`Method`](crate::Method) does not know the types of its function, so it can be registered under any
/// name.
///
/// `Form` is inferred.
#[diagnostic::on_unimplemented(
    message = "this function cannot be registered under `{Self}`",
    label = "this has other types, or is no name",
    note = "a function under `Rpc<A, R>` takes `A` or `(A, Context)`, and returns `R` or a `Result` of it; to register one \
            that takes or gives a `Tree` instead, put it into `Method::new`"
)]
pub trait MethodName<Form> {
    /// Converts to a string.
    fn into_name(self) -> String;
}

impl<Form> MethodName<Form> for &str {
    fn into_name(self) -> String {
        self.to_owned()
    }
}

impl<Form> MethodName<Form> for &String {
    fn into_name(self) -> String {
        self.clone()
    }
}

impl<Form> MethodName<Form> for String {
    fn into_name(self) -> String {
        self
    }
}

/// For a [`Method`](crate::Method), whose types are not known.
impl<A, R> MethodName<()> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}

impl<A, R> MethodName<(fn(A) -> R, Plain)> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}

impl<A, R> MethodName<(fn(A, Context) -> R, Plain)> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}

impl<A, R, E> MethodName<(fn(A) -> Result<R, E>, Fallible)> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}

impl<A, R, E> MethodName<(fn(A, Context) -> Result<R, E>, Fallible)> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}
