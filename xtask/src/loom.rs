//! Models of threads, run by loom in all orders in which their threads may go on.
//!
//! A file that calls `loom::model` holds models only: with `--cfg loom`, other tests would use loom's locks
//! outside of a model. So the step runs the tests of exactly these files.

use std::path::Path;

use crate::ci::Count;
use crate::failure::Failure;
use crate::shell;

/// The crates that have models.
const CRATES: [&str; 2] = ["teleport-transport", "teleport-server"];

/// The time for one model, unless the environment sets another. A model with more orders than fit is cut off
/// and counts as passed; it should bound its preemptions itself.
const MAX_SECONDS: &str = "60";

/// Runs all models; the detail for CI's table is their number.
pub(crate) fn check() -> Result<String, Failure> {
    let (mut passed, mut files) = (0, 0);
    for name in CRATES {
        let modules = modules(name)?;
        let mut command = shell::cargo(&format!("test -p {name} --lib --"));
        command.args(&modules).env("RUSTFLAGS", "--cfg loom");
        // With other flags everything is built anew: in a folder of its own, so that the next step finds its
        // own again.
        command.env("CARGO_TARGET_DIR", shell::target().join("loom"));
        if std::env::var_os("LOOM_MAX_DURATION").is_none() {
            command.env("LOOM_MAX_DURATION", MAX_SECONDS);
        }
        let mut count = Count::default();
        shell::watched(&mut command, |line| count.read(line))?;
        if count.passed == 0 {
            return Err(Failure::NoTests { filter: modules.join(" ") });
        }
        passed += count.passed;
        files += modules.len();
    }
    Ok(format!("{passed} passed, of {files} files"))
}

/// The modules of a crate that hold models, as the names of their tests begin.
fn modules(name: &str) -> Result<Vec<String>, Failure> {
    let src = shell::root().join(name).join("src");
    let mut modules = Vec::new();
    for path in shell::files(&src, "rs")? {
        if shell::read(&path)?.contains("loom::model") {
            modules.push(module(path.strip_prefix(&src).unwrap_or(&path)));
        }
    }
    Ok(modules)
}

/// The path of the module that a file of `src` holds: `link/models.rs` is `link::models::`.
fn module(file: &Path) -> String {
    let names = file.with_extension("");
    let names = names.iter().map(|name| name.to_string_lossy()).filter(|name| name != "mod");
    names.map(|name| format!("{name}::")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_their_modules() {
        assert_eq!(module(Path::new("link/models.rs")), "link::models::");
        assert_eq!(module(Path::new("memory/rows/mod.rs")), "memory::rows::");
    }

    #[test]
    fn all_files_with_models_are_found() {
        for (name, part) in CRATES.into_iter().zip(["rows::", "queue::"]) {
            let modules = modules(name).unwrap();
            assert!(modules.iter().any(|module| module.contains(part)), "{modules:?}");
        }
    }
}
