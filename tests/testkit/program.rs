//! One of the product's programs as a process of its own, so that it can be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

/// A running program; it is killed when dropped.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it with this environment and no other, its output going to a file.
    pub fn start(program: &Path, name: &str, folder: &Path, environment: &[(String, String)]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the test's folder can be written");
        let errors = output.try_clone().expect("a file can be shared");
        let child = Command::new(program)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot run {}: {error}; build it by `cargo build -p api -p operator --features \
                     api/failpoints,operator/failpoints`, or set PRODUCT_BIN_DIR",
                    program.display()
                )
            });
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// What it has written so far, over all its runs in this test.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a program's log can be read")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Ends it as a power cut would.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Asks it to stop (SIGTERM), as Kubernetes does, and waits.
    pub async fn stop(mut self) -> ExitStatus {
        let Some(id) = self.child.id() else {
            return self.child.wait().await.expect("a child can be waited for");
        };
        let asked = Command::new("kill")
            .args(["-TERM", &id.to_string()])
            .status()
            .await;
        assert!(
            asked.is_ok_and(|status| status.success()),
            "cannot signal {}",
            self.name
        );
        self.exited(Duration::from_secs(40)).await
    }

    /// Waits until it has ended by itself, as at a crash point.
    pub async fn exited(&mut self, limit: Duration) -> ExitStatus {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => status.expect("a child can be waited for"),
            Err(_) => panic!(
                "{} still runs after {} s:\n{}",
                self.name,
                limit.as_secs(),
                self.log()
            ),
        }
    }
}
