//! Starts real Kafka, Cassandra and Apicurio on loopback, for development and for the service suite.
//!
//! It needs Java 17 and Maven, no container engine. The parts are fetched once into a cache folder; every run has free
//! ports and a private folder of its own, so several can run beside each other.
//!
//! What always holds: when the tool ends, by itself, by a signal or by SIGKILL, its services end and their folder goes
//! (see [`guard`]). It is a development tool: nothing here is part of the product, and nothing it starts is tuned,
//! secured or kept.

mod apicurio;
mod cassandra;
mod fetch;
mod group;
mod guard;
mod http;
mod java;
mod kafka;
mod os;
mod ports;
mod stack;
mod stop;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use group::Group;
use stack::Stack;
use std::io::{IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};
use stop::Stop;

/// How often a wait looks again.
const TICK: Duration = Duration::from_millis(50);
/// How long a command may take to end after it was told to.
const COMMAND_GRACE: Duration = Duration::from_secs(10);

/// Real Kafka, Cassandra and Apicurio on loopback, for development and tests.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start the services, print their addresses, stop them on Ctrl-C.
    Up {
        /// Where to write a campaignd.toml for these services; removed at the end.
        #[arg(long, value_name = "FILE", default_value = "target/services/campaignd.toml")]
        config_out: PathBuf,
    },
    /// Start the services, run a command with their addresses in its environment, stop them, end with its exit code.
    Exec {
        /// Without Java or Maven, say so loudly and run the command without services (with CI=true: fail).
        #[arg(long)]
        or_skip: bool,
        /// The command and its arguments, after `--`.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Say whether Java 17 and Maven are there; exit code 1 if not.
    Check,
    /// Wait on standard input for the tool to end, then remove what it left behind.
    #[command(hide = true)]
    Guard,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Up { config_out } => up(config_out),
        Task::Exec { or_skip, command } => exec(or_skip, &command),
        Task::Check => Ok(check()),
        Task::Guard => guard::keep().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("services: {error:#}");
        ExitCode::FAILURE
    })
}

/// Says what is there of what the services need.
fn check() -> ExitCode {
    let missing = stack::missing();
    for line in &missing {
        println!("missing: {line}");
    }
    if missing.is_empty() {
        println!("Java 17 and Maven, or what Maven would fetch, are there");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// Runs the services in the foreground.
fn up(config_out: PathBuf) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let mut stack = Stack::start(&stop)?;
    stack.write_config(&config_out)?;
    let mut out = std::io::stdout();
    writeln!(out, "Kafka      {}", stack.kafka())?;
    writeln!(out, "Cassandra  {}", stack.cassandra())?;
    writeln!(out, "Apicurio   {}", stack.registry())?;
    writeln!(out, "\nFor campaignd:           --config {}", config_out.display())?;
    writeln!(out, "For the service suite:")?;
    for (key, value) in stack.environment() {
        writeln!(out, "export {key}={value}")?;
    }
    writeln!(out, "\nReady. Ctrl-C stops them and removes their data.")?;
    out.flush()?;
    loop {
        if stop.requested().is_some() {
            eprintln!("services: stopping");
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(report) = stack.newly_dead() {
            bail!("{report}");
        }
        std::thread::sleep(TICK);
    }
}

/// Runs a command beside the services.
fn exec(or_skip: bool, command: &[String]) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let missing = stack::missing();
    if missing.is_empty() {
        let mut stack = Stack::start(&stop)?;
        return run(command, Some(&mut stack), &stop);
    }
    if !or_skip || std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("the services cannot be started: {}", missing.join("; "));
    }
    let banner = format!("NO SERVICES, so the service tests are SKIPPED: {}", missing.join("; "));
    announce(&banner);
    let code = run(command, None, &stop)?;
    announce(&banner);
    Ok(code)
}

/// Prints one loud line.
fn announce(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("\x1b[1;33m*** {text} ***\x1b[0m");
    } else {
        eprintln!("*** {text} ***");
    }
}

/// Runs the command to its end, or until a signal, which is passed on to it.
fn run(command: &[String], mut stack: Option<&mut Stack>, stop: &Stop) -> anyhow::Result<ExitCode> {
    let (program, arguments) = command.split_first().context("there is no command to run")?;
    let mut child = Command::new(program);
    child.args(arguments);
    if let Some(stack) = &stack {
        child.envs(stack.environment());
    }
    let mut child = Group::spawn(program, &mut child)?;
    if let Some(stack) = &mut stack {
        stack.guard_group(&child)?;
    }
    loop {
        if let Some(status) = child.ended()? {
            return Ok(exit_code(status));
        }
        if let Some(signal) = stop.requested() {
            child.stop(signal, Instant::now() + COMMAND_GRACE);
            return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(1)));
        }
        if let Some(report) = stack.as_mut().and_then(|stack| stack.newly_dead()) {
            eprintln!("services: {report}");
        }
        std::thread::sleep(TICK);
    }
}

/// The command's exit code; 128 + the signal if one ended it, as shells do.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
