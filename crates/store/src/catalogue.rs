//! The music-albums service's tables, read only: the rows of a popularity report, schema `popularity.v1`.

use std::fmt;

use domain::{Instant, Parameters};
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use secrecy::SecretString;
use sqlx::{ConnectOptions as _, PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::pool::{self, InvalidUrl, Login};

/// Which read of the catalogue failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`Snapshot::open`].
    #[error("failed to open a snapshot of the catalogue")]
    Open(#[source] sqlx::Error),
    /// See [`Snapshot::albums`].
    #[error("failed to read the albums' popularity")]
    Albums(#[source] sqlx::Error),
}

/// What a failure of the catalogue means for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The database is away or the statement was cut short: another attempt can succeed.
    Unavailable,
    /// A table, column or permission is missing: only a person can help.
    Rejected,
    /// The data is such that the report cannot express it: only a person can help.
    InvalidData,
}

impl Error {
    /// What the failure means for the report.
    pub fn kind(&self) -> ErrorKind {
        let (Self::Open(source) | Self::Albums(source)) = self;
        match source {
            sqlx::Error::Database(error) => match error.code().as_deref() {
                // https://www.postgresql.org/docs/current/errcodes-appendix.html
                Some(code) if code.starts_with("22") => ErrorKind::InvalidData,
                // passwords and tokens are replaced while processes run
                Some("28P01") => ErrorKind::Unavailable,
                // 28: no such login; 3D: no such database; 42: no such table or column, or no permission for it
                Some(code) if ["28", "3D", "42"].iter().any(|class| code.starts_with(class)) => {
                    ErrorKind::Rejected
                }
                _ => ErrorKind::Unavailable,
            },
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::InvalidData,
            sqlx::Error::Configuration(_) => ErrorKind::Rejected,
            _ => ErrorKind::Unavailable,
        }
    }
}

/// A pool of the one connection that a [`Snapshot`] takes, see [`pool::connect`]. Its statements are not logged
/// as slow ones: to read a whole catalogue takes long by its nature.
///
/// # Errors
/// [`InvalidUrl`].
pub fn connect(url: &SecretString, login: &Login, application: &str) -> Result<PgPool, InvalidUrl> {
    let options = pool::options(url, login)?
        .application_name(application)
        .disable_statement_logging();
    Ok(pool::connect_with(options, login, 1))
}

/// One snapshot of the catalogue: everything read through it is of one moment.
#[derive(Debug)]
pub struct Snapshot {
    transaction: Transaction<'static, Postgres>,
    data_as_of: Timestamp,
}

impl Snapshot {
    /// Opens the snapshot: a `REPEATABLE READ READ ONLY` transaction, which a read replica can serve too.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub async fn open(pool: &PgPool) -> Result<Self, Error> {
        // Of a replica the moment up to which it has replayed, by the primary's clock; asked before the snapshot
        // is taken, which can then only be newer. When nothing has been replayed since its start, or nothing for
        // long, the last checkpoint says as much.
        let replayed_until = sqlx::query_scalar!(
            "SELECT CASE WHEN pg_is_in_recovery() THEN greatest(
                pg_last_xact_replay_timestamp(),
                (SELECT checkpoint_time FROM pg_control_checkpoint())
            ) END AS replayed_until"
        )
        .fetch_one(pool)
        .await
        .map_err(Error::Open)?;
        let mut transaction = pool
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(Error::Open)?;
        // the first statement is what takes the snapshot
        let now = sqlx::query_scalar!(r#"SELECT transaction_timestamp() AS "now!""#)
            .fetch_one(&mut *transaction)
            .await
            .map_err(Error::Open)?;
        Ok(Self {
            transaction,
            data_as_of: replayed_until.unwrap_or(now).to_jiff(),
        })
    }

    /// The moment of the snapshot, by the database's clock. Of a replica: one up to which it is complete.
    pub const fn data_as_of(&self) -> Timestamp {
        self.data_as_of
    }

    /// The report's rows in their order. They come as the reader takes them, so memory here is bounded
    /// whatever their number; the sorting is PostgreSQL's and spills to its disk. After an error the stream
    /// ends.
    ///
    /// # Errors
    /// [`Error::Albums`], as an item.
    pub fn albums<'a>(
        &'a mut self,
        parameters: &Parameters,
    ) -> impl Stream<Item = Result<AlbumPopularity, Error>> + Send + use<'a> {
        let bound = |end: Option<Instant>| end.map(|end| end.timestamp().to_sqlx());
        sqlx::query_file_as!(
            AlbumRow,
            "queries/albums.sql",
            bound(parameters.from) as _,
            bound(parameters.to) as _,
            parameters.genre.clone(),
            i64::from(parameters.min_ratings),
            parameters.limit.map(i64::from),
            i64::from(parameters.prior_weight),
        )
        .fetch(&mut *self.transaction)
        .map(|row| row.map(AlbumPopularity::from).map_err(Error::Albums))
    }
}

/// One row of a popularity report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlbumPopularity {
    /// The place in the order, from 1; no two rows share one.
    pub rank: i64,
    /// The album.
    pub album_id: Uuid,
    /// Its slug, unique.
    pub slug: String,
    /// Its title.
    pub title: String,
    /// The year of its release.
    pub year_of_release: i32,
    /// Its artists' names, joined by `; `; empty if it has none.
    pub artists: String,
    /// Its genres' names, joined by `; `; empty if it has none.
    pub genres: String,
    /// How many ratings it has in the window.
    pub rating_count: i64,
    /// Their mean; none without a rating.
    pub average_rating: Option<TenThousandths>,
    /// Its Bayesian mean.
    pub popularity_score: TenThousandths,
    /// How many ratings of 1, 2, 3, 4 and 5 it has in the window.
    pub histogram: [i64; 5],
    /// When the first of them was given, if any is known.
    pub first_rated_at: Option<Timestamp>,
    /// When one of them was last given or changed, if that is known.
    pub last_rated_at: Option<Timestamp>,
}

/// A number with exactly four decimals, held as a whole number of ten-thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct TenThousandths(i64);

impl TenThousandths {
    /// So many ten-thousandths.
    pub const fn new(ten_thousandths: i64) -> Self {
        Self(ten_thousandths)
    }

    /// The ten-thousandths.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for TenThousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:04}", magnitude / 10_000, magnitude % 10_000)
    }
}

/// The row as the query gives it.
struct AlbumRow {
    rank: i64,
    album_id: Uuid,
    slug: String,
    title: String,
    year_of_release: i32,
    artists: String,
    genres: String,
    rating_count: i64,
    average_rating: Option<TenThousandths>,
    popularity_score: TenThousandths,
    ratings_1: i64,
    ratings_2: i64,
    ratings_3: i64,
    ratings_4: i64,
    ratings_5: i64,
    first_rated_at: Option<jiff_sqlx::Timestamp>,
    last_rated_at: Option<jiff_sqlx::Timestamp>,
}

impl From<AlbumRow> for AlbumPopularity {
    fn from(row: AlbumRow) -> Self {
        Self {
            rank: row.rank,
            album_id: row.album_id,
            slug: row.slug,
            title: row.title,
            year_of_release: row.year_of_release,
            artists: row.artists,
            genres: row.genres,
            rating_count: row.rating_count,
            average_rating: row.average_rating,
            popularity_score: row.popularity_score,
            histogram: [
                row.ratings_1,
                row.ratings_2,
                row.ratings_3,
                row.ratings_4,
                row.ratings_5,
            ],
            first_rated_at: row.first_rated_at.map(jiff_sqlx::Timestamp::to_jiff),
            last_rated_at: row.last_rated_at.map(jiff_sqlx::Timestamp::to_jiff),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::TenThousandths;

    #[rstest]
    #[case(0, "0.0000")]
    #[case(30_000, "3.0000")]
    #[case(45_678, "4.5678")]
    #[case(10_001, "1.0001")]
    #[case(-5, "-0.0005")]
    fn ten_thousandths_are_written_with_four_decimals(#[case] value: i64, #[case] text: &str) {
        assert_eq!(TenThousandths::new(value).to_string(), text);
    }
}
