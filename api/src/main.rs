//! `api`: the REST service of popularity-reports.

use std::process::ExitCode;

use anyhow::Context;
use api::{Config, Server};
use clap::Parser;
use kubernetes::Told;

/// The name that `operator doctor --as` has for it.
const PROGRAM: &str = "api";
/// The exit code of a command line that cannot be read, as clap itself gives it.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(error) = runtime::install_crypto_provider() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let config = match Config::try_parse() {
        Ok(config) => config,
        // help and version
        Err(text) if !text.use_stderr() => text.exit(),
        Err(error) => {
            eprint!("{error}");
            refuse(&error.to_string()).await;
            return ExitCode::from(USAGE);
        }
    };
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            refuse(&format!("{error:#}")).await;
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    runtime::telemetry::start(&config.telemetry)?;
    let shutdown = runtime::shutdown::on_signals().context("the signal handlers cannot be installed")?;
    let server = Server::bind(config).await?;
    server.serve(shutdown).await?;
    Ok(())
}

/// Tells of an end that was not wished for by an Event on the own Pod too: the container is started again and
/// again, and its log is easily missed.
async fn refuse(why: &str) {
    let hint = runtime::needs::doctor(PROGRAM);
    eprintln!("{hint}");
    let told = kubernetes::cannot_start(PROGRAM, &format!("{}. {hint}", why.trim())).await;
    if let Told::Failed(why) = told {
        eprintln!("the Event that says so was not sent: {why}");
    }
}
