//! The operator's process: reads the command line, starts logging, runs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use identity::{Identity, POSTGRES_SCOPE};
use kubernetes::Told;
use operator::config::{Cli, Command, Config, MigrateArgs, ReleaseFinalizersArgs};
use operator::run::Operator;
use store::pool::Login;

/// The name that `operator doctor --as` has for it.
const PROGRAM: &str = "operator";
/// The exit code of a command line that cannot be read, as clap itself gives it.
const USAGE: u8 = 2;
/// How long a migration waits for a token while the token service is away; its Job then tries again.
const TOKEN_PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(error) = runtime::install_crypto_provider() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let cli = match Cli::from_line(std::env::args()) {
        Ok(cli) => cli,
        // help and version
        Err(text) if !text.use_stderr() => text.exit(),
        Err(error) => {
            eprint!("{error}");
            refuse(&error.to_string()).await;
            return ExitCode::from(USAGE);
        }
    };
    match run(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(config) => told(operate(*config).await).await?,
        Command::Migrate(arguments) => told(migrate(arguments).await).await?,
        Command::ReleaseFinalizers(arguments) => release_finalizers(arguments).await?,
        Command::Crd => print!("{}", crds::manifest::yaml()?),
        Command::Doctor(arguments) => {
            let well = operator::doctor::run(*arguments).await?;
            return Ok(if well {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::DeadLetters(arguments) => {
            runtime::telemetry::start(&arguments.telemetry)?;
            operator::dead_letters::run(*arguments, &mut std::io::stdout()).await?;
        }
        Command::SmokeTest(arguments) => operator::smoke_test::run(*arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells of an end that was not wished for by an Event on the own Pod too: the container is started again and
/// again, and its log is easily missed.
async fn told(ended: anyhow::Result<()>) -> anyhow::Result<()> {
    if let Err(error) = &ended {
        refuse(&format!("{error:#}")).await;
    }
    ended
}

async fn refuse(why: &str) {
    let hint = runtime::needs::doctor(PROGRAM);
    eprintln!("{hint}");
    let told = kubernetes::cannot_start(PROGRAM, &format!("{}. {hint}", why.trim())).await;
    if let Told::Failed(why) = told {
        eprintln!("the Event that says so was not sent: {why}");
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
        &operator::clients::cluster().await?,
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
