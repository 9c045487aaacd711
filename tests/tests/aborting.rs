//! Processes and threads of a program whose panics abort. The test builds it, since the setting holds for a
//! whole program.

use std::process::Command;

use teleport_tests::{Program, until_none_left, watched};

#[test]
fn panics_of_processes_are_returned_and_threads_do_not_start() {
    watched(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/aborting");
        let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/aborting");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--target-dir", target]).current_dir(folder);
        assert!(build.status().expect("there is cargo").success(), "it cannot be built");
        let program = Program::spawn(Command::new(format!("{target}/debug/aborting")));
        let mark = program.mark();
        let ended = program.wait();
        assert!(ended.status.success(), "{}", ended.errors);
        let lines: Vec<_> = ended.output.lines().collect();
        let [half, panic, thread] = lines[..] else { panic!("it prints three lines: {lines:?}") };
        assert_eq!(half, "4");
        assert_eq!(panic, "halve: panicked: 7 is odd (at src/main.rs:6:5)");
        let refused = "worker: the program is built with `panic = \"abort\"`, so its threads cannot be killed: build it with \
            `panic = \"unwind\"`";
        assert_eq!(thread, refused);
        until_none_left(&mark);
    });
}
