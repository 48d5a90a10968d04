//! What is wrong with a definition: where, under which stable code, and what to do about it.
//!
//! All problems of a file are reported, not the first. A code never changes its meaning; a retired one is not used again.

use std::fmt;

use serde::{Serialize, Serializer};

/// A place in a source text, 1-based; line 0 means that there is no text to point into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Stable codes of diagnostics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Code] = &[$(Code::$name,)+];

            /// The code as printed.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)+ }
            }
        }
    };
}

codes! {
    /// Not well-formed YAML or JSON.
    Syntax = "C0001",
    /// Empty, several documents, or not a mapping at the top.
    Document = "C0002",
    /// The same key twice in one mapping.
    DuplicateKey = "C0003",
    /// Anchors, aliases, tags and merge keys are not used here.
    YamlFeature = "C0004",
    /// A plain scalar that YAML 1.1 and YAML 1.2 read differently.
    AmbiguousScalar = "C0005",
    /// Larger or deeper than is read.
    TooLarge = "C0006",
    /// A key that does not exist.
    UnknownKey = "C0010",
    /// A key that must be there is not.
    MissingKey = "C0011",
    /// A value of another type than the key takes.
    WrongType = "C0012",
    /// Part of the language, but not of this version.
    NotYetSupported = "C0013",
    /// A word that is none of those allowed.
    UnknownWord = "C0014",
    /// The same entry twice in a list.
    DuplicateEntry = "C0015",
    /// An empty list where one entry is needed, or too many.
    ListLength = "C0016",
    /// Keys that exclude each other.
    ConflictingKeys = "C0017",
    /// A name with characters that names do not have, or too long.
    BadName = "C0020",
    /// Not a duration.
    BadDuration = "C0021",
    /// Not a timestamp in RFC 3339.
    BadTimestamp = "C0022",
    /// A number out of range or with too many digits.
    BadNumber = "C0023",
    /// Not a field of the event or the user.
    BadField = "C0040",
    /// Operator and operands do not go together.
    BadComparison = "C0041",
    /// Not a condition.
    BadCondition = "C0042",
    /// A history question about a type that the catalog does not remember.
    NotRemembered = "C0100",
    /// A window longer than the catalog remembers.
    WindowTooLong = "C0101",
    /// A limit that never allows.
    LimitOfZero = "C0102",
    /// A schedule that ends before it starts.
    EmptySchedule = "C0103",
    /// A count that what is kept cannot reach.
    ThresholdTooHigh = "C0104",
    /// A condition on the value of a personal trait.
    PersonalTrait = "C0105",
    /// Two files define the same campaign.
    DuplicateCampaign = "C0106",
    /// What the catalog remembers can make a user's state too large.
    StateTooLarge = "C0107",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Whether a definition with this diagnostic may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It may not.
    Error,
    /// It may, but the author should look.
    Warning,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// File the definition comes from, or the key of its record.
    pub file: String,
    /// Where in the file.
    #[serde(flatten)]
    pub at: Location,
    /// Where in the definition, such as `limits[0].per`; empty for the whole.
    pub path: String,
    /// Whether it forbids publishing.
    pub severity: Severity,
    /// Stable code.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.at.line > 0 {
            write!(f, "{}:{}:", self.at.line, self.at.column)?;
        } else if !self.path.is_empty() {
            write!(f, "{}:", self.path)?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, " {severity} {}: {}", self.code, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "\n  help: {suggestion}"),
            None => Ok(()),
        }
    }
}

/// Whether any of the diagnostics forbids publishing.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique() {
        let texts: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
    }

    #[test]
    fn prints_place_code_and_help() {
        let mut diagnostic = Diagnostic {
            file: "a.yaml".into(),
            at: Location { line: 3, column: 7 },
            path: "limits[0].per".into(),
            severity: Severity::Error,
            code: Code::BadDuration,
            message: "`3 days` is no duration".into(),
            suggestion: Some("write `3d`".into()),
        };
        assert_eq!(
            diagnostic.to_string(),
            "a.yaml:3:7: error C0021: `3 days` is no duration\n  help: write `3d`"
        );
        diagnostic.at = Location::default();
        diagnostic.suggestion = None;
        assert_eq!(diagnostic.to_string(), "a.yaml:limits[0].per: error C0021: `3 days` is no duration");
    }
}
