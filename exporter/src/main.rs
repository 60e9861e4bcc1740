//! `exporter`: writes the file of one popularity report, then ends.

use std::process::ExitCode;

use clap::Parser as _;
use exporter::{Config, Termination, exit_codes};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    runtime::install_crypto_provider()?;
    let config = match Config::try_parse() {
        Ok(config) => config,
        Err(error) => {
            // a reader that went away (`--help | head`) is no failure
            error.print().ok();
            if error.use_stderr() {
                Termination::of_misuse(&error.kind().to_string()).leave(&Config::default_message_path());
            }
            return Ok(ExitCode::from(exit_codes::of_misuse(&error)));
        }
    };
    runtime::telemetry::start(&config.telemetry)?;
    let shutdown = runtime::shutdown::on_signals()?;
    Ok(match exporter::run(&config, &shutdown).await {
        Ok(outcome) => {
            tracing::info!(report.id = %config.report_id, %outcome, "done");
            ExitCode::from(exit_codes::DONE)
        }
        Err(error) => {
            let failure = error.failure();
            tracing::error!(
                report.id = %config.report_id,
                reason = %failure.reason,
                exit_code = error.exit_code(),
                "{}",
                failure.message
            );
            Termination::of(&failure).leave(&config.termination_message_path);
            ExitCode::from(error.exit_code())
        }
    })
}
