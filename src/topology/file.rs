//! Topics as files in Strimzi's KafkaTopic shape.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use serde::Deserialize;

use super::{Role, yaml};

/// Label that says which of our topics a file describes.
const ROLE_LABEL: &str = "campaignd/topic";
/// The highest tier that a file may describe.
const MAX_TIERS: u8 = 16;

/// A topic as a file wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Which of our topics.
    pub role: Role,
    /// Partitions, when there is no other reason for a number.
    pub partitions: i32,
    /// Copies of each partition; the cluster's default when absent.
    pub replicas: Option<i32>,
    /// Topic settings by name.
    pub config: BTreeMap<String, String>,
}

/// A file that is refused.
#[derive(Debug, thiserror::Error)]
#[error("{file} {reason}")]
pub struct FileError {
    /// Its path.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

const BUILT_IN: [(&str, &str); 9] = [
    ("topology/events.yaml", include_str!("../../topology/events.yaml")),
    ("topology/campaigns.yaml", include_str!("../../topology/campaigns.yaml")),
    ("topology/decisions.yaml", include_str!("../../topology/decisions.yaml")),
    ("topology/activity.yaml", include_str!("../../topology/activity.yaml")),
    ("topology/events.dlq.yaml", include_str!("../../topology/events.dlq.yaml")),
    ("topology/events.retry.1.yaml", include_str!("../../topology/events.retry.1.yaml")),
    ("topology/events.retry.2.yaml", include_str!("../../topology/events.retry.2.yaml")),
    ("topology/events.retry.3.yaml", include_str!("../../topology/events.retry.3.yaml")),
    ("topology/events.retry.4.yaml", include_str!("../../topology/events.retry.4.yaml")),
];

/// The topics of the files that are built into the binary, in the order of [`Role`].
pub fn built_in() -> Result<Vec<Topic>, FileError> {
    collect(BUILT_IN.iter().map(|(name, text)| ((*name).to_string(), Ok((*text).to_string()))))
}

/// The topics of all `.yaml` files of a directory, in the order of [`Role`]; each of our topics exactly once. Of the retry
/// topics one is enough: a tier without a file of its own is made like the one before it.
pub fn read_directory(directory: &Path) -> Result<Vec<Topic>, FileError> {
    let shown = directory.display().to_string();
    let refuse =
        |error: std::io::Error| FileError { file: shown.clone(), reason: format!("cannot be read: {error}") };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(FileError { file: shown, reason: "holds no .yaml file".into() });
    }
    collect(paths.into_iter().map(|path| (path.display().to_string(), std::fs::read_to_string(&path))))
}

fn collect(files: impl Iterator<Item = (String, std::io::Result<String>)>) -> Result<Vec<Topic>, FileError> {
    let mut topics: BTreeMap<Role, Topic> = BTreeMap::new();
    let mut names = Vec::new();
    for (file, text) in files {
        let refuse = |reason: String| FileError { file: file.clone(), reason };
        let text = text.map_err(|error| refuse(format!("cannot be read: {error}")))?;
        for topic in parse(&text).map_err(refuse)? {
            if topics.contains_key(&topic.role) {
                let label = format!("{ROLE_LABEL}: {}", topic.role.label());
                return Err(refuse(format!("has the label {label} again; one file for each topic")));
            }
            topics.insert(topic.role, topic);
        }
        names.push(file);
    }
    for role in Role::all(1) {
        if !topics.contains_key(&role) {
            let reason = format!("say nothing about the topic labelled {ROLE_LABEL}: {}", role.label());
            return Err(FileError { file: names.join(", "), reason });
        }
    }
    Ok(topics.into_values().collect())
}

fn parse(text: &str) -> Result<Vec<Topic>, String> {
    yaml::documents(text)?.into_iter().map(topic).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KafkaTopic {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

/// Kubernetes fields that are none of our business (namespace, annotations) may stand here.
#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    partitions: i32,
    replicas: Option<i32>,
    /// Read and not used: names come from the configuration.
    #[serde(rename = "topicName")]
    _topic_name: Option<String>,
    #[serde(default)]
    config: BTreeMap<String, Scalar>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Flag(bool),
    Number(i64),
    Text(String),
}

impl Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

fn topic(document: serde_json::Value) -> Result<Topic, String> {
    let read: KafkaTopic = serde_json::from_value(document)
        .map_err(|error| format!("is not a KafkaTopic of Strimzi: {error}"))?;
    if !read.api_version.starts_with("kafka.strimzi.io/") || read.kind != "KafkaTopic" {
        let found = format!("{} {}", read.api_version, read.kind);
        return Err(format!("holds a {found}; allowed: kafka.strimzi.io/… KafkaTopic"));
    }
    let name = read.metadata.name;
    let label = read.metadata.labels.get(ROLE_LABEL);
    let role = label.and_then(|label| Role::all(MAX_TIERS).find(|role| role.label() == *label));
    let role = role.ok_or_else(|| {
        let allowed = Role::all(1).map(Role::label).collect::<Vec<_>>().join(", ");
        let found = label.map_or("no label".to_string(), |label| format!("the label {ROLE_LABEL}: {label}"));
        format!("({name}) has {found}; allowed: the label {ROLE_LABEL} with one of {allowed} and so on up to retry.{MAX_TIERS}")
    })?;
    if !(1..=10_000).contains(&read.spec.partitions) {
        return Err(format!("({name}) has partitions: {}; allowed: 1 to 10000", read.spec.partitions));
    }
    if read.spec.replicas.is_some_and(|replicas| !(1..=100).contains(&replicas)) {
        return Err(format!(
            "({name}) has replicas out of range; allowed: 1 to 100, or none for the cluster's default"
        ));
    }
    let config = read.spec.config.into_iter().map(|(key, value)| (key, value.to_string())).collect();
    Ok(Topic { role, partitions: read.spec.partitions, replicas: read.spec.replicas, config })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_files_describe_every_topic_and_keep_the_rules() {
        let topics = built_in().unwrap();
        let config = crate::config::Config::default();
        let all: Vec<Role> = Role::all(config.retry.tiers()).collect();
        assert_eq!(topics.iter().map(|topic| topic.role).collect::<Vec<_>>(), all);
        let names = super::super::names(&config);
        let actual = topics
            .iter()
            .map(|topic| {
                let actual =
                    super::super::Actual { partitions: topic.partitions, config: topic.config.clone() };
                (topic.role, actual)
            })
            .collect();
        assert_eq!(super::super::violations(&names, &actual), []);
    }

    #[test]
    fn the_directory_and_the_binary_say_the_same() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("topology");
        assert_eq!(read_directory(&directory).unwrap(), built_in().unwrap());
    }

    #[test]
    fn a_file_is_named_after_the_default_topic_name() {
        let names = crate::config::Topics::default();
        for ((file, text), role) in BUILT_IN.iter().zip(Role::all(4)) {
            assert_eq!(*file, format!("topology/{}.yaml", role.name(&names)));
            assert!(text.contains(&format!("  name: {}\n", role.name(&names))), "{file}");
        }
    }

    fn refused(text: &str) -> String {
        parse(text).unwrap_err()
    }

    #[test]
    fn bad_files_are_refused_with_what_is_allowed() {
        let good = BUILT_IN[0].1;
        assert_eq!(parse(good).unwrap().len(), 1);
        assert!(
            refused(&good.replace("campaignd/topic: events", "campaignd/topic: event"))
                .contains("events, campaigns")
        );
        assert!(refused(&good.replace("    campaignd/topic: events\n", "")).contains("no label"));
        assert!(refused(&good.replace("partitions: 12", "partitions: 0")).contains("1 to 10000"));
        assert!(
            refused(&good.replace("partitions: 12", "partition: 12")).contains("unknown field `partition`")
        );
        assert!(refused(&good.replace("kind: KafkaTopic", "kind: KafkaUser")).contains("KafkaUser"));
    }

    #[test]
    fn a_missing_and_a_repeated_topic_are_refused() {
        let file = |index: usize| (BUILT_IN[index].0.to_string(), Ok(BUILT_IN[index].1.to_string()));
        let missing = collect((0..4).map(file)).unwrap_err().to_string();
        assert!(missing.contains("campaignd/topic: dlq"), "{missing}");
        let missing = collect((0..5).map(file)).unwrap_err().to_string();
        assert!(missing.contains("campaignd/topic: retry.1"), "{missing}");
        assert_eq!(collect((0..6).map(file)).unwrap().len(), 6, "one retry topic is enough");
        let repeated = collect([0, 0].into_iter().map(file)).unwrap_err().to_string();
        assert!(repeated.contains("again"), "{repeated}");
    }
}
