//! Metrics, health and logs.

pub mod health;
pub mod log;
pub mod metrics;
