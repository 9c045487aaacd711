//! The accepted counts: a file of names and numbers, committed with this tool.
//!
//! Flow: `read` -> comparison -> `write`, if the developer accepts new counts. The file has one count per
//! line, in the order of the rows, so that a change of one count changes one line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::row::Row;
use crate::failure::Failure;
use crate::shell;

/// The path of the file, from the root of the workspace.
pub(super) const FILE: &str = "xtask/counts.json";

/// Counts by name.
pub(super) type Accepted = BTreeMap<String, f64>;

fn path() -> PathBuf {
    shell::root().join(FILE)
}

/// Reads the file. Returns no counts if there is none.
pub(super) fn read() -> Result<Accepted, Failure> {
    let path = path();
    if !path.exists() {
        return Ok(Accepted::new());
    }
    let unreadable = |problem: String| Failure::Output { command: FILE.into(), problem };
    parse(&shell::read(&path)?).map_err(unreadable)
}

fn parse(text: &str) -> Result<Accepted, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let entries = value.as_object().ok_or("it is no object")?;
    let number = |(name, value): (&String, &Value)| {
        let number = value.as_f64().ok_or_else(|| format!("`{name}` is no number"))?;
        Ok((name.clone(), number))
    };
    entries.iter().map(number).collect()
}

pub(super) fn write(rows: &[(&Row, f64)]) -> Result<(), Failure> {
    let path = path();
    fs::write(&path, text(rows)).map_err(Failure::file(&path))
}

fn text(rows: &[(&Row, f64)]) -> String {
    let mut text = String::from("{\n");
    for (index, (row, value)) in rows.iter().enumerate() {
        let end = if index + 1 == rows.len() { "" } else { "," };
        let rounded = (value * 100.0).round() / 100.0;
        let _ = writeln!(text, "  {}: {rounded}{end}", Value::from(row.name.as_str()));
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let rows = [Row::exact("a \"b\"", 0.0), Row::exact("c, d", 0.0)];
        let accepted = parse(&text(&[(&rows[0], 1.256), (&rows[1], 1e6)])).expect("it was just written");
        assert_eq!(accepted, Accepted::from([("a \"b\"".into(), 1.26), ("c, d".into(), 1e6)]));
        assert!(parse("[]").is_err());
        assert!(parse("{\"a\": \"b\"}").is_err());
    }
}
