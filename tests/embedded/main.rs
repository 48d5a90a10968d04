//! Stories that need no service: the mock broker, the embedded registry and the embedded store are enough.
//!
//! One binary for all of them, a module per story. What needs real parts is in `tests/service`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod campaign_change;
mod command_line;
mod demo;
mod deployment;
mod documents;
mod duplicates;
mod feeding;
mod frame;
mod house;
mod order;
mod poison;
mod projection;
mod shutdown;
mod store;
mod the_model;
mod the_shop;
