//! Checks the layers between crates and within them.
//!
//! Five views are compared with `table`: the manifests (`crates`: dependencies, and how many crates a
//! user builds), the names in the code (`names`: operating system, clocks, threads), the folders of each
//! crate (`folders`), circles of files that use each other (`arrows`), and the size of files and comments
//! (`size`).
//!
//! Flow: cargo's metadata -> [`source`] parses each published crate, tests left out -> `resolve` finds the
//! file that each path leads to -> the rules. Every violation names its file and line, the rule, and the
//! remedy.

mod arrows;
mod crates;
#[cfg(test)]
mod fixture;
mod folders;
mod names;
mod resolve;
mod size;
mod source;
mod table;

use std::fs;
use std::path::Path;

use self::source::Sources;
use self::table::Crate;
use crate::failure::Failure;
use crate::shell;
use crate::workspace::{self, Package};

/// Checks all rules; the detail for CI's table is the size of the facade's tree.
pub(crate) fn check() -> Result<String, Failure> {
    let mut broken = Vec::new();
    let packages = workspace::packages()?;
    for package in packages.iter().filter(|package| package.published) {
        match table::CRATES.iter().find(|rule| rule.name == package.name) {
            Some(rule) => {
                broken.extend(crates::dependencies(rule, package, &packages));
                broken.extend(code(rule, package)?);
            }
            None => broken.push(format!(
                "{}: is published but has no row in xtask/src/layers/table.rs: add what it may know",
                package.name
            )),
        }
    }
    let (count, too_many) = crates::facade()?;
    broken.extend(too_many);
    Failure::unless_empty("the layer rule", broken, format!("{count} crates in the facade's tree"))
}

fn code(rule: &Crate, package: &Package) -> Result<Vec<String>, Failure> {
    let folder = package.folder.join("src");
    let src = folder.strip_prefix(shell::root()).unwrap_or(&folder);
    let sources = Sources::read(&folder, |path| fs::read_to_string(path))?;
    let arrows = arrows::arrows(&sources);
    let mut broken = names::check(rule, &sources, src);
    let folders =
        table::FOLDERS.iter().find(|(name, _)| *name == rule.name).map_or(&[][..], |(_, rows)| *rows);
    broken.extend(folders::check(folders, &sources, &arrows, src));
    broken.extend(arrows::circles(&sources, &arrows, src));
    broken.extend(size::long_files(&sources, src));
    broken.extend(comments(&package.folder)?);
    Ok(broken)
}

fn comments(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut broken = Vec::new();
    for path in shell::files(folder, "rs")? {
        broken.extend(size::wide_comments(&shell::relative(&path).to_string(), &shell::read(&path)?));
    }
    Ok(broken)
}
