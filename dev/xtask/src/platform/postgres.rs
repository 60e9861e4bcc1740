//! PostgreSQL with a data folder of its own, reached by password only.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use xshell::{Cmd, cmd};

use super::{
    Base, LOOPBACK,
    process::{Service, write_private},
    settings::Settings,
};
use crate::tools::POSTGRES_BIN;

pub const NAME: &str = "postgres";

/// Fast shutdown: end the sessions, write the checkpoint. (SIGTERM would wait for every client to leave.)
/// <https://www.postgresql.org/docs/15/server-shutdown.html>
pub const STOP: Signal = Signal::INT;

/// The database that holds catalogue and reports.
const DATABASE: &str = "music_albums";

/// The account that PostgreSQL runs as when the caller is root, which it refuses to run as.
const ACCOUNT: &str = "postgres";

/// The tables of the music-albums service that a report is made from.
const CATALOGUE: &str = "music_albums, genres, music_album_genres, artists, album_artists, ratings";

/// The migrations that make the group roles, run by the administrator before the others.
const GROUP_ROLES: [&str; 2] = [
    "migrations/20261124130000_create_roles.sql",
    "migrations/20261124160000_create_program_roles.sql",
];

/// The login roles: the owner of the database and of the catalogue in it, and one for each program.
#[derive(Clone, Copy)]
pub enum Login {
    Owner,
    Migrations,
    Api,
    Operator,
    Exporter,
}

/// Starts it, listening on the loopback and where pods reach this machine.
///
/// # Errors
/// When it does not start, or does not answer.
pub fn up(base: &Base, host_address: &str, pod_networks: &[String]) -> Result<()> {
    let data = data_folder(base)?;
    if !data.join("PG_VERSION").exists() {
        create(base, &data)?;
    }
    let mut rules = "# type  database  user  address  method\n".to_owned();
    for network in ["127.0.0.1/32", &format!("{host_address}/32")]
        .into_iter()
        .chain(pod_networks.iter().map(String::as_str))
    {
        rules.push_str(&format!("host  all  all  {network}  scram-sha-256\n"));
    }
    let hba = data.join("pg_hba.conf");
    if fs::read_to_string(&hba)? != rules {
        fs::write(&hba, &rules)?; // the file keeps its owner
    }
    let port = base.settings.ports.postgres;
    let addresses = if host_address == LOOPBACK {
        LOOPBACK.to_owned()
    } else {
        format!("{LOOPBACK},{host_address}")
    };
    let mut args = vec![
        "-D".to_owned(),
        data.display().to_string(),
        "-p".to_owned(),
        port.to_string(),
    ];
    for option in [
        &*format!("listen_addresses={addresses}"),
        "unix_socket_directories=",
        "max_connections=400",
        // a development machine's data: it survives a killed process, not a power cut
        "fsync=off",
        "synchronous_commit=off",
        "full_page_writes=off",
    ] {
        args.extend(["-c".to_owned(), option.to_owned()]);
    }
    remove_dead_lock(base, &data)?;
    base.processes.start(&Service {
        name: NAME,
        program: Path::new(POSTGRES_BIN).join("postgres"),
        args,
        env: Vec::new(),
        user: rustix::process::geteuid().is_root().then_some(ACCOUNT),
        stop: STOP,
    })?;
    base.processes.wait_ready(NAME, Duration::from_secs(60), || {
        let ask = psql(base, "postgres").args(["--command", "SELECT 1"]);
        Ok(ask.quiet().ignore_stdout().ignore_stderr().run().is_ok())
    })?;
    create_logins(base)
}

/// What an administrator does before the first migration: the group roles, the logins' membership in them,
/// and the exporter's right to read the catalogue.
///
/// # Errors
/// When the catalogue's tables are missing.
pub fn grant(base: &Base) -> Result<()> {
    let mut statements = String::new();
    for file in GROUP_ROLES {
        statements.push_str(&fs::read_to_string(base.project.root.join(file))?);
    }
    for (group, login) in [
        ("owner", Login::Migrations),
        ("api", Login::Api),
        ("operator", Login::Operator),
        ("exporter", Login::Exporter),
    ] {
        statements.push_str(&format!(
            "GRANT popularity_reports_{group} TO {};\n",
            login.role()
        ));
    }
    statements.push_str(&format!(
        "GRANT SELECT ON {CATALOGUE} TO popularity_reports_exporter;\n"
    ));
    // in the data of an earlier version the owner of the catalogue migrated, and only an owner hands tables over
    let (owner, migrations) = (Login::Owner.role(), Login::Migrations.role());
    statements.push_str(&format!(
        "SELECT 'GRANT {owner} TO {migrations}' FROM pg_tables \
         WHERE tablename = 'popularity_reports_migrations' AND tableowner = '{owner}'\n\\gexec\n"
    ));
    run_sql(base, DATABASE, &statements)
}

/// The URL for a login, at the address.
pub fn url(base: &Base, login: Login, host: &str) -> String {
    let secrets = &base.settings.secrets;
    let password = match login {
        Login::Owner => &secrets.owner,
        Login::Api => &secrets.api,
        Login::Operator => &secrets.operator,
        Login::Exporter => &secrets.exporter,
        Login::Migrations => &secrets.migrations,
    };
    format!(
        "postgres://{}:{password}@{host}:{}/{DATABASE}",
        login.role(),
        base.settings.ports.postgres
    )
}

/// The URL for the superuser.
pub fn superuser_url(base: &Base, database: &str) -> String {
    let Settings { ports, secrets } = &base.settings;
    format!(
        "postgres://postgres:{}@127.0.0.1:{}/{database}",
        secrets.postgres, ports.postgres
    )
}

fn create(base: &Base, data: &Path) -> Result<()> {
    let sh = &base.project.sh;
    // read by initdb, which may run as another account: it is handed over and removed
    let password = data.with_extension("password");
    write_private(&password, &base.settings.secrets.postgres)?;
    let as_account = as_account();
    if !as_account.is_empty() {
        cmd!(sh, "chown {ACCOUNT} {password}").quiet().run()?;
    }
    let done = cmd!(
        sh,
        "env {as_account...} {POSTGRES_BIN}/initdb --pgdata {data} --username postgres --pwfile {password}
         --auth scram-sha-256 --encoding UTF8 --locale C.UTF-8 --no-sync --no-instructions"
    )
    .ignore_stdout()
    .run();
    fs::remove_file(&password)?;
    done.with_context(|| format!("cannot make a database cluster in {}", data.display()))
}

/// Makes the database and the login roles; what is there already gets its password again.
fn create_logins(base: &Base) -> Result<()> {
    let secrets = &base.settings.secrets;
    let mut statements = String::new();
    for (login, password, rights) in [
        // the tests make databases and roles of their own
        (Login::Owner, &secrets.owner, "CREATEDB CREATEROLE"),
        (Login::Migrations, &secrets.migrations, ""),
        (Login::Api, &secrets.api, ""),
        (Login::Operator, &secrets.operator, ""),
        (Login::Exporter, &secrets.exporter, ""),
    ] {
        let role = login.role();
        statements.push_str(&format!(
            "SELECT 'CREATE ROLE {role}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')\n\\gexec\n\
             ALTER ROLE {role} LOGIN {rights} PASSWORD '{password}';\n"
        ));
    }
    let owner = Login::Owner.role();
    statements.push_str(&format!(
        "SELECT 'CREATE DATABASE {DATABASE} OWNER {owner}' \
         WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}')\n\\gexec\n"
    ));
    run_sql(base, "postgres", &statements)
}

/// Runs statements as the superuser; they come by standard input, since they may hold passwords.
fn run_sql(base: &Base, database: &str, statements: &str) -> Result<()> {
    psql(base, database)
        .arg("--quiet")
        // what is there already is as it should be
        .env("PGOPTIONS", "--client-min-messages=warning")
        .quiet()
        .stdin(statements)
        .run()
        .context("psql refused statements of the platform")
}

/// psql as the superuser. The password goes by the environment: a command line can be read by everybody on
/// the machine.
pub fn psql<'p>(base: &Base<'p>, database: &str) -> Cmd<'p> {
    cmd!(base.project.sh, "psql --no-psqlrc --set ON_ERROR_STOP=1")
        .env("PGHOST", LOOPBACK)
        .env("PGPORT", base.settings.ports.postgres.to_string())
        .env("PGUSER", "postgres")
        .env("PGPASSWORD", &base.settings.secrets.postgres)
        .env("PGDATABASE", database)
}

/// Stops it, when it runs.
///
/// # Errors
/// When it cannot be stopped.
pub fn down(base: &Base) -> Result<()> {
    base.processes.stop(NAME, STOP)
}

/// The data folder: in the platform's, or, where the account of PostgreSQL cannot get there (a checkout in
/// root's home), in that account's own home, with a link to it.
fn data_folder(base: &Base) -> Result<PathBuf> {
    let here = base.dir.join("postgres");
    if !rustix::process::geteuid().is_root() {
        fs::create_dir_all(&here)?;
        return Ok(here);
    }
    if here.exists() {
        return Ok(fs::canonicalize(here)?);
    }
    let (uid, gid) = account_ids()?;
    let (as_account, dir) = (as_account(), &base.dir);
    let reachable = cmd!(base.project.sh, "env {as_account...} test -x {dir}")
        .quiet()
        .run()
        .is_ok();
    let data = if reachable {
        here.clone()
    } else {
        let id = &crate::hash::sha256_hex(base.dir.as_os_str().as_encoded_bytes())[..16];
        Path::new("/var/lib/postgresql/popularity-reports").join(id)
    };
    fs::create_dir_all(&data)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    chown(&data, Some(uid), Some(gid))?;
    if !reachable {
        symlink(&data, &here)?;
    }
    Ok(data)
}

/// After a machine's restart the lock file may name a process id that another program has now.
fn remove_dead_lock(base: &Base, data: &Path) -> Result<()> {
    let lock = data.join("postmaster.pid");
    if base.processes.running(NAME).is_some() || !lock.exists() {
        return Ok(());
    }
    let text = fs::read_to_string(&lock)?;
    let pid = text.lines().next().unwrap_or_default();
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    if program.is_ok_and(|program| program.ends_with("postgres")) {
        bail!(
            "PostgreSQL runs in {} already (process {pid}) and this platform did not start it",
            data.display()
        );
    }
    Ok(fs::remove_file(lock)?)
}

fn as_account() -> Vec<&'static str> {
    if rustix::process::geteuid().is_root() {
        vec![
            "setpriv",
            "--reuid",
            ACCOUNT,
            "--regid",
            ACCOUNT,
            "--init-groups",
            "--",
        ]
    } else {
        Vec::new()
    }
}

impl Login {
    fn role(self) -> &'static str {
        match self {
            Self::Owner => "music_albums_owner",
            Self::Api => "reports_api",
            Self::Operator => "reports_operator",
            Self::Exporter => "reports_exporter",
            Self::Migrations => "reports_migrations",
        }
    }
}

/// User and group id of PostgreSQL's account.
fn account_ids() -> Result<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let fields = accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == ACCOUNT);
    match fields.as_deref() {
        Some([_, _, uid, gid, ..]) => Ok((uid.parse()?, gid.parse()?)),
        _ => bail!("no account {ACCOUNT}, which Debian's package postgresql makes"),
    }
}
