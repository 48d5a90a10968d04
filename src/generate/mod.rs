//! A deterministic generator of shop events, with its own ground truth.
