//! The configuration written out: the sample files and `campaignd config`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value as Json;

use super::sections::Config;
use super::setting::{Heading, Row, Section};
use super::source::{Origin, env_name};

/// Every section with its keys, in declaration order.
pub fn headings(config: &Config) -> Vec<Heading> {
    let mut out = Vec::new();
    config.describe("", "", &mut out);
    out.retain(|heading| !heading.rows.is_empty());
    out
}

/// `campaignd.example.toml`.
pub fn example_toml() -> String {
    let mut text = String::from(
        "# Every setting of campaignd with its default; generated from the code, which is where the keys are declared.\n\
         # A key that is commented out has no default. The environment wins over this file: CAMPAIGND_<SECTION>__<KEY>.\n\
         # Secrets are better given by environment or by the `_file` form than written here.\n",
    );
    for heading in headings(&Config::default()) {
        let _ = write!(text, "\n# {}\n[{}]\n", heading.doc, heading.path);
        for row in &heading.rows {
            let _ = writeln!(text, "# {}", describe(row));
            if row.open {
                let _ = writeln!(text, "# [{}]\n# \"socket.keepalive.enable\" = \"true\"", row.path);
                continue;
            }
            match toml_value(&row.value) {
                Some(value) => {
                    let _ = writeln!(text, "{} = {value}", key(row));
                }
                None => {
                    let _ = writeln!(text, "# {} =", key(row));
                }
            }
            if row.secret {
                let _ =
                    writeln!(text, "# {}_file = \"/run/secrets/{}\"", key(row), row.path.replace('.', "_"));
            }
        }
    }
    text
}

/// `.env.example`.
pub fn example_env() -> String {
    let mut text = String::from(
        "# Every setting of campaignd as an environment variable, with its default; generated from the code.\n\
         # The environment wins over the configuration file. CAMPAIGND_CONFIG names that file.\n\
         # CAMPAIGND_CONFIG=campaignd.toml\n",
    );
    for heading in headings(&Config::default()) {
        let _ = write!(text, "\n# {}\n", heading.doc);
        for row in &heading.rows {
            let _ = writeln!(text, "# {}", describe(row));
            let name = env_name(&row.path);
            if row.open {
                let _ = writeln!(text, "# {name}__SOCKET_KEEPALIVE_ENABLE=true");
                continue;
            }
            let _ = writeln!(text, "# {name}={}", env_value(&row.value));
            if row.secret {
                let _ = writeln!(text, "# {name}_FILE=");
            }
        }
    }
    text
}

/// The effective configuration as TOML, each line with the layer it comes from; secrets are not shown.
pub fn effective_toml(config: &Config, origins: &BTreeMap<String, Origin>) -> String {
    let mut text = String::new();
    for heading in headings(config) {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "[{}]", heading.path);
        for row in &heading.rows {
            let origin = origins.get(&row.path).unwrap_or(&Origin::Default);
            match toml_value(&row.value) {
                Some(_) if row.secret => {
                    let _ = writeln!(text, "# {} is set, not shown  # {origin}", key(row));
                }
                Some(value) => {
                    let _ = writeln!(text, "{} = {value}  # {origin}", key(row));
                }
                None => {
                    let _ = writeln!(text, "# {} is not set", key(row));
                }
            }
        }
    }
    text
}

/// The effective configuration as one JSON object by full key; secrets are not shown.
pub fn effective_json(config: &Config, origins: &BTreeMap<String, Origin>) -> Json {
    let mut object = serde_json::Map::new();
    for row in headings(config).into_iter().flat_map(|heading| heading.rows) {
        let origin = origins.get(&row.path).unwrap_or(&Origin::Default).to_string();
        object.insert(row.path, serde_json::json!({ "value": row.value, "from": origin }));
    }
    Json::Object(object)
}

/// The doc line, and what is allowed where that says more than the doc line.
fn describe(row: &Row) -> String {
    if row.open || ["a text", "a path"].iter().any(|plain| row.allowed.starts_with(plain)) {
        row.doc.clone()
    } else {
        format!("{} Allowed: {}.", row.doc, row.allowed)
    }
}

fn key(row: &Row) -> &str {
    row.path.rsplit('.').next().unwrap_or(&row.path)
}

fn toml_value(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key:?} = {value}")).collect();
            Some(if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) })
        }
        other => Some(other.to_string()),
    }
}

fn env_value(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        Json::Array(items) => items.iter().map(env_value).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
