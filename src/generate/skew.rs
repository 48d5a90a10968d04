//! Which user comes next: Zipf's law over the user numbers.

use rand::Rng;

/// Weight of the busiest user. Weights are whole numbers so that a last bit of difference between platforms' `powf`
/// does not change who is drawn.
const UNIT: f64 = (1u64 << 38) as f64;

#[derive(Debug)]
pub(super) struct Skew {
    /// Sum of the weights up to each user.
    up_to: Vec<u64>,
}

impl Skew {
    pub(super) fn new(users: u32, exponent: f64) -> Self {
        let mut sum = 0u64;
        let up_to = (1..=users).map(|rank| {
            // The cast saturates and the weight is below 2^38, so 20 million users stay below 2^63.
            sum += ((UNIT / f64::from(rank).powf(exponent)) as u64).max(1);
            sum
        });
        Self { up_to: up_to.collect() }
    }

    pub(super) fn draw(&self, random: &mut impl Rng) -> usize {
        let Some(total) = self.up_to.last() else { return 0 };
        let drawn = random.random_range(0..*total);
        self.up_to.partition_point(|sum| *sum <= drawn)
    }
}
