//! A fence row as it lies in the table: JSON, because it is read by people in trouble and written once an hour.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::FenceRow;

#[derive(Serialize, Deserialize)]
struct Stored {
    fence_us: i64,
    token: String,
    cluster_id: String,
    partition_count: i32,
    incarnation: u32,
    committed_offset: Option<i64>,
    #[serde(default)]
    retry_offsets: BTreeMap<u8, i64>,
}

pub(super) fn encode(row: &FenceRow) -> Vec<u8> {
    let FenceRow {
        fence_us,
        token,
        cluster_id,
        partition_count,
        incarnation,
        committed_offset,
        retry_offsets,
    } = row;
    let stored = Stored {
        fence_us: *fence_us,
        token: token.to_string(),
        cluster_id: cluster_id.clone(),
        partition_count: *partition_count,
        incarnation: *incarnation,
        committed_offset: *committed_offset,
        retry_offsets: retry_offsets.clone(),
    };
    serde_json::to_vec(&stored).unwrap_or_default() // a struct of scalars and a map by number always serializes
}

pub(super) fn decode(bytes: &[u8]) -> Result<FenceRow, String> {
    let stored: Stored =
        serde_json::from_slice(bytes).map_err(|e| format!("a fence row does not decode: {e}"))?;
    let token = Uuid::parse_str(&stored.token).map_err(|e| format!("a fence row has no token: {e}"))?;
    Ok(FenceRow {
        fence_us: stored.fence_us,
        token,
        cluster_id: stored.cluster_id,
        partition_count: stored.partition_count,
        incarnation: stored.incarnation,
        committed_offset: stored.committed_offset,
        retry_offsets: stored.retry_offsets,
    })
}
