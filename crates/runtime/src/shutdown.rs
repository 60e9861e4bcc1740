//! Graceful shutdown: one token that everything long-running watches.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second signal ends the process at
/// once, with the exit code that shells give for it, so that a person is never kept waiting.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let shutdown = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 128 + 15),
                _ = interrupt.recv() => ("SIGINT", 128 + 2),
            }
        };
        let (name, _) = next().await;
        tracing::info!(
            signal = name,
            "shutting down; a second signal ends the process at once"
        );
        shutdown.cancel();
        let (name, code) = next().await;
        tracing::warn!(signal = name, "ending at once, with work unfinished");
        std::process::exit(code);
    });
    Ok(token)
}
