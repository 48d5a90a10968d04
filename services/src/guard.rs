//! The guard: a second process that removes what the tool would leave behind when it is killed outright.
//!
//! It reads lines from the tool through a pipe. When the tool ends, however it ends, the pipe closes; the guard then kills
//! every process group it was told of and removes every path. A tool that has cleaned up itself says `done` first.
//! The guard has a process group of its own, so a Ctrl-C in the terminal does not end it.

use crate::TICK;
use crate::os::{Pid, signal_group};
use anyhow::Context;
use signal_hook::consts::SIGKILL;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the guard goes on removing a folder in which dying processes may still write.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(10);

/// The tool's end of the pipe.
#[derive(Debug)]
pub struct Guard {
    process: Child,
    lines: Option<ChildStdin>,
}

impl Guard {
    /// Starts the guard.
    pub fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the tool's own program file")?;
        let mut process = Command::new(program)
            .arg("guard")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the guard process")?;
        let lines = process.stdin.take();
        Ok(Self { process, lines })
    }

    /// Has the group killed when the tool dies.
    pub fn watch_group(&mut self, pid: Pid) -> anyhow::Result<()> {
        self.tell(&format!("group {}", pid.number()))
    }

    /// Has the file or folder removed when the tool dies.
    pub fn watch_path(&mut self, path: &Path) -> anyhow::Result<()> {
        self.tell(&format!("path {}", path.display()))
    }

    /// Ends the guard; the tool has removed everything itself.
    pub fn dismiss(&mut self) {
        let _ = self.tell("done");
        self.lines = None;
        let _ = self.process.wait();
    }

    fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let lines = self.lines.as_mut().context("the guard is gone")?;
        writeln!(lines, "{line}").and_then(|()| lines.flush()).context("cannot talk to the guard process")
    }
}

/// The guard's side: reads until the tool is gone, then cleans up.
pub fn keep() -> anyhow::Result<()> {
    let mut groups = Vec::new();
    let mut paths = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read from the tool")?;
        match line.split_once(' ') {
            Some(("group", pid)) => groups.extend(pid.parse().ok().and_then(Pid::new)),
            Some(("path", path)) => paths.push(PathBuf::from(path)),
            _ if line == "done" => return Ok(()),
            _ => {}
        }
    }
    for pid in groups {
        signal_group(pid, SIGKILL);
    }
    let deadline = Instant::now() + REMOVAL_PATIENCE;
    for path in paths {
        while remove(&path).is_err() && Instant::now() < deadline {
            std::thread::sleep(TICK);
        }
    }
    Ok(())
}

/// Removes a file or a folder; one that is gone already is fine.
pub fn remove(path: &Path) -> std::io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
