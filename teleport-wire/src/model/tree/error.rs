//! The errors of reading, joining and stacking trees.
//!
//! An error is created at the part that does not fit. On its way outwards, each level adds its step to the
//! path.

use std::fmt;

use crate::model::tree::key::{Key, Step};
use crate::model::{array::error::ArrayError, dtype::DType};

/// The error of a tree that does not fit a request.
///
/// The `path` leads from the tree that was read to the part that does not fit.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A dict lacks a key.
    #[error("{path}there is no {key:?}; the dict has {}", list(.present))]
    Missing {
        /// The place of the dict.
        path: TreePath,
        /// The requested key.
        key: Key,
        /// The keys of the dict.
        present: Vec<Key>,
    },
    /// A list is too short.
    #[error("{path}there is no index {index}; the list has {len} items")]
    NoIndex {
        /// The place of the list.
        path: TreePath,
        /// The requested index.
        index: usize,
        /// The length of the list.
        len: usize,
    },
    /// The tree is of another kind than expected.
    #[error("{path}expected {expected}, found {found}")]
    Kind {
        /// The place of the tree.
        path: TreePath,
        /// The expected kind: `a list`, `a dict`, `a string`, …
        expected: &'static str,
        /// A description of the tree. For an array it has dtype and shape.
        found: String,
    },
    /// A string is not the name of a variant of the enum.
    #[error("{path}there is no {found:?}; expected one of {}", list(.known))]
    Variant {
        /// The place of the string.
        path: TreePath,
        /// The string, cut after 64 characters.
        found: String,
        /// The names of the enum's variants.
        known: &'static [&'static str],
    },
    /// A list has another length than the tuple or array that it is read as, or than the list that it is
    /// joined with.
    #[error("{path}expected a list of {expected} items, found {found}")]
    Length {
        /// The place of the list.
        path: TreePath,
        /// The expected length.
        expected: usize,
        /// The length of the list.
        found: usize,
    },
    /// An array cannot be read as requested.
    #[error("{path}{source}")]
    Array {
        /// The place of the array.
        path: TreePath,
        /// The reason.
        source: ArrayError,
    },
    /// Two trees that should have the same structure differ.
    #[error("{path}the trees differ: {left} and {right}")]
    Mismatch {
        /// The place where they differ.
        path: TreePath,
        /// A description of the first tree's part.
        left: String,
        /// A description of the other tree's part.
        right: String,
    },
    /// Arrays to be stacked differ in dtype or shape.
    #[error(
        "{path}cannot stack {found_dtype}{found_shape:?} on {dtype}{shape:?}: arrays are stacked with the same dtype and \
        shape only"
    )]
    Stack {
        /// The place of the arrays.
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
    /// Strings and bytes can be neither stacked nor cut into rows.
    #[error(
        "{path}{found} cannot be stacked or cut into rows: send strings as arrays of fixed width, and bytes as \
        arrays of u8; or let the method take its calls one by one, in a list (`Method::listed`)"
    )]
    NoRows {
        /// The place of the string or bytes.
        path: TreePath,
        /// A description of the string or bytes.
        found: String,
    },
    /// A scalar has no axis along which to cut it into rows.
    #[error(
        "{path}expected an array whose first axis has size {expected}, found a scalar {dtype}, which has no axis"
    )]
    Scalar {
        /// The place of the scalar.
        path: TreePath,
        /// The expected number of rows.
        expected: usize,
        /// The type of the scalar.
        dtype: DType,
    },
    /// An array has another number of rows than expected.
    #[error("{path}expected an array whose first axis has size {expected}, found shape {shape:?}")]
    Rows {
        /// The place of the array.
        path: TreePath,
        /// The expected number of rows.
        expected: usize,
        /// The shape of the array.
        shape: Box<[usize]>,
    },
    /// The number of rows is unknown, because there are no trees or no arrays.
    #[error("no trees to stack, or no arrays to cut into rows")]
    Empty,
    /// The number of leaves differs from that of the structure.
    #[error("the structure has {expected} leaves, but {found} were given")]
    Leaves {
        /// The number of leaves of the structure.
        expected: usize,
        /// The number of leaves given.
        found: usize,
    },
}

impl TreeError {
    /// Puts `step` before the path of the error.
    ///
    /// For implementations of [`FromTree`](crate::FromTree) that convert the parts of a tree themselves.
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

    /// Returns the error for a string that names no variant of an enum, for implementations of
    /// [`FromTree`](crate::FromTree).
    pub fn variant(found: &str, known: &'static [&'static str]) -> TreeError {
        let mut chars = found.chars();
        let mut found: String = chars.by_ref().take(MAX_VARIANT_CHARS).collect();
        if chars.next().is_some() {
            found.push('…');
        }
        TreeError::Variant { path: TreePath::ROOT, found, known }
    }

    pub(crate) fn missing<'a>(key: &str, present: impl Iterator<Item = &'a Key>) -> TreeError {
        TreeError::Missing { path: TreePath::ROOT, key: key.into(), present: present.cloned().collect() }
    }

    pub(crate) fn length(expected: usize, found: usize) -> TreeError {
        TreeError::Length { path: TreePath::ROOT, expected, found }
    }
}

impl From<ArrayError> for TreeError {
    fn from(source: ArrayError) -> TreeError {
        TreeError::Array { path: TreePath::ROOT, source }
    }
}

/// A place in a tree: `obs.images[3]`. Keys with special characters are quoted: `obs["a.b"]`.
///
/// Displays as the introduction of an error: empty at the root, otherwise `at obs.images[3]: `.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TreePath(String);

impl TreePath {
    pub(crate) const ROOT: TreePath = TreePath(String::new());

    /// Returns the path as text, such as `obs.images[3]`. It is empty for the tree itself.
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

/// Lists some of the names, enough to notice a misspelling.
fn list<T: fmt::Debug>(names: &[T]) -> String {
    if names.is_empty() {
        return "no keys".to_string();
    }
    let shown: Vec<_> = names.iter().take(MAX_NAMES).map(|name| format!("{name:?}")).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A dict may have thousands of keys. A text with ten is still readable.
const MAX_NAMES: usize = 10;

/// A peer may send a string of any length instead of a name. Its start is enough to recognize it.
const MAX_VARIANT_CHARS: usize = 64;
