//! Writing a blob of unknown size with bounded memory: blocks are staged in parallel while more is
//! written, and one conditional commit makes them visible, all or nothing.

use std::num::NonZeroUsize;

use azure_storage_blob::models::{
    BlockBlobClientCommitBlockListOptions, BlockBlobClientStageBlockOptions, BlockLookupList,
};
use bytes::{Bytes, BytesMut};
use crc::{CRC_64_NVME, Crc, Table};
use tokio::task::JoinSet;

use crate::blocks::{BLOCKS_MAX, BlockPlan, GROWTH_EVERY, block_id};
use crate::error::{Error, ServiceFailure};
use crate::facts::BlobFacts;
use crate::metadata::Metadata;
use crate::store::BlobStore;

/// The sum that the service checks each block by.
static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_NVME);

/// How a blob is written and served.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// The attempt, unique among all that write this name: it keeps their blocks apart.
    pub attempt: u32,
    /// The media type.
    pub content_type: String,
    /// The encoding of what is written, such as `gzip`; nothing is encoded here.
    pub content_encoding: Option<String>,
    /// What a browser should do with it.
    pub content_disposition: Option<String>,
    /// The size of the first blocks, in bytes; 8 MiB by default. Later ones grow, see [`GROWTH_EVERY`].
    pub block_bytes: NonZeroUsize,
    /// How many blocks may be on their way besides the one that is being filled; 4 by default.
    pub parallel: NonZeroUsize,
    /// The most blocks; [`BLOCKS_MAX`] by default.
    pub blocks_max: u32,
}

impl WriterOptions {
    /// The options with nothing but what cannot be guessed.
    pub fn new(attempt: u32, content_type: impl Into<String>) -> Self {
        const EIGHT_MIB: NonZeroUsize = NonZeroUsize::MIN.saturating_add(8 * 1024 * 1024 - 1);
        const FOUR: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
        Self {
            attempt,
            content_type: content_type.into(),
            content_encoding: None,
            content_disposition: None,
            block_bytes: EIGHT_MIB,
            parallel: FOUR,
            blocks_max: BLOCKS_MAX,
        }
    }
}

/// What a commit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The blob is ours, as the service tells it.
    Created(BlobFacts),
    /// Another attempt was first; its blob is untouched, and ours is nowhere.
    Exists(BlobFacts),
}

/// A blob in the making. Dropping it leaves nothing visible.
pub struct BlobWriter {
    store: BlobStore,
    name: String,
    options: WriterOptions,
    plan: BlockPlan,
    block: BytesMut,
    next_index: u32,
    bytes: u64,
    staging: JoinSet<Result<(), Error>>,
}

impl BlobWriter {
    pub(crate) fn new(store: BlobStore, name: String, options: WriterOptions) -> Self {
        let plan = BlockPlan {
            first_bytes: options.block_bytes,
            parallel: options.parallel,
            growth_every: GROWTH_EVERY,
            blocks_max: options.blocks_max.min(BLOCKS_MAX),
        };
        Self {
            store,
            name,
            options,
            plan,
            block: BytesMut::new(),
            next_index: 0,
            bytes: 0,
            staging: JoinSet::new(),
        }
    }

    /// How much has been written so far.
    pub const fn bytes_written(&self) -> u64 {
        self.bytes
    }

    /// Takes more of the content. Waits while as many blocks as may be are on their way.
    ///
    /// # Errors
    /// [`Error::StageBlock`] of this block or an earlier one; [`Error::TooLarge`]. After an error the
    /// writer is good for nothing but dropping.
    ///
    /// # Cancel safety
    /// None: part of `data` may have been taken.
    pub async fn write(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let Some(size) = self.plan.bytes_of(self.next_index) else {
                return Err(Error::TooLarge {
                    blob: self.name.clone(),
                    limit_bytes: self.plan.capacity(),
                });
            };
            if self.block.is_empty() {
                // memory is taken as it is filled, so a small blob stays small
                self.block = BytesMut::with_capacity(size);
            }
            let part = data.len().min(size - self.block.len());
            self.block.extend_from_slice(&data[..part]);
            self.bytes += part as u64;
            data = &data[part..];
            if self.block.len() == size {
                self.stage().await?;
            }
        }
        Ok(())
    }

    /// Sends the block that has been filled on its way.
    async fn stage(&mut self) -> Result<(), Error> {
        while self.staging.len() >= self.plan.parallel_at(self.next_index) {
            self.join_one().await?;
        }
        // what has ended already shows its error early
        while let Some(ended) = self.staging.try_join_next() {
            self.ended(ended)?;
        }
        let block = std::mem::take(&mut self.block).freeze();
        let index = self.next_index;
        self.next_index += 1;
        let (store, name, attempt) = (self.store.clone(), self.name.clone(), self.options.attempt);
        self.staging.spawn(async move {
            stage_block(&store, &name, attempt, index, block)
                .await
                .map_err(|source| Error::StageBlock {
                    blob: name,
                    index,
                    source,
                })
        });
        Ok(())
    }

    /// Sends what has been written so far, as a block of its own where it fills none, and waits until all
    /// of it has arrived. Still nothing is visible.
    ///
    /// # Errors
    /// [`Error::StageBlock`], [`Error::BrokenOff`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        if !self.block.is_empty() {
            self.stage().await?;
        }
        while !self.staging.is_empty() {
            self.join_one().await?;
        }
        Ok(())
    }

    async fn join_one(&mut self) -> Result<(), Error> {
        match self.staging.join_next().await {
            None => Ok(()),
            Some(ended) => self.ended(ended),
        }
    }

    fn ended(&self, ended: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<(), Error> {
        ended.map_err(|_| Error::BrokenOff {
            blob: self.name.clone(),
        })?
    }

    /// Makes the blob visible, on the condition that none of its name is there, and returns its facts.
    ///
    /// The service's answer is not taken at its word where it can mislead: when the answer to our own
    /// commit is lost the SDK commits again and is told that the blob exists, or that the blocks are gone.
    /// So after a refusal the blob is looked at: if it has our metadata and size it is ours. `metadata` must
    /// therefore tell attempts apart.
    ///
    /// # Errors
    /// [`Error::StageBlock`], [`Error::Commit`], [`Error::Facts`]. The blob may then be committed or not.
    pub async fn commit(mut self, metadata: Metadata) -> Result<Commit, Error> {
        self.flush().await?;
        let committed = self.commit_blocks(&metadata).await;
        let refused = match committed {
            Ok(()) => None,
            Err(failure) if may_hide_a_commit(&failure) => Some(failure),
            Err(source) => {
                return Err(Error::Commit {
                    blob: self.name,
                    source,
                });
            }
        };
        let facts = self.store.facts(&self.name).await?;
        match (facts, refused) {
            (Some(facts), _) if facts.metadata == metadata && facts.bytes == self.bytes => {
                Ok(Commit::Created(facts))
            }
            (Some(facts), _) => Ok(Commit::Exists(facts)),
            (None, Some(source)) => Err(Error::Commit {
                blob: self.name,
                source,
            }),
            // deleted in the moment since
            (None, None) => Err(Error::BrokenOff { blob: self.name }),
        }
    }

    /// The only place that commits, so that no commit is without its condition: an unconditional one of a
    /// slow attempt would replace a finished file.
    async fn commit_blocks(&self, metadata: &Metadata) -> Result<(), ServiceFailure> {
        let ids = (0..self.next_index)
            .map(|index| block_id(self.options.attempt, index))
            .collect();
        let blocks = BlockLookupList {
            uncommitted: Some(ids),
            ..BlockLookupList::default()
        };
        let options = BlockBlobClientCommitBlockListOptions {
            if_none_match: Some("*".into()),
            metadata: Some(metadata.to_send()),
            blob_content_type: Some(self.options.content_type.clone()),
            blob_content_encoding: self.options.content_encoding.clone(),
            blob_content_disposition: self.options.content_disposition.clone(),
            ..BlockBlobClientCommitBlockListOptions::default()
        };
        let client = self.store.block_blob(&self.name);
        let blocks = blocks.try_into()?;
        self.store
            .within(async { client.commit_block_list(blocks, Some(options)).await.map(drop) })
            .await
    }
}

/// Answers after which our own commit, or another attempt's, may stand.
fn may_hide_a_commit(failure: &ServiceFailure) -> bool {
    match failure.code() {
        Some("BlobAlreadyExists" | "InvalidBlockList" | "ConditionNotMet") => true,
        // never a bare 409: too many blocks is one as well
        _ => failure.status().is_none_or(|status| status >= 500),
    }
}

async fn stage_block(
    store: &BlobStore,
    name: &str,
    attempt: u32,
    index: u32,
    block: Bytes,
) -> Result<(), ServiceFailure> {
    let client = store.block_blob(name);
    let length = block.len() as u64;
    let options = BlockBlobClientStageBlockOptions {
        transactional_content_crc64: Some(CRC64.checksum(&block).to_le_bytes().to_vec()),
        ..BlockBlobClientStageBlockOptions::default()
    };
    store
        .within(async {
            client
                .stage_block(&block_id(attempt, index), length, block.into(), Some(options))
                .await
                .map(drop)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the catalogue of CRCs.
    #[test]
    fn the_sum_is_crc_64_nvme() {
        assert_eq!(CRC64.checksum(b"123456789"), 0xae8b_1486_0a79_9888);
    }
}
