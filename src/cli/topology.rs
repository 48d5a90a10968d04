//! `campaignd topology`: the topics.

mod rebase;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArguments, DIFFERENCES, DONE, Output, UsageError};
use crate::topology::{Cluster, Planned, Verdict, built_in, names, plan, read_directory};

/// Create the topics that are missing, and say that one was made anew
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Apply(Apply),
    Rebase(rebase::Arguments),
}

/// Create the topics that are missing, change none
///
/// The wanted topics come from files in Strimzi's KafkaTopic shape, one for each of our topics; those built into the
/// program are the ones in the folder topology/ of the source. Names come from the configuration, and so does the number
/// of retry topics: one for each of retry.delays_ms.
///
/// A topic that is there is never changed. If it is not as it must be (too few partitions, a setting that would lose
/// records), its line says so and the exit code is 2.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd topology apply --config campaignd.toml\n  \
    campaignd topology apply --partitions 6\n  \
    campaignd topology apply --dir deploy/topics --replicas 3 --output json\n\n\
    Exit codes: 0 all topics are there and good, 1 failed, 2 a topic differs, 64 bad usage or configuration.")]
struct Apply {
    #[command(flatten)]
    config: ConfigArguments,

    /// Folder of KafkaTopic files to use instead of the built-in ones.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,

    /// Partitions of events and of the topics that follow it; else as many as events has, else those of the files.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Option<i32>,

    /// Copies of each partition of a topic that is created; else those of its file, else the cluster's default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=100))]
    replicas: Option<i32>,

    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the subcommand.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Apply(arguments) => apply(arguments).await,
        Command::Rebase(arguments) => rebase::execute(arguments).await,
    }
}

async fn apply(arguments: Apply) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load_and_log()?;
    let wanted = match &arguments.dir {
        Some(directory) => read_directory(directory),
        None => built_in(),
    };
    let wanted = wanted.map_err(|error| UsageError(error.to_string()))?;
    let cluster = Cluster::new(&config)?;
    let names = names(&config);
    let actual = cluster.actual(&names).await?;
    let rows = plan(&wanted, &names, &actual, arguments.partitions);
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut counts = Counts::default();
    for row in &rows {
        if row.verdict == Verdict::Create {
            cluster.create(row, arguments.replicas).await?;
        }
        counts.add(&row.verdict);
        match arguments.output {
            Output::Human => println!("{}", line(row, width)),
            Output::Json => println!("{}", json_line(row)),
        }
    }
    match arguments.output {
        Output::Human => {
            println!(
                "{} created, {} unchanged, {} different",
                counts.created, counts.unchanged, counts.different
            );
        }
        Output::Json => println!(
            "{}",
            json!({ "totals": {
            "created": counts.created, "unchanged": counts.unchanged, "different": counts.different,
        } })
        ),
    }
    Ok(ExitCode::from(if counts.different > 0 { DIFFERENCES } else { DONE }))
}

#[derive(Default)]
struct Counts {
    created: usize,
    unchanged: usize,
    different: usize,
}

impl Counts {
    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Create => self.created += 1,
            Verdict::Keep => self.unchanged += 1,
            Verdict::Differs(_) => self.different += 1,
        }
    }
}

fn line(row: &Planned, width: usize) -> String {
    let partitions = row.actual_partitions.unwrap_or(row.topic.partitions);
    let plural = if partitions == 1 { "" } else { "s" };
    let start = format!("{:<9}  {:width$}  {partitions:>5} partition{plural}", word(&row.verdict), row.name);
    match &row.verdict {
        Verdict::Differs(texts) => format!("{start}: {}", texts.join("; ")),
        _ => start,
    }
}

fn json_line(row: &Planned) -> serde_json::Value {
    let differences: &[String] = match &row.verdict {
        Verdict::Differs(texts) => texts,
        _ => &[],
    };
    json!({
        "topic": row.name,
        "result": word(&row.verdict),
        "partitions": row.actual_partitions.unwrap_or(row.topic.partitions),
        "differences": differences,
    })
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Create => "created",
        Verdict::Keep => "unchanged",
        Verdict::Differs(_) => "different",
    }
}
