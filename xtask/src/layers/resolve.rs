//! From a path in the code to the file that defines what it names.
//!
//! A name that a module re-exports leads to the file that defines it, not to the module. Names of other
//! crates are spelled out from the crate on: after `use std::time`, `time::Instant` is `std::time::Instant`.

use super::source::{Name, Sources};

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To an item in this file of the crate.
    File(usize),
    /// To this module of the crate itself.
    Module(usize),
    /// Out of the crate, or to a name that the language knows.
    Outside(Vec<String>),
}

/// Imports that lead to imports end somewhere; code that does not compile may go in circles.
const MAX_STEPS: usize = 32;

impl Sources {
    /// Where `path` leads in the code of `module`.
    pub(super) fn resolve(&self, module: usize, path: &[String]) -> Target {
        self.find(module, path, 0).unwrap_or_else(|| Target::Outside(path.to_vec()))
    }

    fn find(&self, module: usize, path: &[String], steps: usize) -> Option<Target> {
        let keywords = path.iter().take_while(|name| ["crate", "self", "super"].contains(&name.as_str()));
        let (keywords, names) = path.split_at(keywords.count());
        let mut at = module;
        for keyword in keywords {
            at = match keyword.as_str() {
                "crate" => 0,
                "super" => self.modules[at].parent?,
                _ => at,
            };
        }
        if keywords.is_empty() { self.step(at, names, steps) } else { Some(self.inside(at, names, steps)) }
    }

    /// Where `path` leads from `module`, which it has named. A name that nobody declares, as of a macro's
    /// output, is taken to stand in the module's file.
    fn inside(&self, module: usize, path: &[String], steps: usize) -> Target {
        if path.is_empty() {
            return Target::Module(module);
        }
        self.step(module, path, steps).unwrap_or(Target::File(self.modules[module].file))
    }

    /// Looks for the first name of `path` in `module`, and then for the rest of them where it leads.
    fn step(&self, module: usize, path: &[String], steps: usize) -> Option<Target> {
        let (first, rest) = path.split_first().filter(|_| steps <= MAX_STEPS)?;
        let here = &self.modules[module];
        if let Some(child) = here.children.iter().find(|child| self.modules[**child].name == *first) {
            return Some(self.inside(*child, rest, steps));
        }
        match here.names.get(first) {
            Some(Name::Item) => Some(Target::File(here.file)),
            // `use libc;` imports a crate under its own name.
            Some(Name::Import(import)) if *import == [first.as_str()] => Some(Target::Outside(path.to_vec())),
            Some(Name::Import(import)) => Some(self.through(module, import, rest, steps)),
            None => here.globs.iter().find_map(|glob| match self.find(module, glob, steps + 1)? {
                Target::Module(other) if other != module => self.step(other, path, steps + 1),
                _ => None,
            }),
        }
    }

    /// Follows an import of `module`, and then `rest`.
    fn through(&self, module: usize, import: &[String], rest: &[String], steps: usize) -> Target {
        match self.find(module, import, steps + 1) {
            Some(Target::Module(other)) => self.inside(other, rest, steps + 1),
            Some(Target::Outside(path)) => Target::Outside([&path, rest].concat()),
            Some(file) => file,
            None => Target::Outside([import, rest].concat()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::fixture;

    /// Where each path of `lib.rs`'s child `a` leads: the file's name, or the path itself.
    fn targets(files: &[(&str, &str)]) -> Vec<String> {
        let sources = fixture::sources(files);
        let module = sources.modules.iter().position(|module| module.name == "a").unwrap();
        let shown = |target| match target {
            Target::File(file) => sources.files[file].path.display().to_string(),
            Target::Module(module) => format!("mod {}", sources.modules[module].name),
            Target::Outside(path) => path.join("::"),
        };
        let mentions = &sources.modules[module].mentions;
        mentions.iter().map(|mention| shown(sources.resolve(module, &mention.path))).collect()
    }

    #[test]
    fn paths_lead_to_the_file_that_defines_what_they_name() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use b::Thing;"),
            ("a.rs", "use crate::Thing; use super::b; use crate::b::c::{self, Other}; fn f() { b::help(); }"),
            ("b/mod.rs", "pub mod c; mod d; pub use d::*; pub struct Thing;"),
            ("b/c.rs", "pub struct Other;"),
            ("b/d.rs", "pub fn help() {}"),
        ];
        assert_eq!(targets(&files), ["b/mod.rs", "mod b", "mod c", "b/c.rs", "b/d.rs"]);
    }

    #[test]
    fn names_of_other_crates_are_spelled_out() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a.rs", "use std::time as clock; fn f() { clock::Instant::now(); assert!(libc::poll() == 0); }"),
        ];
        assert_eq!(targets(&files), ["std::time", "std::time::Instant::now", "libc::poll"]);
    }

    #[test]
    fn imports_in_circles_end() {
        let files =
            [("lib.rs", "mod a; mod b;"), ("a.rs", "pub use crate::b::X;"), ("b.rs", "pub use crate::a::X;")];
        assert_eq!(targets(&files).len(), 1);
        let globs = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub use crate::b::*; fn f() { Y::new() }"),
            ("b.rs", "pub use crate::a::*;"),
        ];
        assert_eq!(targets(&globs), ["b.rs", "Y::new"]);
    }
}
