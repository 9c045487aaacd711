//! Ends all that a process has started. This test has its own program, since it would end processes of other
//! tests.

use std::process::Command;
use std::time::Duration;

use teleport::kill_subprocs;
use teleport_tests::{marked, new_mark, until_marked, until_none_left, watched};

#[test]
fn every_child_and_all_that_it_started_ends() {
    watched(|| {
        let mark = new_mark();
        let start =
            |script: &str| Command::new("bash").args(["-c", script]).envs(marked(&mark)).spawn().unwrap();
        let mut children = [start("sleep 600; true"), start("trap '' TERM; sleep 600; true")];
        until_marked(&mark, 4);
        kill_subprocs(Duration::from_millis(100)).unwrap();
        until_none_left(&mark);
        for child in &mut children {
            assert!(!child.wait().unwrap().success());
        }
    });
}
