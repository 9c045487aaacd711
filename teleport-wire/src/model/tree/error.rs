//! What can be wrong with a tree, for whoever reads, joins or stacks one.
//!
//! Errors are made where something does not fit and pass outwards, each level adding its step to the path.

use crate::model::tree::key::{Key, Step};
use crate::model::{array::error::ArrayError, dtype::DType, tree::Tree};
use std::fmt;

/// Why a tree is not what was asked of it.
///
/// Every variant has the path from the tree that was asked to the part that does not fit.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A dict lacks a key.
    #[error("{path}there is no {key:?}; the dict has {}", Names(.present))]
    Missing {
        /// Where the dict is.
        path: TreePath,
        /// The key asked for.
        key: Key,
        /// The keys that are there.
        present: Vec<Key>,
    },
    /// A list is too short.
    #[error("{path}there is no index {index}; the list has {len} items")]
    NoIndex {
        /// Where the list is.
        path: TreePath,
        /// The index asked for.
        index: usize,
        /// How many items the list has.
        len: usize,
    },
    /// A tree of another kind was expected.
    #[error("{path}expected {expected}, found {found}")]
    Kind {
        /// Where it is.
        path: TreePath,
        /// What was expected: `a list`, `a dict`, `a string`, …
        expected: &'static str,
        /// What was found, arrays with dtype and shape.
        found: String,
    },
    /// A string is none of the names that an enum has.
    #[error("{path}there is no {found:?}; expected one of {}", Names(.known))]
    Variant {
        /// Where the string is.
        path: TreePath,
        /// The string, cut after 64 characters.
        found: String,
        /// The names of the enum's variants.
        known: &'static [&'static str],
    },
    /// A list has another length than the tuple or array it is read as, or than the list beside it.
    #[error("{path}expected a list of {expected} items, found {found}")]
    Length {
        /// Where the list is.
        path: TreePath,
        /// The length expected.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// An array cannot be read as asked.
    #[error("{path}{source}")]
    Array {
        /// Where the array is.
        path: TreePath,
        /// What is wrong with it.
        source: ArrayError,
    },
    /// Two trees that should have the same structure have not.
    #[error("{path}the trees differ: {left} and {right}")]
    Mismatch {
        /// Where they differ.
        path: TreePath,
        /// What the first has there.
        left: String,
        /// What the other has there.
        right: String,
    },
    /// Arrays that are to be stacked differ.
    #[error(
        "{path}cannot stack {found_dtype}{found_shape:?} on {dtype}{shape:?}: arrays are stacked with the same dtype and \
        shape only"
    )]
    Stack {
        /// Where the arrays are.
        path: TreePath,
        /// The dtype in the first tree.
        dtype: DType,
        /// The shape in the first tree.
        shape: Box<[usize]>,
        /// The dtype in another tree.
        found_dtype: DType,
        /// The shape in another tree.
        found_shape: Box<[usize]>,
    },
    /// Strings and bytes cannot be stacked, nor cut into rows.
    #[error(
        "{path}{found} cannot be stacked or cut into rows: send strings as arrays of fixed width, and bytes as arrays of \
        u8; or let the method take its calls one by one, in a list (`Method::listed`)"
    )]
    NoRows {
        /// Where it is.
        path: TreePath,
        /// What it is.
        found: String,
    },
    /// A number has no axis along which it could be cut into rows.
    #[error(
        "{path}expected an array whose first axis has size {expected}, found a scalar {dtype}, which has no axis"
    )]
    Scalar {
        /// Where it is.
        path: TreePath,
        /// How many rows were expected.
        expected: usize,
        /// Its type.
        dtype: DType,
    },
    /// An array has another number of rows than expected.
    #[error("{path}expected an array whose first axis has size {expected}, found shape {shape:?}")]
    Rows {
        /// Where the array is.
        path: TreePath,
        /// How many rows were expected.
        expected: usize,
        /// The shape of the array.
        shape: Box<[usize]>,
    },
    /// There is nothing from which the number of rows could be known.
    #[error("no trees to stack, or no arrays to cut into rows")]
    Empty,
    /// A leaf is missing or left over when a tree is put together again.
    #[error("the structure has {expected} leaves, but {found} were given")]
    Leaves {
        /// How many leaves the structure has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
}

impl TreeError {
    /// The same error, seen from one level further out: `step` is put before its path.
    ///
    /// For implementors of [`FromTree`](crate::FromTree) that convert the parts of a tree themselves.
    pub fn within<'a>(mut self, step: impl Into<Step<'a>>) -> TreeError {
        use TreeError::*;
        match &mut self {
            Missing { path, .. }
            | NoIndex { path, .. }
            | Kind { path, .. }
            | Variant { path, .. }
            | Length { path, .. }
            | Array { path, .. }
            | Mismatch { path, .. }
            | Stack { path, .. }
            | NoRows { path, .. }
            | Scalar { path, .. }
            | Rows { path, .. } => path.prepend(step.into()),
            Empty | Leaves { .. } => {}
        }
        self
    }

    /// The error of a tree of another kind, for implementors of [`FromTree`](crate::FromTree).
    ///
    /// `expected` reads as in a sentence: `"a dict"`.
    pub fn kind(expected: &'static str, found: &Tree) -> TreeError {
        TreeError::Kind { path: TreePath::default(), expected, found: found.describe() }
    }

    /// The error of a string that names no variant of an enum, for implementors of [`FromTree`](crate::FromTree).
    pub fn variant(found: &str, known: &'static [&'static str]) -> TreeError {
        let mut chars = found.chars();
        let mut found: String = chars.by_ref().take(MAX_VARIANT_CHARS).collect();
        if chars.next().is_some() {
            found.push('…');
        }
        TreeError::Variant { path: TreePath::default(), found, known }
    }

    /// Why `tree` has no subtree at `step`.
    pub(crate) fn no_step(tree: &Tree, step: Step<'_>) -> TreeError {
        let path = TreePath::default();
        match (tree, step) {
            (Tree::Dict(dict), Step::Key(key)) => {
                TreeError::Missing { path, key: key.into(), present: dict.keys().cloned().collect() }
            }
            (Tree::List(list), Step::Index(index)) => TreeError::NoIndex { path, index, len: list.len() },
            (_, Step::Key(_)) => TreeError::kind("a dict", tree),
            (_, Step::Index(_)) => TreeError::kind("a list", tree),
        }
    }
}

impl From<ArrayError> for TreeError {
    fn from(source: ArrayError) -> TreeError {
        TreeError::Array { path: TreePath::default(), source }
    }
}

/// Where in a tree something is: `obs.images[3]`; keys that would be misread are quoted: `obs["a.b"]`.
///
/// Displays as text that introduces an error: empty at the root, else `at obs.images[3]: `.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TreePath(String);

impl TreePath {
    /// The path as text, such as `obs.images[3]`; empty for the tree itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn prepend(&mut self, step: Step<'_>) {
        let mut path = match step {
            Step::Index(index) => format!("[{index}]"),
            Step::Key(key) if is_plain(key) => key.to_string(),
            Step::Key(key) => format!("[{key:?}]"),
        };
        if !self.0.is_empty() && !self.0.starts_with('[') {
            path.push('.');
        }
        path.push_str(&self.0);
        self.0 = path;
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|char| char.is_alphanumeric() || matches!(char, '_' | '-' | '/'))
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "at {}: ", self.0) }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Some names of a dict, enough to see a misspelling.
struct Names<'a, T>(&'a [T]);

/// A dict may have thousands of keys; a message with ten is still read.
const MAX_NAMES: usize = 10;

/// A peer may send any string where a name is expected; so much of it shows what it is.
const MAX_VARIANT_CHARS: usize = 64;

impl<T: fmt::Debug> fmt::Display for Names<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no keys");
        }
        for (index, key) in self.0.iter().take(MAX_NAMES).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{key:?}")?;
        }
        match self.0.len().saturating_sub(MAX_NAMES) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
