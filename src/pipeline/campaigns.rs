//! The live campaigns as the pipeline sees them: a set to take per batch, and a way to wait for the latest.

use std::sync::Arc;

use async_trait::async_trait;

use super::log::LogError;
use crate::campaign::set::CampaignSet;

/// Whoever reads the `campaigns` topic.
#[async_trait]
pub trait CampaignSource: Send + Sync + 'static {
    /// The set that is live now; a batch decides with one set from its first event to its last.
    fn current(&self) -> Arc<CampaignSet>;

    /// Returns when the current set holds every record that stands on the topic now.
    ///
    /// # Errors
    ///
    /// [`LogError::Unavailable`] when that cannot be told now, [`LogError::Refused`] when the reader has ended.
    async fn caught_up(&self) -> Result<(), LogError>;
}
