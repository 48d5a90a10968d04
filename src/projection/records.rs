//! A batch of records on its way to rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::schema::{OutputError, SchemaError, SchemaSource, read_decision};
use crate::store::AuditRow;
use crate::telemetry::metrics::Metrics;

/// A record as polled.
pub(super) struct Record {
    pub partition: i32,
    pub offset: i64,
    pub value: Option<Vec<u8>>,
}

/// Records of one round, the rows of those that are decoded, and where each partition stands behind them.
#[derive(Default)]
pub(super) struct Batch {
    records: Vec<Record>,
    /// Records in front that are decoded or passed over; a retry goes on behind them.
    decoded: usize,
    rows: Vec<AuditRow>,
    next: BTreeMap<i32, i64>,
}

impl Batch {
    pub fn push(&mut self, record: Record) {
        self.next.insert(record.partition, record.offset + 1);
        self.records.push(record);
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Rows decoded so far.
    pub fn rows(&self) -> &[AuditRow] {
        &self.rows
    }

    /// The offset behind the last record, per partition.
    pub fn next(&self) -> &BTreeMap<i32, i64> {
        &self.next
    }

    /// Decodes what is not decoded yet. The error is a registry that did not answer; the same call again goes on.
    pub async fn decode(
        &mut self,
        schemas: &dyn SchemaSource,
        metrics: &Metrics,
        complaints: &mut Complaints,
    ) -> Result<(), SchemaError> {
        while let Some(record) = self.records.get(self.decoded) {
            match read(schemas, record).await {
                Ok(row) => self.rows.push(row),
                Err(Unreadable::Later(error)) => return Err(error),
                Err(Unreadable::Never { cause, text }) => {
                    metrics.projection_skipped();
                    complaints.pass_over(record, cause, &text);
                }
            }
            self.decoded += 1;
        }
        Ok(())
    }
}

enum Unreadable {
    /// The registry did not answer.
    Later(SchemaError),
    /// Nobody can read it.
    Never { cause: &'static str, text: String },
}

async fn read(schemas: &dyn SchemaSource, record: &Record) -> Result<AuditRow, Unreadable> {
    let never = |cause, text: &dyn ToString| Unreadable::Never { cause, text: text.to_string() };
    let Some(value) = &record.value else { return Err(never("no_value", &"the record has no value")) };
    let decision = read_decision(schemas, value).await.map_err(|error| match error {
        OutputError::Schema(error @ SchemaError::Unavailable { .. }) => Unreadable::Later(error),
        OutputError::Schema(error) => never("schema", &error),
        error @ OutputError::Framing(_) => never("framing", &error),
        error => never("not_a_decision", &error),
    })?;
    // No store has a key for it, and it would hold up all rows behind it.
    if crate::store::check_user_id(&decision.user_id).is_err() {
        return Err(never("user_id", &"the user id cannot be a key of the store"));
    }
    Ok(AuditRow { decision })
}

/// Which causes were logged; each is logged once, the metric counts them all.
#[derive(Default)]
pub(super) struct Complaints {
    logged: BTreeSet<&'static str>,
}

impl Complaints {
    fn pass_over(&mut self, record: &Record, cause: &'static str, text: &str) {
        if self.logged.insert(cause) {
            let Record { partition, offset, .. } = record;
            tracing::error!(
                partition,
                offset,
                cause,
                "a record of the decisions topic cannot be read and has no audit row: {text}; further ones of this cause are only counted"
            );
        }
    }
}
