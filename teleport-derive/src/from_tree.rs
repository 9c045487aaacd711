//! Writes `FromTree`: each field is moved out of the tree, so that arrays keep having one owner.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::Type;

use crate::bounds;
use crate::expand::{at, implementation};
use crate::input::{Field, Form, Input, Variant};

pub(crate) fn expand(input: Input) -> TokenStream {
    let mut generics = input.generics.clone();
    let root = &input.root;
    bounds::add(&mut generics, &input.types(), &quote!(#root::FromTree));
    if let Form::Dict(fields) = &input.form {
        for field in fields.iter().filter(|field| field.default) {
            bounds::add_whole(&mut generics, &field.ty, &quote!(::core::default::Default));
        }
    }
    let functions = match &input.form {
        Form::Null => function(root, &quote!(<() as #root::FromTree>::from_tree(tree).map(|()| Self))),
        Form::Transparent(ty) => transparent(root, ty),
        Form::List(types) => function(root, &list(root, types)),
        Form::Dict(fields) => function(root, &dict(root, fields)),
        Form::Names(variants) => function(root, &names(root, variants)),
    };
    implementation(&input, &generics, &quote!(FromTree), &functions)
}

fn function(root: &TokenStream, body: &TokenStream) -> TokenStream {
    quote! {
        fn from_tree(tree: #root::Tree) -> ::core::result::Result<Self, #root::TreeError> {
            #body
        }
    }
}

/// The struct is read as its field is, also in a vector and if the key is missing.
fn transparent(root: &TokenStream, ty: &Type) -> TokenStream {
    let field = quote_spanned!(at(ty)=> <#ty as #root::FromTree>::from_tree(tree));
    let from_tree = function(root, &quote!(#field.map(Self)));
    quote! {
        #from_tree

        fn vec_from_tree(
            tree: #root::Tree,
        ) -> ::core::result::Result<::std::vec::Vec<Self>, #root::TreeError> {
            let items = <#ty as #root::FromTree>::vec_from_tree(tree)?;
            ::core::result::Result::Ok(items.into_iter().map(Self).collect())
        }

        fn absent() -> ::core::option::Option<Self> {
            <#ty as #root::FromTree>::absent().map(Self)
        }
    }
}

fn list(root: &TokenStream, types: &[Type]) -> TokenStream {
    if types.is_empty() {
        return quote!(#root::__private::items::<0>(tree).map(|[]| Self()));
    }
    let count = types.len();
    let items = types
        .iter()
        .enumerate()
        .map(|(index, ty)| quote_spanned!(at(ty)=> #root::__private::item::<#ty>(items, #index)?));
    quote! {
        let items = &mut #root::__private::items::<#count>(tree)?;
        ::core::result::Result::Ok(Self(#(#items),*))
    }
}

fn dict(root: &TokenStream, fields: &[Field]) -> TokenStream {
    if fields.is_empty() {
        return quote!(<#root::Dict as #root::FromTree>::from_tree(tree).map(|_| Self {}));
    }
    let fields = fields.iter().map(|Field { name, key, ty, default }| {
        let span = at(ty);
        let read = if *default { quote!(field_or_default) } else { quote!(field) };
        quote_spanned!(span=> #name: #root::__private::#read::<#ty>(dict, #key)?)
    });
    quote! {
        let dict = &mut <#root::Dict as #root::FromTree>::from_tree(tree)?;
        ::core::result::Result::Ok(Self { #(#fields),* })
    }
}

fn names(root: &TokenStream, variants: &[Variant]) -> TokenStream {
    let keys: Vec<_> = variants.iter().map(|variant| &variant.key).collect();
    let names = variants.iter().map(|variant| &variant.name);
    quote! {
        let name = <#root::Text as #root::FromTree>::from_tree(tree)?;
        match &*name {
            #(#keys => ::core::result::Result::Ok(Self::#names),)*
            _ => ::core::result::Result::Err(#root::TreeError::variant(&name, &[#(#keys),*])),
        }
    }
}
