//! The parts of the generated code that are the same for both traits.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Generics, Type};

use crate::input::Input;

/// Writes the implementation of `name`, one of the two traits.
pub(crate) fn implementation(
    input: &Input,
    generics: &Generics,
    name: &TokenStream,
    functions: &TokenStream,
) -> TokenStream {
    let (root, ty) = (&input.root, &input.name);
    let (parameters, arguments, conditions) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #parameters #root::#name for #ty #arguments #conditions {
            #functions
        }
    }
}

/// Returns the position that an error about a field's type points to.
pub(crate) fn at(ty: &Type) -> Span {
    Span::call_site().located_at(ty.span())
}
