//! Logs: one subscriber on standard error, as text for people or as JSON for machines.

use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How the program logs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs")]
pub struct TelemetryArgs {
    /// The form of a log line.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: levels and targets, in the syntax of the tracing crate's EnvFilter, such as
    /// info,sqlx=warn.
    #[arg(long, env = "LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people to read.
    Text,
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `LOG` is not a filter.
    #[error("LOG is not a filter such as info,sqlx=warn: '{filter}'")]
    ParseFilter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Something had started logging before.
    #[error("logging was started already")]
    Start(#[source] TryInitError),
}

/// Starts logging for the whole process. Lines go to standard error: standard output belongs to the
/// program's results.
///
/// # Errors
/// [`TelemetryError`]
pub fn start(args: &TelemetryArgs) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&args.log).map_err(|source| TelemetryError::ParseFilter {
        filter: args.log.clone(),
        source,
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .finish()
            .try_init(),
        // Colours are for people who watch, not for files.
        LogFormat::Text => subscriber
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .try_init(),
    }
    .map_err(TelemetryError::Start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_named() {
        let args = TelemetryArgs {
            log_format: LogFormat::Text,
            log: "api=loud".to_owned(),
        };

        let error = start(&args).unwrap_err();

        assert_eq!(
            error.to_string(),
            "LOG is not a filter such as info,sqlx=warn: 'api=loud'"
        );
    }
}
