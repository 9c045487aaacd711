//! The packages of the workspace and their dependencies, from `cargo metadata`.

use std::path::PathBuf;

use serde_json::Value;

use crate::failure::Failure;
use crate::shell;

/// One package of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The folder of its manifest.
    pub(crate) folder: PathBuf,
    /// True if it is meant for the registry.
    pub(crate) published: bool,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One dependency of a manifest; optional ones are included.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// True if only tests and examples use it.
    pub(crate) dev: bool,
}

/// Returns every package of the workspace.
pub(crate) fn packages() -> Result<Vec<Package>, Failure> {
    let mut command = shell::cargo("metadata --no-deps --format-version 1");
    let text = shell::output(&mut command)?;
    let unreadable = |problem: String| Failure::Output { command: shell::line(&command), problem };
    let metadata: Value = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let packages = metadata["packages"].as_array().into_iter().flatten().map(package);
    packages.collect::<Option<Vec<_>>>().ok_or_else(|| unreadable("a package lacks a field".into()))
}

fn package(value: &Value) -> Option<Package> {
    let manifest = PathBuf::from(value["manifest_path"].as_str()?);
    Some(Package {
        name: value["name"].as_str()?.to_owned(),
        version: value["version"].as_str()?.to_owned(),
        folder: manifest.parent()?.to_path_buf(),
        // Null means any registry; `publish = false` is an empty list.
        published: value["publish"].as_array().is_none_or(|registries| !registries.is_empty()),
        dependencies: value["dependencies"].as_array()?.iter().map(dependency).collect::<Option<_>>()?,
    })
}

fn dependency(value: &Value) -> Option<Dependency> {
    let dev = value["kind"].as_str() == Some("dev");
    Some(Dependency { name: value["name"].as_str()?.to_owned(), dev })
}
