//! `api`: the REST service of popularity-reports.

use anyhow::Context;
use api::{Config, Server};
use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    runtime::install_crypto_provider()?;
    let config = Config::parse();
    runtime::telemetry::start(&config.telemetry)?;
    let shutdown = runtime::shutdown::on_signals().context("the signal handlers cannot be installed")?;
    let server = Server::bind(config).await?;
    server.serve(shutdown).await?;
    Ok(())
}
