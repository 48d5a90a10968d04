//! `campaignd generate`: shop events with known duplicates and known poison.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{ConfigArguments, DONE, FAILED, Output, UsageError, feeding};
use crate::generate::{DEFAULT_START_MS, GenerateOptions, Generated, Generator, GroundTruth};
use crate::kafka::pace::Pace;
use crate::kafka::producer::{Deliveries, NewRecord};

/// Generate events of a shop, onto the events topic or into a file
///
/// Users sign up, look around, buy, fail to pay and climb tiers. The same options give the same events with the same
/// ids, so more of them need another seed. Some may be duplicates (an event sent again soon after) and some poison (bad
/// framing, bad Avro, wrong key, …): both are counted at the end, so that they can be compared with what campaignd made
/// of them.
///
/// With --out the events are written as JSON lines, one event a line, duplicates as repeated lines. Poison cannot be
/// written as JSON, so --poison needs Kafka.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd generate --config campaignd.toml --events 100000 --users 5000 --duplicates 0.02 --poison 0.01\n  \
    campaignd generate --rate 500 --skew 1.1\n  \
    campaignd generate --events 1000 --seed 7 --out events.ndjson")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,

    /// Records to generate, duplicates and poison included.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    events: u64,

    /// Users they are spread over.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    users: u32,

    /// Most records a second; without it as fast as the broker takes them.
    #[arg(long, value_name = "N", conflicts_with = "out", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,

    /// The same seed gives the same events.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Share of records that repeat an earlier event, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    duplicates: f64,

    /// Share of records that must end in the dead letter topic, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, conflicts_with = "out")]
    poison: f64,

    /// Share of events that come 2 to 24 hours late, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    late: f64,

    /// How unevenly events are spread over users (Zipf's exponent): 0 is even, 1 gives a few most of them.
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.0)]
    skew: f64,

    /// Time of the first event [default: 2026-01-01T00:00:00Z].
    #[arg(long, value_name = "TIME")]
    start: Option<Timestamp>,

    /// Event time they are spread over, such as 45d or 12h.
    #[arg(long, value_name = "DURATION", default_value = "45d")]
    span: humantime::Duration,

    /// Write JSON lines to this file instead of Kafka; - is standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Form of the counts at the end.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Generates.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut options = arguments.options();
    let usage = |error: crate::generate::OptionsError| UsageError(error.to_string());
    if let Some(path) = &arguments.out {
        let mut generator = Generator::new(options).map_err(usage)?;
        write_lines(path, &mut generator).with_context(|| format!("cannot write {}", path.display()))?;
        let to_stdout = path.as_os_str() == "-";
        print_counts(generator.truth(), &path.display().to_string(), arguments.output, to_stdout);
        return Ok(ExitCode::from(DONE));
    }
    // Refused options are refused before anything opens.
    Generator::new(options.clone()).map_err(usage)?;
    let config = arguments.config.load_and_log()?;
    options.schema_id = feeding::event_schema_id(&config).await?;
    let stop = feeding::interrupted();
    let topic = config.topics.events.clone();
    let run = tokio::task::spawn_blocking(move || {
        let producer = feeding::connect(&config)?;
        options.wrong_partitions = producer.partition_count() > 1;
        let (schema_id, events) = (options.schema_id, options.events);
        let mut generator = Generator::new(options)?;
        let bar = feeding::progress(Some(events), "records");
        let pace = Pace::new(arguments.rate);
        let mut sent = 0;
        let mut failed = None;
        for generated in generator.by_ref() {
            pace.wait(sent, &stop, |time| producer.wait(time));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = send(&producer, sent, &generated, schema_id) {
                failed = Some(error);
                break;
            }
            sent += 1;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let stopped = failed.is_some() || sent < events;
        anyhow::Ok((generator.truth().clone(), producer.finish(), stopped, failed))
    });
    let (truth, deliveries, stopped, failed) = run.await??;
    let all = feeding::report(&deliveries, |number| format!("record {number}"));
    if stopped || !all {
        if let Some(error) = failed {
            eprintln!("{error}");
        }
        let Deliveries { delivered, failed, .. } = deliveries;
        eprintln!("stopped early: {delivered} records delivered, {failed} not");
        return Ok(ExitCode::from(FAILED));
    }
    print_counts(&truth, &topic, arguments.output, false);
    Ok(ExitCode::from(DONE))
}

impl Arguments {
    fn options(&self) -> GenerateOptions {
        GenerateOptions {
            events: self.events,
            users: self.users,
            seed: self.seed,
            duplicates: self.duplicates,
            poison: self.poison,
            late: self.late,
            skew: self.skew,
            start_ms: self.start.map_or(DEFAULT_START_MS, Timestamp::as_millisecond),
            span_ms: i64::try_from(self.span.as_millis()).unwrap_or(i64::MAX),
            ..GenerateOptions::default()
        }
    }
}

fn send(
    producer: &crate::kafka::producer::EventProducer,
    number: u64,
    generated: &Generated,
    schema_id: u32,
) -> Result<(), crate::kafka::producer::ProduceError> {
    producer.send(NewRecord {
        number,
        key: generated.key(),
        value: &generated.value(schema_id),
        wrong_partition: generated.wants_wrong_partition(),
    })
}

fn write_lines(path: &Path, generator: &mut Generator) -> std::io::Result<()> {
    let mut out: Box<dyn Write> = if path.as_os_str() == "-" {
        Box::new(BufWriter::new(std::io::stdout().lock()))
    } else {
        Box::new(BufWriter::new(File::create(path)?))
    };
    let bar = feeding::progress(generator.size_hint().1.map(|left| left as u64), "lines");
    for generated in generator {
        if let Some(event) = generated.event() {
            writeln!(out, "{}", event.to_json())?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    out.flush()
}

/// The counts; on standard error when the events themselves went to standard output.
fn print_counts(truth: &GroundTruth, target: &str, output: Output, to_stderr: bool) {
    let text = match output {
        Output::Json => json!({ "totals": truth }).to_string(),
        Output::Human => {
            let kinds = truth.poison.iter().map(|(kind, count)| format!("{} {count}", json!(kind)));
            let kinds = kinds.collect::<Vec<_>>().join(", ").replace('"', "");
            let kinds = if kinds.is_empty() { kinds } else { format!(" ({kinds})") };
            format!(
                "{} records to {target}: {} events, {} of them late; {} duplicates; {} poison{kinds}",
                truth.records,
                truth.events,
                truth.late,
                truth.duplicates,
                truth.dead_letters(),
            )
        }
    };
    if to_stderr { eprintln!("{text}") } else { println!("{text}") }
}
