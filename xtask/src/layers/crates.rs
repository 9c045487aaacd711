//! The layers between crates: their dependencies, and how many crates a user builds.

use std::collections::BTreeSet;

use super::table::{Crate, FACADE, MAX_FACADE_CRATES, SYSTEM};
use crate::failure::Failure;
use crate::shell;
use crate::workspace::Package;

/// The dependencies of `package` that its row does not allow.
pub(super) fn dependencies(rule: &Crate, package: &Package, packages: &[Package]) -> Vec<String> {
    let inside = |name: &str| packages.iter().any(|package| package.name == name);
    let mut broken = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        // Tests may use the system directly; they may not reach across layers: `tests/` is for that.
        let allowed = if inside(name) {
            rule.below.contains(&name)
        } else {
            dependency.dev || !SYSTEM.contains(&name) || rule.system.contains(&name)
        };
        if !allowed {
            broken.push(format!("{}/Cargo.toml: {} may not depend on `{name}`", package.name, rule.name));
        }
    }
    broken
}

/// The number of crates that a user of the facade builds, and the problem if they are too many.
pub(super) fn facade() -> Result<(usize, Option<String>), Failure> {
    let tree = shell::output(&mut shell::cargo(&format!("tree -p {FACADE} -e normal --prefix none")))?;
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let crates: BTreeSet<String> = tree.lines().filter(|line| !line.is_empty()).map(name).collect();
    let list = || crates.iter().cloned().collect::<Vec<_>>().join(", ");
    let problem = (crates.len() >= MAX_FACADE_CRATES).then(|| {
        format!(
            "{FACADE}: builds {} crates, and must stay under {MAX_FACADE_CRATES}: {}",
            crates.len(),
            list()
        )
    });
    Ok((crates.len(), problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::table::CRATES;
    use crate::workspace;

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
        let broken: Vec<_> = CRATES
            .iter()
            .flat_map(|l| packages.iter().filter(|p| p.name == l.name).map(move |p| (l, p)))
            .flat_map(|(layer, package)| dependencies(layer, package, &packages))
            .collect();
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].contains("`libc`") && broken[1].contains("`teleport-server`"), "{broken:?}");
    }
}
