//! The file in the making: rows in, blocks out, with its sum and counts.

use blob::{BlobWriter, Commit, Metadata};
use domain::{Parameters, Sha256};
use sha2::Digest as _;
use store::catalogue::AlbumPopularity;

use crate::csv_rows::CsvRows;
use crate::error::Error;
use crate::packing::Packing;

/// How many rows are rendered between two writes: some ten KiB of text.
pub(crate) const ROWS_PER_PIECE: u64 = 256;

/// Writes rows to a blob. Its own memory is a piece of text and what the packing holds; the rest is the blob
/// writer's blocks.
pub(crate) struct FileWriter {
    csv: CsvRows,
    packing: Packing,
    sum: sha2::Sha256,
    rows: u64,
    blob: BlobWriter,
}

/// A file of which every byte has arrived and none is visible.
pub(crate) struct UploadedFile {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: Sha256,
    blob: BlobWriter,
}

impl FileWriter {
    pub(crate) fn new(parameters: &Parameters, blob: BlobWriter) -> Result<Self, Error> {
        let csv =
            CsvRows::new(parameters.spreadsheet_safe).map_err(|source| Error::WriteRow { row: 0, source })?;
        Ok(Self {
            csv,
            packing: Packing::new(parameters.compression),
            sum: sha2::Sha256::new(),
            rows: 0,
            blob,
        })
    }

    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes after compression, as far as they have left it.
    pub(crate) const fn bytes(&self) -> u64 {
        self.blob.bytes_written()
    }

    pub(crate) async fn row(&mut self, album: &AlbumPopularity) -> Result<(), Error> {
        self.rows += 1;
        self.csv.row(album).map_err(|source| Error::WriteRow {
            row: self.rows,
            source,
        })?;
        if self.rows.is_multiple_of(ROWS_PER_PIECE) {
            self.pass_on().await?;
        }
        Ok(())
    }

    async fn pass_on(&mut self) -> Result<(), Error> {
        let failed = |row| move |source: csv::Error| Error::WriteRow { row, source };
        let piece = self.csv.take().map_err(failed(self.rows))?;
        let stored = self
            .packing
            .pack(piece)
            .map_err(|error| failed(self.rows)(error.into()))?;
        self.store(&stored).await
    }

    async fn store(&mut self, stored: &[u8]) -> Result<(), Error> {
        self.sum.update(stored);
        Ok(self.blob.write(stored).await?)
    }

    /// Ends the file and waits until all of it has arrived.
    pub(crate) async fn finish(mut self) -> Result<UploadedFile, Error> {
        self.pass_on().await?;
        let packing = std::mem::replace(&mut self.packing, Packing::Plain);
        let rest = packing.finish().map_err(|error| Error::WriteRow {
            row: self.rows,
            source: error.into(),
        })?;
        self.store(&rest).await?;
        self.blob.flush().await?;
        Ok(UploadedFile {
            rows: self.rows,
            bytes: self.blob.bytes_written(),
            sha256: Sha256::new(self.sum.finalize().into()),
            blob: self.blob,
        })
    }
}

impl UploadedFile {
    /// Makes it visible, unless another attempt was first.
    pub(crate) async fn commit(self, metadata: Metadata) -> Result<Commit, Error> {
        Ok(self.blob.commit(metadata).await?)
    }
}
