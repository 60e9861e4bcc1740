//! Storage connection strings:
//! <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>.

use azure_core::base64;
use azure_core::credentials::Secret;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// The account of Azurite and of Microsoft's earlier emulator.
const DEVELOPMENT_ACCOUNT: &str = "devstoreaccount1";
/// Its key: published, the same everywhere, and so no secret.
/// <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const DEVELOPMENT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const DEVELOPMENT_ENDPOINT: &str = "http://127.0.0.1:10000/devstoreaccount1";

/// Parts that belong to other services or to nothing that is done here.
const IGNORED: [&str; 9] = [
    "blobsecondaryendpoint",
    "dfsendpoint",
    "fileendpoint",
    "filesecondaryendpoint",
    "queueendpoint",
    "queuesecondaryendpoint",
    "tableendpoint",
    "tablesecondaryendpoint",
    "developmentstorageproxyuri",
];

/// An account and its key, read from a connection string.
#[derive(Clone, Debug)]
pub struct ConnectionString {
    /// The account's name.
    pub account: String,
    /// The account's key, in base64. Its Debug shows nothing.
    pub key: Secret,
    /// The blob service's endpoint, without a slash at its end.
    pub endpoint: Url,
}

/// What is wrong with a connection string. No part of its text is in here, since any part may be the key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A part has no `=`, or a name that no storage connection string has.
    #[error(
        "part {0} is not one of AccountName=, AccountKey=, BlobEndpoint=, EndpointSuffix=, DefaultEndpointsProtocol=, UseDevelopmentStorage="
    )]
    UnknownPart(usize),
    /// A part stands twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// A part that is needed is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A part's value cannot be used.
    #[error("{part} {problem}")]
    Invalid {
        /// The part.
        part: &'static str,
        /// What its value should be.
        problem: &'static str,
    },
    /// Logging in by a shared access signature is not offered: it would expire under a long-lived process.
    #[error(
        "SharedAccessSignature is not supported; use AccountKey, or a blob endpoint with workload identity"
    )]
    SharedAccessSignature,
}

#[derive(Default)]
struct Parts<'a> {
    account: Option<&'a str>,
    key: Option<&'a str>,
    endpoint: Option<&'a str>,
    suffix: Option<&'a str>,
    protocol: Option<&'a str>,
    development: Option<&'a str>,
}

impl ConnectionString {
    /// Reads a connection string.
    ///
    /// # Errors
    /// Names the part that is wrong, never its text.
    pub fn parse(text: &SecretString) -> Result<Self, ConnectionStringError> {
        let parts = Parts::read(text.expose_secret())?;
        match parts.development {
            Some(value) if value.eq_ignore_ascii_case("true") => return parts.development_account(),
            Some(value) if !value.eq_ignore_ascii_case("false") => {
                return Err(ConnectionStringError::Invalid {
                    part: "UseDevelopmentStorage",
                    problem: "must be true or false",
                });
            }
            _ => {}
        }
        let account = parts
            .account
            .ok_or(ConnectionStringError::Missing("AccountName"))?;
        let key = parts.key.ok_or(ConnectionStringError::Missing("AccountKey"))?;
        if key.is_empty() || base64::decode(key).is_err() {
            return Err(ConnectionStringError::Invalid {
                part: "AccountKey",
                problem: "must be base64",
            });
        }
        Ok(Self {
            account: account.to_owned(),
            key: Secret::new(key.to_owned()),
            endpoint: parts.endpoint_of(account)?,
        })
    }
}

impl<'a> Parts<'a> {
    fn read(text: &'a str) -> Result<Self, ConnectionStringError> {
        let mut parts = Self::default();
        for (n, part) in text
            .trim()
            .split(';')
            .enumerate()
            .filter(|(_, part)| !part.trim().is_empty())
        {
            // at the first `=`, since keys end in one
            let (name, value) = part
                .split_once('=')
                .ok_or(ConnectionStringError::UnknownPart(n + 1))?;
            let name = name.trim().to_ascii_lowercase();
            let (label, slot) = match name.as_str() {
                "accountname" => ("AccountName", &mut parts.account),
                "accountkey" => ("AccountKey", &mut parts.key),
                "blobendpoint" => ("BlobEndpoint", &mut parts.endpoint),
                "endpointsuffix" => ("EndpointSuffix", &mut parts.suffix),
                "defaultendpointsprotocol" => ("DefaultEndpointsProtocol", &mut parts.protocol),
                "usedevelopmentstorage" => ("UseDevelopmentStorage", &mut parts.development),
                "sharedaccesssignature" => return Err(ConnectionStringError::SharedAccessSignature),
                other if IGNORED.contains(&other) => continue,
                _ => return Err(ConnectionStringError::UnknownPart(n + 1)),
            };
            if slot.replace(value.trim()).is_some() {
                return Err(ConnectionStringError::Twice(label));
            }
        }
        Ok(parts)
    }

    fn development_account(&self) -> Result<ConnectionString, ConnectionStringError> {
        Ok(ConnectionString {
            account: DEVELOPMENT_ACCOUNT.to_owned(),
            key: Secret::new(DEVELOPMENT_KEY),
            endpoint: endpoint(DEVELOPMENT_ENDPOINT)?,
        })
    }

    fn endpoint_of(&self, account: &str) -> Result<Url, ConnectionStringError> {
        // the name becomes a host's first label or a path's first segment
        // https://learn.microsoft.com/azure/storage/common/storage-account-overview#storage-account-name
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if account.is_empty() || !account.bytes().all(allowed) {
            return Err(ConnectionStringError::Invalid {
                part: "AccountName",
                problem: "must be lower-case letters and digits",
            });
        }
        if let Some(text) = self.endpoint {
            return endpoint(text);
        }
        let protocol = match self.protocol {
            None => "https",
            Some(protocol) if protocol.eq_ignore_ascii_case("https") => "https",
            Some(protocol) if protocol.eq_ignore_ascii_case("http") => "http",
            Some(_) => {
                return Err(ConnectionStringError::Invalid {
                    part: "DefaultEndpointsProtocol",
                    problem: "must be http or https",
                });
            }
        };
        let suffix = self.suffix.unwrap_or("core.windows.net");
        let url = format!("{protocol}://{account}.blob.{suffix}");
        Url::parse(&url)
            .ok()
            .filter(|url| url.path() == "/" && url.query().is_none() && url.port().is_none())
            .ok_or(ConnectionStringError::Invalid {
                part: "EndpointSuffix",
                problem: "must be a domain",
            })
    }
}

fn endpoint(text: &str) -> Result<Url, ConnectionStringError> {
    Url::parse(text.trim_end_matches('/'))
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none())
        .ok_or(ConnectionStringError::Invalid {
            part: "BlobEndpoint",
            problem: "must be an http or https URL without a query",
        })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(text: &str) -> Result<ConnectionString, ConnectionStringError> {
        ConnectionString::parse(&SecretString::from(text))
    }

    #[rstest]
    #[case::development("UseDevelopmentStorage=true", "devstoreaccount1", DEVELOPMENT_ENDPOINT)]
    #[case::spaces_and_case(" usedevelopmentstorage=True; ", "devstoreaccount1", DEVELOPMENT_ENDPOINT)]
    #[case::azure(
        "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=a2V5;EndpointSuffix=core.windows.net",
        "acct",
        "https://acct.blob.core.windows.net/"
    )]
    #[case::defaults(
        "AccountName=acct;AccountKey=a2V5",
        "acct",
        "https://acct.blob.core.windows.net/"
    )]
    #[case::sovereign_cloud(
        "AccountName=acct;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn",
        "acct",
        "https://acct.blob.core.chinacloudapi.cn/"
    )]
    #[case::path_style(
        "AccountName=acct;AccountKey=a2V5;BlobEndpoint=http://10.0.0.1:10000/acct/;QueueEndpoint=http://10.0.0.1:10001/acct;",
        "acct",
        "http://10.0.0.1:10000/acct"
    )]
    fn a_connection_string_gives_account_and_endpoint(
        #[case] text: &str,
        #[case] account: &str,
        #[case] endpoint: &str,
    ) {
        let parsed = parse(text).unwrap();
        assert_eq!(
            (parsed.account.as_str(), parsed.endpoint.as_str()),
            (account, endpoint)
        );
    }

    #[test]
    fn a_key_keeps_the_equals_signs_at_its_end() {
        let parsed = parse("AccountName=acct;AccountKey=a2V5a2V5MQ==").unwrap();
        assert_eq!(parsed.key.secret(), "a2V5a2V5MQ==");
    }

    #[rstest]
    #[case::empty("", "AccountName is missing")]
    #[case::no_key("AccountName=acct", "AccountKey is missing")]
    #[case::key_no_base64("AccountName=acct;AccountKey=?", "AccountKey must be base64")]
    #[case::key_empty("AccountName=acct;AccountKey=", "AccountKey must be base64")]
    #[case::twice("AccountName=a;AccountName=b;AccountKey=a2V5", "AccountName is given twice")]
    #[case::account_name(
        "AccountName=a/b;AccountKey=a2V5",
        "AccountName must be lower-case letters and digits"
    )]
    #[case::protocol(
        "AccountName=acct;AccountKey=a2V5;DefaultEndpointsProtocol=ftp",
        "DefaultEndpointsProtocol must be http or https"
    )]
    #[case::suffix(
        "AccountName=acct;AccountKey=a2V5;EndpointSuffix=a/b",
        "EndpointSuffix must be a domain"
    )]
    #[case::endpoint(
        "AccountName=acct;AccountKey=a2V5;BlobEndpoint=acct.example",
        "BlobEndpoint must be an http or https URL without a query"
    )]
    #[case::development("UseDevelopmentStorage=yes", "UseDevelopmentStorage must be true or false")]
    #[case::sas(
        "BlobEndpoint=https://acct.example;SharedAccessSignature=sv=1&sig=2",
        "SharedAccessSignature is not supported; use AccountKey, or a blob endpoint with workload identity"
    )]
    fn a_wrong_connection_string_names_the_part_and_the_fix(#[case] text: &str, #[case] message: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), message);
    }

    #[rstest]
    #[case::bare_key("c2VjcmV0c2VjcmV0")]
    #[case::key_with_equals("c2VjcmV0c2VjcmV0MQ==")]
    #[case::typing_error("AccountName=acct;AccountKy=c2VjcmV0c2VjcmV0")]
    #[case::wrong_key("AccountName=acct;AccountKey=!c2VjcmV0c2VjcmV0")]
    fn neither_error_nor_debug_shows_a_key(#[case] text: &str) {
        let error = parse(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
        let parsed = parse("AccountName=acct;AccountKey=c2VjcmV0c2VjcmV0").unwrap();
        assert!(!format!("{parsed:?}").contains("c2VjcmV0"));
    }
}
