//! The command line and the configuration file, made into one [`Config`].

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Parser;
use secrecy::SecretString;
use serde::Deserialize;

use crate::{
    config::{Config, DEFAULT_IDLE_TIME_OUT, DEFAULT_KEY, DEFAULT_KEY_NAME, Storage},
    keys::JwtIssuer,
    queue::{InvalidSettings, QueueName, QueueSettings},
};

const AFTER_HELP: &str = "\
QUEUES

  --queue NAME[,KEY=VALUE]...  or, in the file, a table [queues.NAME] with the same keys:

  lock=1m                       how long a receiver holds a message
  max-delivery-count=10         the failed delivery that moves a message to the dead letters
  duplicate-detection=10m       for how long message-ids are remembered; off when left out
  ttl=1h                        the longest that a message lives; for ever when left out
  dead-letter-expired           whether a message that outlived it goes to the dead letters; dropped when left out
  max-message-size=256KiB       the largest transfer, in bytes, KiB or MiB

  Durations are written 500ms, 3s, 10m, 1h 30m.

CONFIGURATION FILE

  listen = [\"127.0.0.1:5672\"]
  admin-listen = \"127.0.0.1:5300\"
  data = \"/var/lib/servicebus-emulator\"
  key-name = \"RootManageSharedAccessKey\"
  accept-jwt = false
  [queues.report-requests]
  lock = \"1m\"
  duplicate-detection = \"10m\"

  A flag wins over the file. The key comes from --key or its variable, not from the file.

ADMIN PORT (HTTP and JSON, without authentication)

  GET    /_health
  GET    /counters                       what happened, per queue, and to connections
  GET    /queues, /queues/NAME           settings, active, locked, deferred, scheduled and dead-lettered counts
  PUT    /queues/NAME                    make a queue or change it; body: {\"lock\": \"3s\", ...} or nothing
  DELETE /queues/NAME
  POST   /queues/NAME/purge              throw the messages away
  POST   /queues/NAME/expire-locks       end all locks now
  POST   /queues/NAME/detach-links       end its links; body: {\"condition\": \"amqp:link:detach-forced\"}
  GET, PUT, DELETE /queues/NAME/faults   switches; a PUT replaces them all, and numbers count from then on:
           delay_ms                      answers to sends and settlements come late
           refuse_sends, refuse_settlements, refuse_attaches
                                         {\"next\": 3, \"condition\": \"com.microsoft:server-busy\"}
           lose_outcomes                 the next N sends are stored, and never answered
           drop_after_sends              the N-th send is stored, and its connection dropped unanswered
           drop_before_storing           the N-th send is not stored, and its connection dropped
           silent_after_sends            the N-th send is stored, and its connection goes silent but stays open
           drop_after_deliveries         the connection is dropped after the N-th message went out
           drop_before_answer            the next N settlements take effect, and their connection is dropped
           drop_before_settling          the next N settlements take no effect, and their connection is dropped
  GET, PUT, DELETE /faults               the same for the whole broker:
           refuse_connections            true: new connections are closed at once
           silent_connections            true: new connections are taken and never answered
           refuse_tokens, token_status   the next N tokens put to $cbs are refused with a status (401)
  POST   /connections/drop               drop every connection without a word
  POST   /connections/close              close every connection; body: {\"condition\": \"amqp:connection:forced\"}

STANDARD OUTPUT

  One line when it serves: {\"admin\":\"127.0.0.1:5300\",\"amqp\":[\"127.0.0.1:5672\"]}. The log goes to standard error.

WHAT IS KEPT

  With --data, messages, delivery counts, sequence numbers, settings and the memory of duplicate detection
  survive the process, however it ends: no send, settlement or request is answered before it is on disk.
  Locks do not survive; what was locked is back in its place after a restart, its delivery count unchanged.";

/// An AMQP 1.0 broker for development that the official Azure Service Bus SDKs take for the service.
#[derive(Debug, Parser)]
#[command(name = "servicebus-emulator", version, about, after_help = AFTER_HELP)]
pub struct Arguments {
    /// A configuration file in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An address for AMQP, without TLS. Repeatable; port 0 picks a free one. [default: 127.0.0.1:5672]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<SocketAddr>,
    /// The address of the admin port. [default: 127.0.0.1:5300]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// A queue and its settings, such as 'orders,lock=3s'. Repeatable.
    #[arg(long, value_name = "NAME[,KEY=VALUE]...", value_parser = QueueSettings::parse_flag)]
    queue: Vec<(QueueName, QueueSettings)>,
    /// The directory that messages are kept in. [default: none, they end with the process]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The name of the shared access key. [default: RootManageSharedAccessKey]
    #[arg(long, value_name = "NAME")]
    key_name: Option<String>,
    /// The shared access key; its text signs the tokens.
    #[arg(long, env = "SERVICEBUS_EMULATOR_KEY", hide_env_values = true, default_value = DEFAULT_KEY)]
    key: SecretString,
    /// Let Entra ID tokens in; their signature is not checked, their expiry is.
    #[arg(long)]
    accept_jwt: bool,
    /// Let this issuer's Entra ID tokens in; needs --jwt-keys.
    #[arg(
        long,
        value_name = "URL",
        requires = "jwt_keys",
        conflicts_with = "accept_jwt"
    )]
    jwt_issuer: Option<String>,
    /// The keys that the issuer signs with: a file with a JSON Web Key Set.
    #[arg(long, value_name = "FILE", requires = "jwt_issuer")]
    jwt_keys: Option<PathBuf>,
    /// What to log, as a tracing filter.
    #[arg(long, env = "LOG", default_value = "info")]
    pub log: String,
}

/// Why no configuration came of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read the configuration file {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is not valid; the cause names line and key.
    #[error("the configuration file {0} is not valid")]
    Parse(PathBuf, #[source] toml::de::Error),
    /// The issuer's keys cannot be read.
    #[error("failed to read the issuer's keys {0}")]
    ReadKeys(PathBuf, #[source] std::io::Error),
    /// The issuer's keys are none.
    #[error("the issuer's keys {0} are no JSON Web Key Set")]
    ParseKeys(PathBuf, #[source] serde_json::Error),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    listen: Vec<SocketAddr>,
    admin_listen: Option<SocketAddr>,
    data: Option<PathBuf>,
    key_name: Option<String>,
    accept_jwt: bool,
    queues: BTreeMap<QueueName, QueueSettings>,
}

impl Arguments {
    /// Reads the file, when one is named, and lays the flags over it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn into_config(self) -> Result<Config, Error> {
        let file = self
            .config
            .as_deref()
            .map(File::read)
            .transpose()?
            .unwrap_or_default();
        let jwt_issuer = match (self.jwt_issuer, self.jwt_keys) {
            (Some(issuer), Some(path)) => {
                let text = std::fs::read(&path).map_err(|error| Error::ReadKeys(path.clone(), error))?;
                let keys = serde_json::from_slice(&text).map_err(|error| Error::ParseKeys(path, error))?;
                Some(JwtIssuer { issuer, keys })
            }
            // clap lets neither come alone
            _ => None,
        };
        let listen = if self.listen.is_empty() {
            file.listen
        } else {
            self.listen
        };
        let mut queues = file.queues;
        queues.extend(self.queue);
        Ok(Config {
            listen: if listen.is_empty() {
                vec![SocketAddr::from(([127, 0, 0, 1], 5672))]
            } else {
                listen
            },
            admin_listen: self
                .admin_listen
                .or(file.admin_listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 5300))),
            storage: self
                .data
                .or(file.data)
                .map_or(Storage::Memory, Storage::Directory),
            key_name: self
                .key_name
                .or(file.key_name)
                .unwrap_or_else(|| DEFAULT_KEY_NAME.to_owned()),
            key: self.key,
            accept_jwt: self.accept_jwt || file.accept_jwt,
            jwt_issuer,
            idle_time_out: DEFAULT_IDLE_TIME_OUT,
            queues,
        })
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::Read(path.to_owned(), error))?;
        toml::from_str(&text).map_err(|error| Error::Parse(path.to_owned(), error))
    }
}

impl From<InvalidSettings> for String {
    fn from(error: InvalidSettings) -> Self {
        error.to_string()
    }
}
