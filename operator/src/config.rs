//! The operator's command line: flag, variable, default, unit and meaning of every option.

mod commands;
mod scheduling;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use runtime::{BlobArgs, DatabaseArgs, IdentityArgs, PodArgs, ServiceBusArgs, TelemetryArgs};

pub use commands::{DeadLettersAction, DeadLettersArgs, DoctorArgs, Program, SmokeTestArgs, SmokeTestToken};
pub use scheduling::{Json, JsonError, SchedulingArgs};

/// Carries popularity reports from their rows to their files: relay, consumer and controller.
#[derive(Debug, Parser)]
#[command(name = "operator", version)]
pub struct Cli {
    /// What to do; `run` when not given.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator until SIGTERM or SIGINT. This is what happens without a subcommand.
    Run(Box<Config>),
    /// Bring the reports' database up to date, and end. Safe to run twice and from several processes at once.
    Migrate(MigrateArgs),
    /// Stop the operator and the API, take the operator's finalizer off every PopularityReport, and end: before
    /// the chart is uninstalled, so that nothing waits for an operator that is gone. Safe to run twice.
    ReleaseFinalizers(ReleaseFinalizersArgs),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
    /// Say of each thing that a program needs whether it is there, and the command that makes what is missing.
    ///
    /// Ends with 0 when all is well and with 1 when something fails. Nothing is changed; a probe blob named
    /// doctor-<uuid> is written and deleted again.
    Doctor(Box<DoctorArgs>),
    /// List, show and resubmit the messages that the operator could not use.
    DeadLetters(Box<DeadLettersArgs>),
    /// Request one report over REST, wait for it, download it and check its rows and SHA-256.
    ///
    /// The report stays, and ends with its retention.
    SmokeTest(Box<SmokeTestArgs>),
}

impl Cli {
    /// Reads a command line (the program's name first), where no subcommand means `run`.
    ///
    /// # Errors
    /// What clap says of a wrong line; also for `--help` and `--version`.
    pub fn from_line(line: impl IntoIterator<Item = String>) -> Result<Self, clap::Error> {
        const OTHERS: [&str; 5] = ["help", "--help", "-h", "--version", "-V"];
        // the API and the exporter have no queue, and doctor looks for them as well
        let command = Self::command().mut_subcommand("doctor", |doctor| {
            doctor
                .mut_group("ServiceBusLogin", |login| login.required(false))
                .mut_arg("catalog_database_url", |url| url.required(false))
        });
        let mut line: Vec<String> = line.into_iter().collect();
        let named =
            |word: &String| OTHERS.contains(&word.as_str()) || command.find_subcommand(word).is_some();
        if !line.get(1).is_some_and(named) {
            line.insert(line.len().min(1), "run".to_owned());
        }
        Self::from_arg_matches(&command.try_get_matches_from(line)?)
    }
}

/// Options of `operator migrate`.
#[derive(Clone, Debug, Args)]
pub struct MigrateArgs {
    /// The reports' database, by a role that owns the schema.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Who this Pod is to Entra ID.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Options of `operator release-finalizers`.
#[derive(Clone, Debug, Args)]
pub struct ReleaseFinalizersArgs {
    /// The namespace of the PopularityReports.
    #[arg(
        long,
        env = "REPORTS_NAMESPACE",
        default_value = "popularity-reports",
        value_name = "NAMESPACE"
    )]
    pub reports_namespace: String,

    /// A Deployment of that namespace to stop first; repeatable.
    #[arg(long, value_name = "DEPLOYMENT")]
    pub stop: Vec<String>,

    /// How long their Pods may take to end, in seconds.
    #[arg(long, default_value = "90", value_name = "SECONDS")]
    pub patience_seconds: u64,

    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Options of `operator run`.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// The reports' database.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The queue.
    #[command(flatten)]
    pub servicebus: ServiceBusArgs,

    /// The files, which the operator only deletes.
    #[command(flatten)]
    pub blob: BlobArgs,

    /// Make the container when it is missing; for storage that nobody sets up, such as Azurite.
    #[arg(long, env = "BLOB_CREATE_CONTAINER", default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOLEAN")]
    pub blob_create_container: bool,

    /// Who this Pod is to Entra ID.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Cluster and namespace.
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    /// The exporter's Jobs.
    #[command(flatten)]
    pub exporter: ExporterArgs,

    /// Address for /_health, /_health/live, /_health/ready and /metrics.
    #[arg(
        long,
        env = "HEALTH_LISTEN",
        default_value = "0.0.0.0:8081",
        value_name = "ADDRESS:PORT"
    )]
    pub health_listen: SocketAddr,

    /// The Pod, for Events on it.
    #[command(flatten)]
    pub pod: PodArgs,

    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Where the custom resources are. The cluster itself is found as every client finds it: by the Pod's
/// service account, or KUBECONFIG.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct KubernetesArgs {
    /// The namespace of PopularityReports, their Jobs and the Lease; the operator looks into no other.
    #[arg(
        long,
        env = "REPORTS_NAMESPACE",
        default_value = "popularity-reports",
        value_name = "NAMESPACE"
    )]
    pub reports_namespace: String,

    /// Name of the Lease by which operators agree on who leads.
    #[arg(
        long,
        env = "LEASE_NAME",
        default_value = "popularity-reports-operator",
        value_name = "NAME"
    )]
    pub lease_name: String,

    /// What this process calls itself in the Lease and in Events; a random suffix makes it unique.
    #[arg(long, env = "HOSTNAME", default_value = "operator", value_name = "NAME")]
    pub identity: String,

    /// The most exporter Jobs that run at once, and the most that are suspended in one queue at once; the rest
    /// wait in order. What a queue resumes counts as running, and is not held back by it.
    #[arg(long, env = "MAX_IN_FLIGHT", default_value = "10", value_name = "JOBS")]
    pub max_in_flight: NonZeroUsize,
}

/// What an exporter's Job is made of.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Exporter Jobs")]
pub struct ExporterArgs {
    /// The exporter's image.
    #[arg(
        long,
        env = "EXPORTER_IMAGE",
        default_value = "popularity-reports/exporter:dev",
        value_name = "IMAGE"
    )]
    pub exporter_image: String,

    /// When the kubelet pulls it.
    #[arg(
        long,
        env = "EXPORTER_IMAGE_PULL_POLICY",
        default_value = "if-not-present",
        value_name = "POLICY"
    )]
    pub exporter_image_pull_policy: ImagePullPolicy,

    /// Secret in the reports' namespace whose keys become the exporter's environment: REPORTS_DATABASE_URL,
    /// CATALOG_DATABASE_URL and, unless by workload identity, AZURE_STORAGE_CONNECTION_STRING.
    #[arg(long, env = "EXPORTER_ENV_SECRET", value_name = "SECRET")]
    pub exporter_env_secret: Option<String>,

    /// A variable of the exporter's environment; repeatable, comma-separated in the variable. Not for
    /// secrets: it can be read in the Job.
    #[arg(long, env = "EXPORTER_ENV", value_delimiter = ',', value_name = "NAME=VALUE")]
    pub exporter_env: Vec<Pair>,

    /// A label of the exporter's Pods besides the operator's own, such as azure.workload.identity/use=true;
    /// repeatable, comma-separated in the variable.
    #[arg(
        long,
        env = "EXPORTER_POD_LABEL",
        value_delimiter = ',',
        value_name = "KEY=VALUE"
    )]
    pub exporter_pod_label: Vec<Pair>,

    /// Service account of the exporter's Pods, for workload identity; its token is not mounted. Default: the
    /// namespace's default one.
    #[arg(long, env = "EXPORTER_SERVICE_ACCOUNT", value_name = "NAME")]
    pub exporter_service_account: Option<String>,

    /// How often a failed attempt is followed by another.
    #[arg(long, env = "EXPORTER_BACKOFF_LIMIT", default_value = "3", value_name = "RETRIES",
        value_parser = clap::value_parser!(i32).range(0..=20))]
    pub exporter_backoff_limit: i32,

    /// Memory of an exporter, requested and limit, as a Kubernetes quantity.
    #[arg(
        long,
        env = "EXPORTER_MEMORY",
        default_value = "256Mi",
        value_name = "QUANTITY"
    )]
    pub exporter_memory: String,

    /// CPU that an exporter requests, as a Kubernetes quantity; it is not limited.
    #[arg(long, env = "EXPORTER_CPU", default_value = "100m", value_name = "QUANTITY")]
    pub exporter_cpu: String,

    /// Where and when the Pods run.
    #[command(flatten)]
    pub scheduling: SchedulingArgs,
}

/// See <https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImagePullPolicy {
    /// For each Pod.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Not at all: the node must have it.
    Never,
}

impl fmt::Display for ImagePullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        })
    }
}

/// `NAME=VALUE`; the value may hold further equals signs, and may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    name: String,
    value: String,
}

impl Pair {
    /// A pair that is known to have a name.
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }
}

impl From<Pair> for (String, String) {
    fn from(pair: Pair) -> Self {
        (pair.name, pair.value)
    }
}

impl FromStr for Pair {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("must be NAME=VALUE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use rstest::rstest;

    use super::*;

    const REQUIRED: [&str; 6] = [
        "--reports-database-url",
        "postgres://user:hunter2@localhost/reports",
        "--servicebus-connection-string",
        "Endpoint=sb://localhost;SharedAccessKeyName=Root;SharedAccessKey=hunter2",
        "--azure-storage-connection-string",
        "AccountName=a;AccountKey=hunter2",
    ];

    fn line(words: &[&str]) -> Vec<String> {
        ["operator"]
            .iter()
            .chain(words)
            .map(|word| (*word).to_owned())
            .collect()
    }

    fn run(words: &[&str]) -> Config {
        match Cli::from_line(line(&[words, &REQUIRED].concat()))
            .unwrap()
            .command
        {
            Command::Run(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_defined() {
        Cli::command().debug_assert();
    }

    #[rstest]
    #[case::without_a_subcommand(&[])]
    #[case::with_it(&["run"])]
    fn run_is_what_happens(#[case] words: &[&str]) {
        assert_eq!(run(words).kubernetes.max_in_flight.get(), 10);
    }

    #[test]
    fn no_secret_is_shown_by_debug() {
        assert!(!format!("{:?}", run(&[])).contains("hunter2"));
    }

    #[test]
    fn variables_for_the_exporter_are_pairs() {
        let config = run(&[
            "--exporter-env",
            "FAILPOINTS=a=return;b=off",
            "--exporter-env",
            "LOG=",
        ]);

        let pairs: Vec<(String, String)> = config.exporter.exporter_env.into_iter().map(Pair::into).collect();
        assert_eq!(
            pairs,
            [
                ("FAILPOINTS".to_owned(), "a=return;b=off".to_owned()),
                ("LOG".to_owned(), String::new())
            ]
        );
    }

    #[test]
    fn a_variable_without_a_name_is_refused() {
        let error = Cli::from_line(line(&[&["--exporter-env", "=1"][..], &REQUIRED].concat())).unwrap_err();

        assert!(error.to_string().contains("must be NAME=VALUE"), "{error}");
    }
}
