use std::num::NonZeroU32;

use clap::Args;
use secrecy::SecretString;

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

    /// The most connections to the reports' database that this process opens.
    #[arg(
        long,
        env = "REPORTS_DATABASE_MAX_CONNECTIONS",
        default_value = "10",
        value_name = "CONNECTIONS"
    )]
    pub reports_database_max_connections: NonZeroU32,
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
