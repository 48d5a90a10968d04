//! The log: lines for people or JSON objects, on standard error.
//!
//! Normal operation logs nothing per record. A line about one event carries its trace id in the field `trace_id`.
//! Standard output belongs to the commands' results and never gets a log line.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat};

/// The log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is not one; [`crate::config`] refuses it earlier.
    #[error("log.level is refused: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// A subscriber is already installed.
    #[error("the log is already started: {0}")]
    Started(String),
}

/// Starts the log of the whole process.
pub fn init(log: &Log) -> Result<(), LogError> {
    let ansi = io::stderr().is_terminal();
    let filter = EnvFilter::builder().parse(directives(&log.level))?;
    let result = match log.format {
        LogFormat::Human => human(filter, io::stderr, ansi).try_init(),
        LogFormat::Json => json(filter, io::stderr).try_init(),
    };
    result.map_err(|error| LogError::Started(error.to_string()))
}

/// A plain level is about our own lines: what drivers and clients report below a warning is not for operators. Levels
/// by module are taken as they are.
fn directives(level: &str) -> String {
    let plain = level.parse::<tracing::Level>();
    match plain {
        // rdkafka closes a consumer again when it is dropped after a close of our own, and calls that an error.
        Ok(level) if level > tracing::Level::WARN => {
            format!("warn,campaignd={level},rdkafka::consumer::base_consumer=off")
        }
        _ => level.to_string(),
    }
}

fn human<W>(filter: EnvFilter, writer: W, ansi: bool) -> impl Init
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(writer).finish()
}

fn json<W>(filter: EnvFilter, writer: W) -> impl Init
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .finish()
}

/// A subscriber that can be installed.
trait Init: tracing::Subscriber + Send + Sync + Sized + 'static {
    fn try_init(self) -> Result<(), tracing_subscriber::util::TryInitError> {
        tracing_subscriber::util::SubscriberInitExt::try_init(self)
    }
}

impl<S: tracing::Subscriber + Send + Sync + 'static> Init for S {}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn capture<S: tracing::Subscriber + Send + Sync>(subscriber: S, buffer: &Buffer) -> String {
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("hidden");
            tracing::warn!(trace_id = "t-1", "something happened");
        });
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_plain_level_is_about_our_own_lines() {
        let filter = EnvFilter::builder().parse(directives("debug")).unwrap().to_string();
        assert!(filter.contains("campaignd=debug") && filter.contains("warn"), "{filter}");
        assert_eq!(directives("error"), "error");
        assert_eq!(directives("off"), "off");
        assert_eq!(directives("info,rdkafka=debug"), "info,rdkafka=debug");
    }

    #[test]
    fn json_lines_are_flat_and_carry_the_trace_id() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let text = capture(json(EnvFilter::new("info"), move || writer.clone()), &buffer);
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["trace_id"], "t-1");
        assert_eq!(line["message"], "something happened");
        assert_eq!(line["level"], "WARN");
    }

    #[test]
    fn human_lines_have_no_colour_codes_outside_a_terminal() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let text = capture(human(EnvFilter::new("info"), move || writer.clone(), false), &buffer);
        assert!(text.contains("something happened") && text.contains("trace_id=\"t-1\""), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("hidden"), "{text}");
    }
}
