//! The finished file: where it is and what it holds.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Compression, ReportId};

/// The schema of the file that this version writes. Another meaning would be another name.
pub const SCHEMA: &str = "popularity.v1";

/// The file of a completed report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// The blob container.
    pub container: String,
    /// The blob's name within the container.
    pub blob: BlobName,
    /// Size in bytes as stored, after compression.
    pub bytes: u64,
    /// Data rows, without the header.
    pub rows: u64,
    /// SHA-256 of the stored bytes.
    pub sha256: Sha256,
    /// The media type, as served.
    pub content_type: String,
    /// The schema of the file, see [`SCHEMA`].
    pub schema: String,
    /// The moment of the one snapshot that the file was read from.
    pub data_as_of: Timestamp,
}

/// A blob's name: derived from the report, so that every attempt writes the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobName(String);

impl BlobName {
    /// The name of this report's file: `<report id>.csv`, with `.gz` after it when compressed.
    pub fn of(report: ReportId, compression: Compression) -> Self {
        match compression {
            Compression::None => Self(format!("{report}.csv")),
            Compression::Gzip => Self(format!("{report}.csv.gz")),
        }
    }

    /// A name read back from where it was stored.
    pub fn stored(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA-256 sum, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Wraps the sum's bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The sum's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Sha256> for String {
    fn from(sum: Sha256) -> Self {
        sum.to_string()
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a SHA-256 sum has 64 lower-case hexadecimal digits")]
pub struct InvalidSha256;

impl FromStr for Sha256 {
    type Err = InvalidSha256;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidSha256);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidSha256)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidSha256)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = InvalidSha256;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_sum_reads_back_what_it_wrote() {
        let sum = Sha256::new(std::array::from_fn(|i| u8::try_from(i * 8).unwrap()));
        assert_eq!(sum.to_string().parse(), Ok(sum));
    }

    #[rstest]
    #[case::empty("")]
    #[case::short("00")]
    #[case::upper_case("AB00000000000000000000000000000000000000000000000000000000000000")]
    #[case::not_hexadecimal("zz00000000000000000000000000000000000000000000000000000000000000")]
    fn text_that_is_no_sum_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<Sha256>(), Err(InvalidSha256));
    }

    #[rstest]
    #[case(Compression::None, "0190b7c4-0000-7000-8000-000000000001.csv")]
    #[case(Compression::Gzip, "0190b7c4-0000-7000-8000-000000000001.csv.gz")]
    fn the_blob_is_named_after_the_report(#[case] compression: Compression, #[case] name: &str) {
        let id = "0190b7c4-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(BlobName::of(id, compression).as_str(), name);
    }
}
