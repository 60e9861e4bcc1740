//! kubectl and helm, run as a person would.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    /// Whether its exit code was 0.
    pub succeeded: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs a program in a namespace of the kubeconfig's cluster, with this standard input.
pub async fn run(
    program: &Path,
    kubeconfig: &Path,
    namespace: &str,
    arguments: &[&str],
    input: &str,
) -> Answer {
    let mut child = Command::new(program)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--namespace", namespace])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    match stdin.write_all(input.as_bytes()).await {
        // One that fails at once has not read its input; what it says tells more.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.expect("a program reads its input"),
    }
    drop(stdin);
    let output = child.wait_with_output().await.expect("the program ends");
    Answer {
        succeeded: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
