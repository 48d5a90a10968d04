//! Exact numbers: fixed point with nine fraction digits.

/// An exact number, in units of 10^-9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(pub i128);
