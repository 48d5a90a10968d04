//! `campaignd store`: the tables of the store.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArguments, DONE, Output};
use crate::config::{Config, StoreKind};
use crate::store::embedded::EmbeddedStore;
use crate::store::migrate::{self, Report};
use crate::store::scylla::Settings;

/// Prepare the store
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Migrate(Migrate),
}

/// Create the keyspace and its tables, or bring them to this version
///
/// Running it again changes nothing. A keyspace that exists keeps its replication. At the end one lightweight
/// transaction is tried, because ownership of partitions needs them. For the embedded store the folder is created.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  campaignd store migrate --config campaignd.toml")]
struct Migrate {
    #[command(flatten)]
    config: ConfigArguments,

    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Command::Migrate(Migrate { config, output }) = arguments.command;
    let config = config.load_and_log()?;
    let (place, report) = migrate(&config).await?;
    match output {
        Output::Human => print!("{}", text(&place, &report)),
        Output::Json => println!("{}", json(&place, &report)),
    }
    Ok(ExitCode::from(DONE))
}

/// Where the tables are, and what was done about them.
async fn migrate(config: &Config) -> anyhow::Result<(String, Report)> {
    match config.store.kind {
        StoreKind::Scylla => {
            let settings = Settings::from(&config.store.scylla);
            let place = format!("keyspace {}", settings.keyspace);
            let report = migrate::run(&settings).await.context("cannot prepare the database")?;
            Ok((place, report))
        }
        StoreKind::Embedded => {
            let folder = config.store.embedded.path.clone();
            let place = format!("folder {}", folder.display());
            tokio::task::spawn_blocking(move || EmbeddedStore::open(&folder)).await??;
            Ok((place, Report::default()))
        }
    }
}

fn text(place: &str, report: &Report) -> String {
    let mut lines = String::new();
    if report.keyspace_created {
        lines.push_str(&format!("+ {place}\n"));
    }
    for (version, what) in &report.steps {
        lines.push_str(&format!("+ version {version}: {what}\n"));
    }
    lines.push_str(&match (report.version, report.steps.len()) {
        (0, _) => format!("{place} is ready\n"),
        (version, 0) => format!("{place} is at version {version}, nothing to do\n"),
        (version, steps) => format!("{place} is at version {version}, {steps} step(s) done\n"),
    });
    lines
}

fn json(place: &str, report: &Report) -> serde_json::Value {
    let steps: Vec<_> =
        report.steps.iter().map(|(version, what)| json!({ "version": version, "what": what })).collect();
    json!({ "place": place, "keyspace_created": report.keyspace_created, "steps": steps, "version": report.version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_was_done_and_where_things_stand() {
        let first = Report { keyspace_created: true, steps: vec![(1, "users")], version: 1 };
        assert_eq!(
            text("keyspace c", &first),
            "+ keyspace c\n+ version 1: users\nkeyspace c is at version 1, 1 step(s) done\n"
        );
        let again = Report { version: 1, ..Report::default() };
        assert_eq!(text("keyspace c", &again), "keyspace c is at version 1, nothing to do\n");
        assert_eq!(text("folder d", &Report::default()), "folder d is ready\n");
    }
}
