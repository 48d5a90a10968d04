//! The options that say which dead letters are meant.

use clap::Args;

use super::super::{UsageError, moment};
use crate::dead_letters::Filter;

/// Which dead letters.
#[derive(Debug, Args)]
pub(super) struct FilterArguments {
    /// Only with this error code; several may be given, also separated by commas.
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    code: Vec<String>,

    /// Only with this user id as their key.
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Only with this schema id in their framing.
    #[arg(long, value_name = "ID")]
    schema: Option<u32>,

    /// Only dead-lettered at or after this time: RFC 3339, a date, or how long ago (24h).
    #[arg(long, value_name = "TIME", value_parser = moment::parse_ms)]
    since: Option<i64>,

    /// Only dead-lettered before this time.
    #[arg(long, value_name = "TIME", value_parser = moment::parse_ms)]
    until: Option<i64>,

    /// Only in this partition of the dead letter topic.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,

    /// Only at this offset of the partition or behind it.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    from_offset: Option<i64>,

    /// Only at this offset of the partition or before it.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
}

impl FilterArguments {
    /// The filter; one that cannot be meant is refused.
    pub(super) fn filter(&self) -> Result<Filter, UsageError> {
        let filter = Filter {
            codes: self.code.iter().cloned().collect(),
            user: self.user.clone(),
            schema_id: self.schema,
            since_ms: self.since,
            until_ms: self.until,
            partition: self.partition,
            from_offset: self.from_offset,
            to_offset: self.to_offset,
        };
        filter.check().map_err(|error| UsageError(error.to_string()))?;
        Ok(filter)
    }
}
