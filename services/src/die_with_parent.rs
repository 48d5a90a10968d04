//! Ties a child process to the life of this one. The only unsafe code of the tool.

// `Command::pre_exec` is unsafe, and it is the one way to ask the kernel for a signal at the parent's death: the request
// has to be made in the child, between fork and exec.
#![allow(unsafe_code)]

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the kernel kill the command's process when the thread that spawns it ends.
///
/// That thread must be the main one: the signal is tied to the thread, not to the process.
pub fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed. It makes two system
    // calls (prctl and getppid) through rustix, takes no lock, allocates nothing and does not touch the parent's memory.
    unsafe {
        command.pre_exec(move || tie_to(parent));
    }
}

/// Runs in the child. The parent may have died before the request was made; then nobody would send the signal.
fn tie_to(parent: Pid) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == Some(parent) { Ok(()) } else { Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)) }
}
