//! How a blob of unknown size is cut into blocks: small ones first, for little memory; then growing ones,
//! so that the number of blocks is not what ends it.

use std::num::NonZeroUsize;

/// The most committed blocks of one blob.
/// <https://learn.microsoft.com/azure/storage/blobs/scalability-targets>
pub const BLOCKS_MAX: u32 = 50_000;
/// After so many blocks the next ones are twice as large. With 8 MiB to begin with, that is at 78 GiB, and
/// the last of the 50,000 ends at 2.4 TiB.
pub const GROWTH_EVERY: u32 = 10_000;

/// The sizes of a blob's blocks, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPlan {
    pub(crate) first_bytes: NonZeroUsize,
    pub(crate) parallel: NonZeroUsize,
    pub(crate) growth_every: u32,
    pub(crate) blocks_max: u32,
}

impl BlockPlan {
    fn doublings(&self, index: u32) -> u32 {
        index / self.growth_every.max(1)
    }

    /// How large the block of this place may be; none after the last.
    pub(crate) fn bytes_of(&self, index: u32) -> Option<usize> {
        let factor = 1usize.checked_shl(self.doublings(index))?;
        (index < self.blocks_max).then(|| self.first_bytes.get().saturating_mul(factor))
    }

    /// How many blocks may be on their way besides this one: fewer as they grow, so that memory stays
    /// what it was for as long as it can.
    pub(crate) fn parallel_at(&self, index: u32) -> usize {
        let share = self
            .parallel
            .get()
            .checked_shr(self.doublings(index))
            .unwrap_or_default();
        share.max(1)
    }

    /// The most that all blocks hold together.
    pub(crate) fn capacity(&self) -> u64 {
        (0..self.blocks_max)
            .filter_map(|index| self.bytes_of(index))
            .fold(0, |sum: u64, bytes| {
                sum.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX))
            })
    }
}

/// A block's id: unique to the attempt, and of one length for all attempts, as the service demands of all
/// blocks of a blob. <https://learn.microsoft.com/rest/api/storageservices/put-block#uri-parameters>
pub(crate) fn block_id(attempt: u32, index: u32) -> Vec<u8> {
    format!("a{attempt:08x}-{index:08x}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn plan() -> BlockPlan {
        BlockPlan {
            first_bytes: NonZeroUsize::new(8 * MIB).unwrap(),
            parallel: NonZeroUsize::new(4).unwrap(),
            growth_every: GROWTH_EVERY,
            blocks_max: BLOCKS_MAX,
        }
    }

    #[test]
    fn blocks_double_and_end_at_the_services_limit() {
        let sizes = [0, 9_999, 10_000, 49_999, 50_000].map(|index| plan().bytes_of(index));
        assert_eq!(
            sizes,
            [
                Some(8 * MIB),
                Some(8 * MIB),
                Some(16 * MIB),
                Some(128 * MIB),
                None
            ]
        );
        assert_eq!(plan().capacity(), 10_000 * (8 + 16 + 32 + 64 + 128) * (1 << 20));
    }

    #[test]
    fn fewer_blocks_are_on_their_way_as_they_grow() {
        let parallel = [0, 10_000, 20_000, 30_000, 49_999].map(|index| plan().parallel_at(index));
        assert_eq!(parallel, [4, 2, 1, 1, 1]);
    }

    #[test]
    fn ids_of_all_attempts_have_one_length_and_none_is_shared() {
        let ids = [(1, 0), (1, 1), (2, 0), (2, 1), (u32::MAX, BLOCKS_MAX)].map(|(a, i)| block_id(a, i));
        assert!(ids.iter().all(|id| id.len() == ids[0].len() && id.len() <= 64));
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
