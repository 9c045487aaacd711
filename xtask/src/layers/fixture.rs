//! Small crates for the tests of the rules.

use std::io;
use std::path::Path;

use super::source::Sources;

/// The crate with these files, by their paths in its `src`.
pub(super) fn sources(files: &[(&str, &str)]) -> Sources {
    let read = |path: &Path| {
        let text = files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| *text);
        text.map(str::to_owned).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    Sources::read(Path::new(""), read).unwrap()
}
