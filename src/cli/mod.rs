//! The commands, a file each; what they have in common is here.
//!
//! Exit codes: 0 done, 1 failed, 2 differences found, 64 bad usage or configuration.

pub mod audit;
pub mod campaigns;
pub mod config;
pub mod decisions;
pub mod demo;
pub mod dlq;
mod feeding;
pub mod generate;
mod moment;
pub mod parked;
pub mod produce;
pub mod run;
pub mod schemas;
pub mod store;
mod table;
pub mod topology;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError, Loaded};
use crate::kafka::dead_letters::DeadLetterError;
use crate::pipeline::PipelineError;
use crate::processor::{EndError, StartError};

/// The command did what it should.
pub const DONE: u8 = 0;
/// Something failed.
pub const FAILED: u8 = 1;
/// What was looked at differs from what was asked for.
pub const DIFFERENCES: u8 = 2;
/// The command line or the configuration is refused; nothing was opened.
pub const USAGE: u8 = 64;

/// Turns users' events on Kafka into campaign decisions, exactly once and in order.
#[derive(Debug, Parser)]
#[command(
    name = "campaignd",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 differences found, 64 bad usage or configuration.\n\
                  `campaignd <command> --help` shows options and examples."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. Their help texts are the doc comments of their `Arguments`.
#[allow(missing_docs, reason = "a doc comment here would replace the command's own help text")]
#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(demo::Arguments),
    Run(run::Arguments),
    Topology(topology::Arguments),
    Store(store::Arguments),
    Schemas(schemas::Arguments),
    Campaigns(campaigns::Arguments),
    Produce(produce::Arguments),
    Generate(generate::Arguments),
    Decisions(decisions::Arguments),
    Dlq(dlq::Arguments),
    Audit(audit::Arguments),
    Parked(parked::Arguments),
    Config(config::Arguments),
}

impl Command {
    /// Does it and says how it ended.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(arguments) => demo::execute(arguments).await,
            Self::Run(arguments) => run::execute(arguments).await,
            Self::Topology(arguments) => topology::execute(arguments).await,
            Self::Campaigns(arguments) => campaigns::execute(arguments).await,
            Self::Schemas(arguments) => schemas::execute(arguments).await,
            Self::Generate(arguments) => generate::execute(arguments).await,
            Self::Produce(arguments) => produce::execute(arguments).await,
            Self::Decisions(arguments) => decisions::execute(arguments).await,
            Self::Dlq(arguments) => dlq::execute(arguments).await,
            Self::Config(arguments) => config::execute(arguments),
            Self::Audit(arguments) => audit::execute(arguments).await,
            Self::Store(arguments) => store::execute(arguments).await,
            Self::Parked(arguments) => parked::execute(arguments).await,
        }
    }
}

/// Where the configuration is; for every command that reaches a service.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArguments {
    /// Configuration file (TOML); without it, defaults and the environment hold.
    #[arg(long, short = 'c', value_name = "FILE", env = "CAMPAIGND_CONFIG")]
    pub config: Option<PathBuf>,
}

impl ConfigArguments {
    /// The configuration from defaults, file and environment.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_explained().map(|loaded| loaded.config)
    }

    /// The configuration, with the log started as it says; for every command that talks to a service.
    pub fn load_and_log(&self) -> anyhow::Result<Config> {
        let config = self.load()?;
        crate::telemetry::log::init(&config.log)?;
        Ok(config)
    }

    /// The configuration with the layer that each value comes from.
    pub fn load_explained(&self) -> Result<Loaded, ConfigError> {
        // Variables that are not UTF-8 cannot be settings of ours.
        let env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Config::load_explained(self.config.as_deref(), env)
    }
}

/// Form of a command's results on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Human,
    /// One JSON object or one JSON line per row, for programs.
    Json,
}

/// Bad usage that the command line parser cannot see; exits 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The exit code that an error ends the process with.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let refused = error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<UsageError>()
            || cause.downcast_ref::<StartError>().is_some_and(StartError::is_refusal)
            || cause.downcast_ref::<DeadLetterError>().is_some_and(DeadLetterError::is_refusal)
            || matches!(cause.downcast_ref(), Some(EndError::Pipeline(PipelineError::Refused(_))))
    });
    ExitCode::from(if refused { USAGE } else { FAILED })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_refused_configuration_exits_64_through_any_context() {
        let refused = anyhow::Error::from(ConfigError { problems: Vec::new() }).context("cannot start");
        assert_eq!(format!("{:?}", exit_code(&refused)), format!("{:?}", ExitCode::from(64)));
        let failed = anyhow::anyhow!("the broker is gone");
        assert_eq!(format!("{:?}", exit_code(&failed)), format!("{:?}", ExitCode::from(1)));
    }
}
