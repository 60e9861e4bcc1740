//! Everything that can be set. Nothing else in this crate reads the environment.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Parser};
use runtime::{BlobArgs, DatabaseArgs, IdentityArgs, PodArgs, TelemetryArgs};
use secrecy::SecretString;
use url::Url;

/// The REST service of popularity-reports.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// The address to listen on, for the API, /_health and /metrics.
    #[arg(
        long,
        env = "API_LISTEN",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS"
    )]
    pub api_listen: SocketAddr,

    /// How long a report and its file are kept from the request on, in seconds: at least 60, at most
    /// ten years. Default: seven days.
    #[arg(long, env = "REPORT_RETENTION_SECONDS", default_value = "604800", value_parser = retention_seconds, value_name = "SECONDS")]
    pub report_retention_seconds: Duration,

    /// How many unfinished reports a user may have; one more gets a 429 until one has ended.
    #[arg(
        long,
        env = "MAX_UNFINISHED_PER_USER",
        default_value = "100",
        value_name = "REPORTS"
    )]
    pub max_unfinished_per_user: NonZeroU32,

    /// How long a download link works, in seconds: at least 60, at most 900.
    #[arg(long, env = "DOWNLOAD_URL_SECONDS", default_value = "900", value_parser = download_seconds, value_name = "SECONDS")]
    pub download_url_seconds: Duration,

    /// How long a request may take until its answer begins, in seconds; then it gets a 503.
    #[arg(long, env = "REQUEST_TIMEOUT_SECONDS", default_value = "20", value_parser = seconds, value_name = "SECONDS")]
    pub request_timeout_seconds: Duration,

    /// How long requests under way may take after a signal to stop, in seconds.
    #[arg(long, env = "SHUTDOWN_GRACE_SECONDS", default_value = "20", value_parser = seconds, value_name = "SECONDS")]
    pub shutdown_grace_seconds: Duration,

    /// Who may ask.
    #[command(flatten)]
    pub auth: AuthArgs,

    /// Where reports are written down.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Where finished files are.
    #[command(flatten)]
    pub blob: BlobArgs,

    /// Who this Pod is to Entra ID.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Where reports are shown to the people who run the cluster.
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    /// The Pod, for Events on it.
    #[command(flatten)]
    pub pod: PodArgs,

    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Whose bearer tokens are believed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tokens")]
pub struct AuthArgs {
    /// The `iss` that a token must have.
    #[arg(
        long,
        env = "JWT_ISSUER",
        default_value = "MusicAlbumsIdentity",
        value_name = "ISSUER"
    )]
    pub jwt_issuer: String,

    /// The `aud` that a token must have.
    #[arg(
        long,
        env = "JWT_AUDIENCE",
        default_value = "MusicAlbumsApi",
        value_name = "AUDIENCE"
    )]
    pub jwt_audience: String,

    /// What they are signed with.
    #[command(flatten)]
    pub keys: JwtKeys,

    /// The least time between two looks at the key set, in seconds, however many tokens name an
    /// unknown key.
    #[arg(long, env = "JWT_JWKS_REFRESH_SECONDS", default_value = "30", value_parser = seconds, value_name = "SECONDS")]
    pub jwt_jwks_refresh_seconds: Duration,
}

/// A shared key, a published key set, or both.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = true)]
pub struct JwtKeys {
    /// The shared key of HS256 tokens: at least 32 bytes. Secret; this or the key set is required.
    #[arg(long, env = "JWT_KEY", hide_env_values = true, value_name = "KEY")]
    pub jwt_key: Option<SecretString>,

    /// Where the issuer publishes the keys of RS256 and ES256 tokens; https, or http on this machine.
    #[arg(long, env = "JWT_JWKS_URL", value_name = "URL")]
    pub jwt_jwks_url: Option<Url>,
}

/// The cluster in which reports are shown.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kubernetes")]
pub struct KubernetesArgs {
    /// Whether to create each report's custom resource right after the answer. Without it the
    /// operator's sweep does so within a minute.
    #[arg(
        long,
        env = "KUBERNETES",
        default_value_t = true,
        action = clap::ArgAction::Set,
        value_name = "BOOLEAN"
    )]
    pub kubernetes: bool,

    /// The namespace of the custom resources of reports that are requested over REST.
    #[arg(
        long,
        env = "REPORTS_NAMESPACE",
        default_value = "default",
        value_name = "NAMESPACE"
    )]
    pub reports_namespace: String,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| "must be a whole number of seconds".to_owned())
}

fn seconds_between(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let duration = seconds(text)?;
    if (least..=most).contains(&duration.as_secs()) {
        Ok(duration)
    } else {
        Err(format!("must be from {least} to {most} seconds"))
    }
}

/// Ten years keep every moment of expiry within the calendar.
fn retention_seconds(text: &str) -> Result<Duration, String> {
    seconds_between(text, 60, 315_360_000)
}

/// The most comes from the product's rule that a link lives 15 minutes at most.
fn download_seconds(text: &str) -> Result<Duration, String> {
    seconds_between(text, 60, 900)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use rstest::rstest;

    use super::*;

    const ENOUGH: [&str; 7] = [
        "api",
        "--reports-database-url",
        "postgres://database.example/reports",
        "--azure-storage-connection-string",
        "UseDevelopmentStorage=true",
        "--jwt-key",
        "a-key-of-at-least-thirty-two-bytes",
    ];

    fn parse(extra: &[&str]) -> Result<Config, String> {
        Config::try_parse_from(ENOUGH.iter().chain(extra)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Config::command().debug_assert();
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", parse(&[]).unwrap());
        for secret in ["database.example", "UseDevelopmentStorage", "thirty-two-bytes"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn some_key_for_tokens_is_required() {
        let without = ENOUGH[..5].iter().chain(&["--jwt-issuer", "Somebody"]);
        let error = Config::try_parse_from(without).unwrap_err().to_string();
        assert!(
            error.contains("<--jwt-key <KEY>|--jwt-jwks-url <URL>>"),
            "{error}"
        );
    }

    #[rstest]
    #[case::link_too_long("--download-url-seconds", "901", "must be from 60 to 900 seconds")]
    #[case::link_too_short("--download-url-seconds", "59", "must be from 60 to 900 seconds")]
    #[case::not_a_number("--download-url-seconds", "15m", "must be a whole number of seconds")]
    #[case::kept_for_no_time("--report-retention-seconds", "0", "must be from 60 to 315360000 seconds")]
    fn a_time_out_of_its_range_is_refused(#[case] option: &str, #[case] value: &str, #[case] message: &str) {
        let error = parse(&[option, value]).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}
