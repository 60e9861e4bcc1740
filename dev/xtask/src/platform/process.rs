//! Background programs that the platform owns: each is known by its process id together with its start time,
//! so that another process, which got the id later, is never hit.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::steps::wait_for;

/// Every process of the platform carries this variable with the platform's folder, so that those whose record
/// was lost in a crash can be found.
const MARK: &str = "POPULARITY_REPORTS_PLATFORM";

/// One background program: how it is started and how it is asked to stop.
pub struct Service {
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Settings that differ from the defaults; they may hold secrets and are never printed.
    pub env: Vec<(&'static str, String)>,
    /// The account that it runs as, when that is not the caller's.
    pub user: Option<&'static str>,
    /// What makes it finish its work and end.
    pub stop: Signal,
}

/// What is remembered of a started program.
#[derive(Serialize, Deserialize)]
struct Record {
    pid: i32,
    /// In clock ticks after boot (field 22 of `/proc/PID/stat`).
    start_time: u64,
    /// Program, arguments and settings: a change means that it must be started anew.
    fingerprint: String,
}

/// The background programs of one platform.
pub struct Processes {
    dir: PathBuf,
}

impl Processes {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where the program's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    /// The process id, when the program runs.
    pub fn running(&self, name: &str) -> Option<i32> {
        self.record(name)
            .filter(Record::is_alive)
            .map(|record| record.pid)
    }

    /// Starts the program unless it runs already as described; one that runs otherwise is stopped first.
    /// Returns whether it was started.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, service: &Service) -> Result<bool> {
        let fingerprint = service.fingerprint()?;
        if let Some(record) = self.record(service.name).filter(Record::is_alive) {
            if record.fingerprint == fingerprint {
                eprintln!("   {} is running (process {})", service.name, record.pid);
                return Ok(false);
            }
            eprintln!("   {} has changed: it is started anew", service.name);
            self.stop(service.name, service.stop)?;
        }
        let log = self.log(service.name);
        let env_file = self.dir.join(format!("{}.env", service.name));
        write_private(&env_file, &service.env_file())?;
        eprintln!(
            "$ (set -a; . {}; exec {}) >>{} 2>&1 &",
            env_file.display(),
            service.command_line().join(" "),
            log.display()
        );
        let out = OpenOptions::new().create(true).append(true).open(&log)?;
        let line = service.command_line();
        // setsid: what ends the terminal, or a Ctrl-C in it, must not end the platform
        let child = Command::new("setsid")
            .args(&line)
            .envs(service.env.iter().map(|(name, value)| (name, value)))
            .env(MARK, &self.dir)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", service.name))?;
        let pid = i32::try_from(child.id())?;
        let start_time = start_time(pid).with_context(|| self.ended(service.name))?;
        let record = Record {
            pid,
            start_time,
            fingerprint,
        };
        write_private(&self.record_path(service.name), &serde_json::to_string(&record)?)?;
        Ok(true)
    }

    /// Waits until `ready` says that the running program really answers.
    ///
    /// # Errors
    /// When the program ends, or does not answer in time; with the end of its log.
    pub fn wait_ready(
        &self,
        name: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        wait_for(&format!("{name} to be ready"), limit, || {
            match self.running(name) {
                Some(_) => ready(),
                None => bail!("it has ended"),
            }
        })
        .with_context(|| self.ended(name))
    }

    /// Stops the program if it runs: first as it likes it, after a while by force.
    ///
    /// # Errors
    /// When it can neither be asked to stop nor be killed.
    pub fn stop(&self, name: &str, signal: Signal) -> Result<()> {
        if let Some(record) = self.record(name).filter(Record::is_alive) {
            stop_one(name, &record, signal)?;
        }
        remove(&self.record_path(name))?;
        remove(&self.dir.join(format!("{name}.env")))
    }

    /// Stops what carries the platform's mark without a record: left by a crash of the platform itself.
    ///
    /// # Errors
    /// When one can neither be asked to stop nor be killed.
    pub fn stop_strays(&self) -> Result<()> {
        let mark = format!("{MARK}={}", self.dir.display());
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // not readable: gone meanwhile, or another account's
            let Ok(environment) = fs::read(entry.path().join("environ")) else {
                continue;
            };
            if environment
                .split(|byte| *byte == 0)
                .all(|variable| variable != mark.as_bytes())
            {
                continue;
            }
            let Some(start_time) = start_time(pid) else {
                continue;
            };
            eprintln!("   process {pid} was left from an earlier run");
            stop_one(
                "it",
                &Record {
                    pid,
                    start_time,
                    fingerprint: String::new(),
                },
                Signal::TERM,
            )?;
        }
        Ok(())
    }

    fn record(&self, name: &str) -> Option<Record> {
        serde_json::from_str(&fs::read_to_string(self.record_path(name)).ok()?).ok()
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pid.json"))
    }

    /// The text of a failed start: what its log says last, and where the log is.
    fn ended(&self, name: &str) -> String {
        let log = self.log(name);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n    ");
        format!(
            "{name} does not get ready; the end of its log ({}):\n    {last}\n",
            log.display()
        )
    }
}

impl Service {
    fn command_line(&self) -> Vec<String> {
        let user = self.user.into_iter().flat_map(|user| {
            ["setpriv", "--reuid", user, "--regid", user, "--init-groups"].map(str::to_owned)
        });
        user.chain([self.program.display().to_string()])
            .chain(self.args.iter().cloned())
            .collect()
    }

    fn fingerprint(&self) -> Result<String> {
        let program =
            fs::metadata(&self.program).with_context(|| format!("no program {}", self.program.display()))?;
        let built = program.modified()?.duration_since(UNIX_EPOCH)?.as_millis();
        let text = format!("{built} {:?} {:?}", self.command_line(), self.env);
        Ok(crate::hash::sha256_hex(text.as_bytes()))
    }

    /// The settings as shell assignments, for a person who wants to start the program by hand.
    fn env_file(&self) -> String {
        self.env
            .iter()
            .map(|(name, value)| format!("{name}={}\n", super::quoted(value)))
            .collect()
    }
}

impl Record {
    fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

fn stop_one(name: &str, record: &Record, signal: Signal) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let pid = Pid::from_raw(record.pid).context("a process id of 0")?;
    let gone = || Ok(!record.is_alive());
    if kill_process(pid, signal).is_err() && !gone()? {
        bail!(
            "{name} (process {}) cannot be asked to stop: it is another account's",
            record.pid
        );
    }
    if wait_for(&format!("{name} to stop"), PATIENCE, gone).is_err() {
        eprintln!("   {name} does not stop: killing it");
        kill_process(pid, Signal::KILL)?;
        wait_for(&format!("{name} to be gone"), PATIENCE, gone)?;
    }
    Ok(())
}

/// When the process began, in clock ticks after boot; none for one that is gone or a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name, in brackets, may hold anything: what follows the last bracket is fields 3 (state) and on
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        None
    } else {
        fields.nth(18)?.parse().ok()
    }
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    // a new file moved into place: a crash leaves the old one or the new one, never half of one
    let new = path.with_extension("new");
    let mut file: File = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a file; one that is not there is no error.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
