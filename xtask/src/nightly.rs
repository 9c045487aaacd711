//! The nightly toolchain, for the steps that stable Rust cannot run: Miri and ThreadSanitizer.
//!
//! A toolchain belongs to the developer, and other projects use it. So it is installed only on request
//! (`cargo xtask ci --install`), and one that is there is extended but never updated. Without it, a step
//! prints a notice that stands out, and the table of CI's steps says that it did not run.
//!
//! The output of each step is in a folder of its own in the target folder. A folder that another compiler
//! wrote, or that has grown past [`MAX_FOLDER_BYTES`], is emptied first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;
use crate::{python, shell};

const TOOLCHAIN: &str = "nightly";

/// The components beside the compiler: Miri, and the sources from which both steps build the standard
/// library.
const COMPONENTS: [&str; 2] = ["miri", "rust-src"];

/// A complete run of the larger of the two steps writes a good half of it.
const MAX_FOLDER_BYTES: u64 = 4 << 30;

/// A nightly toolchain with all components.
#[derive(Debug)]
pub(crate) struct Nightly {
    /// What `rustc -vV` prints.
    version: String,
}

impl Nightly {
    /// Finds the toolchain.
    ///
    /// # Errors
    /// If it or a component is missing: the reason, as text for the developer.
    pub(crate) fn find() -> Result<Nightly, String> {
        let version = python::quiet(&mut toolchain(&["rustc", "-vV"]))
            .map_err(|reason| format!("there is no nightly toolchain: {}", first_line(&reason)))?;
        let missing = missing_components()?;
        if !missing.is_empty() {
            return Err(format!("the nightly toolchain has no {}", missing.join(" and no ")));
        }
        Ok(Nightly { version })
    }

    /// Returns the target triple of this machine.
    pub(crate) fn host(&self) -> &str {
        let lines = self.version.lines();
        lines.filter_map(|line| line.strip_prefix("host: ")).next().unwrap_or_default()
    }

    /// Returns a command that runs this toolchain's cargo at the workspace root, with output in the folder
    /// `name` of the target folder.
    ///
    /// # Errors
    /// If the folder of an earlier run cannot be emptied.
    pub(crate) fn cargo(&self, arguments: &str, name: &str) -> Result<Command, Failure> {
        let folder = shell::target().join(name);
        self.empty_if_outdated(&folder)?;
        let mut command = toolchain(&["cargo"]);
        command.current_dir(shell::root()).args(arguments.split_whitespace());
        command.env("CARGO_TARGET_DIR", folder);
        // Nobody edits and builds these again. Both settings keep the folder small.
        command.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        // Tests panic on purpose, and finding the names of a trace takes seconds in these builds.
        command.env_remove("RUST_BACKTRACE");
        Ok(command)
    }

    /// Empties a folder that another compiler wrote or that is too large.
    fn empty_if_outdated(&self, folder: &Path) -> Result<(), Failure> {
        let written_by = folder.join("written-by.txt");
        let is_current = fs::read_to_string(&written_by).is_ok_and(|version| version == self.version);
        if is_current && bytes(folder) <= MAX_FOLDER_BYTES {
            return Ok(());
        }
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(Failure::file(folder))?;
        }
        fs::create_dir_all(folder).map_err(Failure::file(folder))?;
        fs::write(&written_by, &self.version).map_err(Failure::file(&written_by))
    }
}

/// Installs what is missing with rustup. An existing toolchain keeps its version.
pub(crate) fn install() -> Result<(), Failure> {
    if Nightly::find().is_ok() {
        return Ok(());
    }
    let mut command = Command::new("rustup");
    if python::quiet(&mut toolchain(&["rustc", "-vV"])).is_ok() {
        command.args(["component", "add", "--toolchain", TOOLCHAIN]).args(COMPONENTS);
    } else {
        command.args(["toolchain", "install", TOOLCHAIN, "--profile", "minimal"]);
        command.args(["--component", &COMPONENTS.join(",")]);
    }
    shell::run(&mut command)
}

/// Says that `step` did not run. Returns the detail for CI's table.
pub(crate) fn not_run(step: &str, reason: &str) -> String {
    let rule = "!".repeat(110);
    println!("{rule}\n{step} DID NOT RUN: {reason}.");
    println!("Nothing is known about what it would have found. To install what is missing:");
    println!("    cargo xtask ci --install");
    println!("or, if there is no nightly toolchain yet:");
    println!("    rustup toolchain install nightly --profile minimal --component {}", COMPONENTS.join(","));
    println!("or, to add to the one that is there:");
    println!("    rustup component add --toolchain nightly {}\n{rule}", COMPONENTS.join(" "));
    format!("SKIPPED: {reason} (cargo xtask ci --install)")
}

/// Returns a command of the toolchain.
fn toolchain(words: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    // Looking for a toolchain must not install it.
    command.env("RUSTUP_AUTO_INSTALL", "0").args(["run", TOOLCHAIN]).args(words);
    command
}

fn missing_components() -> Result<Vec<&'static str>, String> {
    let mut command = Command::new("rustup");
    let installed =
        python::quiet(command.args(["component", "list", "--installed", "--toolchain", TOOLCHAIN]))?;
    // `rust-src`, but `miri-x86_64-unknown-linux-gnu`.
    let is_there = |name: &str| installed.lines().any(|line| line.starts_with(name));
    Ok(COMPONENTS.into_iter().filter(|name| !is_there(name)).collect())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Returns the size of all files of a folder. What cannot be read counts as nothing.
fn bytes(folder: &Path) -> u64 {
    let mut folders = vec![PathBuf::from(folder)];
    let mut sum = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) => sum += data.len(),
                Err(_) => {}
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path, version: &str) -> bool {
        let nightly = Nightly { version: version.to_owned() };
        nightly.empty_if_outdated(folder).unwrap();
        let output = folder.join("output");
        let is_kept = output.exists();
        fs::write(&output, "built").unwrap();
        is_kept
    }

    #[test]
    fn the_output_of_another_compiler_is_removed() {
        let folder = shell::target().join(format!("nightly-test-{}", std::process::id()));
        assert!(!written(&folder, "1.0"));
        assert!(written(&folder, "1.0"));
        assert_eq!(bytes(&folder), 8);
        assert!(!written(&folder, "1.1"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_host_is_read_from_the_version() {
        let nightly = Nightly { version: "rustc 1.0\nbinary: rustc\nhost: x86_64-a-b\nrelease: 1".into() };
        assert_eq!(nightly.host(), "x86_64-a-b");
    }
}
