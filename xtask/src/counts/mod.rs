//! `cargo xtask counts`: counts costs that hardly depend on the machine, and compares them with the accepted
//! counts.
//!
//! Flow: [`calls`] (allocations, system calls and copied bytes of a server and a client with an interposed C
//! library), [`instructions`] (of encode, decode and calls in memory, under callgrind) and [`whole`] (calls
//! of a server and a client, under callgrind) -> rows -> comparison -> a table. A count that has grown by
//! more than a tenth fails, or by more than a twentieth for whole calls. A count that has fallen should be
//! accepted, so that it cannot grow back unnoticed. `cargo xtask ci` runs this as a step. Counts that are not
//! available on a machine are skipped, with a warning.
//!
//! Allocations, copies and instructions are the same on all machines of one kind. The number of system calls
//! varies a little with the speed of the machine and with other load, because small messages wait up to 30
//! µs to go together. Spinning is turned off here, because its system calls depend on time alone.

mod accepted;
mod calls;
mod instructions;
mod party;
mod row;
mod shape;
mod whole;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use self::accepted::Accepted;
pub(crate) use self::party::{PartyOptions, run as run_party};
use self::row::{Bound, Row, Verdict, shown};
use crate::failure::Failure;
use crate::shell;

/// Count allocations, system calls, copies, instructions and locks, and compare them with what was accepted
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Count only this; may be given several times
    #[arg(long, value_name = "KIND")]
    only: Vec<Kind>,
    /// Accept the new counts where they have changed by more than their limits allow. Run it on an idle
    /// machine, and give the reason in the commit
    #[arg(long)]
    accept: bool,
    /// Also print the kinds of system calls
    #[arg(long)]
    details: bool,
    /// Count only whole calls with this text in their name, such as "64 B"
    #[arg(long, value_name = "TEXT")]
    row: Option<String>,
    /// Count only whole calls, and show this many functions and lines of source with the highest counts
    #[arg(long, value_name = "N")]
    profile: Option<usize>,
    /// Also write the counts to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    fn chooses(&self, kind: Kind) -> bool {
        if self.row.is_some() || self.profile.is_some() {
            return kind == Kind::Whole;
        }
        self.only.is_empty() || self.only.contains(&kind)
    }

    /// Returns true if all kinds and rows are counted.
    fn is_complete(&self) -> bool {
        self.only.is_empty() && self.row.is_none() && self.profile.is_none()
    }
}

/// The kinds of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Allocations and system calls of small calls
    Calls,
    /// Copies of large messages
    Copies,
    /// Instructions of encode, decode and calls in memory
    Instructions,
    /// Instructions, locked instructions and allocations of whole calls of a server and a client
    Whole,
}

/// The prefix of the line that CI's table repeats.
const SUMMARY: &str = "counts: ";

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        return again_optimized(|_| ());
    }
    let Counted { rows, notes, skipped } = count(options)?;
    let accepted = accepted::read()?;
    print(&rows, &accepted);
    if options.details {
        println!("\n{}", notes.join("\n"));
    }
    if let Some(path) = &options.json {
        std::fs::write(path, json(&rows, &accepted)).map_err(Failure::file(path))?;
    }
    if options.accept {
        return accept(&rows, &accepted, options.is_complete() && skipped.is_empty());
    }
    let summary =
        skipped.iter().fold(format!("{} rows", rows.len()), |text, why| format!("{text}; SKIPPED {why}"));
    println!("\n{SUMMARY}{summary}");
    Failure::unless_empty("a limit of what is counted", problems(&rows, &accepted), String::new()).map(drop)
}

/// Runs as a step of CI. The detail for its table is the number of rows and what was skipped.
pub(crate) fn check() -> Result<String, Failure> {
    let mut summary = String::new();
    again_optimized(|line| {
        if let Some(text) = line.strip_prefix(SUMMARY) {
            summary = text.to_owned();
        }
    })?;
    Ok(summary)
}

/// Runs this command in a build with optimization, which `cargo xtask` has not.
fn again_optimized(watch: impl FnMut(&str)) -> Result<(), Failure> {
    let mut command = shell::cargo("run --quiet --release --package xtask -- counts");
    // As the step of CI, this program has another command.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|command| command == "counts") {
        command.args(arguments);
    }
    shell::watched(&mut command, watch)
}

/// All counts.
#[derive(Debug, Default)]
struct Counted {
    rows: Vec<Row>,
    /// Details of some rows, one line each.
    notes: Vec<String>,
    /// The kinds of counts that are not available here, with the reason.
    skipped: Vec<String>,
}

fn count(options: &Options) -> Result<Counted, Failure> {
    let chosen = |kind: Kind| options.chooses(kind);
    let mut counted = Counted::default();
    if chosen(Kind::Calls) || chosen(Kind::Copies) {
        match calls::unavailable() {
            Some(why) => counted.skipped.push(format!("allocations, system calls and copies: {why}")),
            None => count_calls(&mut counted, chosen)?,
        }
    }
    if chosen(Kind::Instructions) {
        match instructions::unavailable() {
            Some(why) => counted.skipped.push(format!("instructions: {why}")),
            None => instructions::count(&mut counted)?,
        }
    }
    if chosen(Kind::Whole) {
        match whole::unavailable() {
            Some(why) => counted.skipped.push(format!("whole calls: {why}")),
            None => {
                let chosen = whole::Chosen { row: options.row.as_deref(), profile: options.profile };
                whole::count(chosen, &mut counted)?;
            }
        }
    }
    Ok(counted)
}

fn count_calls(counted: &mut Counted, chosen: impl Fn(Kind) -> bool) -> Result<(), Failure> {
    for transport in ["tcp", "ipc"] {
        if chosen(Kind::Calls) {
            calls::small(transport, counted)?;
        }
        if chosen(Kind::Copies) {
            calls::large(transport, counted)?;
        }
    }
    Ok(())
}

/// Returns the rows as JSON: `row`, `count`, `accepted` and `limit` (null if there is none), and `held`.
fn json(rows: &[Row], accepted: &Accepted) -> String {
    let object = |row: &Row| {
        let before = accepted.get(&row.name).copied();
        let held = matches!(row.verdict(before), Verdict::Held | Verdict::Below(_));
        json!({
            "row": row.name, "count": row.value, "accepted": before, "limit": row.limit(before), "held": held,
        })
    };
    format!("{:#}\n", Value::Array(rows.iter().map(object).collect()))
}

fn print(rows: &[Row], accepted: &Accepted) {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    println!("{:<width$}{:>12}{:>12}{:>12}", "", "count", "accepted", "limit");
    for row in rows {
        let before = accepted.get(&row.name).copied();
        let text = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
        let remark = match row.verdict(before) {
            Verdict::Held => "",
            Verdict::Above(_) => "  TOO MANY",
            Verdict::Below(_) => "  fewer: accept the new count",
            Verdict::New => "  NEW",
        };
        let limit = text(row.limit(before));
        println!("{:<width$}{:>12}{:>12}{limit:>12}{remark}", row.name, shown(row.value), text(before));
    }
}

/// Returns the rows that fail, with the remedy.
fn problems(rows: &[Row], accepted: &Accepted) -> Vec<String> {
    let problem = |row: &Row| {
        let (name, value) = (&row.name, shown(row.value));
        match row.verdict(accepted.get(name).copied()) {
            Verdict::Held | Verdict::Below(_) => None,
            Verdict::Above(limit) if matches!(row.bound, Bound::Most(_)) => {
                Some(format!("{name}: {value} is more than {}, which is a promise", shown(limit)))
            }
            Verdict::Above(limit) => Some(format!(
                "{name}: {value} is more than {}; if the change is worth it, `cargo xtask counts --accept` writes the new \
                 count to {}",
                shown(limit),
                accepted::FILE
            )),
            Verdict::New => Some(format!(
                "{name}: {value} was never accepted; `cargo xtask counts --accept` writes it to {}",
                accepted::FILE
            )),
        }
    };
    rows.iter().filter_map(problem).collect()
}

/// Writes the counts that are new or have changed. Keeps the others if not everything was counted.
fn accept(rows: &[Row], before: &Accepted, everything: bool) -> Result<(), Failure> {
    let counted = |name: &String| rows.iter().any(|row| row.name == *name);
    let missing = before.iter().filter(|(name, _)| !everything && !counted(name));
    let missing: Vec<Row> = missing.map(|(name, value)| Row::exact(name.clone(), *value)).collect();
    let value = |row: &Row| match (row.verdict(before.get(&row.name).copied()), before.get(&row.name)) {
        (Verdict::Held, Some(accepted)) => *accepted,
        _ => row.value,
    };
    let held = rows.iter().filter(|row| matches!(row.bound, Bound::Accepted { .. }));
    let lines: Vec<_> = held.chain(&missing).map(|row| (row, value(row))).collect();
    accepted::write(&lines)?;
    println!("\nwritten to {}: give the reason for each change in the commit", accepted::FILE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Row; 3] {
        let copied = Row { name: "copied".into(), value: 17.0, bound: Bound::Most(16.0) };
        [Row::exact("old", 12.0), Row::exact("new", 1.0), copied]
    }

    #[test]
    fn each_problem_has_its_remedy() {
        let accepted = Accepted::from([("old".into(), 10.0)]);
        let problems = problems(&rows(), &accepted);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("old: 12 is more than 11") && problems[0].contains("--accept"));
        assert!(problems[1].contains("never accepted") && problems[1].contains("--accept"));
        assert!(problems[2].contains("promise") && !problems[2].contains("--accept"));
    }

    #[test]
    fn json_has_a_row_for_each_count() {
        let value: Value = serde_json::from_str(&json(&rows(), &Accepted::new())).expect("it is JSON");
        assert_eq!(value[0]["accepted"], Value::Null);
        assert_eq!((&value[2]["limit"], &value[2]["held"]), (&Value::from(16.0), &Value::from(false)));
    }
}
