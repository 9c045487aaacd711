//! Which file of a crate uses which, and circles of such arrows.

use std::collections::HashSet;
use std::path::Path;

use super::resolve::Target;
use super::source::Sources;

/// The first place at which one file uses another.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) line: usize,
    /// The path as the code spells it.
    pub(super) path: String,
}

impl Arrow {
    /// File and line, for messages.
    pub(super) fn place(&self, sources: &Sources, src: &Path) -> String {
        format!("{}:{}", src.join(&sources.files[self.from].path).display(), self.line)
    }
}

/// One arrow for each pair of files. Importing a module is no use of it yet: what counts is what is used of
/// it.
pub(super) fn arrows(sources: &Sources) -> Vec<Arrow> {
    let mut seen = HashSet::new();
    let mut arrows = Vec::new();
    for (index, module) in sources.modules.iter().enumerate() {
        for mention in &module.mentions {
            let Target::File(to) = sources.resolve(index, &mention.path) else { continue };
            if to != module.file && seen.insert((module.file, to)) {
                let (from, line) = (module.file, mention.line);
                arrows.push(Arrow { from, to, line, path: mention.path.join("::") });
            }
        }
    }
    arrows
}

/// Two files that use each other are often one thing in two files; more are a knot.
const MAX_CIRCLE_FILES: usize = 2;

/// Each circle of more than two files, with all arrows that tie it.
pub(super) fn circles(sources: &Sources, arrows: &[Arrow], src: &Path) -> Vec<String> {
    let reach: Vec<HashSet<usize>> = (0..sources.files.len()).map(|file| reachable(file, arrows)).collect();
    let mut done = HashSet::new();
    let mut broken = Vec::new();
    for file in 0..sources.files.len() {
        let circle: HashSet<usize> =
            reach[file].iter().copied().filter(|other| reach[*other].contains(&file)).collect();
        if circle.len() <= MAX_CIRCLE_FILES || !done.insert(circle.iter().copied().min()) {
            continue;
        }
        let mut ties: Vec<String> = arrows
            .iter()
            .filter(|arrow| circle.contains(&arrow.from) && circle.contains(&arrow.to))
            .map(|arrow| {
                let to = sources.files[arrow.to].path.display();
                format!("\n    {} uses {to} (`{}`)", arrow.place(sources, src), arrow.path)
            })
            .collect();
        ties.sort();
        broken.push(format!(
            "{}: {} files use each other in a circle: move what they share to a file below them{}",
            src.display(),
            circle.len(),
            ties.concat()
        ));
    }
    broken
}

/// The files that `file` leads to, over any number of arrows.
fn reachable(file: usize, arrows: &[Arrow]) -> HashSet<usize> {
    let mut found = HashSet::new();
    let mut pending = vec![file];
    while let Some(from) = pending.pop() {
        let next = arrows.iter().filter(|arrow| arrow.from == from).map(|arrow| arrow.to);
        pending.extend(next.filter(|to| found.insert(*to)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::fixture;

    fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
        let sources = fixture::sources(files);
        circles(&sources, &arrows(&sources), Path::new("src"))
    }

    #[test]
    fn a_circle_of_three_files_is_named_with_its_arrows() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; pub use a::A;"),
            ("a.rs", "\nuse crate::b::B; pub struct A;"),
            ("b.rs", "use crate::c::C; pub struct B;"),
            ("c.rs", "pub struct C;\n\nfn f(_: super::A) {}"),
        ];
        let broken = circles_of(&files);
        let expected = "src: 3 files use each other in a circle: move what they share to a file below them\
                        \n    src/a.rs:2 uses b.rs (`crate::b::B`)\
                        \n    src/b.rs:1 uses c.rs (`crate::c::C`)\
                        \n    src/c.rs:3 uses a.rs (`super::A`)";
        assert_eq!(broken, [expected]);
    }

    #[test]
    fn two_files_may_use_each_other_and_tests_close_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::a::A; use crate::c::C; pub struct B;"),
            ("c.rs", "pub struct C; #[cfg(test)] mod tests { use crate::a::A; }"),
        ];
        assert_eq!(circles_of(&files), [""; 0]);
    }

    #[test]
    fn a_folder_that_re_exports_its_files_is_part_of_a_circle_if_they_use_what_it_defines() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; mod c; pub use b::B; pub use c::C; pub struct A;"),
            ("a/b.rs", "use super::A; pub struct B;"),
            ("a/c.rs", "use super::A; pub struct C;"),
        ];
        assert_eq!(circles_of(&files).len(), 1);
        let mut apart = files;
        apart[2].1 = "use super::C; pub struct B;";
        apart[3].1 = "pub struct C;";
        assert_eq!(circles_of(&apart), [""; 0]);
    }
}
