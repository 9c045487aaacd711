//! The report of a run: tables, JSON, and a page with plots.
//!
//! Flow: outcomes -> [`Report::new`] judges them once (`judged`: ratios, intervals, verdicts) -> `table`,
//! `json`, `plot`, `page`. The files need no network and no script.

mod chart;
mod compare;
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

pub(super) use self::judged::{Judged, Noise, Verdict};
pub(super) use self::machine::facts;
use super::outcome::Outcome;
use crate::failure::Failure;

/// The circumstances of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// Name and value, in the order to show: machine, kernel, date, commit, versions.
    pub(super) facts: Vec<(String, String)>,
    /// Whole sentences about noisy rows and missing peers.
    pub(super) notes: Vec<String>,
}

/// All judged rows of a run.
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
    /// Judges the outcomes. Transports and rows keep their order.
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

    /// Returns the tables for a terminal.
    pub(super) fn table(&self) -> String {
        table::table(self)
    }

    /// Returns the results for programs.
    pub(super) fn json(&self) -> String {
        json::json(self)
    }

    /// Writes the page, the plots, the tables as Markdown, and the JSON to `folder`. Returns the path of the
    /// page.
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

    /// If `TELEPORT_REPORT_SAMPLE` names a folder, the files stay there, for a look at them.
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
