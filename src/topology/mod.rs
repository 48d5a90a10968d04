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

use std::collections::BTreeMap;

use crate::config::{Config, Topics};

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
    /// Records that wait in this tier; tiers count from 1.
    Retry(u8),
}

/// The topics of a configuration, each with its name.
pub type Names = BTreeMap<Role, String>;

/// The topics of the configuration; as many retry topics as there are delays.
pub fn names(config: &Config) -> Names {
    Role::all(config.retry.tiers()).map(|role| (role, role.name(&config.topics))).collect()
}

impl Role {
    /// All of them but the retry topics.
    const ONE_EACH: [Self; 5] = [Self::Events, Self::Campaigns, Self::Decisions, Self::Activity, Self::Dlq];

    /// All of them, with this many retry topics.
    pub fn all(tiers: u8) -> impl Iterator<Item = Self> {
        Self::ONE_EACH.into_iter().chain((1..=tiers).map(Self::Retry))
    }

    /// The value of the label in a topic's file; without the tier it is the key under `topics`.
    pub fn label(self) -> String {
        match self {
            Self::Events => "events".into(),
            Self::Campaigns => "campaigns".into(),
            Self::Decisions => "decisions".into(),
            Self::Activity => "activity".into(),
            Self::Dlq => "dlq".into(),
            Self::Retry(tier) => format!("retry.{tier}"),
        }
    }

    /// The name of the topic.
    pub fn name(self, topics: &Topics) -> String {
        match self {
            Self::Events => topics.events.clone(),
            Self::Campaigns => topics.campaigns.clone(),
            Self::Decisions => topics.decisions.clone(),
            Self::Activity => topics.activity.clone(),
            Self::Dlq => topics.dlq.clone(),
            Self::Retry(tier) => topics.retry_topic(tier),
        }
    }
}
