//! What was measured, shown: tables for reading, JSON for programs, and a page with plots.
//!
//! Flow: outcomes -> [`Report::new`] judges them once (`judged`: ratios, intervals, verdicts) ->
//! `table`, `json`, `plot`, `page`. Nothing here measures, and what it writes needs no network and no
//! script to be read.

mod chart;
#[cfg(test)]
mod fixture;
mod json;
mod judged;
mod machine;
mod page;
mod plot;
mod table;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use self::judged::Judged;
pub(super) use self::machine::facts;
use super::outcome::Outcome;
use crate::failure::Failure;

/// Under what circumstances it was measured, and what a reader should know.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// Name and value, in the order to show: machine, kernel, date, commit, versions.
    pub(super) facts: Vec<(String, String)>,
    /// Whole sentences: rows too noisy to tell, peers that could not be built.
    pub(super) notes: Vec<String>,
}

/// All that a run measured, judged.
pub(super) struct Report<'a> {
    about: &'a About,
    groups: Vec<Group<'a>>,
}

/// The rows of one transport.
struct Group<'a> {
    transport: &'static str,
    rows: Vec<Judged<'a>>,
}

impl<'a> Report<'a> {
    /// Transports, and the rows of each, stay in the order in which they came.
    pub(super) fn new(about: &'a About, outcomes: &'a [Outcome]) -> Report<'a> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        for outcome in outcomes {
            let (transport, judged) = (outcome.transport, Judged::of(outcome));
            match groups.iter_mut().find(|group| group.transport == transport) {
                Some(group) => group.rows.push(judged),
                None => groups.push(Group { transport, rows: vec![judged] }),
            }
        }
        Report { about, groups }
    }

    /// For a terminal.
    pub(super) fn table(&self) -> String {
        table::table(self)
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        json::json(self)
    }

    /// Writes the page, each plot that has data as an SVG file of its own, the tables as Markdown, and
    /// the JSON, into `folder`. Gives the path of the page.
    pub(super) fn write(&self, folder: &Path) -> Result<PathBuf, Failure> {
        fs::create_dir_all(folder).map_err(Failure::file(folder))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Failure::file(&path)).map(|()| path)
        };
        for drawing in plot::drawings(self) {
            write(&format!("{}.svg", drawing.name), &drawing.svg)?;
        }
        write("results.json", &self.json())?;
        write("table.md", &table::markdown(self))?;
        write("report.html", &page::page(self))
    }

    fn rows(&self) -> impl Iterator<Item = &Judged<'a>> {
        self.groups.iter().flat_map(|group| &group.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `TELEPORT_REPORT_SAMPLE` set to a folder it leaves the files there, for whoever changes how
    /// they look.
    #[test]
    fn a_report_is_a_folder_of_files() {
        let asked = std::env::var_os("TELEPORT_REPORT_SAMPLE").map(PathBuf::from);
        let own = std::env::temp_dir().join(format!("teleport-report-{}", std::process::id()));
        let folder = asked.as_ref().unwrap_or(&own);
        let (about, outcomes) = (fixture::about(), fixture::outcomes(true));
        let page = Report::new(&about, &outcomes).write(folder).unwrap();
        assert_eq!(page, folder.join("report.html"));
        for file in ["report.html", "results.json", "table.md", "throughput.svg", "beside.svg"] {
            assert!(fs::metadata(folder.join(file)).unwrap().len() > 100, "{file}");
        }
        if asked.is_none() {
            fs::remove_dir_all(folder).unwrap();
        }
    }
}
