//! The derives with their rules, and what derived code calls.
//!
//! The functions here are what is the same for every type: derived code only names fields and types. Values are moved
//! out of their tree and a null is left, so that arrays keep having one owner, while all keys are still there when an
//! error must tell them. Bound: `TreeError` bounds what it says of a tree.

use crate::model::tree::error::{TreeError, TreePath};
use crate::model::{convert, tree::Tree, tree::dict::Dict, tree::key::Key};

/// Derives the trait [`IntoTree`](trait@crate::IntoTree) for a struct or an enum. Needs the feature `derive`.
///
/// ```
/// use teleport_wire::{Array, FromTree, IntoTree, tree};
///
/// #[derive(IntoTree, FromTree)]
/// struct Obs {
///     image: Array,
///     reward: f32,
///     #[teleport(rename = "is-last", default)]
///     last: bool,
///     task: Option<Task>,
/// }
///
/// #[derive(IntoTree, FromTree, PartialEq, Debug)]
/// enum Task {
///     Walk,
///     #[teleport(rename = "stand up")]
///     StandUp,
/// }
///
/// let mut obs = Obs::from_tree(tree!({"image": Array::zeros::<u8>([64, 64, 3]), "reward": 1, "task": "stand up"}))?;
/// assert_eq!((obs.reward, obs.last, &obs.task), (1.0, false, &Some(Task::StandUp)));
/// obs.image.as_mut_slice::<u8>()?.fill(7); // in place: the array has one owner
/// obs.task = None;
/// let tree = obs.into_tree();
/// assert_eq!(tree.as_dict().unwrap().keys().collect::<Vec<_>>(), ["image", "reward", "is-last", "task"]);
/// assert!(tree.get("task").unwrap().is_null());
///
/// let error = Obs::from_tree(tree!({"image": Array::zeros::<u8>([4]), "rewards": 1})).err().unwrap();
/// assert_eq!(error.to_string(), r#"there is no "reward"; the dict has "image", "rewards""#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An enum with fields does not compile:
/// ```compile_fail
/// #[derive(teleport_wire::IntoTree)]
/// enum Move {
///     Stay,
///     Walk { meters: f32 },
/// }
/// ```
pub use teleport_derive::IntoTree;

/// Derives the trait [`FromTree`](trait@crate::FromTree) for a struct or an enum. Needs the feature `derive`.
///
/// ```
/// use teleport_wire::{FromTree, tree};
///
/// #[derive(FromTree)]
/// struct Episode<T> {
///     name: String,
///     steps: Vec<T>,
/// }
///
/// let episode = Episode::<f32>::from_tree(tree!({"name": "first", "steps": vec![0.5f32, 1.0]}))?;
/// assert_eq!((episode.name.as_str(), episode.steps), ("first", vec![0.5, 1.0]));
///
/// let error = Episode::<u8>::from_tree(tree!({"name": "first", "steps": [1, 300]})).err().unwrap();
/// assert_eq!(error.to_string(), "at steps[1]: the int64 300 cannot be read as uint8 without loss");
/// # Ok::<(), teleport_wire::TreeError>(())
/// ```
pub use teleport_derive::FromTree;

/// The dict of a struct's fields.
pub fn entries<const COUNT: usize>(entries: [(Key, Tree); COUNT]) -> Dict {
    entries.into_iter().collect()
}

/// Moves the value of a field out of a struct's dict.
///
/// # Errors
/// If there is none and the type has none that stands for it, or if it does not convert.
pub fn field<T: convert::FromTree>(dict: &mut Dict, key: &'static str) -> Result<T, TreeError> {
    match take(dict, key)? {
        Some(value) => Ok(value),
        None => T::absent().ok_or_else(|| missing(dict, key)),
    }
}

/// Moves the value of a field out of a struct's dict, or makes it if the key is missing.
///
/// # Errors
/// If it does not convert.
pub fn field_or_default<T: convert::FromTree + Default>(
    dict: &mut Dict,
    key: &'static str,
) -> Result<T, TreeError> {
    Ok(take(dict, key)?.unwrap_or_default())
}

fn take<T: convert::FromTree>(dict: &mut Dict, key: &'static str) -> Result<Option<T>, TreeError> {
    let Some(tree) = dict.get_mut(key) else { return Ok(None) };
    T::from_tree(std::mem::take(tree)).map(Some).map_err(|error| error.within(key))
}

fn missing(dict: &Dict, key: &'static str) -> TreeError {
    let present = dict.keys().cloned().collect();
    TreeError::Missing { path: TreePath::default(), key: Key::from_static(key), present }
}

/// The items of a list that stands for a struct of `COUNT` fields without names.
///
/// # Errors
/// If it is no list, or has another length.
pub fn items<const COUNT: usize>(tree: Tree) -> Result<[Tree; COUNT], TreeError> {
    let Tree::List(list) = tree else { return Err(TreeError::kind("a list", &tree)) };
    list.try_into().map_err(|list: Vec<Tree>| TreeError::Length {
        path: TreePath::default(),
        expected: COUNT,
        found: list.len(),
    })
}

/// Moves the value at `index`, which derived code takes from its own count, out of the items.
///
/// # Errors
/// If it does not convert.
pub fn item<T: convert::FromTree>(items: &mut [Tree], index: usize) -> Result<T, TreeError> {
    T::from_tree(std::mem::take(&mut items[index])).map_err(|error| error.within(index))
}

/// Many structs of one field without a name, as many of that field.
pub fn unwrapped_into_tree<S, T: convert::IntoTree>(items: Vec<S>, unwrap: impl FnMut(S) -> T) -> Tree {
    T::vec_into_tree(items.into_iter().map(unwrap).collect())
}

/// Many structs of one field without a name, from many of that field.
///
/// # Errors
/// If they do not convert.
pub fn wrapped_from_tree<T: convert::FromTree, S>(
    tree: Tree,
    wrap: impl FnMut(T) -> S,
) -> Result<Vec<S>, TreeError> {
    Ok(T::vec_from_tree(tree)?.into_iter().map(wrap).collect())
}
