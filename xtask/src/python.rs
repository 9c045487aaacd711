//! Python virtual environments in the target folder: one with NumPy for the tests of the client in Python,
//! and one for the benchmark's peers in Python.
//!
//! Flow: `python3 -m venv` and `pip install`, once; later runs find the environment. The system's Python is
//! never changed. If a command fails, for example without a network, a warning is printed and the tests skip
//! themselves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::shell;

/// The environment in which the tests look for NumPy.
fn folder() -> PathBuf {
    shell::target().join("python")
}

/// Makes the environment if it is missing. The detail gives the version of NumPy, or says why there is none.
pub(crate) fn prepare() -> Result<String, Failure> {
    let folder = folder();
    let python = python_of(&folder);
    let version =
        || quiet(Command::new(&python).args(["-c", "import numpy; print('NumPy', numpy.__version__)"]));
    if let Ok(version) = version() {
        return Ok(version);
    }
    match make(&folder, &["numpy"]).and_then(|()| version()) {
        Ok(version) => Ok(version),
        Err(reason) => {
            // A later run would take an unfinished environment for a finished one.
            remove(&folder)?;
            println!("NO PYTHON WITH NUMPY: THE TESTS OF THE CLIENT IN PYTHON WILL BE SKIPPED.\n{reason}");
            Ok(format!("SKIPPED: {}", reason.lines().last().unwrap_or_default()))
        }
    }
}

/// Makes an environment in `folder` for a file of requirements, unless it was made for the same file before.
/// Returns the path of its Python.
pub(crate) fn environment(folder: &Path, requirements: &Path) -> Result<PathBuf, String> {
    let made_for = folder.join("requirements.txt");
    let wanted = fs::read(requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    if fs::read(&made_for).ok().as_ref() != Some(&wanted) {
        make(folder, &["--requirement", &requirements.to_string_lossy()])?;
        fs::write(&made_for, wanted).map_err(|error| format!("{}: {error}", made_for.display()))?;
    }
    Ok(python_of(folder))
}

fn make(folder: &Path, packages: &[&str]) -> Result<(), String> {
    quiet(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    quiet(Command::new(python_of(folder)).args(install).args(packages)).map(drop)
}

fn python_of(folder: &Path) -> PathBuf {
    folder.join("bin/python3")
}

/// Runs a program and returns its output, or the reason why it failed.
pub(crate) fn quiet(command: &mut Command) -> Result<String, String> {
    let line = shell::line(command);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("`{line}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("`{line}` ended with {}: {text}", output.status))
}

fn remove(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file(folder)(error)),
        _ => Ok(()),
    }
}
