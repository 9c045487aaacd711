//! Writes `IntoTree`: each field moves into the tree, in order.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Type};

use crate::bounds;
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
    let name = &input.name;
    let (parameters, arguments, conditions) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #parameters #root::IntoTree for #name #arguments #conditions {
            #functions
        }
    }
}

fn function(root: &TokenStream, body: &TokenStream) -> TokenStream {
    quote! {
        fn into_tree(self) -> #root::Tree {
            #body
        }
    }
}

/// One field's value as a tree; an error about its type points to that type.
fn value(root: &TokenStream, ty: &Type, value: &TokenStream) -> TokenStream {
    quote_spanned!(Span::call_site().located_at(ty.span())=> <#ty as #root::IntoTree>::into_tree(#value))
}

/// The field speaks for the struct, also where many stand in a vector: of numbers that is one array.
fn transparent(root: &TokenStream, ty: &Type) -> TokenStream {
    let into_tree = function(root, &value(root, ty, &quote!(self.0)));
    quote! {
        #into_tree

        fn vec_into_tree(items: ::std::vec::Vec<Self>) -> #root::Tree {
            #root::__private::unwrapped_into_tree::<Self, #ty>(items, |Self(item)| item)
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
        #root::Tree::Dict(#root::__private::entries([#(#entries),*]))
    }
}

fn names(root: &TokenStream, variants: &[Variant]) -> TokenStream {
    let arms = variants.iter().map(|Variant { name, key }| quote!(Self::#name => #key));
    quote!(#root::IntoTree::into_tree(match self { #(#arms),* }))
}

/// A name that no item of the user's can be in the way of, nor a field's own name.
fn local(index: usize) -> Ident {
    format_ident!("field_{index}", span = Span::mixed_site())
}
