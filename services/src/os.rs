//! The three system calls that the standard library does not offer. The only unsafe code of the tool.
//!
//! They are called here through libc, because a safe wrapper crate would turn on features of crates that campaignd
//! shares, and everything would be built twice.

// Each block says why it is sound; nothing else in the tool needs any.
#![allow(unsafe_code)]

use std::io::{Error, ErrorKind, Result};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// A process, and the group that it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pid(libc::pid_t);

impl Pid {
    /// The id of a child of ours.
    pub fn of(child: &Child) -> Option<Self> {
        libc::pid_t::try_from(child.id()).ok().and_then(Self::new)
    }

    /// A number as an id; 0 and 1 are none: to `kill`, 0 is our own group and -1 every process there is.
    pub fn new(number: i32) -> Option<Self> {
        (number > 1).then_some(Self(number))
    }

    /// The number, as other programs know it.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// Signals every process of the group; a group that is gone already is what was wanted.
pub fn signal_group(group: Pid, signal: i32) {
    // SAFETY: kill takes two numbers and touches no memory of ours. `Pid` is above 1, so only that group is meant.
    unsafe {
        libc::kill(-group.0, signal);
    }
}

/// Has the kernel kill the command's process when the thread that spawns it ends.
///
/// That thread must be the main one: the signal is tied to the thread, not to the process. Elsewhere than on Linux it does
/// nothing, and the guard alone cleans up.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed. It makes two system
    // calls, takes no lock, allocates nothing and touches no memory of the parent.
    unsafe {
        command.pre_exec(move || tie_to(parent));
    }
}

/// Runs in the child. The parent may have died before the request was made; then nobody would send the signal.
#[cfg(target_os = "linux")]
fn tie_to(parent: u32) -> Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(Error::last_os_error());
    }
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(Error::from(ErrorKind::BrokenPipe))
    }
}

#[cfg(not(target_os = "linux"))]
fn tie_to(_parent: u32) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Pid, signal_group};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    #[test]
    fn numbers_that_mean_more_than_one_group_are_no_pids() {
        for number in [i32::MIN, -1, 0, 1] {
            assert_eq!(Pid::new(number), None, "{number}");
        }
        assert_eq!(Pid::new(2).map(Pid::number), Some(2));
    }

    #[test]
    fn a_signal_reaches_the_group_and_a_group_that_is_gone_is_fine() {
        let mut child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let pid = Pid::of(&child).unwrap();
        signal_group(pid, libc::SIGTERM);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        signal_group(pid, libc::SIGTERM);
    }
}
