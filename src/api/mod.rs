//! HTTP: metrics, liveness, readiness.
