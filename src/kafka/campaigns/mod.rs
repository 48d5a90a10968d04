//! The `campaigns` topic: reading it for as long as the processor runs, and writing to it.
//!
//! The topic is compacted and has one partition; a campaign's version is the offset of its record. The reader keeps an
//! immutable set up to date ([`CampaignsReader`]); writers go through [`publish`], where two of them cannot overwrite each
//! other unseen (rule C1). What the records mean is [`crate::campaign::live`].

mod log;
mod publish;
mod reader;

#[cfg(test)]
mod tests;

use std::time::Duration;

use rdkafka::ClientConfig;

use crate::campaign::live::{LiveCampaigns, RejectedRecord};
use log::TopicLog;
pub use publish::{Desired, Kind, Published, PublishedChange, publish};
pub use reader::CampaignsReader;

/// How to reach the topic.
#[derive(Clone, Debug)]
pub struct CampaignsTopic {
    /// Brokers, TLS, SASL and pass-through properties; nothing about delivery.
    pub client: ClientConfig,
    /// Name of the topic.
    pub topic: String,
    /// Longest wait for one answer of the broker.
    pub request_timeout: Duration,
    /// Longest wait until what stands on the topic has been read; a transaction that hangs ends in this.
    pub catch_up_timeout: Duration,
}

impl CampaignsTopic {
    /// With the waits that suit a running broker: 30 s for an answer, 120 s to read the topic.
    pub fn new(client: ClientConfig, topic: impl Into<String>) -> CampaignsTopic {
        let seconds = Duration::from_secs;
        CampaignsTopic {
            client,
            topic: topic.into(),
            request_timeout: seconds(30),
            catch_up_timeout: seconds(120),
        }
    }

    /// Reads the topic to its end, once. Blocks.
    pub fn read(&self) -> Result<LiveCampaigns, CampaignsError> {
        let log = TopicLog::open(self)?;
        let mut live = LiveCampaigns::default();
        log.read_to_end(self.catch_up_timeout, |message| {
            // Rejected records are part of what is read.
            let _: Result<_, RejectedRecord> = log::fold(&mut live, &message);
        })?;
        Ok(live)
    }
}

/// Why the `campaigns` topic cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CampaignsError {
    /// There is no such topic.
    #[error("the topic `{0}` does not exist; create it with `campaignd topology apply`")]
    MissingTopic(String),
    /// Offsets are versions, so there can be one partition only.
    #[error(
        "the topic `{topic}` has {partitions} partitions and must have one, because a campaign's version is its offset; \
         delete it and create it with `campaignd topology apply`"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: usize,
    },
    /// The broker does not answer, or refuses.
    #[error("the topic `{topic}` cannot be reached: {cause}; check kafka.brokers and the credentials")]
    Unreachable {
        /// The topic.
        topic: String,
        /// What the client says.
        cause: String,
    },
    /// What stands on the topic could not be read in time.
    #[error(
        "the topic `{topic}` was read up to offset {position} of {end} only, within {seconds} s{cause}; if the broker is \
         well, a transaction hangs: see `kafka-transactions.sh find-hanging`"
    )]
    NotCaughtUp {
        /// The topic.
        topic: String,
        /// The next offset to be read.
        position: i64,
        /// The end when the wait began.
        end: i64,
        /// How long the wait was.
        seconds: u64,
        /// The last error of the client, if there was one.
        cause: String,
    },
    /// The reader has ended.
    #[error("the reader of the topic `{topic}` has ended: {cause}")]
    Ended {
        /// The topic.
        topic: String,
        /// Why.
        cause: String,
    },
    /// Somebody else began to write.
    #[error(
        "somebody else is applying campaigns right now and nothing of yours was written; look at `campaignd campaigns list`, then apply again"
    )]
    Overtaken,
    /// The transaction did not go through.
    #[error("nothing was written to the topic `{topic}`: {cause}; apply again")]
    NotWritten {
        /// The topic.
        topic: String,
        /// What the client says.
        cause: String,
    },
    /// It is not known whether the transaction went through.
    #[error(
        "it is not known whether the topic `{topic}` was written: {cause}; apply again, which writes only what is missing"
    )]
    Unknown {
        /// The topic.
        topic: String,
        /// What the client says.
        cause: String,
    },
}
