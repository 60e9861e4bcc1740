//! A primary and a streaming standby of it, for one test.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use tempfile::TempDir;

/// Where Debian's package has the programs, unless `POSTGRES_BIN` says otherwise.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// The account that PostgreSQL runs as when the tests are root, which it refuses to run as.
const ACCOUNT: &str = "postgres";
/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);

/// Both servers, stopped and removed with this value. They are reachable by this machine alone and hold
/// nothing, so nobody is asked for a password.
pub struct Replicated {
    pub primary: PgPool,
    pub standby: PgPool,
    primary_server: Server,
    standby_server: Server,
    folder: TempDir,
}

impl Replicated {
    /// Starts both. The standby cancels at once whatever is in replication's way.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let [first, second] = ["primary", "standby"].map(|name| data_folder(folder.path(), name));
        run(program("initdb")
            .args(["--username", "postgres", "--auth", "trust", "--encoding", "UTF8"])
            .args([
                "--locale",
                "C.UTF-8",
                "--no-sync",
                "--no-instructions",
                "--pgdata",
            ])
            .arg(&first));
        let primary_server = Server::start(&first, &[]);
        let primary = primary_server.pool().await;
        run(program("pg_basebackup")
            .args([
                "--checkpoint",
                "fast",
                "--write-recovery-conf",
                "--no-sync",
                "--wal-method",
                "stream",
            ])
            .args(["--host", "127.0.0.1", "--username", "postgres", "--port"])
            .arg(primary_server.port.to_string())
            .arg("--pgdata")
            .arg(&second));
        let standby_server = Server::start(&second, &["max_standby_streaming_delay=0"]);
        Self {
            standby: standby_server.pool().await,
            primary,
            primary_server,
            standby_server,
            folder,
        }
    }

    /// Waits until the standby has replayed all that the primary has written.
    pub async fn caught_up(&self, limit: Duration) {
        let written: String = scalar(&self.primary, "SELECT pg_current_wal_lsn()::text").await;
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn");
        until("the standby has caught up", limit, &self.standby, &question).await;
    }

    /// Waits until a pause that was asked for has begun.
    pub async fn paused(&self, limit: Duration) {
        let question = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
        until("the replay has paused", limit, &self.standby, question).await;
    }

    /// The standby alone, started anew: it replays nothing.
    pub async fn restart_standby_without_primary(self) -> Self {
        let Self {
            primary,
            primary_server,
            standby_server,
            folder,
            ..
        } = self;
        // a restart point, so that there is nothing to replay from before it
        let standby = standby_server.pool().await;
        sqlx::raw_sql("CHECKPOINT").execute(&standby).await.unwrap();
        standby.close().await;
        primary.close().await;
        let data = standby_server.data.clone();
        drop(standby_server);
        let port = primary_server.port;
        let stopped = primary_server.data.clone();
        drop(primary_server);
        let standby_server = Server::start(&data, &[]);
        let standby = standby_server.pool().await;
        Self {
            primary,
            primary_server: Server {
                process: None,
                port,
                data: stopped,
            },
            standby,
            standby_server,
            folder,
        }
    }
}

/// One running server.
struct Server {
    process: Option<Child>,
    port: u16,
    data: PathBuf,
}

impl Server {
    fn start(data: &Path, options: &[&str]) -> Self {
        let port = free_port();
        let mut command = program("postgres");
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        let fixed = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
        ];
        for option in fixed.iter().chain(options) {
            command.args(["-c", option]);
        }
        let log = std::fs::File::create(data.with_extension("log")).unwrap();
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            process: Some(process),
            port,
            data: data.to_owned(),
        }
    }

    async fn pool(&self) -> PgPool {
        let options = PgConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database("postgres");
        let started = Instant::now();
        loop {
            match PgPoolOptions::new()
                .max_connections(2)
                .connect_with(options.clone())
                .await
            {
                Ok(pool) => return pool,
                Err(error) if started.elapsed() > START => {
                    let log = std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
                    panic!("{error}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Server {
    /// Immediate shutdown: nothing in it is wanted any more, or is recovered at the next start.
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let pid = process.id().to_string();
        let told = Command::new("kill").args(["-QUIT", &pid]).status();
        if !told.is_ok_and(|status| status.success()) {
            process.kill().ok();
        }
        process.wait().ok();
    }
}

/// A free port of the loopback, below those that outgoing connections take.
fn free_port() -> u16 {
    loop {
        let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
        let port = 20_000 + u16::from_be_bytes([high, low]) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A program of PostgreSQL, by its own account when the tests are root.
fn program(name: &str) -> Command {
    let programs = std::env::var("POSTGRES_BIN").unwrap_or_else(|_| PROGRAMS.to_owned());
    let mut command = Command::new(Path::new(&programs).join(name));
    // the folder of the tests may be closed to that account
    command.current_dir("/");
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn data_folder(folder: &Path, name: &str) -> PathBuf {
    let data = folder.join(name);
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    if let Some((user, group)) = account() {
        chown(&data, Some(user), Some(group)).unwrap();
    }
    data
}

/// User and group of [`ACCOUNT`], when the tests are root.
fn account() -> Option<(u32, u32)> {
    let me = std::fs::metadata("/proc/self").unwrap().uid();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = accounts
        .lines()
        .find(|line| line.split(':').next() == Some(ACCOUNT));
    let ids = line.map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields[2].parse().unwrap(), fields[3].parse().unwrap())
    });
    if me == 0 {
        Some(ids.expect("Debian's package postgresql has made the account"))
    } else {
        None
    }
}

async fn scalar<T>(pool: &PgPool, statement: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(AssertSqlSafe(statement.to_owned()))
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn until(what: &str, limit: Duration, pool: &PgPool, question: &str) {
    let started = Instant::now();
    while !scalar::<bool>(pool, question).await {
        assert!(
            started.elapsed() < limit,
            "waited {limit:?}, and still not: {what}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
