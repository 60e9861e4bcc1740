//! Fills a database with a music catalogue and its ratings.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use sample_data::Plan;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgPoolOptions;

/// Fills the music-albums service's tables with a hundred well-known albums, invented ones, and ratings.
/// The same numbers and seed give the same data.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// How many albums; the first hundred are well-known ones.
    #[arg(long, default_value_t = 20_000)]
    albums: u32,
    /// How many ratings over all albums.
    #[arg(long, default_value_t = 500_000)]
    ratings: u32,
    /// Which data: another seed gives other data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The database, by a role that owns or may create the tables: `postgres://user:password@host:port/name`.
    #[arg(long, env = "ADMIN_DATABASE_URL", hide_env_values = true)]
    database_url: SecretString,
    /// Empties the catalogue first. Without it, tables that hold rows are left as they are.
    #[arg(long)]
    replace: bool,
    /// That the tables hold rows already is no failure.
    #[arg(long, conflicts_with = "replace")]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match fill(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn fill(options: Options) -> anyhow::Result<()> {
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("another TLS provider is installed already");
    }
    let started = Instant::now();
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect(options.database_url.expose_secret())
        .await
        .context("cannot connect to the database of --database-url")?;
    let plan = Plan {
        albums: options.albums,
        ratings: options.ratings,
        seed: options.seed,
    };
    let loaded = match sample_data::load(&pool, &plan, options.replace, |step| println!("{step}")).await {
        Err(sample_data::Error::NotEmpty { table }) if options.keep => {
            println!("kept the catalogue as it is: {table} holds rows already");
            return Ok(());
        }
        loaded => loaded?,
    };
    println!(
        "loaded {} albums and {} ratings in {:.1} s (seed {})",
        loaded.albums,
        loaded.ratings,
        started.elapsed().as_secs_f64(),
        plan.seed
    );
    Ok(())
}
