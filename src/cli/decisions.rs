//! `campaignd decisions`: what was decided, as it is published.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::{ConfigArguments, DONE, Output, feeding};
use crate::config::Config;
use crate::decision::Decision;
use crate::decision::sentence::Sentence;
use crate::kafka::reader::{self, QuietConsumer};
use crate::schema::read_decision;
use crate::schema::registry::RegistryClient;

/// How long a poll waits before Ctrl-C is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long to wait for the broker at the start.
const METADATA_TIMEOUT: Duration = Duration::from_secs(15);

/// Show the decisions as they are published
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Tail(Tail),
}

/// Show the decisions as they are published
///
/// Only committed decisions are shown, in the order of their partitions. It joins no consumer group and changes nothing.
/// Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd decisions tail --config campaignd.toml\n  \
    campaignd decisions tail --from-beginning --user user-000017 --no-follow\n  \
    campaignd decisions tail --outcome suppress --limit 10 --output json")]
struct Tail {
    #[command(flatten)]
    config: ConfigArguments,

    /// Begin with the oldest decision kept, not with the next one.
    #[arg(long)]
    from_beginning: bool,

    /// Only this user's.
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Only those with this outcome.
    #[arg(long, value_enum)]
    outcome: Option<Outcome>,

    /// End after so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// End when all that is there has been shown.
    #[arg(long)]
    no_follow: bool,

    /// Form of the output: sentences, or one JSON object a line.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Outcome {
    /// Decisions to act.
    Allow,
    /// Decisions not to act.
    Suppress,
    /// Decisions for the control group.
    Holdout,
}

impl Outcome {
    fn is(self, other: crate::decision::Outcome) -> bool {
        let this = match self {
            Outcome::Allow => crate::decision::Outcome::Allow,
            Outcome::Suppress => crate::decision::Outcome::Suppress,
            Outcome::Holdout => crate::decision::Outcome::Holdout,
        };
        this == other
    }

    /// Value of the header.
    fn text(self) -> &'static [u8] {
        match self {
            Outcome::Allow => b"allow",
            Outcome::Suppress => b"suppress",
            Outcome::Holdout => b"holdout",
        }
    }
}

/// Runs the subcommand.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Command::Tail(arguments) = arguments.command;
    let config = arguments.config.load_and_log()?;
    let registry = RegistryClient::new(config.registry_settings())?;
    let stop = feeding::interrupted();
    let runtime = tokio::runtime::Handle::current();
    let run = tokio::task::spawn_blocking(move || {
        let decode = |value: &[u8]| runtime.block_on(read_decision(&registry, value));
        tail(&arguments, &config, &stop, decode)
    });
    run.await??;
    Ok(ExitCode::from(DONE))
}

fn tail<E: std::fmt::Display>(
    arguments: &Tail,
    config: &Config,
    stop: &AtomicBool,
    decode: impl Fn(&[u8]) -> Result<Decision, E>,
) -> anyhow::Result<()> {
    let topic = &config.topics.decisions;
    let (consumer, mut unfinished) = consumer(config, topic, arguments.from_beginning)?;
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    while left > 0 && !stop.load(Ordering::Relaxed) {
        let record = match consumer.poll(POLL) {
            None => continue,
            Some(Ok(record)) => record,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unfinished.retain(|open| *open != partition);
                if arguments.no_follow && unfinished.is_empty() {
                    break;
                }
                continue;
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            Some(Err(error)) => {
                // The client goes on by itself; a broker that is away for a while is no reason to end.
                tracing::warn!("{error}");
                continue;
            }
        };
        if !wanted(arguments, &record) {
            continue;
        }
        let decision = match decode(record.payload().unwrap_or_default()) {
            Ok(decision) => decision,
            Err(error) => {
                eprintln!("{topic}[{}]@{}: {error}", record.partition(), record.offset());
                continue;
            }
        };
        if arguments.outcome.is_some_and(|outcome| !outcome.is(decision.outcome)) {
            continue;
        }
        let mut out = std::io::stdout().lock();
        let written = match arguments.output {
            Output::Human => writeln!(out, "{}", Sentence(&decision)),
            Output::Json => writeln!(out, "{}", decision.to_json()),
        };
        match written.and_then(|()| out.flush()) {
            Ok(()) => left -= 1,
            // The reader of our output has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether key and header allow for the record to be one of those asked for; saves decoding the others.
fn wanted(arguments: &Tail, record: &BorrowedMessage<'_>) -> bool {
    let user = arguments.user.as_ref().is_none_or(|user| record.key() == Some(user.as_bytes()));
    let header = record.headers().and_then(|headers| headers.iter().find(|header| header.key == "outcome"));
    let outcome = match (arguments.outcome, header.and_then(|header| header.value)) {
        (Some(outcome), Some(header)) => outcome.text() == header,
        _ => true,
    };
    user && outcome
}

/// A reader of all partitions, and their numbers.
fn consumer(config: &Config, topic: &str, from_beginning: bool) -> anyhow::Result<(QuietConsumer, Vec<i32>)> {
    // Nothing is ever committed under this group.
    let group_id = format!("{}-tail-{}", config.group.id, Uuid::new_v4());
    let consumer = reader::consumer(config.client_config(), &group_id)?;
    let partitions = reader::partitions(&consumer, topic, METADATA_TIMEOUT)
        .with_context(|| format!("cannot reach Kafka at {}", config.kafka.brokers))?;
    if partitions.is_empty() {
        anyhow::bail!("the topic {topic} does not exist; create it with `campaignd topology apply`");
    }
    let offset = if from_beginning { Offset::Beginning } else { Offset::End };
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(topic, *partition, offset)?;
    }
    consumer.assign(&assignment)?;
    Ok((consumer, partitions))
}
