//! `campaignd dlq list`: how many dead letters there are, of which kinds, since when.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::super::table::{Column, aligned, counted, plain, time};
use super::super::{ConfigArguments, DONE, FAILED, Output, feeding};
use super::filter::FilterArguments;
use crate::config::Config;
use crate::dead_letters::{By, Cell, Filter, Group, Groups, MAX_GROUPS};
use crate::kafka::dead_letters::{Log, Next};

/// Count the dead letters by what they have in common
///
/// Reads the topic as it stands now, all of it or what the filters leave, and shows each group with the times of its first
/// and last record and where the last one stands. At most 1,000 groups are kept apart; a line says how many records are in
/// further ones.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    campaignd dlq list --config campaignd.toml\n  \
    campaignd dlq list --by day,code --since 7d\n  \
    campaignd dlq list --by partition --code unknown_schema,bad_avro --output json")]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,

    /// What the records of a group have in common; several, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "code,topic,schema")]
    by: Vec<ByArgument>,

    #[command(flatten)]
    filter: FilterArguments,

    /// Form of the output: a table, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ByArgument {
    /// Error code.
    Code,
    /// Topic they were read from.
    Topic,
    /// Partition they were read from.
    Partition,
    /// Schema id in their framing.
    Schema,
    /// Day, in UTC, on which they became dead letters.
    Day,
    /// Hour in which they did.
    Hour,
}

impl From<ByArgument> for By {
    fn from(by: ByArgument) -> By {
        match by {
            ByArgument::Code => By::Code,
            ByArgument::Topic => By::Topic,
            ByArgument::Partition => By::Partition,
            ByArgument::Schema => By::Schema,
            ByArgument::Day => By::Day,
            ByArgument::Hour => By::Hour,
        }
    }
}

/// Counts.
pub(super) async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let filter = arguments.filter.filter()?;
    let by: Vec<By> = arguments.by.iter().copied().map(By::from).collect();
    let config = arguments.config.load_and_log()?;
    let stop = feeding::interrupted();
    let counting = tokio::task::spawn_blocking(move || count(&config, &filter, &by, &stop));
    let Some(groups) = counting.await?? else {
        eprintln!("stopped before the end of the topic; nothing is shown, because the counts would be wrong");
        return Ok(ExitCode::from(FAILED));
    };
    match arguments.output {
        Output::Human => print!("{}", table(&groups)),
        Output::Json => println!("{}", json(&groups)),
    }
    Ok(ExitCode::from(DONE))
}

/// `None` when it was stopped.
fn count(config: &Config, filter: &Filter, by: &[By], stop: &AtomicBool) -> anyhow::Result<Option<Groups>> {
    let at = super::topic(config);
    let mut log = Log::open(&at, &super::reading_group(config))?;
    let stretches = log.stretches(filter)?;
    let total =
        stretches.values().map(|stretch| u64::try_from(stretch.end - stretch.start).unwrap_or(0)).sum();
    let bar = feeding::progress(Some(total), "offsets");
    log.read(stretches)?;
    let mut groups = Groups::new(by);
    while !stop.load(Ordering::Relaxed) {
        match log.poll()? {
            Next::End => {
                bar.finish_and_clear();
                return Ok(Some(groups));
            }
            Next::Nothing => {}
            Next::Letter(letter) => {
                bar.inc(1);
                if filter.matches(&letter) {
                    groups.add(&letter);
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(None)
}

fn table(groups: &Groups) -> String {
    let mut columns: Vec<Column> = groups.by().iter().map(|by| column(*by)).collect();
    columns.extend([
        Column::number("COUNT"),
        Column::number("REPLAYED"),
        Column::text("FIRST"),
        Column::text("LAST"),
        Column::text("LAST AT"),
    ]);
    let rows: Vec<Vec<String>> =
        groups.rows().into_iter().map(|(cells, group)| row(groups, cells, group)).collect();
    let mut text = aligned(&columns, &rows);
    if groups.beyond() > 0 {
        let beyond = counted(groups.beyond(), "dead letter");
        text.push_str(&format!(
            "{beyond} in groups beyond the first {MAX_GROUPS}: give filters, or a coarser --by\n"
        ));
    }
    text.push_str(&match groups.total() {
        0 => "no dead letters\n".to_owned(),
        total => format!("{} in {}\n", counted(total, "dead letter"), counted(rows.len() as u64, "group")),
    });
    text
}

fn column(by: By) -> Column {
    match by {
        By::Code => Column::text("CODE"),
        By::Topic => Column::text("TOPIC"),
        By::Partition => Column::number("PARTITION"),
        By::Schema => Column::number("SCHEMA"),
        By::Day => Column::text("DAY"),
        By::Hour => Column::text("HOUR"),
    }
}

fn row(groups: &Groups, cells: &[Cell], group: &Group) -> Vec<String> {
    let when = |time_ms: Option<i64>| time_ms.map_or("-".to_owned(), time);
    let cells = groups.by().iter().zip(cells).map(|(by, cell)| match cell {
        Cell::Absent => "-".to_owned(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => plain(text),
        Cell::Time(time_ms) => bucket(*by, *time_ms),
    });
    let rest = [
        group.count.to_string(),
        group.replayed.to_string(),
        when(group.first.0),
        when(group.last.0),
        group.last.1.to_string(),
    ];
    cells.chain(rest).collect()
}

/// `2026-01-15` or `2026-01-15T10:00Z`.
fn bucket(by: By, time_ms: i64) -> String {
    let Ok(begin) = Timestamp::from_millisecond(time_ms) else { return format!("{time_ms} ms") };
    let form = if by == By::Day { "%Y-%m-%d" } else { "%Y-%m-%dT%H:%MZ" };
    begin.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

fn json(groups: &Groups) -> Value {
    let seen = |(time_ms, place): (Option<i64>, crate::dead_letters::Place)| json!({ "time": time_ms.map(time), "partition": place.partition, "offset": place.offset });
    let rows = groups.rows();
    let rows = rows.iter().map(|(cells, group)| {
        let mut row = serde_json::Map::new();
        for (by, cell) in groups.by().iter().zip(*cells) {
            let value = match cell {
                Cell::Absent => Value::Null,
                Cell::Number(number) => json!(number),
                Cell::Text(text) => json!(text),
                Cell::Time(time_ms) => json!(bucket(*by, *time_ms)),
            };
            row.insert(key(*by).to_owned(), value);
        }
        row.insert("count".to_owned(), json!(group.count));
        row.insert("replayed".to_owned(), json!(group.replayed));
        row.insert("first".to_owned(), seen(group.first));
        row.insert("last".to_owned(), seen(group.last));
        Value::Object(row)
    });
    let rows: Vec<Value> = rows.collect();
    json!({
        "totals": { "dead_letters": groups.total(), "groups": rows.len(), "beyond_bound": groups.beyond() },
        "groups": rows,
    })
}

fn key(by: By) -> &'static str {
    match by {
        By::Code => "code",
        By::Topic => "topic",
        By::Partition => "partition",
        By::Schema => "schema",
        By::Day => "day",
        By::Hour => "hour",
    }
}
