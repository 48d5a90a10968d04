//! What is wrong with a configuration, said so that it can be mended.

use std::fmt;

use super::source::Origin;

/// One refused key or value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, or the file when it cannot be read at all.
    pub key: String,
    /// The value as written, `(secret)` for a secret, empty when there is none.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Problem {
    pub(super) fn new(key: &str, value: &str, origin: &Origin, message: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), origin: origin.clone(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        match &self.origin {
            Origin::Default => write!(f, " (default)")?,
            origin => write!(f, " (from {origin})")?,
        }
        write!(f, ": {}", self.message)
    }
}

/// A configuration that is refused: everything found wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// In the order of the sample file, unknown keys first.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "the configuration is refused: {only}"),
            problems => {
                write!(f, "the configuration is refused, {} problems:", problems.len())?;
                for problem in problems {
                    write!(f, "\n  {problem}")?;
                }
                Ok(())
            }
        }
    }
}
