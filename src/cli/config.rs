//! `campaignd config`: what the layers amount to.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigArguments, DONE, Output};
use crate::config::{effective_json, effective_toml, example_env, example_toml};

/// Show the effective configuration, without secrets
///
/// Prints every key with its value and where that comes from: the default, the file or a variable. A configuration
/// that `run` would refuse is refused here too, with everything that is wrong with it and exit code 64. No service is
/// contacted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  campaignd config --config campaignd.toml\n  \
                  CAMPAIGND_KAFKA__BROKERS=kafka-1:9092 campaignd config\n  \
                  campaignd config --example toml > campaignd.toml")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,

    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,

    /// Print a sample with every key and its default instead.
    #[arg(long, value_enum, value_name = "FORM", conflicts_with = "output")]
    example: Option<Example>,
}

/// Form of the sample.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Example {
    /// A configuration file.
    Toml,
    /// Environment variables.
    Env,
}

/// Prints the effective configuration or a sample.
pub fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.example {
        Some(Example::Toml) => print!("{}", example_toml()),
        Some(Example::Env) => print!("{}", example_env()),
        None => {
            let loaded = arguments.config.load_explained()?;
            match arguments.output {
                Output::Human => print!("{}", effective_toml(&loaded.config, &loaded.origins)),
                Output::Json => println!("{}", effective_json(&loaded.config, &loaded.origins)),
            }
        }
    }
    Ok(ExitCode::from(DONE))
}
