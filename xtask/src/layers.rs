//! The layer rule: which crate may know what.
//!
//! Three views of the same rule are held against [`LAYERS`]: the manifests (who depends on whom), the
//! sources (who names the operating system, clocks, threads), and the facade (re-exports only, few
//! crates in its tree). `ARCHITECTURE.md` tells the reasons. A new crate starts with a row here.

use std::collections::BTreeSet;
use std::path::Path;

use crate::failure::Failure;
use crate::shell;
use crate::source;
use crate::workspace::{self, Package};

/// What one published crate may know.
struct Layer {
    name: &'static str,
    /// The crates of this workspace that it may depend on.
    below: &'static [&'static str],
    /// Which of [`SYSTEM`] it may depend on.
    system: &'static [&'static str],
    /// Paths that its code never names.
    unknown: &'static [&'static str],
}

/// Crates that reach into the operating system. `nix` and `libc` stay in the folder or file `sys`.
const SYSTEM: [&str; 3] = ["mio", "nix", "libc"];

const LAYERS: [Layer; 7] = [
    // Runs in the compiler: it knows the other crates by name only.
    Layer {
        name: "teleport-derive",
        below: &[],
        system: &[],
        unknown: &["std::net", "std::thread", "std::fs", "std::env", "std::os", "Instant", "SystemTime"],
    },
    Layer {
        name: "teleport-wire",
        below: &["teleport-derive"],
        system: &[],
        unknown: &["std::net", "std::thread", "std::fs", "std::os", "Instant", "SystemTime"],
    },
    Layer {
        name: "teleport-transport",
        below: &["teleport-derive", "teleport-wire"],
        system: &["mio", "nix", "libc"],
        unknown: &[],
    },
    Layer {
        name: "teleport-server",
        below: &["teleport-derive", "teleport-wire", "teleport-transport", "teleport-proc"],
        system: &[],
        unknown: &["std::net", "std::os"],
    },
    Layer {
        name: "teleport-client",
        below: &["teleport-derive", "teleport-wire", "teleport-transport", "teleport-proc"],
        system: &[],
        unknown: &["std::net", "std::os"],
    },
    Layer { name: "teleport-proc", below: &[], system: &["nix", "libc"], unknown: &[] },
    Layer {
        name: FACADE,
        below: &[
            "teleport-derive",
            "teleport-wire",
            "teleport-transport",
            "teleport-server",
            "teleport-client",
            "teleport-proc",
        ],
        system: &[],
        unknown: &[],
    },
];

const FACADE: &str = "teleport";

/// What only an implementation has; the facade's sources have none of it.
const IMPLEMENTATION: [&str; 9] =
    ["fn", "impl", "struct", "enum", "trait", "static", "const", "unsafe", "macro_rules"];

/// A user who adds the facade builds this many crates at most, the facade itself included.
const MAX_FACADE_CRATES: usize = 40;

/// Checks the rule; the detail for CI's table is the size of the facade's tree.
pub(crate) fn check() -> Result<String, Failure> {
    let mut broken = Vec::new();
    let packages = workspace::packages()?;
    for package in packages.iter().filter(|package| package.published) {
        match LAYERS.iter().find(|layer| layer.name == package.name) {
            Some(layer) => {
                broken.extend(dependencies(layer, package, &packages));
                broken.extend(sources(layer, package)?);
            }
            None => broken.push(format!(
                "{}: is published but has no row in xtask/src/layers.rs: add what it may know",
                package.name
            )),
        }
    }
    let crates = facade_crates()?;
    if crates.len() >= MAX_FACADE_CRATES {
        let list = crates.iter().cloned().collect::<Vec<_>>().join(", ");
        broken.push(format!(
            "{FACADE}: builds {} crates, and must stay under {MAX_FACADE_CRATES}: {list}",
            crates.len()
        ));
    }
    Failure::unless_empty("the layer rule", broken, format!("{} crates in the facade's tree", crates.len()))
}

fn dependencies(layer: &Layer, package: &Package, packages: &[Package]) -> Vec<String> {
    let inside = |name: &str| packages.iter().any(|package| package.name == name);
    let mut broken = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        // Tests may use the system directly; they may not reach across layers: `tests/` is for that.
        let allowed = if inside(name) {
            layer.below.contains(&name)
        } else {
            dependency.dev || !SYSTEM.contains(&name) || layer.system.contains(&name)
        };
        if !allowed {
            broken.push(format!("{}/Cargo.toml: {} may not depend on `{name}`", package.name, layer.name));
        }
    }
    broken
}

fn sources(layer: &Layer, package: &Package) -> Result<Vec<String>, Failure> {
    let folder = package.folder.join("src");
    let mut broken = Vec::new();
    for path in shell::files(&folder, "rs")? {
        let inside = path.strip_prefix(&folder).unwrap_or(&path);
        if is_test(inside) {
            continue;
        }
        let code = source::code(&shell::read(&path)?);
        for (line, problem) in forbidden(layer, inside, &code) {
            broken.push(format!("{}:{line}: {problem}", shell::relative(&path)));
        }
    }
    Ok(broken)
}

/// Whether the file is a test module of its own, which the rule leaves alone.
fn is_test(file: &Path) -> bool {
    file.with_extension("").iter().any(|part| part == "tests" || part == "testing")
}

/// Whether the file belongs to the crate's module `sys`.
fn is_sys(file: &Path) -> bool {
    file.with_extension("").iter().next().is_some_and(|part| part == "sys")
}

/// The line and the problem of each name that `file`, given from `src`, may not use.
fn forbidden(layer: &Layer, file: &Path, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for name in SYSTEM {
        let reason = match (layer.system.contains(&name), name) {
            (false, _) => format!("{} may not name `{name}`", layer.name),
            (true, "mio") => continue,
            (true, _) if is_sys(file) => continue,
            (true, _) => format!("`{name}` may be named in src/sys only: give it a function there"),
        };
        let lines = source::lines_with(code, name, is_path);
        found.extend(lines.into_iter().map(|line| (line, reason.clone())));
    }
    for name in layer.unknown {
        let lines = source::lines_with(code, name, |_| true);
        found.extend(lines.into_iter().map(|line| (line, format!("{} may not know `{name}`", layer.name))));
    }
    if layer.name == FACADE {
        for word in IMPLEMENTATION {
            let lines = source::lines_with(code, word, |_| true);
            let reason = format!("the facade re-exports, and `{word}` is implementation: move it to a layer");
            found.extend(lines.into_iter().map(|line| (line, reason.clone())));
        }
    }
    found
}

/// Whether a name before this text is the start of a path or the whole of a `use`.
fn is_path(after: &str) -> bool {
    after.starts_with("::") || after.starts_with(';') || after.starts_with(" as ")
}

fn facade_crates() -> Result<BTreeSet<String>, Failure> {
    let tree = shell::output(&mut shell::cargo(&format!("tree -p {FACADE} -e normal --prefix none")))?;
    let name = |line: &str| Some(line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    Ok(tree.lines().filter(|line| !line.is_empty()).filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_file(layer: &str, file: &str, code: &str) -> Vec<usize> {
        let layer = LAYERS.iter().find(|l| l.name == layer).unwrap();
        forbidden(layer, Path::new(file), code).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn system_calls_stay_in_sys() {
        let code = "use nix::sys::mman;\nuse mio::Poll;\nlibc::poll();";
        assert_eq!(check_file("teleport-transport", "sys.rs", code), [0; 0]);
        assert_eq!(check_file("teleport-transport", "sys/memory.rs", code), [0; 0]);
        assert_eq!(check_file("teleport-transport", "pool.rs", code), [1, 3]);
        assert_eq!(check_file("teleport-transport", "pool/sys.rs", code), [1, 3]);
        assert_eq!(check_file("teleport-client", "sys.rs", code), [2, 1, 3]);
    }

    #[test]
    fn the_wire_knows_no_clock_and_no_thread() {
        let code =
            "use std::time::Duration;\nlet now = std::time::Instant::now();\nstd::thread::yield_now();";
        let mut lines = check_file("teleport-wire", "message.rs", code);
        lines.sort_unstable();
        assert_eq!(lines, [2, 3]);
    }

    #[test]
    fn the_facade_only_re_exports() {
        assert_eq!(
            check_file("teleport", "lib.rs", "pub use teleport_client::{self as client, Client};"),
            [0; 0]
        );
        assert_eq!(check_file("teleport", "lib.rs", "pub use a::B;\npub fn c() {}"), [2]);
    }

    #[test]
    fn manifests_follow_the_arrows() {
        let package = |name: &str, dependencies: &[(&str, bool)]| Package {
            name: name.into(),
            version: "0.1.0".into(),
            folder: "".into(),
            published: true,
            dependencies: dependencies
                .iter()
                .map(|(name, dev)| workspace::Dependency { name: (*name).into(), dev: *dev })
                .collect(),
        };
        let packages = [
            package("teleport-wire", &[("libc", false), ("nix", true)]),
            package("teleport-client", &[("teleport-wire", false), ("teleport-server", true)]),
            package("teleport-server", &[]),
        ];
        let broken: Vec<_> = LAYERS
            .iter()
            .flat_map(|l| packages.iter().filter(|p| p.name == l.name).map(move |p| (l, p)))
            .flat_map(|(layer, package)| dependencies(layer, package, &packages))
            .collect();
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].contains("`libc`") && broken[1].contains("`teleport-server`"), "{broken:?}");
    }
}
