//! The startup story of campaignd.

fn main() {}
