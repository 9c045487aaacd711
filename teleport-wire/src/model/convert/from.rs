//! Trees as Rust values. Each level that takes a part adds its step to the path of an error.

use crate::model::element::{Complex, Element};
use crate::model::tree::error::{TreeError, TreePath};
use crate::model::{
    array::Array, array::error::ArrayError, buffer::Buffer, convert::FromTree, dtype::DType, text::Text,
    tree::Tree, tree::dict::Dict,
};
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

/// Types that a tree has a variant for.
macro_rules! variants {
    ($($variant:ident($value:ty), $expected:literal;)*) => {$(
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

impl FromTree for Tree {
    fn from_tree(tree: Tree) -> Result<Tree, TreeError> {
        Ok(tree)
    }
}

impl FromTree for () {
    fn from_tree(tree: Tree) -> Result<(), TreeError> {
        if tree.is_null() { Ok(()) } else { Err(TreeError::kind("null", &tree)) }
    }
}

impl FromTree for String {
    fn from_tree(tree: Tree) -> Result<String, TreeError> {
        Text::from_tree(tree).map(String::from)
    }
}

/// One number of a type that it fits.
fn scalar<T: Element>(tree: &Tree) -> Result<T, TreeError> {
    let array = tree.as_array().ok_or_else(|| TreeError::kind("a number", tree))?;
    Ok(array.item()?)
}

/// Many numbers: an array of rank 1 of exactly this type, or a list of numbers.
fn items<T: Element + FromTree>(tree: Tree) -> Result<Vec<T>, TreeError> {
    match tree {
        Tree::Array(array) => {
            array.expect_rank(1)?;
            Ok(array.to_vec()?)
        }
        Tree::List(_) => list(tree),
        other => Err(TreeError::kind("an array of one axis", &other)),
    }
}

/// A list of values.
pub(super) fn list<T: FromTree>(tree: Tree) -> Result<Vec<T>, TreeError> {
    let Tree::List(list) = tree else { return Err(TreeError::kind("a list", &tree)) };
    let items = list.into_iter().enumerate();
    items.map(|(index, tree)| T::from_tree(tree).map_err(|error| error.within(index))).collect()
}

macro_rules! elements {
    ($($element:ty)*) => {$(
        impl FromTree for $element {
            fn from_tree(tree: Tree) -> Result<$element, TreeError> {
                scalar(&tree)
            }

            fn vec_from_tree(tree: Tree) -> Result<Vec<$element>, TreeError> {
                items(tree)
            }
        }
    )*};
}

elements! { bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 Complex<f32> Complex<f64> }
#[cfg(feature = "half")]
elements! { half::f16 half::bf16 }

/// Numbers whose size depends on the machine travel with 64 bits.
macro_rules! sizes {
    ($($size:ty as $element:ty, $dtype:ident;)*) => {$(
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

/// Only where addresses have fewer than 64 bits.
fn too_large(value: impl ToString, dtype: DType) -> TreeError {
    ArrayError::OutOfRange { value: value.to_string(), found: dtype, expected: DType::U32 }.into()
}

impl<T: FromTree> FromTree for Vec<T> {
    fn from_tree(tree: Tree) -> Result<Vec<T>, TreeError> {
        T::vec_from_tree(tree)
    }
}

impl<T: FromTree, const LEN: usize> FromTree for [T; LEN] {
    fn from_tree(tree: Tree) -> Result<[T; LEN], TreeError> {
        let items = T::vec_from_tree(tree)?;
        items.try_into().map_err(|items: Vec<T>| length(LEN, items.len()))
    }
}

fn length(expected: usize, found: usize) -> TreeError {
    TreeError::Length { path: TreePath::default(), expected, found }
}

impl<T: FromTree> FromTree for Option<T> {
    fn from_tree(tree: Tree) -> Result<Option<T>, TreeError> {
        if tree.is_null() { Ok(None) } else { T::from_tree(tree).map(Some) }
    }

    fn absent() -> Option<Option<T>> {
        Some(None)
    }
}

/// The entries of a dict with values of one type.
fn entries<T: FromTree, M: FromIterator<(String, T)>>(tree: Tree) -> Result<M, TreeError> {
    let entries = Dict::from_tree(tree)?.into_iter();
    let convert = |(key, tree): (crate::Key, Tree)| match T::from_tree(tree) {
        Ok(value) => Ok((key.to_string(), value)),
        Err(error) => Err(error.within(&key)),
    };
    entries.map(convert).collect()
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

macro_rules! tuples {
    ($($len:literal: ($($index:tt $item:ident),+))*) => {$(
        impl<$($item: FromTree),+> FromTree for ($($item,)+) {
            fn from_tree(tree: Tree) -> Result<($($item,)+), TreeError> {
                let Tree::List(list) = tree else { return Err(TreeError::kind("a list", &tree)) };
                let mut list: [Tree; $len] =
                    list.try_into().map_err(|list: Vec<Tree>| length($len, list.len()))?;
                Ok(($(
                    $item::from_tree(std::mem::take(&mut list[$index])).map_err(|error| error.within($index))?,
                )+))
            }
        }
    )*};
}

tuples! {
    1: (0 A)
    2: (0 A, 1 B)
    3: (0 A, 1 B, 2 C)
    4: (0 A, 1 B, 2 C, 3 D)
    5: (0 A, 1 B, 2 C, 3 D, 4 E)
    6: (0 A, 1 B, 2 C, 3 D, 4 E, 5 F)
    7: (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G)
    8: (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H)
}
