//! `cargo package` for every crate that is meant for the registry, and a look at whether the archives work.
//!
//! The crates depend on one another and are not on the registry yet, so they are packed in one call, which
//! gives cargo a registry of its own to find them in. Its verification is switched off and done here, since
//! cargo keeps what it unpacked from that registry in the user's cargo home and takes it again in the next
//! run: it would verify a crate against yesterday's version of the crates beneath it. Here each archive is
//! unpacked into one new workspace, in which the archives stand for the crates that they depend on.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::shell;
use crate::workspace::{self, Package};

/// Packs the crates and checks that each archive is whole; the detail for CI's table is how many.
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
        // A developer tests what lies before them. CI tests what is committed, so there it is a failure.
        if std::env::var_os("CI").is_some() {
            return Err(Failure::Dirty { files: changed });
        }
        command.arg("--allow-dirty");
    }
    shell::run(&mut command)
}

/// Lays the archives out as a workspace. Its lock file is ours, so that dependencies are not built anew.
fn unpack(packages: &[Package], archives: &Path, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(Failure::file(folder))?;
    let (mut members, mut patches) = (String::new(), String::new());
    for Package { name, version, .. } in packages {
        let archive = archives.join(format!("{name}-{version}.crate"));
        // `m`: archives carry a date of long ago, and cargo compares dates to see what has changed.
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

/// What git reports as changed or new; empty outside of a repository, where cargo does not look either.
fn uncommitted() -> String {
    let output = Command::new("git").current_dir(shell::root()).args(["status", "--porcelain"]).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
    )
}
