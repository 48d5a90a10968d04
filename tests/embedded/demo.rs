//! `campaignd demo` as a process: it ends by itself, and its sums are those of its generator.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::poll::until;
use crate::support::process::{Folder, must_succeed, program, signal};

#[test]
fn the_demo_ends_with_sums_that_add_up() {
    let folder = Folder::new();
    let text = must_succeed(&["demo", "--events", "12000", "--exit", "--output", "json"], folder.path());
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let count = |path: &str| {
        summary.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}: {text}"))
    };
    assert_eq!(count("/events_in"), 12_000);
    assert_eq!(count("/decided") + count("/ignored"), count("/expected/events"));
    assert_eq!(count("/duplicates"), count("/expected/duplicates"));
    let poison: u64 =
        summary["expected"]["poison"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(count("/dead_letters"), poison);
    assert_eq!(count("/expected/records"), 12_000);
    let decisions: u64 = summary["decisions"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(count("/audit_rows"), decisions);
    for path in
        ["/duplicates", "/dead_letters", "/decided", "/ignored", "/decisions/allow", "/decisions/suppress"]
    {
        assert!(count(path) >= 20, "the demo is to show something of {path}: {summary}");
    }
    assert_eq!(summary["disagreements"], Value::Array(Vec::new()));
}

#[test]
fn ctrl_c_ends_the_demo_with_its_summary() {
    let mut demo = Running(
        Command::new(program())
            .args(["demo", "--events", "1000000", "--rate", "2000", "--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    // The addresses are printed once everything runs.
    let mut seen = Vec::new();
    let mut lines = std::io::BufReader::new(demo.0.stderr.take().unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        use std::io::BufRead;
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            sender.send(std::mem::take(&mut line)).ok();
        }
    });
    until("the demo to say where its metrics are", || {
        seen.extend(receiver.try_iter());
        if seen.iter().any(|line| line.contains("/metrics")) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    signal("INT", demo.0.id());
    let status = until("the demo to end", || demo.0.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut demo.0.stdout.take().unwrap(), &mut text).unwrap();
    assert_eq!(status.code(), Some(0), "{text}\n{seen:?}");
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(summary["events_in"].as_u64().unwrap() < 1_000_000);
    assert_eq!(summary["disagreements"], Value::Array(Vec::new()));
}

/// A process that is gone when the story ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
