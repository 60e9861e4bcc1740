//! The operator's process: reads the command line, starts logging, runs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use identity::{Identity, POSTGRES_SCOPE};
use operator::config::{Cli, Command, Config, MigrateArgs, ReleaseFinalizersArgs};
use operator::run::Operator;
use store::pool::Login;

/// How long a migration waits for a token while the token service is away; its Job then tries again.
const TOKEN_PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let cli = match Cli::from_line(std::env::args()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(cli: Cli) -> anyhow::Result<()> {
    runtime::install_crypto_provider()?;
    match cli.command {
        Command::Run(config) => operate(*config).await,
        Command::Migrate(arguments) => migrate(arguments).await,
        Command::ReleaseFinalizers(arguments) => release_finalizers(arguments).await,
        Command::Crd => {
            print!("{}", crds::manifest::yaml()?);
            Ok(())
        }
    }
}

async fn operate(config: Config) -> anyhow::Result<()> {
    runtime::telemetry::start(&config.telemetry)?;
    let shutdown = runtime::shutdown::on_signals()?;
    Operator::bind(config).await?.run(shutdown).await?;
    Ok(())
}

async fn release_finalizers(arguments: ReleaseFinalizersArgs) -> anyhow::Result<()> {
    runtime::telemetry::start(&arguments.telemetry)?;
    let released = operator::release_finalizers::run(
        &operator::run::cluster().await?,
        &arguments.reports_namespace,
        &arguments.stop,
        Duration::from_secs(arguments.patience_seconds),
    )
    .await?;
    tracing::info!(released, "no report waits for an operator any more");
    Ok(())
}

async fn migrate(arguments: MigrateArgs) -> anyhow::Result<()> {
    runtime::telemetry::start(&arguments.telemetry)?;
    let database = &arguments.database;
    let identity = database
        .by_identity()
        .then(|| Identity::new(&arguments.identity.settings(TOKEN_PATIENCE)))
        .transpose()?;
    if let Some(identity) = &identity {
        identity.token(POSTGRES_SCOPE).await?;
    }
    let login: Login = database.passwords(identity.as_ref()).into();
    login.ready().await;
    let pool = store::pool::connect(
        &database.reports_database_url,
        &login,
        1,
        "popularity-reports-migrate",
    )?;
    store::migrations::run(&pool)
        .await
        .context("the database is not up to date")?;
    pool.close().await;
    Ok(())
}
