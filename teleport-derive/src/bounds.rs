//! The bounds on the type parameters of an implementation.
//!
//! A parameter that a field uses gets the trait as a bound: `T: IntoTree`. A field with an associated type of
//! a parameter, such as `E::Image`, gets the bound itself, and the parameter does not, since `E` may not be
//! data. Other fields get no bounds: that of a recursive type could never be resolved.

use std::collections::HashSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{Generics, Ident, Type, parse_quote};

/// Adds the bounds under which all `types` implement the trait at the path `bound`.
pub(crate) fn add(generics: &mut Generics, types: &[&Type], bound: &TokenStream) {
    let names = names(generics);
    let mut bounded = HashSet::new();
    for ty in types {
        let mut parameters = Vec::new();
        if find(ty.to_token_stream(), &names, &mut parameters) {
            require(generics, ty, bound);
            continue;
        }
        for parameter in parameters {
            if bounded.insert(parameter.clone()) {
                require(generics, &parameter, bound);
            }
        }
    }
}

/// Adds the bound for a field's type as a whole, if it depends on a parameter.
pub(crate) fn add_whole(generics: &mut Generics, ty: &Type, bound: &TokenStream) {
    let mut parameters = Vec::new();
    find(ty.to_token_stream(), &names(generics), &mut parameters);
    if !parameters.is_empty() {
        require(generics, ty, bound);
    }
}

fn require(generics: &mut Generics, ty: &impl ToTokens, bound: &TokenStream) {
    generics.make_where_clause().predicates.push(parse_quote!(#ty: #bound));
}

fn names(generics: &Generics) -> HashSet<Ident> {
    generics.type_params().map(|parameter| parameter.ident.unraw()).collect()
}

/// Collects the parameters among `tokens`. Returns true if one of them has an associated type there.
fn find(tokens: TokenStream, names: &HashSet<Ident>, parameters: &mut Vec<Ident>) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut associated = false;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => associated |= find(group.stream(), names, parameters),
            TokenTree::Ident(ident) if names.contains(&ident.unraw()) && is_name(&tokens[..index]) => {
                associated |= is_qualified(&tokens[index + 1..]);
                parameters.push(ident.clone());
            }
            _ => {}
        }
    }
    associated
}

/// Returns true if an identifier after these tokens is neither a lifetime nor a later segment of a path.
fn is_name(before: &[TokenTree]) -> bool {
    !before.last().is_some_and(|token| is(token, '\'') || is(token, ':'))
}

/// Returns true if a parameter before these tokens is the owner of a type: `T::Item`, `<T as Trait>::Item`.
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
