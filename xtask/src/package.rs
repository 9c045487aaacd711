//! Runs `cargo package` for every published crate and checks that the archives build.
//!
//! The crates depend on one another and are not on the registry yet. So they are packed in one call, for
//! which cargo makes a temporary registry. Cargo's own verification is off: it caches what it unpacks from
//! that registry in the user's cargo home, and would verify a crate against an older version of the crates
//! below it. Instead, all archives are unpacked into one new workspace that replaces the crates of the
//! registry by the archives.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::shell;
use crate::workspace::{self, Package};

/// Packs the crates and builds their archives. The detail for CI's table is their number.
pub(crate) fn check() -> Result<String, Failure> {
    let mut packages = workspace::packages()?;
    packages.retain(|package| package.published);
    let archives = shell::target().join("package");
    remove(&archives)?;
    pack(&packages)?;
    let folder = shell::target().join("package-check");
    remove(&folder)?;
    unpack(&packages, &archives, &folder)?;
    let mut command = shell::cargo("check --workspace --target-dir");
    shell::run(command.arg(shell::target()).current_dir(&folder))?;
    Ok(format!("{} crates", packages.len()))
}

fn pack(packages: &[Package]) -> Result<(), Failure> {
    let mut command = shell::cargo("package --no-verify --target-dir");
    command.arg(shell::target());
    for package in packages {
        command.args(["-p", &package.name]);
    }
    let changed = uncommitted();
    if !changed.is_empty() {
        // A developer may test uncommitted changes. In CI they are an error: it tests what is committed.
        if std::env::var_os("CI").is_some() {
            return Err(Failure::Dirty { files: changed });
        }
        command.arg("--allow-dirty");
    }
    shell::run(&mut command)
}

/// Unpacks the archives into a workspace. It gets our lock file, so that dependencies need no new build.
fn unpack(packages: &[Package], archives: &Path, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(Failure::file(folder))?;
    let (mut members, mut patches) = (String::new(), String::new());
    for Package { name, version, .. } in packages {
        let archive = archives.join(format!("{name}-{version}.crate"));
        // `m` sets new dates: archives carry old ones, and cargo compares dates to see what has changed.
        shell::run(Command::new("tar").arg("xmzf").arg(&archive).arg("-C").arg(folder))?;
        let _ = write!(members, "\"{name}-{version}\", ");
        let _ = writeln!(patches, "{name} = {{ path = \"{name}-{version}\" }}");
    }
    let manifest =
        format!("[workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n[patch.crates-io]\n{patches}");
    let path = folder.join("Cargo.toml");
    fs::write(&path, manifest).map_err(Failure::file(&path))?;
    let lock = folder.join("Cargo.lock");
    fs::copy(shell::root().join("Cargo.lock"), &lock).map_err(Failure::file(&lock))?;
    Ok(())
}

fn remove(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file(folder)(error)),
        _ => Ok(()),
    }
}

/// Returns the files that git reports as changed or new. Empty outside of a repository.
fn uncommitted() -> String {
    let output = Command::new("git").current_dir(shell::root()).args(["status", "--porcelain"]).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
    )
}
