//! What the type parameters of a generic type must satisfy for its implementation.
//!
//! A parameter that stands in a field gets the trait as a bound: `T: IntoTree`. A field that names a type which belongs
//! to a parameter, as `E::Image` does, gets the bound itself, and the parameter none: `E` is often no data at all.
//! Fields are not bounded in general, since one that holds its own type again would then never be resolved.

use std::collections::HashSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{Generics, Ident, Type, parse_quote};

/// Adds the bounds under which all `types` have the trait at the path `bound`.
pub(crate) fn add(generics: &mut Generics, types: &[&Type], bound: &TokenStream) {
    let names = names(generics);
    let mut bounded = HashSet::new();
    for ty in types {
        match uses(ty, &names) {
            Uses::Nothing => {}
            Uses::Belonging => require(generics, ty, bound),
            Uses::Parameters(parameters) => {
                for parameter in parameters {
                    if bounded.insert(parameter.clone()) {
                        require(generics, &parameter, bound);
                    }
                }
            }
        }
    }
}

/// Adds the bound for a field's type as a whole if it depends on a parameter.
pub(crate) fn add_whole(generics: &mut Generics, ty: &Type, bound: &TokenStream) {
    if !matches!(uses(ty, &names(generics)), Uses::Nothing) {
        require(generics, ty, bound);
    }
}

fn require(generics: &mut Generics, ty: &impl ToTokens, bound: &TokenStream) {
    generics.make_where_clause().predicates.push(parse_quote!(#ty: #bound));
}

fn names(generics: &Generics) -> HashSet<Ident> {
    generics.type_params().map(|parameter| parameter.ident.unraw()).collect()
}

/// How a type depends on type parameters.
enum Uses {
    Nothing,
    /// By these.
    Parameters(Vec<Ident>),
    /// By types that belong to them: `T::Item`, `<T as Trait>::Item`.
    Belonging,
}

fn uses(ty: &Type, names: &HashSet<Ident>) -> Uses {
    let mut parameters = Vec::new();
    if find(ty.to_token_stream(), names, &mut parameters) {
        Uses::Belonging
    } else if parameters.is_empty() {
        Uses::Nothing
    } else {
        Uses::Parameters(parameters)
    }
}

/// Collects the parameters among `tokens`, and says whether one is there for a type that belongs to it.
fn find(tokens: TokenStream, names: &HashSet<Ident>, parameters: &mut Vec<Ident>) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut belonging = false;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => belonging |= find(group.stream(), names, parameters),
            TokenTree::Ident(ident) if names.contains(&ident.unraw()) && stands_alone(&tokens[..index]) => {
                belonging |= is_qualified(&tokens[index + 1..]);
                parameters.push(ident.clone());
            }
            _ => {}
        }
    }
    belonging
}

/// Whether what follows these tokens is a name by itself, and neither a lifetime nor a later segment of a path.
fn stands_alone(before: &[TokenTree]) -> bool {
    !before.last().is_some_and(|token| is(token, '\'') || is(token, ':'))
}

/// Whether a parameter before these tokens only says to whom a type belongs: `T::Item`, `<T as Trait>::Item`.
fn is_qualified(after: &[TokenTree]) -> bool {
    match after {
        [TokenTree::Ident(next), ..] => next == "as",
        [first, second, ..] => is(first, ':') && is(second, ':'),
        _ => false,
    }
}

fn is(token: &TokenTree, char: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == char)
}
