//! What is stored with the file: enough to take it over, and to know what it is without the database. It is
//! sent to everyone who downloads, so nothing secret is in it.

use std::io;

use blob::Metadata;
use domain::{AttemptNumber, Parameters, ReportId, Sha256};
use jiff::Timestamp;
use serde::Serialize as _;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::error::Error;

/// The facts of a file, as blob metadata has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileMetadata {
    pub(crate) report_id: ReportId,
    pub(crate) attempt: AttemptNumber,
    pub(crate) schema: String,
    pub(crate) parameters: Parameters,
    pub(crate) data_as_of: Timestamp,
    pub(crate) rows: u64,
    pub(crate) sha256: Sha256,
}

const REPORT_ID: &str = "reportid";
const ATTEMPT: &str = "attempt";
const SCHEMA: &str = "schema";
const PARAMETERS: &str = "parameters";
const DATA_AS_OF: &str = "data_as_of";
const ROWS: &str = "rows";
const SHA256: &str = "sha256";

impl FileMetadata {
    pub(crate) fn to_blob(&self) -> Result<Metadata, Error> {
        let mut metadata = Metadata::default();
        for (name, value) in [
            (REPORT_ID, self.report_id.to_string()),
            (ATTEMPT, self.attempt.to_string()),
            (SCHEMA, self.schema.clone()),
            (
                PARAMETERS,
                ascii_json(&self.parameters).map_err(Error::WriteParameters)?,
            ),
            (DATA_AS_OF, self.data_as_of.to_string()),
            (ROWS, self.rows.to_string()),
            (SHA256, self.sha256.to_string()),
        ] {
            metadata.insert(name, value)?;
        }
        Ok(metadata)
    }

    /// None when it is not what an exporter writes.
    pub(crate) fn from_blob(metadata: &Metadata) -> Option<Self> {
        let parameters = serde_json::from_str(metadata.get(PARAMETERS)?).ok()?;
        Some(Self {
            report_id: metadata.get(REPORT_ID)?.parse().ok()?,
            attempt: AttemptNumber::new(metadata.get(ATTEMPT)?.parse().ok()?),
            schema: metadata.get(SCHEMA)?.to_owned(),
            parameters: Parameters::from_json(&parameters).ok()?,
            data_as_of: metadata.get(DATA_AS_OF)?.parse().ok()?,
            rows: metadata.get(ROWS)?.parse().ok()?,
            sha256: metadata.get(SHA256)?.parse().ok()?,
        })
    }
}

/// JSON of nothing but ASCII and with no two spaces together, since a header carries it.
fn ascii_json(parameters: &Parameters) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    parameters.serialize(&mut Serializer::with_formatter(&mut text, Ascii))?;
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut after_space = false;
        for character in fragment.chars() {
            let plain = character.is_ascii_graphic() || (character == ' ' && !after_space);
            after_space = character == ' ';
            if plain {
                let mut buffer = [0; 4];
                CompactFormatter.write_string_fragment(writer, character.encode_utf8(&mut buffer))?;
            } else {
                // RFC 8259, section 7: beyond the basic plane by a surrogate pair
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn facts(genre: &str) -> FileMetadata {
        FileMetadata {
            report_id: "0190b7c4-0000-7000-8000-000000000001".parse().unwrap(),
            attempt: AttemptNumber::new(2),
            schema: domain::SCHEMA.into(),
            parameters: Parameters::from_json(&json!({ "genre": genre, "limit": 10 })).unwrap(),
            data_as_of: "2026-11-24T09:55:38.123456Z".parse().unwrap(),
            rows: 7,
            sha256: Sha256::new([0xab; 32]),
        }
    }

    #[test]
    fn the_facts_of_a_file_as_they_are_stored() {
        let metadata = facts("Bossa  nova 🎷 é").to_blob().unwrap();
        let text = metadata
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect::<String>();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn metadata_that_no_exporter_wrote_is_none() {
        assert_eq!(FileMetadata::from_blob(&Metadata::default()), None);
        let mut metadata = facts("Jazz").to_blob().unwrap();
        metadata.insert("rows", "many").unwrap();
        assert_eq!(FileMetadata::from_blob(&metadata), None);
    }

    proptest! {
        #[test]
        fn whatever_the_genre_the_facts_read_back(genre in "\\PC{1,200}") {
            let facts = facts(&genre);
            let metadata = facts.to_blob().unwrap();
            prop_assert_eq!(FileMetadata::from_blob(&metadata), Some(facts));
        }
    }
}
