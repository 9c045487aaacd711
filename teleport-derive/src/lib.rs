//! The macros behind `#[derive(IntoTree, FromTree)]`.
//!
//! Do not use this crate directly. With the feature `derive`, `teleport` and each crate beneath it export the
//! macros beside the traits of the same names. `teleport-wire` has the traits and examples.
//!
//! Flow: `input` parses and checks a type -> `bounds` adds the bounds on its generics -> `into_tree` or
//! `from_tree` writes the implementation. The generated code calls functions of `teleport-wire` by name.
//!
//! # One pair of derives for each crate
//! Generated code names the traits by a path, and a macro cannot tell through which crate it was called: a
//! program that depends on `teleport` alone has no crate `teleport_wire`. So there is a pair of derives for
//! each crate that exports them. The pairs differ only in their path. `#[teleport(crate = "…")]` gives
//! another path, for crates that were renamed or are wrapped.
#![forbid(unsafe_code)]

mod bounds;
mod expand;
mod from_tree;
mod input;
mod into_tree;

use input::Input;
use proc_macro2::TokenStream;

macro_rules! derives {
    ($($root:literal: $into:ident by $into_function:ident, $from:ident by $from_function:ident;)*) => {$(
        #[doc = concat!("Derives `", $root, "::IntoTree`.\n\n")]
        #[doc = include_str!("rules.md")]
        #[proc_macro_derive($into, attributes(teleport))]
        pub fn $into_function(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
            derive(input.into(), $root, into_tree::expand).into()
        }

        #[doc = concat!("Derives `", $root, "::FromTree`.\n\n")]
        #[doc = include_str!("rules.md")]
        #[proc_macro_derive($from, attributes(teleport))]
        pub fn $from_function(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
            derive(input.into(), $root, from_tree::expand).into()
        }
    )*};
}

derives! {
    "::teleport_wire":
        IntoTree by into_tree, FromTree by from_tree;
    "::teleport_transport::wire":
        TransportIntoTree by transport_into_tree, TransportFromTree by transport_from_tree;
    "::teleport_server::wire":
        ServerIntoTree by server_into_tree, ServerFromTree by server_from_tree;
    "::teleport_client::wire":
        ClientIntoTree by client_into_tree, ClientFromTree by client_from_tree;
    "::teleport::wire":
        FacadeIntoTree by facade_into_tree, FacadeFromTree by facade_from_tree;
}

/// Writes the implementation, or the errors. `root` is the path of the items that `teleport-wire` exports.
fn derive(input: TokenStream, root: &str, expand: fn(Input) -> TokenStream) -> TokenStream {
    let input = syn::parse2(input).and_then(|input| Input::check(input, root));
    input.map_or_else(syn::Error::into_compile_error, expand)
}

#[cfg(test)]
mod tests;
