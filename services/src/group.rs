//! A child process with a process group of its own, stopped as a whole.

use crate::TICK;
use crate::die_with_parent::die_with_parent;
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
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
        let pid = Pid::from_child(&child);
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
    pub fn stop(&mut self, signal: Signal, deadline: Instant) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal_group(self.pid, signal);
            // A test may have frozen the process; frozen, it would not see the signal.
            signal_group(self.pid, Signal::CONT);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(TICK);
            }
        }
        signal_group(self.pid, Signal::KILL);
        // Killed or ended, so this returns at once; it keeps no zombie behind.
        let _ = self.child.wait();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop(Signal::TERM, Instant::now() + GRACE);
    }
}

/// Signals every process of a group; a group that is gone already is what was wanted.
pub fn signal_group(pid: Pid, signal: Signal) {
    let _ = kill_process_group(pid, signal);
}
