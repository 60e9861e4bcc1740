//! The program itself: its exit codes and last words, signals, and death at the crash points f and g.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use domain::{FailureReason, ReportId, State};
use exporter::Termination;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::World;

struct Program {
    command: Command,
    message: PathBuf,
    _folder: TempDir,
}

impl Program {
    /// The program with nothing in its environment but this.
    fn new(variables: &[(&'static str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let message = folder.path().join("termination-log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_exporter"));
        command
            .env_clear()
            .env("TERMINATION_MESSAGE_PATH", &message)
            .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self {
            command,
            message,
            _folder: folder,
        }
    }

    fn of(world: &World, id: ReportId) -> Self {
        Self::new(&world.options(id))
    }

    fn dying_at(mut self, point: &str) -> Self {
        self.command.env("FAILPOINTS", format!("{point}=return"));
        self
    }

    fn last_words(&self) -> Termination {
        let text = std::fs::read_to_string(&self.message).expect("a termination message was left");
        serde_json::from_str(&text).unwrap()
    }
}

async fn ended(mut program: Program) -> (std::process::Output, Program) {
    let output = tokio::time::timeout(Duration::from_secs(60), program.command.output()).await;
    (output.expect("the program ends").unwrap(), program)
}

/// Every log line is a JSON object, and no secret is in any.
fn assert_log(world: &World, output: &std::process::Output) {
    let log = String::from_utf8(output.stderr.clone()).unwrap();
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    for secret in [
        "AccountKey",
        azurite::KEY,
        "test-only",
        world.connection_string.as_str(),
    ] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn the_program_completes_a_report_and_says_so() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let (output, program) = ended(Program::of(&world, id)).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!program.message.exists(), "no last words after success");
    assert!(String::from_utf8_lossy(&output.stderr).contains("uploaded; nothing is visible yet"));
    assert_log(&world, &output);
    world.artifact(id).await;
}

#[tokio::test]
async fn f_an_exporter_that_dies_while_uploading_leaves_nothing_visible_and_the_next_one_completes() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;

    let (output, _) = ended(Program::of(&world, id).dying_at("exporter.uploading.attempt-1")).await;
    assert_eq!(output.status.signal(), Some(6), "aborted");
    assert_eq!(world.blobs().await, []);
    assert_eq!(world.report(id).await.state(), State::Processing);

    // the same variable: only the first attempt dies
    let (output, _) = ended(Program::of(&world, id).dying_at("exporter.uploading.attempt-1")).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(world.report(id).await.attempts.get(), 2);
    assert_eq!(world.blobs().await[0].metadata.get("attempt"), Some("2"));
    world.artifact(id).await;
}

#[tokio::test]
async fn g_an_exporter_that_dies_after_its_commit_has_its_file_taken_over() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;

    let (output, _) = ended(Program::of(&world, id).dying_at("exporter.after-commit.attempt-1")).await;
    assert_eq!(output.status.signal(), Some(6), "aborted");
    let left = world.blobs().await;
    assert_eq!(left.len(), 1);
    assert_eq!(world.report(id).await.state(), State::Processing);
    // what is new in the catalogue must not matter: the file is there
    world.sql("DELETE FROM ratings").await;

    let (output, _) = ended(Program::of(&world, id)).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(world.blobs().await, left);
    let artifact = world.artifact(id).await;
    assert_eq!(
        left[0].metadata.get("sha256"),
        Some(artifact.sha256.to_string().as_str())
    );
    assert_eq!(
        left[0].metadata.get("data_as_of"),
        Some(artifact.data_as_of.to_string().as_str())
    );
    assert_eq!(world.report(id).await.attempts.get(), 2);
}

#[tokio::test]
async fn a_failure_is_an_exit_code_and_last_words_that_name_the_reason() {
    let world = World::with_catalogue().await;
    world.sql("DROP TABLE ratings").await;
    let id = world.a_report(json!({})).await;
    let (output, program) = ended(Program::of(&world, id)).await;
    assert_eq!(output.status.code(), Some(65));
    let words = program.last_words();
    assert_eq!(words.reason, FailureReason::CatalogRejected);
    assert!(
        words.message.contains("relation \"ratings\" does not exist"),
        "{words:?}"
    );
    assert_log(&world, &output);
}

#[tokio::test]
async fn wrong_options_are_an_exit_code_of_their_own_and_name_what_is_missing() {
    let (output, program) = ended(Program::new(&[])).await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    for option in [
        "--report-id",
        "--reports-database-url",
        "--catalog-database-url",
        "--blob-endpoint",
    ] {
        assert!(text.contains(option), "{text}");
    }
    assert_eq!(program.last_words().reason, FailureReason::ExporterFailed);
}

#[tokio::test]
async fn help_is_printed_and_is_no_failure() {
    let mut program = Program::new(&[]);
    program.command.arg("--help");
    let (output, program) = ended(program).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("Exit codes:"));
    assert!(!program.message.exists());
}

/// The kernel's own `kill`: the process is this test's child.
async fn terminate(child: &Child) {
    let id = child.id().expect("it runs").to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .await
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn sigterm_ends_the_program_at_once_with_nothing_visible() {
    let world = World::with_catalogue().await;
    let id = world.a_report(json!({})).await;
    let lock = crate::attempts::ratings_locked(&world).await;
    let mut program = Program::of(&world, id);
    let child = program.command.spawn().unwrap();
    crate::attempts::waits_for_ratings(&world).await;
    terminate(&child).await;
    let output = tokio::time::timeout(Duration::from_secs(10), child.wait_with_output())
        .await
        .expect("it ends within seconds")
        .unwrap();
    lock.rollback().await.unwrap();

    assert_eq!(
        output.status.code(),
        Some(75),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(program.last_words().reason, FailureReason::ExporterFailed);
    assert!(
        program.last_words().message.contains("stopped by a signal"),
        "{:?}",
        program.last_words()
    );
    assert_eq!(world.blobs().await, []);
    assert_log(&world, &output);
}
