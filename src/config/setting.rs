//! How one setting is declared, read and described.
//!
//! [`section!`] turns one declaration into the struct, its defaults, its reader and the rows from which the sample
//! files are written, so they cannot drift apart. It is not a general configuration library: it knows the handful
//! of value shapes that campaignd uses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use figment::value::{Dict, Value};
use secrecy::SecretString;
use serde_json::Value as Json;

use super::problem::Problem;
use super::source::{Origin, Tree};

/// One key, for the sample files, `campaignd config` and the search for unknown keys.
#[derive(Clone, Debug)]
pub struct Row {
    /// Full name such as `group.session_timeout_ms`.
    pub path: String,
    /// What it is for, one line.
    pub doc: String,
    /// What may stand there.
    pub allowed: String,
    /// The value; null when unset, never a secret.
    pub value: Json,
    /// Whether the value is a secret, which can also be given by `<path>_file`.
    pub secret: bool,
    /// Whether arbitrary keys may stand below it.
    pub open: bool,
}

/// A heading of the sample file.
#[derive(Clone, Debug)]
pub struct Heading {
    /// Full name such as `store.scylla`.
    pub path: String,
    /// What the section is for.
    pub doc: String,
    /// Its keys, in declaration order.
    pub rows: Vec<Row>,
}

/// Reads values out of the merged layers and collects everything that is wrong with them.
pub struct Reader<'t> {
    pub(super) tree: &'t Tree,
    pub(super) problems: Vec<Problem>,
    pub(super) origins: BTreeMap<String, Origin>,
}

impl Reader<'_> {
    /// The value of a key, or its default when no layer has it or what stands there is refused.
    pub fn key<T: Setting>(&mut self, path: String, range: Option<RangeInclusive<u64>>, default: T) -> T {
        let found = self.tree.find(&path);
        if T::SECRET {
            let file_path = format!("{path}_file");
            if let Some((file_value, file_origin)) = self.tree.find(&file_path) {
                if let Some((_, origin)) = &found {
                    self.problems.push(Problem::new(
                        &path,
                        "(secret)",
                        origin,
                        "is given, and so is ".to_string() + &file_path + "; keep one of them",
                    ));
                    return default;
                }
                return self.secret_file(&path, &file_path, &file_value, file_origin).unwrap_or(default);
            }
        }
        let Some((value, origin)) = found else { return default };
        match T::parse(&value, origin.is_environment(), range.as_ref()) {
            Ok(parsed) => {
                self.origins.insert(path, origin);
                parsed
            }
            Err(reason) => {
                let shown = if T::SECRET { "(secret)".to_string() } else { show_raw(&value) };
                self.problems.push(Problem::new(
                    &path,
                    &shown,
                    &origin,
                    format!("{reason}; allowed: {}", T::allowed(range.as_ref())),
                ));
                default
            }
        }
    }

    fn secret_file<T: Setting>(
        &mut self,
        path: &str,
        file_path: &str,
        value: &Value,
        origin: Origin,
    ) -> Option<T> {
        let mut refuse = |reason: String| {
            self.problems.push(Problem::new(file_path, &show_raw(value), &origin, reason));
            None
        };
        let Some(name) = value.as_str().filter(|name| !name.is_empty()) else {
            return refuse("is not a path; allowed: the path of a file that holds the secret".into());
        };
        let text = match std::fs::read_to_string(name) {
            Ok(text) => text,
            Err(error) => {
                return refuse(format!("cannot be read ({error}); allowed: a readable UTF-8 text file"));
            }
        };
        let secret = text.strip_suffix('\n').unwrap_or(&text);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        match T::parse(&Value::from(secret), true, None) {
            Ok(parsed) => {
                self.origins.insert(path.to_string(), origin);
                Some(parsed)
            }
            Err(reason) => refuse(format!("{reason}; allowed: {}", T::allowed(None))),
        }
    }
}

/// A value that a key can hold.
pub trait Setting: Sized {
    /// Whether it must never be shown.
    const SECRET: bool = false;
    /// Whether keys of the user's own choice may stand below it.
    const OPEN: bool = false;

    /// What may stand there, as a phrase.
    fn allowed(range: Option<&RangeInclusive<u64>>) -> String;

    /// The value, or what is wrong with it. From the environment everything is text.
    fn parse(value: &Value, environment: bool, range: Option<&RangeInclusive<u64>>) -> Result<Self, String>;

    /// The value as shown to people; null when unset.
    fn show(&self) -> Json;
}

impl Setting for String {
    fn allowed(_: Option<&RangeInclusive<u64>>) -> String {
        "a text that is not empty".into()
    }

    fn parse(value: &Value, _: bool, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        match value.as_str() {
            Some("") => Err("is empty".into()),
            Some(text) => Ok(text.to_string()),
            None => Err("is not a text".into()),
        }
    }

    fn show(&self) -> Json {
        self.as_str().into()
    }
}

impl Setting for bool {
    fn allowed(_: Option<&RangeInclusive<u64>>) -> String {
        "true or false".into()
    }

    fn parse(value: &Value, environment: bool, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        match (value, environment) {
            (Value::Bool(_, flag), _) => Ok(*flag),
            (Value::String(_, text), true) if text == "true" => Ok(true),
            (Value::String(_, text), true) if text == "false" => Ok(false),
            _ => Err("is neither true nor false".into()),
        }
    }

    fn show(&self) -> Json {
        (*self).into()
    }
}

impl Setting for u64 {
    fn allowed(range: Option<&RangeInclusive<u64>>) -> String {
        match range {
            Some(range) => format!("a whole number from {} to {}", range.start(), range.end()),
            None => "a whole number".into(),
        }
    }

    fn parse(value: &Value, environment: bool, range: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        let number = match (value, environment) {
            (Value::Num(_, number), _) => {
                number.to_i128().or(number.to_u128().and_then(|n| n.try_into().ok()))
            }
            (Value::String(_, text), true) => text.replace('_', "").parse::<i128>().ok(),
            _ => None,
        };
        let number = number.ok_or("is not a whole number")?;
        let number = u64::try_from(number).map_err(|_| "is out of range")?;
        match range {
            Some(range) if !range.contains(&number) => Err("is out of range".into()),
            _ => Ok(number),
        }
    }

    fn show(&self) -> Json {
        (*self).into()
    }
}

impl Setting for usize {
    fn allowed(range: Option<&RangeInclusive<u64>>) -> String {
        u64::allowed(range)
    }

    fn parse(value: &Value, environment: bool, range: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        usize::try_from(u64::parse(value, environment, range)?).map_err(|_| "is out of range".into())
    }

    fn show(&self) -> Json {
        (*self as u64).into()
    }
}

impl Setting for SocketAddr {
    fn allowed(_: Option<&RangeInclusive<u64>>) -> String {
        "an address with a port, such as 127.0.0.1:8080 or [::1]:8080".into()
    }

    fn parse(value: &Value, _: bool, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        value
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| "is not an address with a port".into())
    }

    fn show(&self) -> Json {
        self.to_string().into()
    }
}

impl Setting for PathBuf {
    fn allowed(_: Option<&RangeInclusive<u64>>) -> String {
        "a path".into()
    }

    fn parse(value: &Value, environment: bool, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        String::parse(value, environment, None).map(PathBuf::from)
    }

    fn show(&self) -> Json {
        self.display().to_string().into()
    }
}

impl Setting for SecretString {
    const SECRET: bool = true;

    fn allowed(_: Option<&RangeInclusive<u64>>) -> String {
        "a text that is not empty".into()
    }

    fn parse(value: &Value, environment: bool, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        String::parse(value, environment, None).map(SecretString::from)
    }

    fn show(&self) -> Json {
        "(secret)".into()
    }
}

impl Setting for Vec<String> {
    fn allowed(_: Option<&RangeInclusive<u64>>) -> String {
        "a list of texts, in the environment separated by commas".into()
    }

    fn parse(value: &Value, environment: bool, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        let list: Vec<String> = match (value, environment) {
            (Value::String(_, text), true) => text.split(',').map(|item| item.trim().to_string()).collect(),
            (Value::Array(_, items), _) => items
                .iter()
                .map(|item| item.as_str().map(str::to_string).ok_or("holds something that is not a text"))
                .collect::<Result<_, _>>()?,
            _ => return Err("is not a list".into()),
        };
        if list.is_empty() || list.iter().any(String::is_empty) {
            return Err("is empty or holds an empty text".into());
        }
        Ok(list)
    }

    fn show(&self) -> Json {
        self.as_slice().into()
    }
}

impl Setting for Vec<u64> {
    fn allowed(range: Option<&RangeInclusive<u64>>) -> String {
        match range {
            Some(range) => format!(
                "a list of whole numbers from {} to {}, in the environment separated by commas",
                range.start(),
                range.end()
            ),
            None => "a list of whole numbers, in the environment separated by commas".into(),
        }
    }

    fn parse(value: &Value, environment: bool, range: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        match (value, environment) {
            (Value::String(_, text), true) => text
                .split(',')
                .map(|item| u64::parse(&Value::from(item.trim()), true, range).map_err(of_an_item))
                .collect(),
            (Value::Array(_, items), _) => {
                items.iter().map(|item| u64::parse(item, false, range).map_err(of_an_item)).collect()
            }
            _ => Err("is not a list".into()),
        }
    }

    fn show(&self) -> Json {
        self.as_slice().into()
    }
}

fn of_an_item(reason: String) -> String {
    format!("holds something that {reason}")
}

impl Setting for BTreeMap<String, String> {
    const OPEN: bool = true;

    fn allowed(_: Option<&RangeInclusive<u64>>) -> String {
        "a table of librdkafka properties".into()
    }

    fn parse(value: &Value, _: bool, _: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        let dict = value.as_dict().ok_or("is not a table")?;
        let mut map = BTreeMap::new();
        flatten("", dict, &mut map)?;
        Ok(map)
    }

    fn show(&self) -> Json {
        Json::Object(self.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect())
    }
}

/// A dotted key without quotes is a nested table in TOML; both spellings mean the same property.
fn flatten(prefix: &str, dict: &Dict, map: &mut BTreeMap<String, String>) -> Result<(), String> {
    for (key, value) in dict {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Dict(_, inner) => flatten(&key, inner, map)?,
            Value::String(_, text) => drop(map.insert(key, text.clone())),
            Value::Bool(_, flag) => drop(map.insert(key, flag.to_string())),
            Value::Num(_, _) => drop(map.insert(key, show_raw(value))),
            _ => return Err(format!("holds under {key} something that is neither text, number nor boolean")),
        }
    }
    Ok(())
}

impl<T: Setting> Setting for Option<T> {
    const SECRET: bool = T::SECRET;

    fn allowed(range: Option<&RangeInclusive<u64>>) -> String {
        T::allowed(range)
    }

    fn parse(value: &Value, environment: bool, range: Option<&RangeInclusive<u64>>) -> Result<Self, String> {
        // An empty variable is how a shell or a compose file says "not set".
        if environment && value.as_str() == Some("") {
            return Ok(None);
        }
        T::parse(value, environment, range).map(Some)
    }

    fn show(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::show)
    }
}

/// A value as its author wrote it, for error texts.
pub(super) fn show_raw(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, c) => format!("{c:?}"),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(float)) => float.to_string(),
            (None, None) => number.to_u128().map_or_else(|| "a number".to_string(), |n| n.to_string()),
        },
        Value::Empty(..) => "nothing".into(),
        Value::Dict(..) => "a table".into(),
        Value::Array(_, items) => format!("[{}]", items.iter().map(show_raw).collect::<Vec<_>>().join(", ")),
    }
}

/// A group of keys and of further groups.
pub trait Section: Sized + Default {
    /// The section as the layers say, defaults where they say nothing.
    fn read(reader: &mut Reader<'_>, path: &str) -> Self;

    /// Its keys under a heading, then its sub-sections.
    fn describe(&self, path: &str, doc: &str, out: &mut Vec<Heading>);
}

/// `a` + `b` as `a.b`, for a root that has no name.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// Declares a section: `keys` with type, default and, in `#[allowed(..)]`, a range; then `sections`.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            keys { $(
                $(#[doc = $key_doc:literal])+
                $(#[allowed($range:expr)])?
                $key:ident : $key_type:ty = $default:expr,
            )* }
            sections { $(
                $(#[doc = $section_doc:literal])+
                $section:ident : $section_type:ty,
            )* }
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub struct $name {
            $( $(#[doc = $key_doc])+ pub $key: $key_type, )*
            $( $(#[doc = $section_doc])+ pub $section: $section_type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $key: $default, )*
                    $( $section: <$section_type>::default(), )*
                }
            }
        }

        impl $crate::config::setting::Section for $name {
            fn read(reader: &mut $crate::config::setting::Reader<'_>, path: &str) -> Self {
                use $crate::config::setting::join;
                #[allow(unused_variables)]
                let default = Self::default();
                Self {
                    $( $key: reader.key(join(path, stringify!($key)), section!(@range $($range)?), default.$key), )*
                    $( $section: <$section_type as $crate::config::setting::Section>::read(
                        reader,
                        &join(path, stringify!($section)),
                    ), )*
                }
            }

            fn describe(&self, path: &str, doc: &str, out: &mut Vec<$crate::config::setting::Heading>) {
                #[allow(unused_imports)]
                use $crate::config::setting::{Heading, Row, join};
                let rows: Vec<Row> = vec![$(
                    Row {
                        path: join(path, stringify!($key)),
                        doc: concat!($($key_doc),+).trim().to_string(),
                        allowed: <$key_type as $crate::config::setting::Setting>::allowed(
                            section!(@range $($range)?).as_ref(),
                        ),
                        value: $crate::config::setting::Setting::show(&self.$key),
                        secret: <$key_type as $crate::config::setting::Setting>::SECRET,
                        open: <$key_type as $crate::config::setting::Setting>::OPEN,
                    },
                )*];
                out.push(Heading { path: path.to_string(), doc: doc.to_string(), rows });
                $(
                    $crate::config::setting::Section::describe(
                        &self.$section,
                        &join(path, stringify!($section)),
                        concat!($($section_doc),+).trim(),
                        out,
                    );
                )*
            }
        }
    };
    (@range) => { None::<std::ops::RangeInclusive<u64>> };
    (@range $range:expr) => { Some::<std::ops::RangeInclusive<u64>>($range) };
}
pub(super) use section;

/// Declares a setting that is one of a few words.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident { $( $(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal, )+ }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $variant_doc])+ $variant, )+ }

        impl $name {
            /// The word in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::config::setting::Setting for $name {
            fn allowed(_: Option<&std::ops::RangeInclusive<u64>>) -> String {
                [$($word),+].join(", ")
            }

            fn parse(
                value: &figment::value::Value,
                _: bool,
                _: Option<&std::ops::RangeInclusive<u64>>,
            ) -> Result<Self, String> {
                match value.as_str() {
                    $( Some($word) => Ok(Self::$variant), )+
                    Some(_) => Err("is none of the words known here".into()),
                    None => Err("is not a text".into()),
                }
            }

            fn show(&self) -> serde_json::Value {
                self.as_str().into()
            }
        }
    };
}
pub(super) use choice;
