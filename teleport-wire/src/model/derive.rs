//! The derive macros, and the functions that derived code calls.
//!
//! A value is moved out of its tree and leaves a null. So arrays keep one owner, and an error can still list
//! all keys.

use crate::model::convert::FromTree;
use crate::model::tree::{Dict, error::TreeError};

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
/// let image = Array::zeros::<u8>([64, 64, 3]);
/// let mut obs = Obs::from_tree(tree!({"image": image, "reward": 1, "task": "stand up"}))?;
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

/// Moves the value of a field out of a struct's dict.
///
/// # Errors
/// Returns an error if the key is missing and the type needs it, or if the value cannot be converted.
pub fn field<T: FromTree>(dict: &mut Dict, key: &'static str) -> Result<T, TreeError> {
    match take(dict, key)? {
        Some(value) => Ok(value),
        None => T::absent().ok_or_else(|| TreeError::missing(key, dict.keys())),
    }
}

/// Moves the value of a field out of a struct's dict, or creates the default if the key is missing.
///
/// # Errors
/// Returns an error if the value cannot be converted.
pub fn field_or_default<T: FromTree + Default>(dict: &mut Dict, key: &'static str) -> Result<T, TreeError> {
    Ok(take(dict, key)?.unwrap_or_default())
}

fn take<T: FromTree>(dict: &mut Dict, key: &'static str) -> Result<Option<T>, TreeError> {
    let Some(tree) = dict.get_mut(key) else { return Ok(None) };
    T::from_tree(std::mem::take(tree)).map(Some).map_err(|error| error.within(key))
}
