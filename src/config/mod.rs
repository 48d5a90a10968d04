//! The whole configuration, parsed and checked before anything opens.
//!
//! Layers, the later one wins: defaults, a TOML file, the environment (`CAMPAIGND_<SECTION>__<KEY>`). A secret can
//! also be read from the file that `<key>_file` names. Unknown keys and bad values are refused, all of them at once.
//! Once a [`Config`] exists, it is good; nothing reads a file or a variable later on.

mod check;
mod client;
mod problem;
mod sample;
mod sections;
mod setting;
mod source;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

pub use problem::{ConfigError, Problem};
pub use sample::{effective_json, effective_toml, example_env, example_toml, headings};
pub use sections::{
    Breaker, Config, Embedded, EventsPartitioner, Group, Http, Kafka, Log, LogFormat, Pipeline, Registry,
    Retry, SaslMechanism, Scylla, SecurityProtocol, Shutdown, Store, StoreKind, Topics,
};
pub use setting::{Heading, Row};
pub use source::{Origin, env_name};

use setting::{Reader, Section};
use source::Tree;

/// A good configuration, and where each value that is not a default comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Layer by full key; a key that is missing has its default.
    pub origins: BTreeMap<String, Origin>,
}

impl Config {
    /// Reads and checks all layers. `env` is [`std::env::vars`] in the program and a few pairs in a test.
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::load_explained(path, env).map(|loaded| loaded.config)
    }

    /// The same, with the layer that each value comes from.
    pub fn load_explained(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let env: Vec<(String, String)> = env.into_iter().collect();
        let rows: Vec<Row> =
            headings(&Self::default()).into_iter().flat_map(|heading| heading.rows).collect();
        let open: Vec<String> = rows.iter().filter(|row| row.open).map(|row| row.path.clone()).collect();
        let mut problems = misspelt_variables(&rows, &env);
        let tree = match Tree::merge(path, env, &open) {
            Ok(tree) => tree,
            Err(problem) => {
                problems.push(problem);
                return Err(ConfigError { problems });
            }
        };
        problems.extend(unknown_keys(&rows, &tree));
        let mut reader = Reader { tree: &tree, problems, origins: BTreeMap::new() };
        let config = <Self as Section>::read(&mut reader, "");
        let Reader { mut problems, origins, .. } = reader;
        // A default that stands in for a refused value must not be judged; every other key still is.
        let refused: Vec<String> = problems.iter().map(|problem| problem.key.clone()).collect();
        problems
            .extend(check::check(&config, &origins).into_iter().filter(|new| !refused.contains(&new.key)));
        if problems.is_empty() { Ok(Loaded { config, origins }) } else { Err(ConfigError { problems }) }
    }

    /// Settings for any Kafka client: brokers, TLS, SASL and the properties passed through. What the delivery rules
    /// need comes on top, from the `kafka` module.
    pub fn client_config(&self) -> rdkafka::ClientConfig {
        client::client_config(self)
    }

    /// Name of this instance: `group.instance_id`, else the host name.
    pub fn instance_id(&self) -> String {
        self.group.instance_id.clone().unwrap_or_else(host_name)
    }

    /// The producer's transactional id: group and instance, the same after a restart.
    pub fn transactional_id(&self) -> String {
        format!("{}-{}", self.group.id, self.instance_id())
    }

    /// Lanes to run: `pipeline.lanes`, or the number of cores.
    pub fn lanes(&self) -> usize {
        match self.pipeline.lanes {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            lanes => lanes,
        }
    }
}

impl Topics {
    /// Every topic that has a key of its own, and its name.
    pub fn by_role(&self) -> [(&'static str, &str); 5] {
        [
            ("events", &self.events),
            ("campaigns", &self.campaigns),
            ("decisions", &self.decisions),
            ("activity", &self.activity),
            ("dlq", &self.dlq),
        ]
    }

    /// The retry topic of a tier; tiers count from 1.
    pub fn retry_topic(&self, tier: u8) -> String {
        format!("{}.{tier}", self.retry)
    }
}

impl Retry {
    /// How many retry topics there are to be.
    pub fn tiers(&self) -> u8 {
        u8::try_from(self.delays_ms.len()).unwrap_or(u8::MAX)
    }
}

fn host_name() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim().to_string())
        .chain(std::env::var("HOSTNAME"))
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// Keys that nobody declared, each with the known one that is nearest.
fn unknown_keys(rows: &[Row], tree: &Tree) -> Vec<Problem> {
    let mut known: Vec<String> = Vec::new();
    for row in rows {
        known.push(row.path.clone());
        if row.secret {
            known.push(format!("{}_file", row.path));
        }
    }
    let is_open = |path: &str| rows.iter().any(|row| row.open && row.path == path);
    let is_section = |path: &str| known.iter().any(|key| key.starts_with(&format!("{path}.")));
    let mut problems = Vec::new();
    for (path, origin, is_table) in tree.leaves(is_open) {
        if is_section(&path) && !is_table {
            problems.push(Problem::new(
                &path,
                "",
                &origin,
                "is a section, not a value; allowed: its keys, below it",
            ));
        } else if !known.contains(&path) && !is_section(&path) {
            problems.push(Problem::new(&path, "", &origin, unknown_key_message(&path, &known)));
        }
    }
    problems
}

fn unknown_key_message(path: &str, known: &[String]) -> String {
    let nearest = known
        .iter()
        .map(|key| (strsim::damerau_levenshtein(key, path), key))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    if let Some((_, key)) = nearest {
        return format!("is not a key; did you mean {key}?");
    }
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let siblings: Vec<&str> = known
        .iter()
        .filter_map(|key| key.rsplit_once('.'))
        .filter_map(|(of, key)| (of == section).then_some(key))
        .collect();
    if siblings.is_empty() {
        let mut sections: Vec<&str> = known.iter().filter_map(|key| Some(key.rsplit_once('.')?.0)).collect();
        sections.dedup();
        format!("is not a key; the sections are {}", sections.join(", "))
    } else {
        format!("is not a key; the keys of {section} are {}", siblings.join(", "))
    }
}

/// Variables that would be a setting if only they had two underscores after the section.
fn misspelt_variables(rows: &[Row], env: &[(String, String)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for row in rows {
        let right = env_name(&row.path);
        let wrong = right.replace("__", "_");
        if env.iter().any(|(name, _)| *name == wrong) {
            let origin = Origin::Environment(wrong.clone());
            problems.push(Problem::new(&wrong, "", &origin, format!("is not read; did you mean {right}?")));
        }
    }
    problems
}
