//! The emulator as a process, which can be killed.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde::Deserialize;

pub const BINARY: &str = env!("CARGO_BIN_EXE_servicebus-emulator");

#[derive(Debug, Deserialize)]
pub struct Addresses {
    pub amqp: Vec<SocketAddr>,
    pub admin: SocketAddr,
}

/// Ends with the test.
pub struct Process {
    child: Child,
    pub addresses: Addresses,
}

impl Process {
    /// Starts the binary on free ports and waits until it serves.
    pub fn start(data: &Path, more: &[&str]) -> Self {
        Self::spawn(Command::new(BINARY), data, more)
    }

    /// The same, but no file may grow beyond so many KiB: a disk that fills up.
    pub fn start_on_small_disk(data: &Path, kibibytes: u32, more: &[&str]) -> Self {
        let mut shell = Command::new("bash");
        // Ignored, the signal becomes an error of the write.
        let script = format!("trap '' XFSZ; ulimit -f {kibibytes}; exec {BINARY} \"$@\"");
        shell.args(["-c", &script, "bash"]);
        Self::spawn(shell, data, more)
    }

    fn spawn(mut command: Command, data: &Path, more: &[&str]) -> Self {
        let mut child = command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(data)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let addresses = serde_json::from_str(&ready).expect("the emulator ended before it served");
        Self { child, addresses }
    }

    pub fn amqp(&self) -> SocketAddr {
        self.addresses.amqp[0]
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.admin)
    }

    /// SIGKILL: nothing is flushed and nobody is told.
    pub fn kill(mut self) {
        self.end();
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
