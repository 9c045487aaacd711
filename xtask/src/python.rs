//! Virtual environments of Python in the target folder: one with NumPy for the tests of the client in Python, and others for
//! whoever asks.
//!
//! Flow: `python3 -m venv` and `pip install`, once; later runs find it there. It never touches the system's Python.
//! Where one of them fails, as without a network, that is said loudly and nothing else fails: the tests skip themselves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::shell;

/// Where the tests look for it.
fn folder() -> PathBuf {
    shell::target().join("python")
}

/// Makes the environment if it is not there; the detail says which NumPy it has, or why there is none.
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
            // The rest of one that was begun would not be begun again.
            remove(&folder)?;
            println!("NO PYTHON WITH NUMPY: THE TESTS OF THE CLIENT IN PYTHON WILL BE SKIPPED.\n{reason}");
            Ok(format!("SKIPPED: {}", reason.lines().last().unwrap_or_default()))
        }
    }
}

/// An environment in `folder` with what a file of requirements asks for, made anew where another file made it. Gives its Python.
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

/// What a program printed, or why it failed.
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
