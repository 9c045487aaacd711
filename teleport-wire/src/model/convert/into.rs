//! Rust values as trees. Arrays, vectors of numbers and strings move; nothing else is large.

use crate::model::{
    array::Array, buffer::Buffer, convert::IntoTree, element::Complex, text::Text, tree::Tree,
    tree::dict::Dict,
};
use std::collections::{BTreeMap, HashMap};

/// Types that a tree has a variant for.
macro_rules! variants {
    ($($variant:ident($value:ty);)*) => {$(
        impl IntoTree for $value {
            fn into_tree(self) -> Tree {
                Tree::$variant(self)
            }
        }
    )*};
}

variants! {
    Array(Array);
    String(Text);
    Bytes(Buffer);
    Dict(Dict);
}

impl IntoTree for Tree {
    fn into_tree(self) -> Tree {
        self
    }
}

impl IntoTree for () {
    fn into_tree(self) -> Tree {
        Tree::Null
    }
}

impl IntoTree for String {
    fn into_tree(self) -> Tree {
        Tree::String(self.into())
    }
}

impl IntoTree for &str {
    fn into_tree(self) -> Tree {
        Tree::String(self.into())
    }
}

/// Numbers: scalars, and one array of many.
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
    )*};
}

elements! { bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 Complex<f32> Complex<f64> }
#[cfg(feature = "half")]
elements! { half::f16 half::bf16 }

/// Numbers whose size depends on the machine travel with 64 bits.
macro_rules! sizes {
    ($($size:ty as $element:ty;)*) => {$(
        impl IntoTree for $size {
            fn into_tree(self) -> Tree {
                (self as $element).into_tree()
            }

            fn vec_into_tree(items: Vec<Self>) -> Tree {
                <$element>::vec_into_tree(items.into_iter().map(|item| item as $element).collect())
            }
        }
    )*};
}

sizes! {
    usize as u64;
    isize as i64;
}

impl<T: IntoTree> IntoTree for Vec<T> {
    fn into_tree(self) -> Tree {
        T::vec_into_tree(self)
    }
}

impl<T: IntoTree, const LEN: usize> IntoTree for [T; LEN] {
    fn into_tree(self) -> Tree {
        T::vec_into_tree(self.into())
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

impl<T: IntoTree> IntoTree for BTreeMap<String, T> {
    fn into_tree(self) -> Tree {
        Tree::Dict(self.into_iter().collect())
    }
}

/// Sorted by key: the map's own order changes from run to run.
impl<T: IntoTree> IntoTree for HashMap<String, T> {
    fn into_tree(self) -> Tree {
        let mut entries: Vec<_> = self.into_iter().collect();
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        Tree::Dict(entries.into_iter().collect())
    }
}

macro_rules! tuples {
    ($(($($name:ident $item:ident),+))*) => {$(
        impl<$($item: IntoTree),+> IntoTree for ($($item,)+) {
            fn into_tree(self) -> Tree {
                let ($($name,)+) = self;
                Tree::List(vec![$($name.into_tree()),+])
            }
        }
    )*};
}

tuples! {
    (a A)
    (a A, b B)
    (a A, b B, c C)
    (a A, b B, c C, d D)
    (a A, b B, c C, d D, e E)
    (a A, b B, c C, d D, e E, f F)
    (a A, b B, c C, d D, e E, f F, g G)
    (a A, b B, c C, d D, e E, f F, g G, h H)
}
