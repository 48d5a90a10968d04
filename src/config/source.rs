//! The layers a value can come from: defaults, then the TOML file, then the environment; the later one wins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::problem::Problem;

/// Start of the name of every variable that is read.
pub const ENV_PREFIX: &str = "CAMPAIGND_";

/// What a problem with the whole file is filed under.
const FILE: &str = "the file";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No layer says anything.
    Default,
    /// The configuration file of this name.
    File(String),
    /// The environment variable of this name.
    Environment(String),
}

impl Origin {
    /// Whether it is an environment variable, where every value is text.
    pub fn is_environment(&self) -> bool {
        matches!(self, Self::Environment(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) | Self::Environment(name) => f.write_str(name),
        }
    }
}

/// The merged layers.
pub struct Tree {
    root: Dict,
    figment: Figment,
    file: String,
}

impl Tree {
    /// Merges the file, if there is one, and the variables that are settings.
    pub fn merge(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        open_paths: &[String],
    ) -> Result<Self, Problem> {
        let mut figment = Figment::new();
        let file = path.map(|path| path.display().to_string()).unwrap_or_default();
        if let Some(path) = path {
            let origin = Origin::File(file.clone());
            let text = std::fs::read_to_string(path)
                .map_err(|error| Problem::new(FILE, "", &origin, format!("cannot be read: {error}")))?;
            figment = figment.merge(Toml::string(&text));
        }
        figment = figment.merge(Environment::new(env, open_paths));
        let data = figment.data().map_err(|error| {
            Problem::new(FILE, "", &Origin::File(file.clone()), format!("is not TOML: {error}"))
        })?;
        let root = data.into_iter().find(|(profile, _)| *profile == Profile::Default);
        Ok(Self { root: root.map(|(_, dict)| dict).unwrap_or_default(), figment, file })
    }

    /// The value at a dotted path.
    pub fn find(&self, path: &str) -> Option<(Value, Origin)> {
        let mut dict = &self.root;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let value = dict.get(name)?;
            if names.peek().is_none() {
                return Some((value.clone(), self.origin(path, value)));
            }
            dict = value.as_dict()?;
        }
        None
    }

    /// Every path with something that is not a table of further keys, with whether it is an (empty or open) table.
    pub fn leaves(&self, is_open: impl Fn(&str) -> bool) -> Vec<(String, Origin, bool)> {
        let mut out = Vec::new();
        self.walk("", &self.root, &is_open, &mut out);
        out
    }

    fn walk(
        &self,
        path: &str,
        dict: &Dict,
        is_open: &impl Fn(&str) -> bool,
        out: &mut Vec<(String, Origin, bool)>,
    ) {
        for (name, value) in dict {
            let path = super::setting::join(path, name);
            match value {
                Value::Dict(_, inner) if !is_open(&path) && !inner.is_empty() => {
                    self.walk(&path, inner, is_open, out);
                }
                _ => out.push((path.clone(), self.origin(&path, value), value.as_dict().is_some())),
            }
        }
    }

    fn origin(&self, path: &str, value: &Value) -> Origin {
        // A table that two layers contribute to carries the tag of one of them; good enough for a table.
        match self.figment.get_metadata(value.tag()) {
            Some(metadata) if metadata.name == ENVIRONMENT => Origin::Environment(env_name(path)),
            _ => Origin::File(self.file.clone()),
        }
    }
}

/// The variable of a key: `CAMPAIGND_STORE__SCYLLA__NODES` for `store.scylla.nodes`.
pub fn env_name(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

const ENVIRONMENT: &str = "environment";

/// Variables as a layer. Every value is text; the reader of the key decides what it means, so that a password of
/// digits stays a password.
struct Environment {
    dict: Dict,
}

impl Environment {
    fn new(env: impl IntoIterator<Item = (String, String)>, open_paths: &[String]) -> Self {
        let mut dict = Dict::new();
        let sorted: BTreeMap<String, String> = env.into_iter().collect();
        for (name, value) in sorted {
            let Some(path) = setting_path(&name) else { continue };
            // Properties of librdkafka have dots and no underscores, variables the other way round.
            let open = open_paths.iter().find_map(|open| {
                let below = path.strip_prefix(open.as_str())?.strip_prefix('.')?;
                Some((open, below.replace('_', ".")))
            });
            let names: Vec<&str> = match &open {
                Some((open, below)) => open.split('.').chain([below.as_str()]).collect(),
                None => path.split('.').collect(),
            };
            insert(&mut dict, &names, value);
        }
        Self { dict }
    }
}

/// The key that a variable stands for. Variables without a section are not settings: an orchestrator makes up
/// names such as `CAMPAIGND_PORT` for a service called campaignd.
fn setting_path(name: &str) -> Option<String> {
    let rest = name.strip_prefix(ENV_PREFIX)?;
    if rest.starts_with("TEST_") || !rest.contains("__") {
        return None;
    }
    Some(rest.to_ascii_lowercase().replace("__", "."))
}

fn insert(dict: &mut Dict, names: &[&str], value: String) {
    match names {
        [] => {}
        [last] => drop(dict.insert((*last).to_string(), Value::from(value))),
        [first, rest @ ..] => {
            let inner = dict.entry((*first).to_string()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named(ENVIRONMENT)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}
