//! `campaignd run`: the processor.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArguments, DONE, FAILED};
use crate::processor::{self, Processor};

/// Run the processor until it is told to end
///
/// It reads events, decides campaigns, keeps users' states and publishes decisions, exactly once and in order. Start
/// as many instances as there is work for; they share the partitions. `topology apply`, `store migrate` and `schemas
/// register` must have been run before; what is missing is said at the start, and no partition is taken then.
///
/// SIGTERM or SIGINT (Ctrl-C) stops intake, commits what is in flight and leaves the group; a second one ends at once,
/// which loses nothing either. The log goes to standard error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd run --config campaignd.toml\n  \
    CAMPAIGND_LOG__FORMAT=json CAMPAIGND_GROUP__INSTANCE_ID=a campaignd run --config campaignd.toml\n\n\
    Exit codes: 0 ended as told, 1 failed or not ended within shutdown.grace_ms, 64 the configuration, the topics, the \
    tables or the schemas are not as they must be.")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

/// Runs the processor.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load_and_log()?;
    let mut signals = Signals::listen()?;
    tracing::info!("campaignd {} starts", env!("CARGO_PKG_VERSION"));

    let mut processor = tokio::select! {
        started = processor::start(&config) => started?,
        name = signals.next() => {
            tracing::info!("{name} during the start; ending");
            return Ok(ExitCode::from(DONE));
        }
    };

    tokio::select! {
        error = processor.ended() => {
            // What is still whole ends in order, so that the group learns of it at once.
            stop(processor, &mut signals, config.shutdown.grace_ms).await;
            Err(error.into())
        }
        name = signals.next() => {
            tracing::info!("{name}: stopping intake, committing what is in flight");
            Ok(stop(processor, &mut signals, config.shutdown.grace_ms).await)
        }
    }
}

/// Ends the processor within the grace time, or at once at another signal.
async fn stop(processor: Processor, signals: &mut Signals, grace_ms: u64) -> ExitCode {
    tokio::select! {
        biased;
        ended = tokio::time::timeout(Duration::from_millis(grace_ms), processor.stop()) => match ended {
            Ok(Ok(())) => {
                tracing::info!("ended");
                ExitCode::from(DONE)
            }
            Ok(Err(error)) => {
                tracing::error!("not ended as it should: {error}");
                ExitCode::from(FAILED)
            }
            Err(_) => {
                tracing::error!("not ended within shutdown.grace_ms ({grace_ms}); what is in flight will be done again");
                ExitCode::from(FAILED)
            }
        },
        name = signals.next() => {
            tracing::warn!("{name} again: ending at once; what is in flight will be done again");
            ExitCode::from(FAILED)
        }
    }
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
