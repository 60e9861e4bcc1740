//! Azurite for tests: found or installed, started on a free port with a directory of its own, and gone
//! with the process that started it.
//!
//! A test asks for [`connection_string`], which is that of a running platform when there is one, or starts
//! an [`Azurite`] of its own when it wants to break it.

mod install;

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// The variable with the connection string of a storage account that is there already.
pub const CONNECTION_STRING_VARIABLE: &str = "AZURE_STORAGE_CONNECTION_STRING";
/// The one account that Azurite has unless told otherwise.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its published key, the same for everyone:
/// <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>.
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Azurite is run as a module, so that it ends when its standard input does: the pipe closes with the
/// process that started it, however that ends, and nothing is left behind.
const RUN: &str = "process.stdin.resume().on('end', () => process.exit(0)); \
                   const main = process.argv[1]; process.argv.splice(1, 1, 'azurite-blob'); require(main);";

/// The connection string of the storage account for tests: [`CONNECTION_STRING_VARIABLE`] when it is set,
/// else that of one Azurite that all tests of this process share.
///
/// # Errors
/// Azurite cannot be found, installed or started.
pub fn connection_string() -> anyhow::Result<String> {
    static SHARED: OnceLock<Result<Azurite, String>> = OnceLock::new();
    if let Ok(given) = std::env::var(CONNECTION_STRING_VARIABLE)
        && !given.is_empty()
    {
        return Ok(given);
    }
    match SHARED.get_or_init(|| Azurite::start().map_err(|error| format!("{error:#}"))) {
        Ok(shared) => Ok(shared.connection_string()),
        Err(text) => bail!("{text}"),
    }
}

/// A running Azurite; dropping it ends it and removes its data.
pub struct Azurite {
    process: Child,
    endpoint: String,
    _data: TempDir,
}

/// How Azurite takes Entra ID tokens: over https, with a certificate, whoever issued them.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl Azurite {
    /// Starts one over http.
    ///
    /// # Errors
    /// It cannot be found, installed or started.
    pub fn start() -> anyhow::Result<Self> {
        Self::run(None)
    }

    /// Starts one over https that takes tokens as well as keys.
    ///
    /// # Errors
    /// It cannot be found, installed or started.
    pub fn start_with_tokens(tls: &Tls) -> anyhow::Result<Self> {
        Self::run(Some(tls))
    }

    fn run(tls: Option<&Tls>) -> anyhow::Result<Self> {
        let main = install::main_module()?;
        let data = tempfile::tempdir().context("failed to make a directory for Azurite's data")?;
        let mut command = Command::new("node");
        command
            .args(["-e", RUN, "--"])
            .arg(main)
            .args(["--blobPort", "0", "--disableTelemetry", "-l"]);
        command.arg(data.path());
        if let Some(tls) = tls {
            command
                .args(["--oauth", "basic", "--cert"])
                .arg(&tls.certificate)
                .arg("--key")
                .arg(&tls.key);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to run node, which Azurite needs")?;
        let output = process.stdout.take().context("Azurite has no output")?;
        let errors = process.stderr.take().context("Azurite has no error output")?;
        match listening_at(output, errors) {
            Ok(address) => Ok(Self {
                process,
                endpoint: format!("{address}/{ACCOUNT}"),
                _data: data,
            }),
            Err(error) => {
                process
                    .kill()
                    .context("failed to end an Azurite that did not start")?;
                process.wait()?;
                Err(error)
            }
        }
    }

    /// The blob service's endpoint, with the account in its path.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How to log in with the account's key.
    pub fn connection_string(&self) -> String {
        let protocol = self.endpoint.split(':').next().unwrap_or("http");
        format!(
            "DefaultEndpointsProtocol={protocol};AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={};",
            self.endpoint
        )
    }

    /// Ends it at once, as a failure would.
    ///
    /// # Errors
    /// The process cannot be ended.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().context("failed to end Azurite")?;
        self.process.wait().context("failed to wait for Azurite's end")?;
        Ok(())
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // it may have ended already; there is no one left to tell
        drop(self.kill());
    }
}

/// Reads on until Azurite says where it listens, and from then on only so that it never blocks.
fn listening_at(output: ChildStdout, mut errors: ChildStderr) -> anyhow::Result<String> {
    const SIGN: &str = "successfully listens on ";
    let mut lines = BufReader::new(output).lines();
    let mut seen = String::new();
    for line in lines.by_ref() {
        let line = line.context("failed to read Azurite's output")?;
        if let Some((_, address)) = line.split_once(SIGN) {
            let address = address.trim().to_owned();
            thread::spawn(move || lines.for_each(drop));
            thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
            return Ok(address);
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    errors
        .read_to_string(&mut seen)
        .context("failed to read Azurite's errors")?;
    bail!("Azurite ended without listening:\n{seen}")
}

/// Whether a program is there to be run.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file: &PathBuf| Path::is_file(file))
}
