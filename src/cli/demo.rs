//! `campaignd demo`: everything in one process.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{DONE, FAILED, Output};
use crate::config::Log;
use crate::demo::{self, Options};
use crate::generate::GenerateOptions;
use crate::telemetry::log;

/// Show campaignd at work, with everything it needs in one process
///
/// Starts a broker, a schema registry, a store in a temporary folder, sample campaigns and a generator of shop events,
/// and the very processor that `run` starts. The events hold duplicates and poison. At the end (Ctrl-C, or --exit) the
/// sums are compared with what the generator made; the command fails if they do not add up.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd demo\n  \
    campaignd demo --events 20000 --exit\n  \
    campaignd demo --events 20000 --exit --output json | tail -1\n\n\
    The broker is a mock: it shows how campaignd behaves and proves nothing about exactly-once.")]
pub struct Arguments {
    /// Records to generate, duplicates and poison included.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    events: u64,

    /// End when all of them are handled, instead of waiting for Ctrl-C.
    #[arg(long)]
    exit: bool,

    /// Most records a second; without it as fast as they are handled.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,

    /// Users they are spread over.
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    users: u32,

    /// The same seed gives the same events.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Share of records that repeat an earlier event, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    duplicates: f64,

    /// Share of records that must end in the dead letter topic, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.005)]
    poison: f64,

    /// Form of the summary; json is one object on the last line of standard output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the demo.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // The view has the screen; what goes wrong is shown beside it.
    log::init(&Log { level: "error".into(), ..Log::default() })?;
    let options = Options {
        generate: GenerateOptions {
            events: arguments.events,
            users: arguments.users,
            seed: arguments.seed,
            duplicates: arguments.duplicates,
            poison: arguments.poison,
            late: 0.01,
            skew: 0.8,
            ..GenerateOptions::default()
        },
        rate: arguments.rate,
        exit: arguments.exit,
        live: std::io::stderr().is_terminal(),
    };
    let summary = demo::run(options, interrupted()).await?;
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string(&summary)?),
        Output::Human => println!("{summary}"),
    }
    Ok(ExitCode::from(if summary.agrees() { DONE } else { FAILED }))
}

/// Cancelled at the first Ctrl-C; the second ends the process at once.
fn interrupted() -> CancellationToken {
    let token = CancellationToken::new();
    let seen = token.clone();
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if seen.is_cancelled() {
                std::process::exit(130);
            }
            seen.cancel();
        }
    });
    token
}
