//! The macros behind `#[derive(IntoTree, FromTree)]`.
//!
//! Not for direct use: the feature `derive` of `teleport` and of each crate beneath it exports them beside
//! the traits of the same names. Examples are in `teleport-wire`, which has the traits.
//!
//! Flow: `input` parses and checks a type -> `bounds` adds what its generics must satisfy -> `into_tree` or
//! `from_tree` writes the implementation. What could go wrong when the generated code runs is in
//! `teleport-wire`, as functions that it calls. Nothing here knows more of that crate than names.
//!
//! # One pair of derives for each crate
//! Generated code must name the traits by a path, and a macro cannot see through which crate it was called:
//! who depends on `teleport` alone knows no crate `teleport_wire`. So there is a pair for each crate that
//! exports them, which differ in their path only, and each crate exports its own under the plain names. The
//! attribute `#[teleport(crate = "…")]` gives another path, for crates that were renamed or are wrapped.
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

/// The implementation, or the errors in its place. `root` is the path of what `teleport-wire` exports.
fn derive(input: TokenStream, root: &str, expand: fn(Input) -> TokenStream) -> TokenStream {
    let input = syn::parse2(input).and_then(|input| Input::check(input, root));
    input.map_or_else(syn::Error::into_compile_error, expand)
}

#[cfg(test)]
mod tests;
