//! Checks the links of the Markdown files: the files and headings that they point to inside the repository
//! exist.
//!
//! External links are not followed, because CI must not depend on other servers.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::shell;

/// Checks every Markdown file of the repository.
pub(crate) fn check() -> Result<String, Failure> {
    let files = shell::files(shell::root(), "md")?;
    let mut checker = Checker::default();
    let mut broken = Vec::new();
    for path in &files {
        let text = shell::read(path)?;
        for (line, target) in links(&text) {
            if let Some(problem) = checker.problem(path, target)? {
                broken.push(format!("{}:{line}: `{target}`: {problem}", shell::relative(path)));
            }
        }
    }
    Failure::unless_empty("a link", broken, format!("{} links in {} files", checker.checked, files.len()))
}

#[derive(Default)]
struct Checker {
    /// The headings of the files read so far.
    anchors: HashMap<PathBuf, HashSet<String>>,
    checked: usize,
}

impl Checker {
    fn problem(&mut self, from: &Path, target: &str) -> Result<Option<&'static str>, Failure> {
        if target.contains("://") || target.starts_with("mailto:") {
            return Ok(None);
        }
        self.checked += 1;
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = match file {
            "" => from.to_path_buf(),
            file => from.parent().unwrap_or(from).join(file),
        };
        if !path.exists() {
            return Ok(Some("no such file"));
        }
        if anchor.is_empty() || path.extension().is_none_or(|extension| extension != "md") {
            return Ok(None);
        }
        let known = self.anchors(path)?.contains(anchor);
        Ok((!known).then_some("no such heading"))
    }

    fn anchors(&mut self, path: PathBuf) -> Result<&HashSet<String>, Failure> {
        let found = if self.anchors.contains_key(&path) { None } else { Some(anchors(&shell::read(&path)?)) };
        let known = self.anchors.entry(path).or_default();
        if let Some(found) = found {
            *known = found;
        }
        Ok(known)
    }
}

/// Returns the lines outside of code blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!in_code && !fence).then_some((number + 1, line))
    })
}

/// Returns the target of each `[text](target)` and `[name]: target`, with its line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        if let Some((_, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            found.push((number, target.trim()));
        }
        let in_code = code_mask(line);
        for (at, mark) in line.match_indices("](").filter(|(at, _)| !in_code[*at]) {
            let rest = &line[at + mark.len()..];
            let target = &rest[..rest.find(')').unwrap_or(rest.len())];
            found.push((number, target.split(' ').next().unwrap_or(target)));
        }
    }
    found
}

/// Returns true for each byte of the line between backticks.
fn code_mask(line: &str) -> Vec<bool> {
    let mut in_code = false;
    line.bytes()
        .map(|byte| {
            in_code ^= byte == b'`';
            in_code
        })
        .collect()
}

/// Returns the anchors that a renderer gives the headings: lower case, words joined by hyphens, no
/// punctuation.
fn anchors(text: &str) -> HashSet<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut found = HashSet::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let anchor: String = line
            .trim_start_matches('#')
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .flat_map(char::to_lowercase)
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let seen = counts.entry(anchor.clone()).or_default();
        found.insert(if *seen == 0 { anchor } else { format!("{anchor}-{seen}") });
        *seen += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code() {
        let text =
            "See [a](A.md#x) and `[b](B.md)`, [`c`](C.md \"title\").\n```\n[d](D.md)\n```\n[e]: E.md\n";
        assert_eq!(links(text), [(1, "A.md#x"), (1, "C.md"), (5, "E.md")]);
    }

    #[test]
    fn headings_become_anchors() {
        let found = anchors("# Coming from Python!\n## A `b` c\n## Twice\n## Twice\n```\n# no\n```\n");
        for anchor in ["coming-from-python", "a-b-c", "twice", "twice-1"] {
            assert!(found.contains(anchor), "{anchor} in {found:?}");
        }
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn broken_links_are_named() {
        let mut checker = Checker::default();
        let from = shell::root().join("Readme.md");
        assert_eq!(checker.problem(&from, "https://example.com/x.md").unwrap(), None);
        assert_eq!(checker.problem(&from, "xtask/src/links.rs").unwrap(), None);
        assert_eq!(checker.problem(&from, "no/such.md").unwrap(), Some("no such file"));
    }
}
