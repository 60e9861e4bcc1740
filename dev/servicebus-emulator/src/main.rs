//! The emulator as a process.

use std::io::IsTerminal as _;

use anyhow::Context;
use clap::Parser;
use servicebus_emulator::{Emulator, cli::Arguments};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_new(&arguments.log).context("--log is not a filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let mut terminated = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let emulator = Emulator::start(arguments.into_config()?).await?;
    for address in emulator.amqp_addrs() {
        tracing::info!("AMQP on {address}");
    }
    tracing::info!("admin on http://{}", emulator.admin_addr());
    // For whoever started it with port 0: where it can be reached now.
    println!(
        "{}",
        serde_json::json!({ "amqp": emulator.amqp_addrs(), "admin": emulator.admin_addr() })
    );

    let failed = tokio::select! {
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot wait for SIGINT")?;
            false
        }
        _ = terminated.recv() => false,
        () = emulator.store_failed() => true,
    };
    emulator.stop().await;
    anyhow::ensure!(!failed, "the store refused a write; the log says why");
    Ok(())
}
