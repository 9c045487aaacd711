//! The layers within a crate: which folder or file may use which.

use std::path::Path;

use super::arrows::Arrow;
use super::source::Sources;
use super::table::Folders;

/// The violations of `folders` among `arrows`, and the rows that are missing or say nothing.
pub(super) fn check(folders: Folders, sources: &Sources, arrows: &[Arrow], src: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    let parts: Vec<Option<&str>> = sources.files.iter().map(|file| part_of(folders, &file.path)).collect();
    for (file, part) in sources.files.iter().zip(&parts) {
        if part.is_none() && file.path != Path::new("lib.rs") {
            broken.push(format!(
                "{}: belongs to no row of its crate: say in xtask/src/layers/table.rs what it may use",
                src.join(&file.path).display()
            ));
        }
    }
    for (name, _) in folders.iter().filter(|(name, _)| !parts.contains(&Some(*name))) {
        broken.push(format!(
            "{}: has no file `{name}`: remove its row from xtask/src/layers/table.rs",
            src.display()
        ));
    }
    for arrow in arrows {
        // The root declares and re-exports all modules.
        let Some(from) = parts[arrow.from] else { continue };
        let may_use = folders.iter().find(|(name, _)| *name == from).map_or("", |(_, may_use)| *may_use);
        let is_root = sources.files[arrow.to].path == Path::new("lib.rs");
        let Some(to) = parts[arrow.to].or(is_root.then_some("lib")) else { continue };
        if from != to && !may_use.split(' ').any(|name| name == to) {
            broken.push(format!(
                "{}: `{from}` may not use `{to}` (`{}`, in {}): move what both need to a part that both may \
                 use, or change the row of `{from}` in xtask/src/layers/table.rs",
                arrow.place(sources, src),
                arrow.path,
                sources.files[arrow.to].path.display()
            ));
        }
    }
    broken
}

/// The row of a file: the one with the longest path that holds it.
fn part_of(folders: Folders, file: &Path) -> Option<&'static str> {
    let module = file.with_extension("");
    let rows = folders.iter().map(|(name, _)| *name).filter(|name| module.starts_with(name));
    rows.max_by_key(|name| name.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::layers::{arrows, fixture, table};

    const FOLDERS: Folders = &[("link", "net sys"), ("net", "sys"), ("net/dial", "net"), ("sys", "")];

    fn broken(files: &[(&str, &str)]) -> Vec<String> {
        let sources = fixture::sources(files);
        check(FOLDERS, &sources, &arrows::arrows(&sources), Path::new("src"))
    }

    const ALLOWED: [(&str, &str); 5] = [
        ("lib.rs", "mod link; mod net; mod sys; pub use link::Link;"),
        ("link.rs", "use crate::{net::Socket, sys}; pub struct Link(Socket);\nfn f() { sys::read() }"),
        ("net/mod.rs", "mod dial; pub struct Socket;"),
        ("net/dial.rs", "use super::Socket; fn dial() -> Socket { Socket }"),
        ("sys.rs", "pub fn read() {}"),
    ];

    #[test]
    fn arrows_of_the_table_pass() {
        assert_eq!(broken(&ALLOWED), [""; 0]);
    }

    #[test]
    fn an_arrow_up_is_named_with_its_line() {
        let mut files = ALLOWED;
        files[4].1 = "pub fn read() {}\n\nfn up() { let _: crate::link::Link; }\n";
        let broken = broken(&files);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(
            broken[0].starts_with("src/sys.rs:3: `sys` may not use `link` (`crate::link::Link`, in link.rs)")
        );
    }

    #[test]
    fn a_re_export_hides_no_arrow() {
        let mut files = ALLOWED;
        files[4].1 = "pub fn read() {}\nuse crate::Link;\n";
        assert!(broken(&files)[0].starts_with("src/sys.rs:2: `sys` may not use `link`"));
    }

    #[test]
    fn rules_of_a_folder_hold_for_the_longest_path() {
        let mut files = ALLOWED;
        files[3].1 = "fn dial() { crate::sys::read() }";
        assert!(broken(&files)[0].contains("`net/dial` may not use `sys`"));
    }

    #[test]
    fn tests_may_use_everything() {
        let mut files = ALLOWED;
        files[4].1 = "pub fn read() {}\n#[cfg(test)] mod tests { use crate::link::Link; }\n\
                      #[cfg(test)] use crate::net::Socket;";
        assert_eq!(broken(&files), [""; 0]);
    }

    #[test]
    fn every_file_has_a_row_and_every_row_a_file() {
        let files = [("lib.rs", "mod link; mod new;"), ("link.rs", ""), ("new.rs", "")];
        let broken = broken(&files);
        assert_eq!(broken.len(), 4, "{broken:?}");
        assert!(broken[0].starts_with("src/new.rs: belongs to no row"));
        assert!(broken[1].starts_with("src: has no file `net`"));
    }

    /// The rows that `from` may use, directly or by way of others.
    fn below(folders: Folders, from: &'static str) -> HashSet<&'static str> {
        let mut found = HashSet::new();
        let mut pending = vec![from];
        while let Some(name) = pending.pop() {
            let row = folders.iter().find(|(other, _)| *other == name);
            let (_, may_use) = row.unwrap_or_else(|| panic!("`{name}` has no row"));
            pending.extend(may_use.split(' ').filter(|name| !name.is_empty() && found.insert(*name)));
        }
        found
    }

    #[test]
    fn the_tables_themselves_have_no_circles() {
        for (krate, folders) in table::FOLDERS {
            for (from, _) in *folders {
                assert!(!below(folders, from).contains(from), "{krate}: `{from}` may use itself");
            }
        }
    }
}
