//! `campaignd dlq purge`: dead letters that are done with, away.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::super::table::{Column, aligned, counted, plain, time};
use super::super::{ConfigArguments, DONE, FAILED, Output, UsageError, feeding, moment};
use crate::config::Config;
use crate::dead_letters::{Cell, Place};
use crate::kafka::dead_letters::{Doomed, Log, delete, doomed, forget};

/// Delete the oldest dead letters
///
/// Says what would be deleted; with --yes it is. Kafka deletes from the front of a partition only: all records before a
/// place, before a time, or all that are there now. Records that a replay was started for and has not reached are not
/// deleted, unless forced.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd dlq purge 2@118 3@40 --config campaignd.toml\n  \
    campaignd dlq purge --until 14d --yes\n  \
    campaignd dlq purge --all --yes --output json")]
pub(super) struct Arguments {
    /// The first record that stays in its partition, such as 2@118; several may be given. Other partitions stay as they
    /// are.
    #[arg(value_name = "PLACE")]
    places: Vec<Place>,

    #[command(flatten)]
    config: ConfigArguments,

    /// All that were dead-lettered before this time: RFC 3339, a date, or how long ago (14d).
    #[arg(long, value_name = "TIME", value_parser = moment::parse_ms, conflicts_with_all = ["places", "all"])]
    until: Option<i64>,

    /// All that are there now.
    #[arg(long, conflicts_with = "places")]
    all: bool,

    /// Delete; without it nothing is changed.
    #[arg(long)]
    yes: bool,

    /// Also what a replay was started for and has not reached.
    #[arg(long)]
    force: bool,

    /// Form of the output: a table, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Deletes, or says what would be.
pub(super) async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut places = BTreeMap::new();
    for place in &arguments.places {
        if places.insert(place.partition, place.offset).is_some() {
            let text =
                format!("partition {} is named twice; say one first record that stays", place.partition);
            return Err(UsageError(text).into());
        }
    }
    if places.is_empty() && arguments.until.is_none() && !arguments.all {
        let text = "say what goes: the first record that stays in its partition, such as 2@118, a time with --until, or --all";
        return Err(UsageError(text.to_owned()).into());
    }
    let config = arguments.config.load_and_log()?;
    let at = super::topic(&config);
    let until = arguments.until;
    let looking = tokio::task::spawn_blocking(move || look(&config, &places, until));
    let doomed = looking.await??;
    let is_refused = !doomed.unreached.is_empty() && !arguments.force;
    let goes = arguments.yes && !is_refused && !doomed.before.is_empty();
    if goes {
        let mut starts = doomed.starts.clone();
        starts.extend(delete(&at, &doomed.before).await?);
        forget(&at, &doomed.replays, &starts).await;
    }
    match arguments.output {
        Output::Human => print!("{}", table(&doomed, goes, arguments.yes)),
        Output::Json => println!("{}", json(&doomed, goes)),
    }
    if is_refused && arguments.yes {
        eprintln!(
            "nothing was deleted: a replay was started for some of these records and has not reached them; finish it, or delete \
             them with --force"
        );
        return Ok(ExitCode::from(FAILED));
    }
    Ok(ExitCode::from(DONE))
}

fn look(config: &Config, places: &BTreeMap<i32, i64>, until: Option<i64>) -> anyhow::Result<Doomed> {
    let at = super::topic(config);
    let log = Log::open(&at, &super::reading_group(config))?;
    places.keys().try_for_each(|partition| log.check_partition(*partition))?;
    let before = match until {
        Some(time_ms) => log.offsets_at(time_ms)?,
        None if places.is_empty() => log.bounds().iter().map(|(p, bounds)| (*p, bounds.end)).collect(),
        None => places.clone(),
    };
    let bar = feeding::progress(Some(0), "offsets");
    let progress = |passed, total| {
        bar.set_length(total);
        bar.set_position(passed);
    };
    let doomed = doomed(&at, log, &before, &progress);
    bar.finish_and_clear();
    Ok(doomed?)
}

fn table(doomed: &Doomed, is_done: bool, wanted: bool) -> String {
    let columns = [
        Column::text("CODE"),
        Column::number("COUNT"),
        Column::text("FIRST"),
        Column::text("LAST"),
        Column::text("LAST AT"),
    ];
    let when = |time_ms: Option<i64>| time_ms.map_or("-".to_owned(), time);
    let rows: Vec<Vec<String>> = doomed
        .groups
        .rows()
        .into_iter()
        .map(|(cells, group)| {
            let (first, last) = (when(group.first.0), when(group.last.0));
            vec![code(cells), group.count.to_string(), first, last, group.last.1.to_string()]
        })
        .collect();
    let mut text = aligned(&columns, &rows);
    for (partition, offset) in &doomed.before {
        let verb = if is_done { "begins" } else { "would begin" };
        text.push_str(&format!("partition {partition} {verb} at offset {offset}\n"));
    }
    for (replay, count) in &doomed.unreached {
        text.push_str(&format!(
            "the replay {} has not reached {}\n",
            replay.group_id,
            counted(*count, "record")
        ));
    }
    let count = counted(doomed.groups.total(), "dead letter");
    text.push_str(&match (is_done, wanted) {
        (true, _) => format!("{count} deleted\n"),
        (false, false) => format!("{count} would be deleted; --yes deletes\n"),
        (false, true) => format!("{count} not deleted\n"),
    });
    text
}

fn json(doomed: &Doomed, is_done: bool) -> Value {
    let codes: Vec<Value> = doomed
        .groups
        .rows()
        .into_iter()
        .map(|(cells, group)| json!({ "code": code(cells), "count": group.count }))
        .collect();
    let before: Vec<Value> = doomed
        .before
        .iter()
        .map(|(partition, offset)| json!({ "partition": partition, "first_offset": offset }))
        .collect();
    let unreached: Vec<Value> = doomed
        .unreached
        .iter()
        .map(|(replay, count)| json!({ "group": replay.group_id, "records": count }))
        .collect();
    json!({
        "deleted": is_done, "codes": codes, "partitions": before, "unreached": unreached,
        "totals": { "dead_letters": doomed.groups.total() },
    })
}

fn code(cells: &[Cell]) -> String {
    match cells {
        [Cell::Text(code)] => plain(code),
        _ => "-".to_owned(),
    }
}
