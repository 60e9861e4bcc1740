//! A music catalogue with ratings, for development and tests: a hundred well-known albums, then
//! invented ones, and ratings with a long tail. The same [`Plan`] gives the same data, byte for byte.
//!
//! Tracks are left out: no report reads them.

mod catalogue;
mod invented;
mod known;
mod load;
mod ratings;

use sqlx::PgPool;

pub use catalogue::{Album, Artist, Catalogue};
pub use load::{Loaded, Step, load};
pub use ratings::{Rating, Ratings};

/// The music-albums service's own tables.
pub const SCHEMA: &str = include_str!("../schema.sql");

/// How much to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Albums; the first hundred are well-known ones.
    pub albums: u32,
    /// Ratings over all albums.
    pub ratings: u32,
    /// Which data: another seed, other data.
    pub seed: u64,
}

/// What can go wrong between the generator and the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of known albums in this crate is not what the generator expects.
    #[error("cannot read the list of known albums")]
    KnownAlbums(#[source] csv::Error),
    /// The ratings do not fit: a user rates an album once.
    #[error("{ratings} ratings need at least one album")]
    NothingToRate {
        /// Ratings asked for.
        ratings: u32,
    },
    /// A table has rows already, and replacing them was not asked for.
    #[error("table {table} is not empty; pass --replace to empty the catalogue first")]
    NotEmpty {
        /// The first such table.
        table: &'static str,
    },
    /// A row could not be written in COPY's form.
    #[error("cannot encode a row of {table}")]
    Encode {
        /// The table.
        table: &'static str,
        /// Why.
        #[source]
        source: csv::Error,
    },
    /// The database refused a statement.
    #[error("cannot {doing}")]
    Database {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
}

/// Creates the music-albums service's tables where they do not exist yet.
///
/// # Errors
/// [`Error::Database`].
pub async fn create_schema(pool: &PgPool) -> Result<(), Error> {
    sqlx::raw_sql(SCHEMA)
        .execute(pool)
        .await
        .map(|_| ())
        .map_err(|source| Error::Database {
            doing: "create the catalogue's tables".to_owned(),
            source,
        })
}
