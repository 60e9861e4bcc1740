//! Options of the commands that a person types.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use runtime::{BlobArgs, CatalogueArgs, DatabaseArgs, IdentityArgs, ServiceBusArgs, TelemetryArgs};
use secrecy::SecretString;
use url::Url;
use uuid::Uuid;

use super::KubernetesArgs;

/// Options of `operator doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Whose needs are looked for, with the logins and the service account that this command runs with.
    #[arg(long = "as", value_name = "PROGRAM", default_value = "operator")]
    pub program: Program,

    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub json: bool,

    /// The reports' database.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The catalogue, which is looked at when its URL is given.
    #[command(flatten)]
    pub catalogue: Option<CatalogueArgs>,

    /// The queue, which only the operator needs.
    #[command(flatten)]
    pub servicebus: ServiceBusArgs,

    /// The files.
    #[command(flatten)]
    pub blob: BlobArgs,

    /// Who this Pod is to Entra ID.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Cluster and namespace.
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
}

/// A program of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// The REST service.
    Api,
    /// The operator.
    Operator,
    /// The program in the Jobs.
    Exporter,
}

/// Options of `operator dead-letters`.
#[derive(Clone, Debug, Args)]
pub struct DeadLettersArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub action: DeadLettersAction,

    /// The queue whose dead letters are meant.
    #[command(flatten)]
    pub servicebus: ServiceBusArgs,

    /// Who this Pod is to Entra ID.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLettersAction {
    /// List them, oldest first. Nothing is taken out of the queue.
    List {
        /// The most that are listed.
        #[arg(long, default_value = "100", value_name = "MESSAGES")]
        limit: usize,
    },
    /// Show one with its properties and its body. It stays where it is.
    Show {
        /// Its sequence number, as listed, or its message id.
        id: String,
    },
    /// Send a copy to the queue again, under a new message id, and then remove the dead letter.
    ///
    /// The new id is made from the old one and the sequence number: duplicate detection would swallow the old
    /// id, and a resubmit that was broken off and is run again makes no second copy.
    Resubmit {
        /// Its sequence number, as listed, or its message id.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All that are there now.
        #[arg(long)]
        all: bool,
    },
}

/// Options of `operator smoke-test`.
#[derive(Clone, Debug, Args)]
pub struct SmokeTestArgs {
    /// Where the API answers.
    #[arg(long, env = "API_URL", value_name = "URL")]
    pub api_url: Url,

    /// Who asks.
    #[command(flatten)]
    pub token: SmokeTestToken,

    /// The `iss` of the token that is made from JWT_KEY.
    #[arg(
        long,
        env = "JWT_ISSUER",
        default_value = "MusicAlbumsIdentity",
        value_name = "ISSUER"
    )]
    pub jwt_issuer: String,

    /// The `aud` of the token that is made from JWT_KEY.
    #[arg(
        long,
        env = "JWT_AUDIENCE",
        default_value = "MusicAlbumsApi",
        value_name = "AUDIENCE"
    )]
    pub jwt_audience: String,

    /// The user of the token that is made from JWT_KEY.
    #[arg(
        long,
        default_value = "00000000-0000-4000-8000-736d6f6b6521",
        value_name = "UUID"
    )]
    pub user: Uuid,

    /// How many rows are asked for.
    #[arg(long, default_value = "10", value_name = "ROWS")]
    pub rows: u32,

    /// How long the report may take, in seconds.
    #[arg(long, env = "SMOKE_TEST_SECONDS", default_value = "300", value_parser = seconds, value_name = "SECONDS")]
    pub time_limit: Duration,

    /// Scheme, host and port to fetch the file from, in place of those in the link, where the link's are only
    /// reachable from outside.
    #[arg(long, env = "DOWNLOAD_BASE", value_name = "URL")]
    pub download_base: Option<Url>,
}

/// Exactly one of the two is given.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct SmokeTestToken {
    /// A bearer token. Secret; this or the key is required.
    #[arg(long, env = "TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<SecretString>,

    /// The shared key of HS256 tokens, from which a token for a few minutes is made. Secret.
    #[arg(long, env = "JWT_KEY", hide_env_values = true, value_name = "KEY")]
    pub jwt_key: Option<SecretString>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| "must be a whole number of seconds".to_owned())
}
