//! `api`: the REST service of popularity-reports.

use std::process::ExitCode;

use anyhow::Context;
use api::{Config, Server};
use clap::Parser;

fn main() -> ExitCode {
    match run(Config::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    runtime::install_crypto_provider()?;
    runtime::telemetry::start(&config.telemetry)?;
    let shutdown = runtime::shutdown::on_signals().context("the signal handlers cannot be installed")?;
    let server = Server::bind(config).await?;
    server.serve(shutdown).await?;
    Ok(())
}
