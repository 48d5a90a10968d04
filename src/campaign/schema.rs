//! JSON Schemas of campaign and catalog files, generated for editors and for whoever writes files by program.
//!
//! The types here describe the shape of a file and nothing else: the readers decide what a file means, and a test holds the
//! keys of both together. `schemas/campaign.schema.json` and `schemas/catalog.schema.json` are these schemas, printed.
#![allow(dead_code, reason = "the types are never made: only their shapes are read, by the schema generator")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;

/// Schema of campaign files.
pub fn campaign_schema() -> Schema {
    schema_for!(CampaignFile)
}

/// Schema of catalog files.
pub fn catalog_schema() -> Schema {
    schema_for!(CatalogFile)
}

/// A duration: a whole number and s, m (minutes), h or d (24 hours).
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
struct Duration(#[schemars(regex(pattern = r"^[0-9]+[smhd]$"))] String);

/// A campaign: which events set it off, what must hold, how often it may, and what is to be done.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "campaignd campaign")]
struct CampaignFile {
    /// Unique name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"))]
    id: String,
    /// What it is for.
    #[serde(default)]
    description: String,
    /// Where it is in its life; absent: keep what is live, active for a new one.
    #[serde(default)]
    status: Option<StatusFile>,
    /// When it runs, by event time; always when absent.
    #[serde(default)]
    schedule: Option<ScheduleFile>,
    /// One event type or a list.
    trigger: OneOrMany,
    /// What must hold; absent: always holds.
    #[serde(default)]
    when: Option<ConditionFile>,
    /// Higher goes first; on a tie the smaller id.
    #[serde(default)]
    priority: i32,
    /// Group of which one campaign per event gets through.
    #[serde(default)]
    group: Option<GroupFile>,
    /// Labels.
    #[serde(default)]
    tags: Vec<String>,
    /// All must hold; they count this campaign's own allows for the user.
    #[serde(default)]
    limits: Vec<LimitFile>,
    /// What an allow asks for.
    action: ActionFile,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum StatusFile {
    Draft,
    Active,
    Paused,
    Ended,
}

/// A half-open span of event time: the end is out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScheduleFile {
    /// RFC 3339.
    #[serde(default)]
    #[schemars(extend("format" = "date-time"))]
    start: Option<String>,
    /// RFC 3339.
    #[serde(default)]
    #[schemars(extend("format" = "date-time"))]
    end: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(#[schemars(length(min = 1))] Vec<String>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GroupFile {
    /// Name of the group.
    name: String,
    /// Who decides when this campaign matches and is suppressed: the next one, or nobody.
    #[serde(default)]
    when_suppressed: WhenSuppressedFile,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum WhenSuppressedFile {
    #[default]
    Next,
    Stop,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum LimitFile {
    OncePer(OncePerFile),
    AtMost(AtMostFile),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OncePerFile {
    /// Calendar days are those of the event's time in UTC.
    once_per: PeriodFile,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum PeriodFile {
    Ever,
    CalendarDay,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AtMostFile {
    /// Allows permitted.
    #[schemars(range(min = 1, max = 1_000_000))]
    at_most: u32,
    /// In which time.
    per: Duration,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ActionFile {
    /// What kind of action.
    #[serde(rename = "type")]
    kind: ActionKindFile,
    /// Channel such as `email`; a send needs one.
    #[serde(default)]
    channel: Option<String>,
    /// Template to render; a send needs one.
    #[serde(default)]
    template: Option<String>,
    /// Parameters of the template.
    #[serde(default)]
    params: BTreeMap<String, ParamFile>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ActionKindFile {
    Send,
    Alert,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum ParamFile {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    Texts(Vec<String>),
}

/// A condition in tree form.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum ConditionFile {
    All(AllFile),
    Any(AnyFile),
    Not(NotFile),
    Field(FieldFile),
    History(HistoryFile),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AllFile {
    /// All must hold.
    #[schemars(length(min = 1))]
    all: Vec<ConditionFile>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AnyFile {
    /// One must hold.
    #[schemars(length(min = 1))]
    any: Vec<ConditionFile>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NotFile {
    /// Must not hold; what cannot be told stays so.
    not: Box<ConditionFile>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FieldFile {
    /// `event.<property>` or `user.<trait>`.
    #[schemars(regex(pattern = r"^(event|user)\..+$"))]
    field: String,
    /// How it is compared; absent: the field is `true`.
    #[serde(default)]
    op: Option<OperatorFile>,
    /// With what; a list for between, in, not_in, any_of, all_of and none_of.
    #[serde(default)]
    value: Option<ParamOrListFile>,
    /// With which other field.
    #[serde(default, rename = "ref")]
    #[schemars(regex(pattern = r"^(event|user)\..+$"))]
    reference: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HistoryFile {
    /// A question about the user's past, without the event itself.
    history: HistoryQueryFile,
    /// How the answer is compared; absent with exists: it is `true`.
    #[serde(default)]
    op: Option<OperatorFile>,
    /// With what: a boolean for exists, a count for count, a duration for since.
    #[serde(default)]
    value: Option<ParamOrListFile>,
    /// With which field; for count.
    #[serde(default, rename = "ref")]
    #[schemars(regex(pattern = r"^(event|user)\..+$"))]
    reference: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HistoryQueryFile {
    /// Event type asked about; the catalog must remember it.
    event: String,
    /// What is asked.
    #[serde(rename = "fn")]
    function: FunctionFile,
    /// Over the last so long; absent: lifetime.
    #[serde(default)]
    last: Option<Duration>,
    /// Over all time.
    #[serde(default)]
    lifetime: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum FunctionFile {
    Exists,
    Count,
    Since,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OperatorFile {
    Eq,
    Ne,
    Lt,
    Lte,
    Gt,
    Gte,
    Between,
    In,
    NotIn,
    Exists,
    Missing,
    Prefix,
    Suffix,
    Contains,
    AnyOf,
    AllOf,
    NoneOf,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum ParamOrListFile {
    One(LiteralFile),
    Many(Vec<LiteralFile>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum LiteralFile {
    Boolean(bool),
    Number(f64),
    Text(String),
}

/// The catalog: what is remembered of users, and which traits are personal.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "campaignd catalog")]
struct CatalogFile {
    /// What is remembered, by event type.
    #[serde(default)]
    remember: BTreeMap<String, RememberFile>,
    /// Traits that are personal data: never stored in the clear.
    #[serde(default)]
    pii_traits: Vec<String>,
    /// How old an event may be against the user's newest one; 1h when absent.
    #[serde(default)]
    allowed_lateness: Option<Duration>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RememberFile {
    /// For how long.
    #[serde(rename = "for")]
    duration: Duration,
    /// At most so many, the latest; 256 when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 4096))]
    at_most: Option<u32>,
    /// Which properties of each are kept.
    #[serde(default)]
    properties: Vec<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::campaign::reader::{CAMPAIGN_KEYS, CATALOG_KEYS};
    use crate::campaign::testing;

    /// Set this to anything to write the committed schemas anew.
    const REGENERATE: &str = "CAMPAIGND_REGENERATE";

    fn compare(schema: &Schema, file: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(file);
        let generated = format!("{}\n", serde_json::to_string_pretty(schema).unwrap());
        if std::env::var_os(REGENERATE).is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == generated,
            "schemas/{file} is not what the types say; run the tests once with {REGENERATE}=1 and commit the result"
        );
    }

    #[test]
    fn committed_schemas_are_those_of_the_types() {
        compare(&campaign_schema(), "campaign.schema.json");
        compare(&catalog_schema(), "catalog.schema.json");
    }

    #[test]
    fn readers_and_schemas_know_the_same_keys() {
        for (schema, keys) in [(campaign_schema(), CAMPAIGN_KEYS), (catalog_schema(), CATALOG_KEYS)] {
            let properties = schema.get("properties").and_then(|value| value.as_object()).unwrap();
            let schema_keys: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            assert_eq!(schema_keys, keys.iter().copied().collect());
        }
    }

    proptest! {
        /// The schema's types refuse unknown keys and words, so whatever the readers and printers know they know too.
        #[test]
        fn definitions_fit_the_schemas(campaign in testing::campaign(), catalog in testing::catalog()) {
            let text = campaign.to_canonical_json();
            prop_assert!(serde_json::from_str::<CampaignFile>(&text).is_ok(), "{}", text);
            let text = catalog.to_canonical_json();
            prop_assert!(serde_json::from_str::<CatalogFile>(&text).is_ok(), "{}", text);
        }
    }
}
