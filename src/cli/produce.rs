//! `campaignd produce`: events from a file of JSON lines to the events topic.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::{ConfigArguments, DONE, FAILED, Output, UsageError, feeding};
use crate::event::Event;
use crate::kafka::producer::{EventProducer, NewRecord};
use crate::schema::{encode_event, wire};

/// Longest line read: an event of the largest size allowed, written with escapes.
const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// Wrong lines shown; more are counted only.
const MAX_SHOWN: usize = 20;

/// Write events from a file of JSON lines to the events topic
///
/// One event a line, such as
/// {"event_id":"1","user_id":"u1","type":"purchase","occurred_at":"2026-01-15T10:30:00Z","properties":{"amount":29.99}}.
/// occurred_at may also be integer milliseconds; traits and trace_id are optional; blank lines are skipped.
///
/// A file is checked whole before its first event is sent. Each wrong line is shown as file:line with what to do.
/// Standard input cannot be read twice: there the first wrong line stops, and what came before it has been sent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd produce --config campaignd.toml --file events.ndjson\n  \
    zcat events.ndjson.gz | campaignd produce --file -")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,

    /// File of JSON lines; - is standard input.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,

    /// Form of the counts at the end.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Produces.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load_and_log()?;
    let stop = feeding::interrupted();
    let file = arguments.file.clone();
    let name = file.display().to_string();
    if arguments.file.as_os_str() != "-" {
        let stop = std::sync::Arc::clone(&stop);
        let wrong = tokio::task::spawn_blocking(move || check(&file, &stop)).await??;
        if wrong > 0 {
            eprintln!("{wrong} of the lines of {name} are no events; correct them. Nothing was sent.");
            return Ok(ExitCode::from(FAILED));
        }
    }
    let schema_id = feeding::event_schema_id(&config).await?;
    let (file, topic) = (arguments.file.clone(), config.topics.events.clone());
    let run = tokio::task::spawn_blocking(move || {
        let producer = feeding::connect(&config)?;
        let failed = send_all(&file, &producer, schema_id, &stop).err();
        anyhow::Ok((producer.finish(), failed, stop.load(Ordering::Relaxed)))
    });
    let (deliveries, failed, stopped) = run.await??;
    let all = feeding::report(&deliveries, |line| format!("{name}:{line}"));
    if let Some(error) = &failed {
        eprintln!("{error:#}");
    }
    if stopped {
        eprintln!("stopped before the end of {name}");
    }
    let delivered = deliveries.delivered;
    match arguments.output {
        Output::Human => println!("{delivered} events to {topic}, {} not delivered", deliveries.failed),
        Output::Json => {
            println!("{}", json!({ "totals": { "delivered": delivered, "failed": deliveries.failed } }));
        }
    }
    Ok(ExitCode::from(if all && failed.is_none() && !stopped { DONE } else { FAILED }))
}

/// Reads the whole file, shows the lines that are no events and counts them.
fn check(path: &Path, stop: &AtomicBool) -> anyhow::Result<usize> {
    let bar = progress(path);
    let mut wrong = 0;
    for_each_line(path, &bar, stop, |number, line| {
        if let Err(error) = Event::from_json(line) {
            wrong += 1;
            if wrong <= MAX_SHOWN {
                bar.suspend(|| eprintln!("{}:{number}: {error}", path.display()));
            }
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(wrong)
}

fn send_all(path: &Path, producer: &EventProducer, schema_id: u32, stop: &AtomicBool) -> anyhow::Result<()> {
    let bar = progress(path);
    let result = for_each_line(path, &bar, stop, |number, line| {
        let event = Event::from_json(line).with_context(|| format!("{}:{number}", path.display()))?;
        let mut value = wire::header(schema_id, line.len());
        encode_event(&event, &mut value);
        let key = Some(event.user_id.as_bytes());
        Ok(producer.send(NewRecord { number, key, value: &value, wrong_partition: false })?)
    });
    bar.finish_and_clear();
    result
}

/// Calls `each` with every line that is not blank, numbered from 1.
fn for_each_line(
    path: &Path,
    bar: &ProgressBar,
    stop: &AtomicBool,
    mut each: impl FnMut(u64, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut input: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = File::open(path)
            .map_err(|error| UsageError(format!("cannot open {}: {error}", path.display())))?;
        Box::new(BufReader::new(file))
    };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = std::io::Read::take(&mut input, MAX_LINE_BYTES).read_until(b'\n', &mut line);
        let read = read.with_context(|| format!("cannot read {}", path.display()))? as u64;
        if read == 0 || stop.load(Ordering::Relaxed) {
            break;
        }
        bar.inc(read);
        let at = || format!("{}:{number}", path.display());
        if read == MAX_LINE_BYTES && !line.ends_with(b"\n") {
            anyhow::bail!("{}: the line is longer than {MAX_LINE_BYTES} bytes; one event a line", at());
        }
        let text = std::str::from_utf8(&line).with_context(|| format!("{}: save the file as UTF-8", at()))?;
        if !text.trim().is_empty() {
            each(number, text)?;
        }
    }
    Ok(())
}

fn progress(path: &Path) -> ProgressBar {
    feeding::progress(std::fs::metadata(path).ok().map(|file| file.len()), "bytes")
}
