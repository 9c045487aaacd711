//! Conversions of the types of this crate and of the standard library.
//!
//! Arrays, vectors of numbers and strings move. On the way back, each level adds its step to the path of an
//! error.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use crate::model::array::{Array, access::check_rank, error::ArrayError};
use crate::model::convert::{FromTree, IntoTree, item, items, list};
use crate::model::element::{Complex, Element};
use crate::model::tree::{Dict, Tree, error::TreeError, key::Key};
use crate::model::{buffer::Buffer, dtype::DType, text::Text};

/// Implements the conversions of types that have a variant of `Tree`.
macro_rules! variants {
    ($($variant:ident($value:ty), $expected:literal;)*) => {$(
        impl From<$value> for Tree {
            fn from(value: $value) -> Tree {
                Tree::$variant(value)
            }
        }

        impl IntoTree for $value {
            fn into_tree(self) -> Tree {
                Tree::$variant(self)
            }
        }

        impl FromTree for $value {
            fn from_tree(tree: Tree) -> Result<$value, TreeError> {
                match tree {
                    Tree::$variant(value) => Ok(value),
                    other => Err(TreeError::kind($expected, &other)),
                }
            }
        }
    )*};
}

variants! {
    Array(Array), "an array";
    String(Text), "a string";
    Bytes(Buffer), "bytes";
    Dict(Dict), "a dict";
}

impl From<Vec<Tree>> for Tree {
    fn from(list: Vec<Tree>) -> Tree {
        Tree::List(list)
    }
}

impl IntoTree for Tree {
    fn into_tree(self) -> Tree {
        self
    }
}

impl FromTree for Tree {
    fn from_tree(tree: Tree) -> Result<Tree, TreeError> {
        Ok(tree)
    }
}

impl IntoTree for () {
    fn into_tree(self) -> Tree {
        Tree::Null
    }
}

impl FromTree for () {
    fn from_tree(tree: Tree) -> Result<(), TreeError> {
        if tree.is_null() { Ok(()) } else { Err(TreeError::kind("null", &tree)) }
    }
}

impl IntoTree for &str {
    fn into_tree(self) -> Tree {
        Tree::String(self.into())
    }
}

impl IntoTree for String {
    fn into_tree(self) -> Tree {
        Tree::String(self.into())
    }
}

impl FromTree for String {
    fn from_tree(tree: Tree) -> Result<String, TreeError> {
        Text::from_tree(tree).map(String::from)
    }
}

/// Reads one number of a type that holds it.
fn scalar<T: Element>(tree: &Tree) -> Result<T, TreeError> {
    let array = tree.as_array().ok_or_else(|| TreeError::kind("a number", tree))?;
    Ok(array.item()?)
}

/// Implements the conversions of numbers: one is a scalar, many are one array.
macro_rules! elements {
    ($($element:ty)*) => {$(
        impl IntoTree for $element {
            fn into_tree(self) -> Tree {
                Array::scalar(self).into()
            }

            fn vec_into_tree(items: Vec<Self>) -> Tree {
                Array::from(items).into()
            }
        }

        impl FromTree for $element {
            fn from_tree(tree: Tree) -> Result<$element, TreeError> {
                scalar(&tree)
            }

            fn vec_from_tree(tree: Tree) -> Result<Vec<$element>, TreeError> {
                match tree {
                    Tree::Array(array) => {
                        check_rank(&array, 1)?;
                        Ok(array.to_vec()?)
                    }
                    Tree::List(_) => list(tree),
                    other => Err(TreeError::kind("an array of one axis", &other)),
                }
            }
        }
    )*};
}

elements! { bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 Complex<f32> Complex<f64> }
#[cfg(feature = "half")]
elements! { half::f16 half::bf16 }

/// Numbers whose size depends on the machine are sent as 64 bits.
macro_rules! sizes {
    ($($size:ty as $element:ty, $dtype:ident;)*) => {$(
        impl IntoTree for $size {
            fn into_tree(self) -> Tree {
                (self as $element).into_tree()
            }

            fn vec_into_tree(items: Vec<Self>) -> Tree {
                <$element>::vec_into_tree(items.into_iter().map(|item| item as $element).collect())
            }
        }

        impl FromTree for $size {
            fn from_tree(tree: Tree) -> Result<$size, TreeError> {
                let value: $element = scalar(&tree)?;
                value.try_into().map_err(|_| too_large(value, DType::$dtype))
            }

            fn vec_from_tree(tree: Tree) -> Result<Vec<$size>, TreeError> {
                let items = <$element>::vec_from_tree(tree)?.into_iter();
                items.map(|item| item.try_into().map_err(|_| too_large(item, DType::$dtype))).collect()
            }
        }
    )*};
}

sizes! {
    usize as u64, U64;
    isize as i64, I64;
}

/// Happens only on machines whose addresses have fewer than 64 bits.
fn too_large(value: impl ToString, found: DType) -> TreeError {
    ArrayError::OutOfRange { value: value.to_string(), found, expected: DType::U32 }.into()
}

impl<T: IntoTree> IntoTree for Vec<T> {
    fn into_tree(self) -> Tree {
        T::vec_into_tree(self)
    }
}

impl<T: FromTree> FromTree for Vec<T> {
    fn from_tree(tree: Tree) -> Result<Vec<T>, TreeError> {
        T::vec_from_tree(tree)
    }
}

impl<T: IntoTree, const LEN: usize> IntoTree for [T; LEN] {
    fn into_tree(self) -> Tree {
        T::vec_into_tree(self.into())
    }
}

impl<T: FromTree, const LEN: usize> FromTree for [T; LEN] {
    fn from_tree(tree: Tree) -> Result<[T; LEN], TreeError> {
        T::vec_from_tree(tree)?.try_into().map_err(|items: Vec<T>| TreeError::length(LEN, items.len()))
    }
}

impl<T: IntoTree + Clone> IntoTree for &[T] {
    fn into_tree(self) -> Tree {
        T::vec_into_tree(self.to_vec())
    }
}

impl<T: IntoTree + Clone> IntoTree for &T {
    fn into_tree(self) -> Tree {
        self.clone().into_tree()
    }

    fn vec_into_tree(items: Vec<&T>) -> Tree {
        T::vec_into_tree(items.into_iter().cloned().collect())
    }
}

impl<T: IntoTree> IntoTree for Option<T> {
    fn into_tree(self) -> Tree {
        self.map_or(Tree::Null, T::into_tree)
    }
}

impl<T: FromTree> FromTree for Option<T> {
    fn from_tree(tree: Tree) -> Result<Option<T>, TreeError> {
        if tree.is_null() { Ok(None) } else { T::from_tree(tree).map(Some) }
    }

    fn absent() -> Option<Option<T>> {
        Some(None)
    }
}

impl<T: IntoTree> IntoTree for BTreeMap<String, T> {
    fn into_tree(self) -> Tree {
        Tree::Dict(self.into_iter().collect())
    }
}

/// Sorts by key, since the map's own order changes from run to run.
impl<T: IntoTree> IntoTree for HashMap<String, T> {
    fn into_tree(self) -> Tree {
        let mut entries: Vec<_> = self.into_iter().collect();
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        Tree::Dict(entries.into_iter().collect())
    }
}

impl<T: FromTree> FromTree for BTreeMap<String, T> {
    fn from_tree(tree: Tree) -> Result<BTreeMap<String, T>, TreeError> {
        entries(tree)
    }
}

impl<T: FromTree, S: BuildHasher + Default> FromTree for HashMap<String, T, S> {
    fn from_tree(tree: Tree) -> Result<HashMap<String, T, S>, TreeError> {
        entries(tree)
    }
}

/// Converts the entries of a dict.
fn entries<T: FromTree, M: FromIterator<(String, T)>>(tree: Tree) -> Result<M, TreeError> {
    let convert = |(key, tree): (Key, Tree)| match T::from_tree(tree) {
        Ok(value) => Ok((key.to_string(), value)),
        Err(error) => Err(error.within(&key)),
    };
    Dict::from_tree(tree)?.into_iter().map(convert).collect()
}

macro_rules! tuples {
    ($(($($index:tt $item:ident),+))*) => {$(
        impl<$($item: IntoTree),+> IntoTree for ($($item,)+) {
            fn into_tree(self) -> Tree {
                Tree::List(vec![$(self.$index.into_tree()),+])
            }
        }

        impl<$($item: FromTree),+> FromTree for ($($item,)+) {
            fn from_tree(tree: Tree) -> Result<($($item,)+), TreeError> {
                const COUNT: usize = [$($index),+].len();
                let items = &mut items::<COUNT>(tree)?;
                Ok(($(item::<$item>(items, $index)?,)+))
            }
        }
    )*};
}

tuples! {
    (0 A)
    (0 A, 1 B)
    (0 A, 1 B, 2 C)
    (0 A, 1 B, 2 C, 3 D)
    (0 A, 1 B, 2 C, 3 D, 4 E)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H)
}
