//! `campaignd dlq replay`: dead letters back to the events topic.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::super::table::{Column, aligned, counted, plain};
use super::super::{ConfigArguments, DONE, FAILED, Output, UsageError, feeding};
use super::filter::FilterArguments;
use crate::dead_letters::{Order, Tally};
use crate::kafka::dead_letters::{Controls, DeadLetterError, Outcome, replay, would_replay};
use crate::pipeline::outputs::MAX_REPLAYS;

/// Write dead letters to the events topic again
///
/// Mend the cause first, then look with --dry-run at what would happen. Each record goes to its key's partition of the events
/// topic, byte for byte, with its producer's headers, in the order in which the records of a partition became dead letters.
/// They stay in the dead letter topic until their retention ends or they are purged.
///
/// Records and the position behind them are committed together, so a replay that ends early, however it ends, goes on where
/// it stopped when the same command is given again. A record that another replay has written already is left. So is one
/// without a key, one whose value was too large to be kept, and one that has been replayed --max-replays times.
///
/// One replay runs at a time: a second one takes over, and the first ends.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd dlq replay --code unknown_schema --dry-run --config campaignd.toml\n  \
    campaignd dlq replay --code unknown_schema --schema 17 --rate 500\n  \
    campaignd dlq replay --partition 2 --from-offset 100 --to-offset 118\n  \
    campaignd dlq replay --all")]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,

    #[command(flatten)]
    filter: FilterArguments,

    /// All of them, when no filter is given.
    #[arg(long, conflicts_with_all = ["code", "user", "schema", "since", "until", "partition", "from_offset", "to_offset"])]
    all: bool,

    /// Say what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,

    /// Records a second; without it as fast as it goes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,

    /// Leave records that have been replayed so often.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_REPLAYS)))]
    max_replays: u32,

    /// Form of the output: a table, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Replays.
pub(super) async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let filter = arguments.filter.filter()?;
    if filter.is_everything() && !arguments.all {
        let text = "say which dead letters with --code, --user, --schema, --since, --until or --partition, or --all of them";
        return Err(UsageError(text.to_owned()).into());
    }
    let config = arguments.config.load_and_log()?;
    let order = Order { filter, max_replays: arguments.max_replays, events: config.topics.events.clone() };
    let stop = feeding::interrupted();
    let (dry_run, rate) = (arguments.dry_run, arguments.rate);
    let replaying = tokio::task::spawn_blocking(move || {
        let at = super::topic(&config);
        let bar = feeding::progress(Some(0), "offsets");
        let progress = |passed, total| {
            bar.set_length(total);
            bar.set_position(passed);
        };
        let controls = Controls { stop: &stop, rate, progress: &progress };
        let outcome =
            if dry_run { would_replay(&at, &order, &controls) } else { replay(&at, &order, &controls) };
        bar.finish_and_clear();
        outcome.map(|outcome| (outcome, at.events))
    });
    let (outcome, events) = replaying.await??;
    match arguments.output {
        Output::Human => print!("{}", table(&outcome, &events, dry_run)),
        Output::Json => println!("{}", json(&outcome, dry_run)),
    }
    match outcome.failure {
        Some(error) => Err::<_, DeadLetterError>(error)?,
        None if !outcome.is_complete => {
            eprintln!("stopped before the end; the same command goes on from there");
            Ok(ExitCode::from(FAILED))
        }
        None => Ok(ExitCode::from(DONE)),
    }
}

fn table(outcome: &Outcome, events: &str, dry_run: bool) -> String {
    let Tally { replayed, left, not_asked, by_code, named } = &outcome.tally;
    let columns = [
        Column::text("CODE"),
        Column::number(if dry_run { "TO REPLAY" } else { "REPLAYED" }),
        Column::number("LEFT"),
    ];
    let rows: Vec<Vec<String>> = by_code
        .iter()
        .map(|(code, (replayed, left))| {
            let code = if code.is_empty() { "-".to_owned() } else { plain(code) };
            vec![code, replayed.to_string(), left.to_string()]
        })
        .collect();
    let mut text = aligned(&columns, &rows);
    for (place, left) in named {
        text.push_str(&format!("{place} is left: {}\n", left.reason()));
    }
    let unnamed = outcome.tally.left().saturating_sub(named.len() as u64);
    if unnamed > 0 {
        text.push_str(&format!("and {unnamed} more are left\n"));
    }
    if outcome.resumed {
        text.push_str("it goes on where the same replay ended before\n");
    }
    let reasons: Vec<String> = left.iter().map(|(left, count)| format!("{} {count}", left.name())).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    let verb = if dry_run { "would be replayed" } else { "replayed" };
    text.push_str(&format!(
        "{} {verb} to {events}, {} left{reasons}, {not_asked} not asked for\n",
        counted(*replayed, "record"),
        outcome.tally.left(),
    ));
    text
}

fn json(outcome: &Outcome, dry_run: bool) -> Value {
    let Tally { replayed, left, not_asked, by_code, named } = &outcome.tally;
    let codes: Vec<Value> = by_code
        .iter()
        .map(|(code, (replayed, left))| {
            json!({ "code": Some(code).filter(|code| !code.is_empty()), "replayed": replayed, "left": left })
        })
        .collect();
    let named: Vec<Value> = named
        .iter()
        .map(|(place, left)| json!({ "partition": place.partition, "offset": place.offset, "reason": left }))
        .collect();
    json!({
        "dry_run": dry_run, "resumed": outcome.resumed, "complete": outcome.is_complete,
        "error": outcome.failure.as_ref().map(ToString::to_string), "codes": codes, "left": named,
        "reasons": left,
        "totals": { "replayed": replayed, "left": outcome.tally.left(), "not_asked": not_asked },
    })
}
