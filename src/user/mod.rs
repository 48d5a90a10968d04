//! What is remembered of a user: one value, one writer at a time. Pure.
