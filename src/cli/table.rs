//! Rows on a terminal: aligned, and free of what a producer could steer it with.

use jiff::Timestamp;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    is_number: bool,
}

impl Column {
    /// Of texts: they begin at the same place.
    pub(super) const fn text(title: &'static str) -> Column {
        Column { title, is_number: false }
    }

    /// Of numbers: they end at the same place.
    pub(super) const fn number(title: &'static str) -> Column {
        Column { title, is_number: true }
    }
}

/// The rows below the titles, a line each; nothing when there are no rows.
pub(super) fn aligned(columns: &[Column], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let mut widths = vec![0; columns.len()];
    for row in std::iter::once(&head).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let cells = row.iter().zip(columns.iter().zip(&widths)).map(|(cell, (column, width))| {
            if column.is_number { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A time, to the millisecond.
pub(super) fn time(time_ms: i64) -> String {
    match Timestamp::from_millisecond(time_ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{time_ms} ms"),
    }
}

/// Producers choose ids; a control character of theirs must not reach the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A count and what is counted, such as `1 group` or `2 groups`.
pub(super) fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_begin_and_numbers_end_at_the_same_place() {
        let columns = [Column::text("CODE"), Column::number("COUNT"), Column::text("LAST")];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["bad_avro", "7", "now"]), row(["ü", "1200", ""])];
        let expected = "CODE      COUNT  LAST\nbad_avro      7  now\nü          1200\n";
        assert_eq!(aligned(&columns, &rows), expected);
        assert_eq!(aligned(&columns, &[]), "");
    }

    #[test]
    fn times_and_counts_read_well() {
        assert_eq!(time(1_768_473_000_250), "2026-01-15T10:30:00.250Z");
        assert_eq!(time(i64::MAX), format!("{} ms", i64::MAX));
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(0, "record"), "0 records");
    }
}
