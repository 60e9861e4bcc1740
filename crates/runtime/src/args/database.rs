use std::num::NonZeroU32;

use clap::{Args, ValueEnum};
use identity::{Identity, POSTGRES_SCOPE};
use secrecy::SecretString;
use tokio::sync::watch;

/// The reports' database.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Reports database")]
pub struct DatabaseArgs {
    /// PostgreSQL URL of the database that holds the reports and their outbox. Secret; required.
    #[arg(
        long,
        env = "REPORTS_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub reports_database_url: SecretString,

    /// How to log in to PostgreSQL. By workload identity the URLs name a user and no password, and TLS is
    /// required.
    #[arg(
        long,
        env = "DATABASE_LOGIN",
        default_value = "password",
        value_name = "LOGIN"
    )]
    pub database_login: DatabaseLogin,

    /// The most connections to the reports' database that this process opens.
    #[arg(
        long,
        env = "REPORTS_DATABASE_MAX_CONNECTIONS",
        default_value = "10",
        value_name = "CONNECTIONS"
    )]
    pub reports_database_max_connections: NonZeroU32,
}

impl DatabaseArgs {
    /// Whether the password is a token of the workload identity.
    pub fn by_identity(&self) -> bool {
        self.database_login == DatabaseLogin::WorkloadIdentity
    }

    /// The password that changes, when it is the identity's token. To be called within a Tokio runtime.
    pub fn passwords(&self, identity: Option<&Identity>) -> Option<watch::Receiver<Option<SecretString>>> {
        identity
            .filter(|_| self.by_identity())
            .map(|identity| identity.passwords(POSTGRES_SCOPE))
    }
}

/// How to log in to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DatabaseLogin {
    /// By the password in the URL.
    Password,
    /// By Entra ID: the password is an access token of the Pod's workload identity, and changes.
    WorkloadIdentity,
}

/// The catalogue's database: albums and ratings, read only. It may be a replica, or the same
/// database as the reports' by another role.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Catalogue database")]
pub struct CatalogueArgs {
    /// PostgreSQL URL of the database that holds albums and ratings, by a role that can only read
    /// them. Secret; required.
    #[arg(
        long,
        env = "CATALOG_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub catalog_database_url: SecretString,
}
