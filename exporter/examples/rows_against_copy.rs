//! What rendering the rows here costs, against PostgreSQL's own `COPY … WITH (FORMAT csv)` of the same query:
//! the measurement behind docs/adr/0005. `cargo xtask bench` runs it on the sample catalogue.
//!
//! Both read one snapshot by one connection and throw the bytes away. COPY takes no bind parameters, so that
//! way reads them by `current_setting`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use domain::Parameters;
use futures::TryStreamExt as _;
use sqlx::PgPool;
use sqlx::postgres::PgPoolCopyExt as _;

const QUERY: &str = include_str!("../../crates/store/queries/albums.sql");
/// Rounds of each way, alternating, after one that is not counted.
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("CATALOG_DATABASE_URL").context("CATALOG_DATABASE_URL is not set")?;
    let pool = store::catalogue::connect(&url.into(), &store::pool::Login::Url, "bench")?;
    let parameters = Parameters::default();
    let copy = copy_of(&parameters);

    let (mut streamed, mut copied) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let began = Instant::now();
        let (rows, rendered) = exporter::bench::render(&pool, &parameters).await?;
        let stream_took = began.elapsed();
        let began = Instant::now();
        let (lines, sent) = drain(&pool, &copy).await?;
        let copy_took = began.elapsed();
        ensure!(lines > rows, "COPY has the header and at least as many lines");
        if round == 0 {
            println!("{rows} rows; {rendered} bytes rendered here, {sent} by COPY");
            continue;
        }
        streamed.push(stream_took);
        copied.push(copy_took);
    }

    let (streamed, copied) = (median(streamed), median(copied));
    println!("rows streamed and rendered here  {:>6} ms", streamed.as_millis());
    println!("COPY                             {:>6} ms", copied.as_millis());
    println!(
        "ratio                            {:>6.2}",
        streamed.as_secs_f64() / copied.as_secs_f64()
    );
    Ok(())
}

/// The query of the product with its parameters in the place of the placeholders. They are numbers and NULLs
/// of this file, not a user's text.
fn copy_of(parameters: &Parameters) -> String {
    let limit = parameters
        .limit
        .map_or_else(|| "NULL".to_owned(), |limit| limit.to_string());
    let query = QUERY
        .replace("$1", "NULL")
        .replace("$2", "NULL::timestamptz")
        .replace("$3", "NULL")
        .replace("$4", &parameters.min_ratings.to_string())
        .replace("$5", &limit)
        .replace("$6", &parameters.prior_weight.to_string());
    format!("COPY ({query}) TO STDOUT WITH (FORMAT csv, HEADER)")
}

/// Runs it; the answer is how many lines and how many bytes came.
async fn drain(pool: &PgPool, copy: &str) -> anyhow::Result<(u64, u64)> {
    let mut pieces = pool.copy_out_raw(copy).await?;
    let (mut lines, mut bytes) = (0, 0);
    while let Some(piece) = pieces.try_next().await? {
        bytes += piece.len() as u64;
        lines += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    Ok((lines, bytes))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
