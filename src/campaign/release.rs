//! An operator's order to let a user's waiting records go to the dead letter topic (rule P8).
//!
//! It is a control record on the `campaigns` topic, so that whoever owns the user's partition learns of it, also after a
//! restart. It holds for the records that stood on `events` when it was given; a later one waits again.

use serde::{Deserialize, Serialize};

use super::live::CONTROL_PREFIX;

/// What the names of these control records begin with; the user id follows.
const NAME_PREFIX: &str = "release:";

/// The value of the control record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// When the order was given, ms since the Unix epoch: records of `events` up to then are let go.
    pub until_ms: i64,
}

impl Release {
    /// Key of the control record on the `campaigns` topic.
    pub fn key(user_id: &str) -> String {
        format!("{CONTROL_PREFIX}{NAME_PREFIX}{user_id}")
    }

    /// The user whom a control record of this name is about.
    pub fn user_of(name: &str) -> Option<&str> {
        name.strip_prefix(NAME_PREFIX).filter(|user_id| !user_id.is_empty())
    }

    /// The value as it is written.
    pub fn to_json(self) -> String {
        serde_json::json!({ "until_ms": self.until_ms }).to_string()
    }

    /// The value as it was read.
    pub fn from_json(value: &[u8]) -> Result<Release, String> {
        serde_json::from_slice(value).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let release = Release { until_ms: 17 };
        assert_eq!(Release::from_json(release.to_json().as_bytes()), Ok(release));
        assert_eq!(Release::key("ada"), "control:release:ada");
        assert_eq!((Release::user_of("release:a:b"), Release::user_of("scale")), (Some("a:b"), None));
        assert!(Release::from_json(b"{}").is_err());
    }
}
