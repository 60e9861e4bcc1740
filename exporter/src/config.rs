//! The options. Everything is parsed here, and nothing else reads the environment.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use domain::ReportId;
use jiff::SignedDuration;
use runtime::{BlobArgs, CatalogueArgs, DatabaseArgs, IdentityArgs, TelemetryArgs};

/// Where Kubernetes reads a container's last words unless the Pod says otherwise.
/// <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
const MESSAGE_PATH: &str = "/dev/termination-log";
const MESSAGE_PATH_VARIABLE: &str = "TERMINATION_MESSAGE_PATH";

/// Writes the file of one popularity report: reads its parameters from the reports' database, the albums
/// from the catalogue, and commits one CSV to Blob Storage.
///
/// It is safe to run again, also while another one runs: there is one file in the end.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes:\n  \
        0   the report is completed, or had ended before\n  \
        2   an option is missing or wrong\n  \
        64  the report's parameters are not valid; never retried\n  \
        65  the data, or the storage or database refuses for good; never retried\n  \
        75  a dependency is away or the run was stopped; run again\n\n\
        A failure also leaves {\"reason\", \"message\"} as JSON at the termination message path."
)]
pub struct Config {
    /// The report.
    #[arg(long, env = "REPORT_ID", value_name = "UUID")]
    pub report_id: ReportId,

    /// The file that takes the reason of a failure, as JSON; passed by when it cannot be written.
    #[arg(long, env = MESSAGE_PATH_VARIABLE, default_value = MESSAGE_PATH, value_name = "PATH")]
    pub termination_message_path: PathBuf,

    /// How long a dependency that is away is waited for before the run ends with exit code 75.
    #[arg(long, env = "EXPORTER_PATIENCE", default_value = "5m", value_name = "DURATION", value_parser = duration)]
    pub exporter_patience: Duration,

    /// The reports' database.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The catalogue's database.
    #[command(flatten)]
    pub catalogue: CatalogueArgs,

    /// Where the file goes.
    #[command(flatten)]
    pub blob: BlobArgs,

    /// Who this Pod is to Entra ID.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Config {
    /// The termination message's path when the options could not be read.
    pub fn default_message_path() -> PathBuf {
        std::env::var_os(MESSAGE_PATH_VARIABLE).map_or_else(|| PathBuf::from(MESSAGE_PATH), PathBuf::from)
    }
}

/// A duration as people write it (`90s`, `5m`, `1h 30m`), not below zero.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write it as 90s or 5m"))?;
    Duration::try_from(parsed).map_err(|_| "it must not be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_options_are_defined_without_contradiction() {
        Config::command().debug_assert();
    }

    #[test]
    fn flags_variables_and_defaults_are_these() {
        let mut command = Config::command();
        command.build();
        let options = command.get_arguments().filter_map(|option| {
            let variable = option.get_env()?.to_str()?.to_owned();
            let default = option
                .get_default_values()
                .first()
                .and_then(|value| value.to_str());
            let flag = option.get_long()?;
            assert_eq!(
                variable.to_ascii_lowercase().replace('_', "-"),
                flag,
                "one word for both"
            );
            Some(format!("{variable} {}\n", default.unwrap_or_default()))
        });
        insta::assert_snapshot!(options.collect::<String>());
    }

    #[test]
    fn help_explains_the_exit_codes_and_every_option() {
        let mut command = Config::command();
        let help = command.render_long_help().to_string();
        for code in ["0 ", "2 ", "64", "65", "75"] {
            assert!(help.contains(&format!("\n  {code}")), "{help}");
        }
        for option in command.get_arguments() {
            assert!(option.get_help().is_some(), "{option} is not explained");
        }
    }

    #[rstest]
    #[case::minutes("5m", 300)]
    #[case::none("0s", 0)]
    #[case::both("1h 30m", 5_400)]
    fn a_duration_is_read_as_people_write_it(#[case] text: &str, #[case] seconds: u64) {
        assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
    }

    #[rstest]
    #[case::no_unit("5")]
    #[case::negative("-5m")]
    #[case::words("soon")]
    fn any_other_duration_is_refused(#[case] text: &str) {
        assert!(duration(text).is_err());
    }
}
