//! Rust sources reduced to code: no comments, no text in quotes, no test modules.
//!
//! Enough for rules of the kind "this name stands only there". It is no parser: it keeps every line
//! break, so that line numbers hold, and knows just so much of the language as it takes to tell
//! quoted text and comments from code.

/// `source` with comments and quoted text blanked, up to its test module, if it has one.
pub(crate) fn code(source: &str) -> String {
    let blank = without_text(source);
    match test_module(&blank) {
        Some(start) => blank[..start].to_owned(),
        None => blank,
    }
}

/// The line numbers, from 1, at which `word` stands as a whole word that `follows` accepts what comes after.
pub(crate) fn lines_with(code: &str, word: &str, follows: impl Fn(&str) -> bool) -> Vec<usize> {
    let mut lines = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let hit = line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = &line[at + word.len()..];
            !before.is_some_and(is_word) && !after.starts_with(is_word) && follows(after)
        });
        if hit {
            lines.push(number + 1);
        }
    }
    lines
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `#[cfg(test)]` before a module stands; by the project's style tests come last in a file.
fn test_module(code: &str) -> Option<usize> {
    const MARK: &str = "#[cfg(test)]";
    code.match_indices(MARK).map(|(at, _)| at).find(|at| {
        let rest = code[at + MARK.len()..].trim_start();
        // A module in a file of its own (`mod tests;`) ends nothing here.
        rest.strip_prefix("mod ").is_some_and(|rest| rest.find('{') < rest.find(';').or(Some(usize::MAX)))
    })
}

fn without_text(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = text_length(rest, out.chars().next_back());
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

/// How many bytes of comment or quoted text `rest` starts with; 0 if it starts with code.
fn text_length(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if rest.starts_with('r') && !before.is_some_and(|c| is_word(c) && c != 'b' && c != 'c') {
        return raw_string(rest);
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    0
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..rest.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// From an opening quote to just past the closing one.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> usize {
    let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
    if rest.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 0; // a name that starts with r, or `r#name`
    }
    let body = 2 + hashes;
    let close = format!("\"{}", "#".repeat(hashes));
    rest[body..].find(&close).map_or(rest.len(), |at| body + at + close.len())
}

/// A character literal; a lifetime is code.
fn character(rest: &str) -> usize {
    let mut inner = rest[1..].chars();
    match (inner.next(), inner.next()) {
        (Some('\\'), _) => quoted(rest, '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_text_are_blank_and_code_stays() {
        let source =
            "let a = \"libc::x\"; // libc::y\nlet b = r#\"libc \"::\"#; /* libc /* :: */ */ libc::z();\n";
        let code = code(source);
        assert_eq!(code.lines().count(), 2);
        assert_eq!(lines_with(&code, "libc", |after| after.starts_with("::")), [2]);
        assert_eq!(code.matches("libc").count(), 1);
    }

    #[test]
    fn quotes_in_characters_and_lifetimes_do_not_open_text() {
        let source = "fn f<'a>(x: &'a str) { if c == '\"' || c == '\\'' { libc::x() } } // \"\n";
        assert_eq!(lines_with(&code(source), "libc", |_| true), [1]);
        assert_eq!(lines_with(&code("let r = br\"libc\"; for x in libc {}"), "libc", |_| true), [1]);
        assert_eq!(code("let é = 'é'; r#type"), "let é =    ; r#type");
    }

    #[test]
    fn only_whole_words_count() {
        assert!(lines_with("unix::net; mylibc::x; libc_x::y", "nix", |_| true).is_empty());
        assert!(lines_with("mylibc::x; libc_x::y", "libc", |_| true).is_empty());
    }

    #[test]
    fn a_test_module_ends_the_code() {
        let source = "use a;\n#[cfg(test)]\nmod tests {\n    use libc::x;\n}\n";
        assert_eq!(code(source), "use a;\n");
        let elsewhere = "#[cfg(test)]\nmod tests;\nuse libc::x; mod a { }\n";
        assert_eq!(lines_with(&code(elsewhere), "libc", |_| true), [3]);
    }
}
