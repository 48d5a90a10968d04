//! What a retry topic says that waits, for rebuilding the index (rule O2).

use super::due::due;
use super::origin::Origin;
use crate::pipeline::log::Record;
use crate::position::Position;

/// One record that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its user.
    pub user_id: String,
    /// Where it stood on `events`.
    pub position: Position,
    /// When it is due, ms since the Unix epoch.
    pub due_ms: i64,
}

impl Waiting {
    /// What a record of a retry topic says; `None` of one that was not written by us, which blocks nobody.
    pub fn of(record: &Record, events_topic: &str) -> Option<Waiting> {
        let position = Origin::of_retry(record, events_topic).ok()?.position;
        let user_id = std::str::from_utf8(record.key.as_deref()?).ok()?.to_owned();
        Some(Waiting { user_id, position, due_ms: due(record)? })
    }
}
