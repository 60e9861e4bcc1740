//! Service shared access signatures: read-only URLs signed by the account key.
//! <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>

use azure_core::credentials::Secret;
use azure_core::hmac::hmac_sha256;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The service version whose string to sign this is; the same that the SDK speaks.
const VERSION: &str = "2026-04-06";

/// Everything that is signed.
pub(crate) struct ReadSas<'a> {
    pub(crate) account: &'a str,
    pub(crate) container: &'a str,
    pub(crate) blob: &'a str,
    /// RFC 3339, whole seconds, UTC.
    pub(crate) expiry: &'a str,
    pub(crate) https_only: bool,
    pub(crate) content_disposition: &'a str,
}

impl ReadSas<'_> {
    fn protocol(&self) -> &'static str {
        if self.https_only { "https" } else { "" }
    }

    /// The 16 fields, empty ones kept. No start time: clocks differ.
    fn string_to_sign(&self) -> String {
        [
            "r",
            "",
            self.expiry,
            &format!("/blob/{}/{}/{}", self.account, self.container, self.blob),
            "",
            "",
            self.protocol(),
            VERSION,
            "b",
            "",
            "",
            "",
            self.content_disposition,
            "",
            "",
            "",
        ]
        .join("\n")
    }

    /// The query, signed.
    ///
    /// # Errors
    /// The key is no base64.
    pub(crate) fn query(&self, key: &Secret) -> azure_core::Result<String> {
        let signature = hmac_sha256(&self.string_to_sign(), key)?;
        let fields = [
            ("sp", "r"),
            ("se", self.expiry),
            ("spr", self.protocol()),
            ("sv", VERSION),
            ("sr", "b"),
            ("rscd", self.content_disposition),
            ("sig", &signature),
        ];
        let query = fields
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, VALUE)))
            .collect::<Vec<_>>();
        Ok(query.join("&"))
    }
}

/// All but the unreserved characters of RFC 3986, section 2.3.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn sas(https_only: bool) -> ReadSas<'static> {
        ReadSas {
            account: "acct",
            container: "reports",
            blob: "r 1.csv",
            expiry: "2026-11-24T09:55:38Z",
            https_only,
            content_disposition: "attachment; filename=\"r.csv\"",
        }
    }

    #[test]
    fn sixteen_fields_are_signed_and_none_ends_in_a_line_feed() {
        assert_eq!(
            sas(true).string_to_sign(),
            "r\n\n2026-11-24T09:55:38Z\n/blob/acct/reports/r 1.csv\n\n\nhttps\n2026-04-06\nb\n\n\n\n\
             attachment; filename=\"r.csv\"\n\n\n"
        );
    }

    #[test]
    fn values_are_encoded_in_the_query_and_https_is_asked_for_only_when_public() {
        let query = sas(false).query(&Secret::new("a2V5")).unwrap();
        assert!(query.starts_with(
            "sp=r&se=2026-11-24T09%3A55%3A38Z&sv=2026-04-06&sr=b&rscd=attachment%3B%20filename%3D%22r.csv%22&sig="
        ));
        assert!(
            sas(true)
                .query(&Secret::new("a2V5"))
                .unwrap()
                .contains("&spr=https&")
        );
    }
}
