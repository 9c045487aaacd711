//! Writes `IntoTree`: each field moves into the tree, in order.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, Type};

use crate::bounds;
use crate::expand::{at, implementation};
use crate::input::{Field, Form, Input, Variant};

pub(crate) fn expand(input: Input) -> TokenStream {
    let mut generics = input.generics.clone();
    let root = &input.root;
    bounds::add(&mut generics, &input.types(), &quote!(#root::IntoTree));
    let functions = match &input.form {
        Form::Null => function(root, &quote!(#root::Tree::Null)),
        Form::Transparent(ty) => transparent(root, ty),
        Form::List(types) => function(root, &list(root, types)),
        Form::Dict(fields) => function(root, &dict(root, fields)),
        Form::Names(variants) => function(root, &names(root, variants)),
    };
    implementation(&input, &generics, &quote!(IntoTree), &functions)
}

fn function(root: &TokenStream, body: &TokenStream) -> TokenStream {
    quote! {
        fn into_tree(self) -> #root::Tree {
            #body
        }
    }
}

/// Converts the value of one field.
fn value(root: &TokenStream, ty: &Type, value: &TokenStream) -> TokenStream {
    quote_spanned!(at(ty)=> <#ty as #root::IntoTree>::into_tree(#value))
}

/// The struct is written as its field is, also in a vector: numbers become one array.
fn transparent(root: &TokenStream, ty: &Type) -> TokenStream {
    let into_tree = function(root, &value(root, ty, &quote!(self.0)));
    quote! {
        #into_tree

        fn vec_into_tree(items: ::std::vec::Vec<Self>) -> #root::Tree {
            <#ty as #root::IntoTree>::vec_into_tree(items.into_iter().map(|Self(item)| item).collect())
        }
    }
}

fn list(root: &TokenStream, types: &[Type]) -> TokenStream {
    let locals: Vec<_> = (0..types.len()).map(local).collect();
    let items = types.iter().zip(&locals).map(|(ty, local)| value(root, ty, &quote!(#local)));
    quote! {
        let Self(#(#locals),*) = self;
        #root::Tree::List(::std::vec::Vec::from([#(#items),*]))
    }
}

fn dict(root: &TokenStream, fields: &[Field]) -> TokenStream {
    let names = fields.iter().map(|field| &field.name);
    let locals: Vec<_> = (0..fields.len()).map(local).collect();
    let entries = fields.iter().zip(&locals).map(|(field, local)| {
        let (key, value) = (&field.key, value(root, &field.ty, &quote!(#local)));
        quote!((#root::Key::from_static(#key), #value))
    });
    quote! {
        let Self { #(#names: #locals),* } = self;
        #root::Tree::Dict(
            <#root::Dict as ::core::iter::FromIterator<(#root::Key, #root::Tree)>>::from_iter([#(#entries),*])
        )
    }
}

fn names(root: &TokenStream, variants: &[Variant]) -> TokenStream {
    let arms = variants.iter().map(|Variant { name, key }| quote!(Self::#name => #key));
    quote!(#root::IntoTree::into_tree(match self { #(#arms),* }))
}

/// Returns a name that clashes neither with the user's items nor with the names of fields.
fn local(index: usize) -> Ident {
    format_ident!("field_{index}", span = Span::mixed_site())
}
