//! The startup story of campaignd: parse the command line, run the command, say how it ended.

use std::process::ExitCode;

use campaignd::cli::{Cli, DONE, FAILED, USAGE, exit_code};
use clap::Parser;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too and are no mistakes.
            let code = if error.use_stderr() { USAGE } else { DONE };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::from(FAILED) };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("campaignd: cannot start its threads: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let result = runtime.block_on(cli.command.execute());
    // Whatever still blocks (a name look-up, a client that closes) must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("campaignd: {error:#}");
            exit_code(&error)
        }
    }
}
