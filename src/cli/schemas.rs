//! `campaignd schemas`: our schemas in the registry.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArguments, DONE, Output};
use crate::config::Config;
use crate::schema::registration::{Registration, Subjects, register_all};
use crate::schema::registry::RegistryClient;

/// Register the schemas of events, decisions and activity
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Register(Register),
}

/// Register the schemas of events, decisions and activity
///
/// Each goes under the name of its topic and `-value`, as Confluent's serialisers expect. A subject without a
/// compatibility level of its own gets BACKWARD; a level that was set stays. Doing it again changes nothing. A schema
/// that would break readers is refused by the registry.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd schemas register --config campaignd.toml\n  \
    CAMPAIGND_REGISTRY__URL=http://registry:8081 campaignd schemas register --output json")]
struct Register {
    #[command(flatten)]
    config: ConfigArguments,

    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the subcommand.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Register(arguments) => register(arguments).await,
    }
}

/// The subjects of the configured topics.
pub(super) fn subjects(config: &Config) -> Subjects {
    Subjects::of_topics(&config.topics.events, &config.topics.decisions, &config.topics.activity)
}

async fn register(arguments: Register) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load_and_log()?;
    let client = RegistryClient::new(config.registry_settings())?;
    let registered = register_all(&client, &subjects(&config)).await?;
    let width = registered.subjects.iter().map(|row| row.subject.len()).max().unwrap_or(0);
    let created = registered.subjects.iter().filter(|row| row.created).count();
    let unchanged = registered.subjects.len() - created;
    for row in &registered.subjects {
        match arguments.output {
            Output::Human => println!("{}", line(row, width)),
            Output::Json => println!("{}", json!(row)),
        }
    }
    match arguments.output {
        Output::Human => println!("{created} created, {unchanged} unchanged"),
        Output::Json => println!("{}", json!({ "totals": { "created": created, "unchanged": unchanged } })),
    }
    Ok(ExitCode::from(DONE))
}

fn line(row: &Registration, width: usize) -> String {
    let verb = if row.created { "created" } else { "unchanged" };
    let Registration { subject, id, compatibility, .. } = row;
    format!("{verb:<9}  {subject:width$}  id {id:<6}  {compatibility}")
}
