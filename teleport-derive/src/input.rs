//! The input of a derive, parsed and checked.
//!
//! Both derives check the same rules, so that a type accepted by one is accepted by the other. All errors of
//! a type are reported together.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Fields, Generics, Ident, LitStr, Path, Token, Type,
};

/// A type that can be derived for.
pub(crate) struct Input {
    pub(crate) name: Ident,
    pub(crate) generics: Generics,
    /// The path of what `teleport-wire` exports.
    pub(crate) root: TokenStream,
    pub(crate) form: Form,
}

/// The representation of the type in a tree.
pub(crate) enum Form {
    /// A unit struct: null.
    Null,
    /// A tuple struct of one field: the representation of the field.
    Transparent(Box<Type>),
    /// A tuple struct of several fields, or of none: a list.
    List(Vec<Type>),
    /// A struct with named fields: a dict.
    Dict(Vec<Field>),
    /// An enum without fields: the name of the variant, as a string.
    Names(Vec<Variant>),
}

/// A field with a name.
pub(crate) struct Field {
    pub(crate) name: Ident,
    pub(crate) key: String,
    pub(crate) ty: Type,
    /// True if a missing key gives the default of the field's type.
    pub(crate) default: bool,
}

/// A variant without fields.
pub(crate) struct Variant {
    pub(crate) name: Ident,
    pub(crate) key: String,
}

impl Input {
    /// Checks a parsed type. `root` is the path of the traits, unless the type names another.
    pub(crate) fn check(input: DeriveInput, root: &str) -> Result<Input, Error> {
        let options = Options::read(&input.attrs, Place::Type);
        let (options, form) = both(options, Form::check(input.data, &input.ident))?;
        let root = match options.root {
            Some(path) => path,
            None => syn::parse_str(root)?,
        };
        Ok(Input { name: input.ident, generics: input.generics, root: root.into_token_stream(), form })
    }

    /// Returns the types of all fields.
    pub(crate) fn types(&self) -> Vec<&Type> {
        match &self.form {
            Form::Null | Form::Names(_) => Vec::new(),
            Form::Transparent(ty) => vec![ty],
            Form::List(types) => types.iter().collect(),
            Form::Dict(fields) => fields.iter().map(|field| &field.ty).collect(),
        }
    }
}

impl Form {
    fn check(data: Data, name: &Ident) -> Result<Form, Error> {
        match data {
            Data::Struct(data) => Form::of_struct(data.fields),
            Data::Enum(data) => Form::of_enum(data, name),
            Data::Union(data) => {
                let text =
                    "a union does not tell which of its fields is set: only structs and enums can be sent";
                Err(Error::new(data.union_token.span, text))
            }
        }
    }

    fn of_struct(fields: Fields) -> Result<Form, Error> {
        match fields {
            Fields::Unit => Ok(Form::Null),
            Fields::Unnamed(fields) => {
                let types = all(fields.unnamed.into_iter().map(|field| {
                    Options::read(&field.attrs, Place::Unnamed)?;
                    Ok(field.ty)
                }))?;
                Ok(match <[Type; 1]>::try_from(types) {
                    Ok([ty]) => Form::Transparent(Box::new(ty)),
                    Err(types) => Form::List(types),
                })
            }
            Fields::Named(fields) => {
                let fields = all(fields.named.into_iter().map(Field::check))?;
                distinct(fields.iter().map(|field| (&field.name, field.key.as_str())))?;
                Ok(Form::Dict(fields))
            }
        }
    }

    fn of_enum(data: DataEnum, name: &Ident) -> Result<Form, Error> {
        let variants = all(data.variants.into_iter().map(Variant::check))?;
        distinct(variants.iter().map(|variant| (&variant.name, variant.key.as_str())))?;
        if variants.is_empty() {
            return Err(Error::new(name.span(), "an enum without variants has no values to send"));
        }
        Ok(Form::Names(variants))
    }
}

impl Field {
    fn check(field: syn::Field) -> Result<Field, Error> {
        let options = Options::read(&field.attrs, Place::Field)?;
        let name = field.ident.ok_or_else(|| Error::new_spanned(&field.ty, "this field has no name"))?;
        let key = options.rename.unwrap_or_else(|| name.unraw().to_string());
        Ok(Field { name, key, ty: field.ty, default: options.default })
    }
}

impl Variant {
    fn check(variant: syn::Variant) -> Result<Variant, Error> {
        let options = Options::read(&variant.attrs, Place::Variant)?;
        if !matches!(variant.fields, Fields::Unit) {
            let text = format!(
                "the variant `{}` has fields: only enums without fields can be sent, each variant as the string of \
                 its name; send a struct with an `Option` for each alternative instead",
                variant.ident
            );
            return Err(Error::new_spanned(&variant, text));
        }
        let key = options.rename.unwrap_or_else(|| variant.ident.unraw().to_string());
        Ok(Variant { name: variant.ident, key })
    }
}

/// The place of an attribute, which decides its options.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Type,
    Field,
    /// A field of a tuple struct.
    Unnamed,
    Variant,
}

impl Place {
    fn options(self) -> &'static str {
        match self {
            Place::Type => "a type takes `crate = \"…\"`",
            Place::Field => "a field takes `rename = \"…\"` and `default`",
            Place::Unnamed => "a field without a name takes none, since its position identifies it",
            Place::Variant => "a variant takes `rename = \"…\"`",
        }
    }
}

/// The options of `#[teleport(…)]`.
#[derive(Default)]
struct Options {
    root: Option<Path>,
    rename: Option<String>,
    default: bool,
}

impl Options {
    fn read(attributes: &[Attribute], place: Place) -> Result<Options, Error> {
        let mut options = Options::default();
        let ours = attributes.iter().filter(|attribute| attribute.path().is_ident("teleport"));
        all(ours.map(|attribute| attribute.parse_nested_meta(|meta| options.add(&meta, place))))?;
        Ok(options)
    }

    fn add(&mut self, meta: &ParseNestedMeta<'_>, place: Place) -> Result<(), Error> {
        let is = |name: &str| meta.path.is_ident(name);
        let twice = match place {
            Place::Type if is("crate") => {
                let path = meta.value()?.parse::<LitStr>()?.parse_with(Path::parse_mod_style)?;
                self.root.replace(path).is_some()
            }
            Place::Field | Place::Variant if is("rename") => {
                let key = meta.value()?.parse::<LitStr>()?.value();
                self.rename.replace(key).is_some()
            }
            Place::Field if is("default") && meta.input.peek(Token![=]) => {
                return Err(meta.error("`default` takes no value: it uses the default of the field's type"));
            }
            Place::Field if is("default") => std::mem::replace(&mut self.default, true),
            _ => return Err(meta.error(format!("there is no such option here: {}", place.options()))),
        };
        if twice { Err(meta.error("this option is given twice")) } else { Ok(()) }
    }
}

/// Refuses two fields or variants with the same key.
fn distinct<'a>(keys: impl Iterator<Item = (&'a Ident, &'a str)>) -> Result<(), Error> {
    let mut known = HashSet::new();
    let mut again = keys.filter(|(_, key)| !known.insert(*key));
    let text = |key| format!("another one already has the key {key:?}: give this one another by `rename`");
    again.next().map_or(Ok(()), |(name, key)| Err(Error::new(name.span(), text(key))))
}

/// Returns all values, or all errors.
fn all<T>(results: impl Iterator<Item = Result<T, Error>>) -> Result<Vec<T>, Error> {
    let mut values = Ok(Vec::new());
    for result in results {
        values = both(values, result).map(|(mut values, value)| {
            values.push(value);
            values
        });
    }
    values
}

/// Returns both values, or all errors.
fn both<A, B>(left: Result<A, Error>, right: Result<B, Error>) -> Result<(A, B), Error> {
    match (left, right) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (Err(mut left), Err(right)) => {
            left.combine(right);
            Err(left)
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}
