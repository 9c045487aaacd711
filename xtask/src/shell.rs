//! Runs other programs from the workspace root, and finds its files.
//!
//! Programs inherit standard error, so their own messages reach the developer unchanged.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use crate::failure::Failure;

/// Returns the folder of the workspace's manifest.
///
/// It is found at run time: two checkouts that share a target folder may run each other's build of this
/// tool.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&package).parent().map(Path::to_path_buf).unwrap_or_default()
    });
    &ROOT
}

/// Returns the folder for build output and for the files that these commands leave behind.
pub(crate) fn target() -> PathBuf {
    // A relative CARGO_TARGET_DIR is taken from the workspace root; `join` keeps an absolute one.
    let folder = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(folder)
}

/// Returns a command that runs cargo at the workspace root with `arguments`, which are separated by spaces.
pub(crate) fn cargo(arguments: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments.split_whitespace());
    command
}

/// Runs a command to its end. Its output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(start(command))?;
    if status.success() { Ok(()) } else { Err(Failure::Command { command: line(command), status }) }
}

/// Runs a command to its end and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let result = command.stderr(Stdio::inherit()).output().map_err(start(command))?;
    if !result.status.success() {
        return Err(Failure::Command { command: line(command), status: result.status });
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Runs a command to its end, prints its standard output as it comes, and calls `watch` with each line.
///
/// `watch` has seen every line even if the result is a failure.
pub(crate) fn watched(command: &mut Command, mut watch: impl FnMut(&str)) -> Result<(), Failure> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(start(command))?;
    let mut lines = BufReader::new(child.stdout.take().expect("standard output was piped above"));
    let mut bytes = Vec::new();
    while lines.read_until(b'\n', &mut bytes).map_err(start(command))? > 0 {
        // A closed terminal must not stop the tests.
        let _ = io::stdout().write_all(&bytes);
        watch(String::from_utf8_lossy(&bytes).trim_end());
        bytes.clear();
    }
    let status = child.wait().map_err(start(command))?;
    if status.success() { Ok(()) } else { Err(Failure::Command { command: line(command), status }) }
}

/// Returns the command as a developer would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn start(command: &Command) -> impl FnOnce(io::Error) -> Failure + use<> {
    let command = line(command);
    move |source| Failure::Start { command, source }
}

/// Returns true if `cargo <name>` is installed.
pub(crate) fn has_cargo_command(name: &str) -> bool {
    let quiet = cargo(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Returns all files under `folder` with this extension, sorted, without build output and hidden folders.
pub(crate) fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Failure::file(&folder))? {
            let entry = entry.map_err(Failure::file(&folder))?;
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().map_err(Failure::file(&path))?;
            if kind.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the path from the workspace root, for messages.
pub(crate) fn relative(path: &Path) -> std::path::Display<'_> {
    path.strip_prefix(root()).unwrap_or(path).display()
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(Failure::file(path))
}
