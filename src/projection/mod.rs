//! Folds the published decisions into the audit trail.
