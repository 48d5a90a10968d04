//! The whole configuration, parsed and checked before anything opens.
