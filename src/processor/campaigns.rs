//! The reader of the campaigns topic as the pipeline's source.

use std::sync::Arc;

use async_trait::async_trait;

use crate::campaign::set::CampaignSet;
use crate::kafka::campaigns::{CampaignsError, CampaignsReader};
use crate::pipeline::campaigns::CampaignSource;
use crate::pipeline::log::LogError;

/// Shares the reader between the pipeline and whoever stops it.
pub(super) struct Source(pub(super) Arc<CampaignsReader>);

#[async_trait]
impl CampaignSource for Source {
    fn current(&self) -> Arc<CampaignSet> {
        self.0.current()
    }

    async fn caught_up(&self) -> Result<(), LogError> {
        self.0.caught_up().await.map_err(|error| match error {
            // What time or a broker that comes back can mend.
            CampaignsError::Unreachable { .. } | CampaignsError::NotCaughtUp { .. } => {
                LogError::Unavailable(error.to_string())
            }
            _ => LogError::Refused(error.to_string()),
        })
    }
}
