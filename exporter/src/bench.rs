//! The way of the rows without the storage, for `examples/rows_against_copy.rs`.

use domain::Parameters;
use futures::TryStreamExt as _;
use sqlx::PgPool;
use store::catalogue::Snapshot;

use crate::csv_rows::CsvRows;
use crate::file::ROWS_PER_PIECE;

/// Streams and renders a report and throws it away; the answer is its rows and its bytes.
///
/// # Errors
/// What the catalogue or the writer says.
pub async fn render(pool: &PgPool, parameters: &Parameters) -> anyhow::Result<(u64, u64)> {
    let mut csv = CsvRows::new(parameters.spreadsheet_safe)?;
    let mut snapshot = Snapshot::open(pool).await?;
    let mut albums = std::pin::pin!(snapshot.albums(parameters));
    let (mut rows, mut bytes) = (0_u64, 0);
    while let Some(album) = albums.try_next().await? {
        csv.row(&album)?;
        rows += 1;
        if rows.is_multiple_of(ROWS_PER_PIECE) {
            bytes += csv.take()?.len() as u64;
        }
    }
    bytes += csv.take()?.len() as u64;
    Ok((rows, bytes))
}
