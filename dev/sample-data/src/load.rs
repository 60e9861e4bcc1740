//! Loads a plan's data by COPY, in one transaction: all of it or nothing.

use std::fmt;
use std::time::{Duration, Instant};

use sqlx::{PgConnection, PgPool};

use crate::{Catalogue, Error, Plan, Ratings};

/// How much is handed to the database at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The tables that the data goes into, in the order of their foreign keys.
const TABLES: [&str; 6] = [
    "music_albums",
    "genres",
    "artists",
    "music_album_genres",
    "album_artists",
    "ratings",
];

/// A table that is loaded, or a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The table.
    pub table: &'static str,
    /// Its rows so far.
    pub rows: u64,
    /// Whether these are all.
    pub done: bool,
    /// How long the table has taken so far.
    pub took: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, rows, .. } = self;
        let seconds = self.took.as_secs_f64();
        let dots = if self.done { "" } else { " …" };
        write!(f, "{table}: {rows} rows, {seconds:.1} s{dots}")
    }
}

/// What was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Rows of `music_albums`.
    pub albums: u64,
    /// Rows of `ratings`.
    pub ratings: u64,
}

/// Creates the tables where they are missing, and fills them. With `replace`, what is in them goes first.
///
/// # Errors
/// [`Error::NotEmpty`] when there are rows already and `replace` is false; then nothing has changed.
pub async fn load(
    pool: &PgPool,
    plan: &Plan,
    replace: bool,
    mut progress: impl FnMut(Step),
) -> Result<Loaded, Error> {
    let catalogue = Catalogue::generate(plan)?;
    let ratings = Ratings::new(plan, &catalogue.albums)?;

    crate::create_schema(pool).await?;
    let mut transaction = pool.begin().await.map_err(database("begin a transaction"))?;
    if replace {
        empty(&mut transaction).await?;
    } else {
        refuse_rows(&mut transaction).await?;
    }

    let albums = catalogue.albums.iter().map(|album| {
        [
            album.id.to_string(),
            album.slug.clone(),
            album.title.clone(),
            album.year.to_string(),
            or_null(album.created_at),
            or_null(album.updated_at),
        ]
    });
    let columns = "music_albums (id, slug, title, year_of_release, created_at, updated_at)";
    let albums = copy(&mut transaction, columns, albums, &mut progress).await?;

    let genres = (1..).zip(&catalogue.genres);
    let genres = genres.map(|(id, name): (i32, _)| [id.to_string(), name.clone()]);
    copy(&mut transaction, "genres (id, name)", genres, &mut progress).await?;
    // The ids were given by hand; the service's next genre must not meet them.
    sqlx::raw_sql("SELECT setval(pg_get_serial_sequence('genres', 'id'), (SELECT max(id) FROM genres))")
        .execute(&mut *transaction)
        .await
        .map_err(database("move the sequence of genres"))?;

    let artists = catalogue.artists.iter();
    let artists = artists.map(|artist| [artist.id.to_string(), artist.name.clone(), artist.slug.clone()]);
    copy(
        &mut transaction,
        "artists (id, name, slug)",
        artists,
        &mut progress,
    )
    .await?;

    let genres_of_albums = catalogue.albums.iter().flat_map(|album| {
        let genres = album.genres.iter();
        genres.map(|genre| [album.id.to_string(), (genre + 1).to_string()])
    });
    let columns = "music_album_genres (music_album_id, genre_id)";
    copy(&mut transaction, columns, genres_of_albums, &mut progress).await?;

    let artists_of_albums = catalogue.albums.iter().flat_map(|album| {
        let artists = album.artists.iter().enumerate();
        artists.map(|(place, (artist, order))| {
            [
                album.id.to_string(),
                catalogue.artists[*artist].id.to_string(),
                order.to_string(),
                if place == 0 { "primary" } else { "featured" }.to_owned(),
            ]
        })
    });
    let columns = "album_artists (album_id, artist_id, artist_order, role)";
    copy(&mut transaction, columns, artists_of_albums, &mut progress).await?;

    let ratings = ratings.map(|rating| {
        [
            rating.user_id.to_string(),
            rating.album_id.to_string(),
            rating.rating.to_string(),
            or_null(rating.created_at),
            or_null(rating.updated_at),
        ]
    });
    let columns = "ratings (user_id, music_album_id, rating, created_at, updated_at)";
    let ratings = copy(&mut transaction, columns, ratings, &mut progress).await?;

    transaction.commit().await.map_err(database("commit"))?;
    // Plans made before the statistics would be those of empty tables.
    for table in TABLES {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("ANALYZE {table}")))
            .execute(pool)
            .await
            .map_err(database("gather statistics"))?;
    }
    Ok(Loaded { albums, ratings })
}

async fn empty(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::raw_sql("TRUNCATE music_albums, genres, artists RESTART IDENTITY CASCADE")
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(database("empty the catalogue"))
}

async fn refuse_rows(connection: &mut PgConnection) -> Result<(), Error> {
    for table in TABLES {
        let has_rows: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT EXISTS (SELECT FROM {table})"
        )))
        .fetch_one(&mut *connection)
        .await
        .map_err(database("look whether the catalogue is empty"))?;
        if has_rows {
            return Err(Error::NotEmpty { table });
        }
    }
    Ok(())
}

/// Streams rows into `target`, a table with its columns. An empty cell is NULL.
async fn copy<const COLUMNS: usize>(
    connection: &mut PgConnection,
    target: &'static str,
    rows: impl Iterator<Item = [String; COLUMNS]>,
    progress: &mut impl FnMut(Step),
) -> Result<u64, Error> {
    let table = target.split_once(' ').map_or(target, |(table, _)| table);
    let failed = || database(format!("load {table}"));
    let started = Instant::now();
    let mut step = Step {
        table,
        rows: 0,
        done: false,
        took: Duration::ZERO,
    };
    let mut reported = started;

    let statement = format!("COPY {target} FROM STDIN (FORMAT csv)");
    let mut sink = connection.copy_in_raw(&statement).await.map_err(failed())?;
    let mut chunk = csv::Writer::from_writer(Vec::with_capacity(CHUNK_BYTES + 4096));
    for row in rows {
        let encoded = chunk.write_record(&row);
        encoded.map_err(|source| Error::Encode { table, source })?;
        step.rows += 1;
        if chunk.get_ref().len() >= CHUNK_BYTES {
            sink.send(take(&mut chunk, table)?).await.map_err(failed())?;
            if reported.elapsed() > Duration::from_secs(2) {
                reported = Instant::now();
                step.took = started.elapsed();
                progress(step);
            }
        }
    }
    sink.send(take(&mut chunk, table)?).await.map_err(failed())?;
    step.rows = sink.finish().await.map_err(failed())?;
    step.done = true;
    step.took = started.elapsed();
    progress(step);
    Ok(step.rows)
}

fn take(chunk: &mut csv::Writer<Vec<u8>>, table: &'static str) -> Result<Vec<u8>, Error> {
    let full = std::mem::replace(
        chunk,
        csv::Writer::from_writer(Vec::with_capacity(CHUNK_BYTES + 4096)),
    );
    full.into_inner().map_err(|error| Error::Encode {
        table,
        source: error.into_error().into(),
    })
}

fn or_null(value: Option<impl fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn database(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Error {
    let doing = doing.into();
    |source| Error::Database { doing, source }
}
