//! A child process with a process group of its own, stopped as a whole.

use crate::TICK;
use crate::os::{Pid, die_with_parent, signal_group};
use anyhow::Context;
use signal_hook::consts::{SIGCONT, SIGKILL, SIGTERM};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a process may take to end before it is killed, when nothing else is said.
const GRACE: Duration = Duration::from_secs(10);

/// A child and everything it starts. Dropping it stops them all.
#[derive(Debug)]
pub struct Group {
    child: Child,
    pid: Pid,
}

impl Group {
    /// Starts the command in its own group. Terminal signals do not reach it: whoever holds it decides.
    pub fn spawn(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        command.process_group(0);
        die_with_parent(command);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = Pid::of(&child).context("a child process without a process id")?;
        Ok(Self { child, pid })
    }

    /// The process id, which is the id of the group too.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot ask for the state of a child process")
    }

    /// Sends the signal to the group, waits for the process until the deadline, then kills what is left of the group.
    pub fn stop(&mut self, signal: i32, deadline: Instant) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal_group(self.pid, signal);
            // A test may have frozen the process; frozen, it would not see the signal.
            signal_group(self.pid, SIGCONT);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(TICK);
            }
        }
        signal_group(self.pid, SIGKILL);
        // Killed or ended, so this returns at once; it keeps no zombie behind.
        let _ = self.child.wait();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop(SIGTERM, Instant::now() + GRACE);
    }
}
