//! The processor: one file per hop of an event, one function that wires them.
