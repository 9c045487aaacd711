//! How large the files of a crate may be, and how wide their comments.

use std::path::Path;

use super::source::Sources;

/// Past this a file holds two things. Lines that only tests compile do not count.
pub(super) const MAX_FILE_LINES: usize = 500;

/// As wide as the code, which rustfmt keeps so.
const MAX_COMMENT_COLUMNS: usize = 110;

/// The files that are too long.
pub(super) fn long_files(sources: &Sources, src: &Path) -> Vec<String> {
    let long = sources.files.iter().filter(|file| file.lines > MAX_FILE_LINES);
    long.map(|file| {
        format!(
            "{}: has {} lines without its tests, and {MAX_FILE_LINES} are allowed: split it",
            src.join(&file.path).display(),
            file.lines
        )
    })
    .collect()
}

/// The lines of `text` that hold a comment alone and are too wide. `file` is for the message.
pub(super) fn wide_comments(file: &str, text: &str) -> Vec<String> {
    let is_wide =
        |line: &str| line.trim_start().starts_with("//") && line.chars().count() > MAX_COMMENT_COLUMNS;
    let wide = text.lines().enumerate().filter(|(_, line)| is_wide(line));
    wide.map(|(index, line)| {
        format!(
            "{file}:{}: this comment has {} columns, and {MAX_COMMENT_COLUMNS} are allowed: wrap it",
            index + 1,
            line.chars().count()
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::fixture;

    #[test]
    fn a_long_file_is_named_and_its_tests_do_not_count() {
        let code = "fn f() {}\n".repeat(MAX_FILE_LINES);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "use a;\n".repeat(40));
        let long = |text: &str| long_files(&fixture::sources(&[("lib.rs", text)]), Path::new("src"));
        assert_eq!(long(&format!("{code}{tests}")), [""; 0]);
        let broken = long(&format!("{code}fn g() {{}}\n{tests}"));
        assert_eq!(broken, ["src/lib.rs: has 501 lines without its tests, and 500 are allowed: split it"]);
    }

    #[test]
    fn wide_comments_are_named_with_their_line() {
        let text = format!("let a = 1; // {0}\n  /// {0}\n// short\n", "x".repeat(110));
        let broken = wide_comments("a.rs", &text);
        assert_eq!(broken, ["a.rs:2: this comment has 116 columns, and 110 are allowed: wrap it"]);
    }
}
