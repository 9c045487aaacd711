//! The macro `tree!` and its helpers.
//!
//! `tree!` passes the inside of a dict or list to `__tree_fill`, which takes one entry at a time: first the
//! key, then by `__tree_value` the value and the comma. A value of one token goes to `tree!` again. Literals
//! are matched apart from other expressions, so that integers become `i64`. A minus sign has rules of its
//! own, since the fragment `literal` accepts it and then fails on anything but a digit.

use crate::model::{convert::IntoTree, tree::Tree};

/// Creates a [`Tree`] from the notation in which trees are displayed.
///
/// `null`, `{"key": value, …}` and `[value, …]` can be nested. Literals of integers are `i64` and those of
/// floats `f64`, as in NumPy, unless they have a suffix (`1u8`). Any other value is an expression that
/// implements [`IntoTree`]. A key is a literal, or an expression in parentheses that is a string. The last of
/// equal keys wins. A dict or list can have about 40 entries with the default `#![recursion_limit]`.
///
/// ```
/// use teleport_wire::{tree, Array, Tree};
///
/// let name = String::from("reward");
/// let image = Array::zeros::<u8>([64, 64, 3]);
/// let tree = tree!({"image": image, (name): 0.5, "next": null, "path": [1, 2u8, "end"], "info": {}});
/// assert_eq!(tree.field::<f64>("reward")?, 0.5);
/// assert_eq!(tree!([1, 2]).as_list().map(|list| list.len()), Some(2)); // a list ...
/// assert_eq!(tree!(vec![1i64, 2]).as_array().map(|array| array.len()), Some(2)); // ... and an array
/// # Ok::<(), teleport_wire::TreeError>(())
/// ```
#[macro_export]
macro_rules! tree {
    (null) => { $crate::Tree::Null };
    ({ $($entries:tt)* }) => {{
        #[allow(unused_mut)]
        let mut dict = $crate::Dict::new();
        $crate::__tree_fill!(dict dict; $($entries)*);
        $crate::Tree::Dict(dict)
    }};
    ([ $($items:tt)* ]) => {{
        #[allow(unused_mut)]
        let mut list = $crate::__private::empty_list();
        $crate::__tree_fill!(list list; $($items)*);
        $crate::Tree::List(list)
    }};
    (- $literal:literal) => { $crate::__tree_literal!(- $literal) };
    (- $($value:tt)*) => { $crate::IntoTree::into_tree(- $($value)*) };
    ($literal:literal) => { $crate::__tree_literal!($literal) };
    ($value:expr) => { $crate::IntoTree::into_tree($value) };
}

/// Converts a literal by the method that [`Literal`] chooses.
#[doc(hidden)]
#[macro_export]
macro_rules! __tree_literal {
    ($literal:expr) => {{
        #[allow(unused_imports)]
        use $crate::__private::LiteralIntoTree as _;
        $crate::__private::Literal($literal).into_tree()
    }};
}

/// Takes the entries of a dict or the items of a list: none, or one and the rest.
#[doc(hidden)]
#[macro_export]
macro_rules! __tree_fill {
    ($into:ident $kind:ident;) => {};
    ($into:ident dict; $key:tt : $($rest:tt)+) => { $crate::__tree_value!($into dict ($key); $($rest)+) };
    ($into:ident list; $($rest:tt)+) => { $crate::__tree_value!($into list (); $($rest)+) };
}

/// Takes a value up to a comma or the end, and the rest.
#[doc(hidden)]
#[macro_export]
macro_rules! __tree_value {
    (@expr $into:ident $kind:ident $key:tt; $value:expr $(, $($rest:tt)*)?) => {
        $crate::__tree_put!($into $key $crate::IntoTree::into_tree($value));
        $crate::__tree_fill!($into $kind; $($($rest)*)?);
    };
    ($into:ident $kind:ident $key:tt; $value:tt $(, $($rest:tt)*)?) => {
        $crate::__tree_put!($into $key $crate::tree!($value));
        $crate::__tree_fill!($into $kind; $($($rest)*)?);
    };
    ($into:ident $kind:ident $key:tt; - $value:tt $(, $($rest:tt)*)?) => {
        $crate::__tree_put!($into $key $crate::tree!(- $value));
        $crate::__tree_fill!($into $kind; $($($rest)*)?);
    };
    ($into:ident $kind:ident $key:tt; $($rest:tt)+) => {
        $crate::__tree_value!(@expr $into $kind $key; $($rest)+);
    };
}

/// Puts one value into a list, or under its key into a dict. A literal key does not allocate.
#[doc(hidden)]
#[macro_export]
macro_rules! __tree_put {
    ($list:ident () $value:expr) => {
        $list.push($value);
    };
    ($dict:ident ($key:literal) $value:expr) => {
        $dict.insert($crate::Key::from_static($key), $value);
    };
    ($dict:ident (($key:expr)) $value:expr) => {
        $dict.insert($crate::Key::from($key), $value);
    };
}

/// Creates a list to push to. A function keeps clippy from asking every caller for `vec!`.
pub fn empty_list() -> Vec<Tree> {
    Vec::new()
}

/// A literal in [`tree!`](crate::tree!).
///
/// The inherent method takes precedence over the one of the trait, and makes an integer without a suffix an
/// `i64`. A literal of any other type has only the method of the trait.
#[derive(Debug)]
pub struct Literal<T>(pub T);

impl Literal<i64> {
    /// Creates an `i64` scalar.
    pub fn into_tree(self) -> Tree {
        self.0.into_tree()
    }
}

/// The conversion of a [`Literal`] of a type other than `i64`.
pub trait LiteralIntoTree {
    /// Converts the literal with its own type.
    fn into_tree(self) -> Tree;
}

impl<T: IntoTree> LiteralIntoTree for Literal<T> {
    fn into_tree(self) -> Tree {
        self.0.into_tree()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Array, DType, Dict, Tree};

    fn dtype(tree: &Tree) -> Option<DType> {
        tree.as_array().map(Array::dtype)
    }

    #[test]
    fn literals_have_the_types_of_numpy() {
        let dtypes = [
            (tree!(1), DType::I64),
            (tree!(-1), DType::I64),
            (tree!(5_000_000_000), DType::I64),
            (tree!(-9_223_372_036_854_775_808), DType::I64),
            (tree!(0.5), DType::F64),
            (tree!(-0.5), DType::F64),
            (tree!(true), DType::Bool),
            (tree!(1u8), DType::U8),
            (tree!(-1i32), DType::I32),
            (tree!(1f32), DType::F32),
        ];
        for (tree, expected) in dtypes {
            assert_eq!(dtype(&tree), Some(expected), "{tree}");
        }
        assert_eq!(tree!("x").as_str(), Some("x"));
        assert!(tree!(null).is_null());
    }

    #[test]
    fn expressions_keep_their_types() {
        let (x, y) = (3i32, 2.0f32);
        let tree = tree!([-x, -y * y, x as u8, x + 1, -1 + x, 1i16 + 1, (1u16), "a".len()]);
        let dtypes: Vec<_> = tree.as_list().unwrap().iter().map(|tree| dtype(tree).unwrap()).collect();
        use DType::*;
        assert_eq!(dtypes, [I32, F32, U8, I32, I32, I16, U16, U64]);
        assert_eq!(tree.field::<f32>(1), Ok(-4.0));
        assert_eq!(tree!(-x), tree!(-3i32));
        assert_eq!(tree!(-1 - 1), tree!(-2i32));
        assert_eq!(
            tree!({ "a": if x > 1 { "more" } else { "less" }, "b": -x as i64 }),
            tree!({"a": "more", "b": -3})
        );
    }

    #[test]
    fn nests() {
        let key = String::from("k");
        let tree = tree!({"a": {"b": [], "c": {}}, (&key): [[1, null], {"d": "e"},], (key): null, "f": 'x'.len_utf8(),});
        assert_eq!(tree.to_string(), r#"{"a": {"b": [], "c": {}}, "k": null, "f": 1}"#);
        assert_eq!(tree!([[1, null], {"d": "e"},]).to_string(), r#"[[1, null], {"d": "e"}]"#);
        assert_eq!(tree!({}), Dict::new().into());
        assert_eq!(tree!([]), Tree::List(vec![]));
        assert_eq!(tree!([[1, 2].len(), { 7i32 }.pow(2)]), tree!([2u64, 49i32]));
    }

    #[test]
    fn forty_entries_fit() {
        let x = 1;
        let tree = tree!([
            x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x,
            x, x, x, x, x, x, x, x
        ]);
        assert_eq!(tree.as_list().map(<[Tree]>::len), Some(40));
    }
}
