//! Name and value pairs that are stored with a blob and sent to everyone who downloads it.

use std::collections::{BTreeMap, HashMap};

/// All names and values together, in bytes.
/// <https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources>
const BYTES_MAX: usize = 8 * 1024;

/// A blob's metadata in the form that comes back as it was sent: the service returns names in lower case,
/// and a value beyond ASCII breaks the signature. Nothing secret may be in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(BTreeMap<String, String>);

/// What cannot be metadata.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    /// The name is none.
    #[error("'{0}' cannot be a metadata name: lower-case letters, digits and '_', not a digit first")]
    Name(String),
    /// The value would not come back as it was sent.
    #[error("the value of '{0}' cannot be metadata: printable ASCII, no space at an end or beside another")]
    Value(String),
    /// It is too much.
    #[error("metadata may have {BYTES_MAX} bytes at most")]
    TooLarge,
}

impl Metadata {
    /// Adds a pair; a name that is there already gets the new value.
    ///
    /// # Errors
    /// When the pair would not come back as it was sent, or it is too much.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), InvalidMetadata> {
        let (name, value) = (name.into(), value.into());
        let first = name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !first || !name.bytes().all(word) {
            return Err(InvalidMetadata::Name(name));
        }
        let printable = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !printable || value.trim() != value || value.contains("  ") {
            return Err(InvalidMetadata::Value(name));
        }
        self.0.insert(name, value);
        let bytes: usize = self.0.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > BYTES_MAX {
            Err(InvalidMetadata::TooLarge)
        } else {
            Ok(())
        }
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All pairs, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn received(pairs: HashMap<String, String>) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
        )
    }

    pub(crate) fn to_send(&self) -> HashMap<String, String> {
        self.0.clone().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::upper_case("reportId")]
    #[case::hyphen("report-id")]
    #[case::digit_first("1st")]
    #[case::empty("")]
    fn a_name_that_would_come_back_differently_is_refused(#[case] name: &str) {
        assert_eq!(
            Metadata::default().insert(name, "x"),
            Err(InvalidMetadata::Name(name.into()))
        );
    }

    #[rstest]
    #[case::beyond_ascii("Björk")]
    #[case::line_feed("a\nb")]
    #[case::space_at_an_end("a ")]
    #[case::two_spaces("a  b")]
    fn a_value_that_would_come_back_differently_is_refused(#[case] value: &str) {
        assert_eq!(
            Metadata::default().insert("a", value),
            Err(InvalidMetadata::Value("a".into()))
        );
    }

    #[test]
    fn more_than_the_service_takes_is_refused() {
        let mut metadata = Metadata::default();
        metadata.insert("a", "x".repeat(BYTES_MAX - 1)).unwrap();
        assert_eq!(metadata.insert("b", "y"), Err(InvalidMetadata::TooLarge));
    }
}
