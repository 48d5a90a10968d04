//! What to generate.

/// The first event's time unless told otherwise: 2026-01-01T00:00:00Z. It is fixed so that the same seed gives the same
/// records on any day.
pub const DEFAULT_START_MS: i64 = 1_767_225_600_000;
const DAY_MS: i64 = 86_400_000;
const MAX_USERS: u32 = 20_000_000;
const MAX_SPAN_MS: i64 = 3650 * DAY_MS;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// How many records, duplicates and poison included.
    pub events: u64,
    /// How many users they are spread over.
    pub users: u32,
    /// The same seed gives the same records.
    pub seed: u64,
    /// Share of records that repeat an event that came shortly before, 0 to 1.
    pub duplicates: f64,
    /// Share of records that must end in the dead letter topic, 0 to 1.
    pub poison: f64,
    /// Share of events that come 2 to 24 hours late, 0 to 1.
    pub late: f64,
    /// Zipf exponent of how events are spread over users: 0 is even, 1 gives few users most events.
    pub skew: f64,
    /// Time of the first event, ms since the Unix epoch.
    pub start_ms: i64,
    /// Over how much event time the records are spread, in ms.
    pub span_ms: i64,
    /// Schema id that poison is framed with.
    pub schema_id: u32,
    /// Whether poison may ask for a partition other than its key's; needs a topic with more than one.
    pub wrong_partitions: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            events: 10_000,
            users: 1_000,
            seed: 1,
            duplicates: 0.0,
            poison: 0.0,
            late: 0.0,
            skew: 0.0,
            start_ms: DEFAULT_START_MS,
            span_ms: 45 * DAY_MS,
            schema_id: 1,
            wrong_partitions: false,
        }
    }
}

/// An option that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{option} is {given}; allowed is {allowed}")]
pub struct OptionsError {
    option: &'static str,
    given: String,
    allowed: String,
}

impl GenerateOptions {
    pub(super) fn end_ms(&self) -> i64 {
        self.start_ms.saturating_add(self.span_ms)
    }

    pub(super) fn check(&self) -> Result<(), OptionsError> {
        let within = |option, given: f64, most: f64| {
            if (0.0..=most).contains(&given) {
                return Ok(());
            }
            Err(OptionsError { option, given: given.to_string(), allowed: format!("0 to {most}") })
        };
        within("duplicates", self.duplicates, 1.0)?;
        within("poison", self.poison, 1.0)?;
        within("duplicates and poison together", self.duplicates + self.poison, 1.0)?;
        within("late", self.late, 1.0)?;
        within("skew", self.skew, 4.0)?;
        let whole = |option, given: i64, allowed: std::ops::RangeInclusive<i64>| {
            if allowed.contains(&given) {
                return Ok(());
            }
            let allowed = format!("{} to {}", allowed.start(), allowed.end());
            Err(OptionsError { option, given: given.to_string(), allowed })
        };
        whole("users", i64::from(self.users), 1..=i64::from(MAX_USERS))?;
        // Within the years 1970 to 2200: far from the edges of what an event's time may be.
        whole("start_ms", self.start_ms, 0..=7_258_118_400_000)?;
        whole("span_ms", self.span_ms, 0..=MAX_SPAN_MS)
    }
}
