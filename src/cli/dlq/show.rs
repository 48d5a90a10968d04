//! `campaignd dlq show`: dead letters one by one, with their headers and what is in them.

use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use super::super::{ConfigArguments, DONE, FAILED, Output, feeding};
use super::filter::FilterArguments;
use super::picture::{Content, Picture};
use crate::config::Config;
use crate::dead_letters::{DeadLetter, Filter, Place};
use crate::kafka::dead_letters::{Log, Next};
use crate::schema::registry::RegistryClient;
use crate::schema::{SchemaSource, decode_event, wire};

/// Show dead letters with their headers and values
///
/// One by its place as `dlq list` shows it, or the first ones that the filters leave, partition by partition as they come. A
/// value is decoded by its schema from the registry; one that does not decode is shown as bytes, with the reason.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd dlq show 2@118 --config campaignd.toml\n  \
    campaignd dlq show --code bad_avro --since 24h --limit 3\n  \
    campaignd dlq show --user user-000017 --output json")]
pub(super) struct Arguments {
    /// Partition and offset in the dead letter topic, such as 2@118.
    #[arg(value_name = "PLACE", conflicts_with_all = ["code", "user", "schema", "since", "until", "partition", "from_offset", "to_offset"])]
    place: Option<Place>,

    #[command(flatten)]
    config: ConfigArguments,

    #[command(flatten)]
    filter: FilterArguments,

    /// Show at most so many.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,

    /// Show at most so much of each value and header.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    max_bytes: u32,

    /// Form of the output: a paragraph each, or one JSON object a line.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Shows.
pub(super) async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let filter = match arguments.place {
        None => arguments.filter.filter()?,
        Some(Place { partition, offset }) => Filter {
            partition: Some(partition),
            from_offset: Some(offset),
            to_offset: Some(offset),
            ..Filter::default()
        },
    };
    let config = arguments.config.load_and_log()?;
    let registry = RegistryClient::new(config.registry_settings())?;
    let stop = feeding::interrupted();
    let runtime = tokio::runtime::Handle::current();
    let showing = tokio::task::spawn_blocking(move || {
        let content = |letter: &DeadLetter| runtime.block_on(content(&registry, letter));
        show(&arguments, &config, &filter, &stop, content)
    });
    showing.await?
}

fn show(
    arguments: &Arguments,
    config: &Config,
    filter: &Filter,
    stop: &AtomicBool,
    content: impl Fn(&DeadLetter) -> Content,
) -> anyhow::Result<ExitCode> {
    let at = super::topic(config);
    let mut log = Log::open(&at, &super::reading_group(config))?;
    let stretches = log.stretches(filter)?;
    log.read(stretches)?;
    let (mut shown, mut more) = (0, false);
    while !stop.load(Ordering::Relaxed) {
        let letter = match log.poll()? {
            Next::End => break,
            Next::Nothing => continue,
            Next::Letter(letter) if !filter.matches(&letter) => continue,
            Next::Letter(letter) => letter,
        };
        if shown == arguments.limit {
            more = true;
            break;
        }
        let picture = Picture {
            topic: &at.topic,
            letter: &letter,
            content: &content(&letter),
            max_bytes: arguments.max_bytes as usize,
        };
        let mut out = std::io::stdout().lock();
        let written = match arguments.output {
            Output::Human => writeln!(out, "{picture}"),
            Output::Json => writeln!(out, "{}", picture.to_json()),
        };
        match written.and_then(|()| out.flush()) {
            Ok(()) => shown += 1,
            // The reader of our output has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::from(DONE)),
            Err(error) => return Err(error.into()),
        }
    }
    if let (Some(place), 0) = (arguments.place, shown) {
        return Err(missing(place, &at.topic, log.bounds().get(&place.partition)));
    }
    if arguments.output == Output::Human {
        println!("{}", closing(shown, more));
    }
    Ok(ExitCode::from(if stop.load(Ordering::Relaxed) { FAILED } else { DONE }))
}

fn missing(place: Place, topic: &str, bounds: Option<&Range<i64>>) -> anyhow::Error {
    let text = match bounds {
        Some(bounds) if bounds.contains(&place.offset) => {
            format!("there is no record at {place} of {topic}: the offset belongs to a transaction's marker")
        }
        Some(bounds) if !bounds.is_empty() => format!(
            "there is no record at {place} of {topic}: partition {} holds the offsets {} to {}",
            place.partition,
            bounds.start,
            bounds.end - 1
        ),
        _ => format!("there is no record at {place} of {topic}: partition {} is empty", place.partition),
    };
    anyhow::Error::msg(text)
}

fn closing(shown: u32, more: bool) -> String {
    let counted = match shown {
        0 => "no dead letters".to_owned(),
        1 => "1 dead letter".to_owned(),
        many => format!("{many} dead letters"),
    };
    let further = if more { ", there are more: raise --limit or give filters" } else { "" };
    format!("{counted}{further}")
}

/// What is in the value, as far as its schema tells.
async fn content(registry: &RegistryClient, letter: &DeadLetter) -> Content {
    let Some(value) = &letter.value else {
        return Content::Absent { omitted_bytes: letter.origin.omitted_bytes };
    };
    let undecoded = |why: String| Content::Bytes { bytes: value.clone(), why };
    let (id, body) = match wire::split(value) {
        Ok(parts) => parts,
        Err(error) => return undecoded(error.to_string()),
    };
    match registry.schema(id).await {
        Ok(schema) => match decode_event(&schema, body) {
            Ok(event) => Content::Event { bytes: value.len(), event: Box::new(event) },
            Err(error) => undecoded(error.to_string()),
        },
        Err(error) => undecoded(error.to_string()),
    }
}
