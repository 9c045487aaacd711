//! Checks the names in a crate: operating system, clocks and threads appear only where they belong.

use std::path::Path;

use super::resolve::Target;
use super::source::Sources;
use super::table::{Crate, FACADE};

/// Each forbidden name with its place.
pub(super) fn check(rule: &Crate, sources: &Sources, src: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for (index, module) in sources.modules.iter().enumerate() {
        let file = &sources.files[module.file];
        for mention in &module.mentions {
            let target = sources.resolve(index, &mention.path);
            if let Some(problem) = unknown(rule, &target).or_else(|| system(&file.path, &mention.path)) {
                broken.push(format!("{}:{}: {problem}", src.join(&file.path).display(), mention.line));
            }
        }
    }
    if rule.name == FACADE {
        broken.extend(implementation(sources, src));
    }
    broken.sort();
    broken.dedup();
    broken
}

fn unknown(rule: &Crate, target: &Target) -> Option<String> {
    let Target::Outside(path) = target else { return None };
    let is_below =
        |name: &str| name.split("::").zip(path).filter(|(a, b)| a == b).count() == name.split("::").count();
    let name = rule.unknown.iter().find(|name| is_below(name))?;
    Some(format!("{} may not name `{name}`: take what it needs from its caller", rule.name))
}

/// The crate's `sys` may re-export a type of the system's crates, so only the path as it is spelled counts.
fn system(file: &Path, path: &[String]) -> Option<String> {
    let name = path.first().filter(|name| ["nix", "libc"].contains(&name.as_str()))?;
    let in_sys = file.with_extension("").starts_with("sys");
    (!in_sys).then(|| format!("`{name}` may be named in src/sys only: add a function there and call it"))
}

/// The facade only re-exports.
fn implementation(sources: &Sources, src: &Path) -> Vec<String> {
    let items = sources.files.iter().flat_map(|file| {
        let place = |line: &usize| format!("{}:{line}", src.join(&file.path).display());
        file.implementation.iter().map(move |(line, kind)| {
            format!(
                "{}: the facade re-exports, and a `{kind}` is implementation: move it to a layer",
                place(line)
            )
        })
    });
    items.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{fixture, table};

    /// The places of violations if the crate has this file beside an empty root.
    fn places(krate: &str, file: &str, code: &str) -> Vec<String> {
        let rule = table::CRATES.iter().find(|rule| rule.name == krate).unwrap();
        let root =
            format!("#[path = \"{file}\"] mod it; {}", if krate == FACADE { "pub use it::*;" } else { "" });
        let broken = check(rule, &fixture::sources(&[("lib.rs", &root), (file, code)]), Path::new(""));
        broken.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect()
    }

    #[test]
    fn system_calls_stay_in_sys() {
        let code =
            "use nix::sys::mman;\nuse mio::Poll;\nfn f() { libc::poll() }\nfn g() { assert!(libc::x()) }";
        assert_eq!(places("teleport-transport", "sys.rs", code), [""; 0]);
        assert_eq!(places("teleport-transport", "sys/memory.rs", code), [""; 0]);
        assert_eq!(places("teleport-transport", "pool.rs", code), ["pool.rs:1", "pool.rs:3", "pool.rs:4"]);
        assert_eq!(places("teleport-proc", "pool/sys.rs", code).len(), 3);
    }

    #[test]
    fn files_for_other_systems_are_checked() {
        let root = "#[cfg_attr(unix, path = \"a.rs\")]\n#[cfg_attr(not(unix), path = \"b.rs\")]\nmod it;";
        let sources = fixture::sources(&[("lib.rs", root), ("a.rs", "use libc;"), ("b.rs", "use nix;")]);
        let rule = table::CRATES.iter().find(|rule| rule.name == "teleport-proc").unwrap();
        assert_eq!(check(rule, &sources, Path::new("")).len(), 2);
    }

    #[test]
    fn comments_text_and_tests_name_what_they_like() {
        let code = "// libc::x\nfn f() -> &'static str { r#\"libc::x \"libc::y\"# }\n\
                    #[cfg(test)]\nmod tests { use libc::x; }\n#[cfg(all(loom, test))]\nuse libc::x;\n";
        assert_eq!(places("teleport-proc", "pool.rs", code), [""; 0]);
        assert_eq!(places("teleport-proc", "pool.rs", "#[cfg(not(test))] use libc::x;"), ["pool.rs:1"]);
    }

    #[test]
    fn the_wire_knows_no_clock_and_no_thread() {
        let code = "use std::time::{self, Duration};\nfn f() { time::Instant::now(); }\n\
                    fn g() { std::thread::yield_now() }\nuse std::{fs::File, net as network};";
        assert_eq!(
            places("teleport-wire", "message.rs", code),
            ["message.rs:2", "message.rs:3", "message.rs:4", "message.rs:4"]
        );
        assert_eq!(places("teleport-server", "message.rs", code), ["message.rs:4"]);
    }

    #[test]
    fn the_facade_only_re_exports() {
        let code = "pub use teleport_client::{self as client, Client};\n/// F.\npub fn f() {}\npub mod m { static A: u8 = 0; }";
        assert_eq!(places(FACADE, "it.rs", code), ["it.rs:3", "it.rs:4"]);
    }
}
