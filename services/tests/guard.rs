//! Whatever happens to the tool, nothing of it stays: no process, no folder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

/// A guard, a process in a group of its own and a folder, both known to the guard.
fn guarded() -> (Child, Child, tempfile::TempDir) {
    let mut guard = Command::new(env!("CARGO_BIN_EXE_services"))
        .arg("guard")
        .stdin(Stdio::piped())
        .spawn()
        .expect("the guard starts");
    let process = Command::new("sleep").arg("600").process_group(0).spawn().expect("sleep starts");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/file"), "content").unwrap();
    let lines = guard.stdin.as_mut().unwrap();
    writeln!(lines, "group {}", process.id()).unwrap();
    writeln!(lines, "path {}", folder.path().display()).unwrap();
    (guard, process, folder)
}

#[test]
fn the_guard_of_a_killed_tool_kills_its_groups_and_removes_its_folders() {
    let (mut guard, mut process, folder) = guarded();
    drop(guard.stdin.take());
    assert!(guard.wait().unwrap().success());
    assert_eq!(process.wait().unwrap().signal(), Some(9));
    assert!(!folder.path().exists());
}

#[test]
fn the_guard_of_a_tool_that_cleaned_up_touches_nothing() {
    let (mut guard, mut process, folder) = guarded();
    writeln!(guard.stdin.as_mut().unwrap(), "done").unwrap();
    assert!(guard.wait().unwrap().success());
    assert!(process.try_wait().unwrap().is_none(), "the process was killed");
    assert!(folder.path().join("data/file").exists());
    process.kill().unwrap();
    process.wait().unwrap();
}
