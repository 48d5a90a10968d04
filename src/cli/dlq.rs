//! `campaignd dlq`: what lies in the dead letter topic, and what becomes of it.

mod filter;
mod list;
mod picture;
mod purge;
mod replay;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::config::Config;
use crate::kafka::dead_letters::DeadLetterTopic;

/// List, show, replay and purge dead letters
///
/// A dead letter is a record of the events topic that could not be handled, byte for byte, with the reason in its headers.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[allow(missing_docs, reason = "a doc comment here would replace the command's own help text")]
#[derive(Debug, Subcommand)]
enum Command {
    List(list::Arguments),
    Show(show::Arguments),
    Replay(replay::Arguments),
    Purge(purge::Arguments),
}

/// Does what the subcommand says.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::List(arguments) => list::execute(arguments).await,
        Command::Show(arguments) => show::execute(arguments).await,
        Command::Replay(arguments) => replay::execute(arguments).await,
        Command::Purge(arguments) => purge::execute(arguments).await,
    }
}

/// The topic as configured.
fn topic(config: &Config) -> DeadLetterTopic {
    DeadLetterTopic {
        client: config.client_config(),
        topic: config.topics.dlq.clone(),
        events: config.topics.events.clone(),
        partitioner: config.pipeline.events_partitioner.into(),
        group_id: config.group.id.clone(),
        request_timeout: Duration::from_millis(config.kafka.timeout_ms),
        transaction_timeout: Duration::from_millis(config.group.transaction_timeout_ms),
    }
}

/// The group of a command that only reads; nothing is ever committed under it.
fn reading_group(config: &Config) -> String {
    format!("{}-dlq-reader", config.group.id)
}
