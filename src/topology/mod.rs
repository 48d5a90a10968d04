//! The topics: what is wanted, what is there, and what is done about the difference.
//!
//! The wanted topics are files in Strimzi's KafkaTopic shape; those of `topology/` are built into the binary. A file
//! says by the label `campaignd/topic` which of our topics it describes, and the name comes from the configuration.
//! Here only what is missing is created; an existing topic is never changed.

mod cluster;
mod file;
mod plan;
pub mod rebase;
mod yaml;

pub use cluster::{Cluster, TopologyError};
pub use file::{FileError, Topic, built_in, read_directory};
pub use plan::{Actual, HEADER_BYTES, Planned, Verdict, plan, violations};

use crate::config::Topics;

/// One of our topics, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Events in.
    Events,
    /// Campaigns and the catalog.
    Campaigns,
    /// Decisions out.
    Decisions,
    /// What users did about campaigns.
    Activity,
    /// Dead letters.
    Dlq,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Events, Self::Campaigns, Self::Decisions, Self::Activity, Self::Dlq];

    /// The key under `topics` and the value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Campaigns => "campaigns",
            Self::Decisions => "decisions",
            Self::Activity => "activity",
            Self::Dlq => "dlq",
        }
    }

    /// The name of the topic.
    pub fn name(self, topics: &Topics) -> &str {
        match self {
            Self::Events => &topics.events,
            Self::Campaigns => &topics.campaigns,
            Self::Decisions => &topics.decisions,
            Self::Activity => &topics.activity,
            Self::Dlq => &topics.dlq,
        }
    }
}
