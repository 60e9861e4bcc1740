//! Login with an account key: the SDK has none, so every try of a request is signed here.
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::Secret;
use azure_core::hmac::hmac_sha256;
use azure_core::http::headers::Headers;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Method, Request};
use azure_core::time::to_rfc7231;
use time::OffsetDateTime;
use url::Url;

/// Signs each try, so that a retry carries a fresh date.
pub(crate) struct SharedKey {
    pub(crate) account: String,
    pub(crate) key: Secret,
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKey")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Policy for SharedKey {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header("x-ms-date", to_rfc7231(&OffsetDateTime::now_utc()));
        let text = string_to_sign(
            &self.account,
            request.method(),
            request.url(),
            request.headers(),
            request.body().len().unwrap_or_default(),
        );
        let signature = hmac_sha256(&text, &self.key)?;
        request.insert_header("authorization", format!("SharedKey {}:{signature}", self.account));
        let [policy, rest @ ..] = next else {
            return Err(azure_core::Error::with_message(
                azure_core::error::ErrorKind::Other,
                "the pipeline has no transport",
            ));
        };
        policy.send(ctx, request, rest).await
    }
}

fn string_to_sign(account: &str, method: Method, url: &Url, headers: &Headers, body: u64) -> String {
    let all: BTreeMap<&str, &str> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let header = |name| all.get(name).copied().unwrap_or_default();
    let length = if body == 0 {
        String::new()
    } else {
        body.to_string()
    };
    let mut text = format!(
        "{method}\n{}\n{}\n{length}\n{}\n{}\n\n{}\n{}\n{}\n{}\n{}\n",
        header("content-encoding"),
        header("content-language"),
        header("content-md5"),
        header("content-type"),
        header("if-modified-since"),
        header("if-match"),
        header("if-none-match"),
        header("if-unmodified-since"),
        header("range"),
    );
    for (name, value) in all.iter().filter(|(name, _)| name.starts_with("x-ms-")) {
        text.push_str(&format!("{name}:{}\n", value.trim()));
    }
    // path-style addresses thus name the account twice
    text.push_str(&format!("/{account}{}", url.path()));
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        query
            .entry(name.to_ascii_lowercase())
            .or_default()
            .push(value.into_owned());
    }
    for (name, mut values) in query {
        values.sort();
        text.push_str(&format!("\n{name}:{}", values.join(",")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from a commit that Azurite accepted.
    #[test]
    fn a_commit_is_signed_as_the_service_expects() {
        let url = Url::parse("http://127.0.0.1:10000/devstoreaccount1/dur/sts?comp=blocklist").unwrap();
        let mut headers = Headers::new();
        for (name, value) in [
            ("x-ms-version", "2026-04-06"),
            ("content-type", "application/xml"),
            ("if-none-match", "*"),
            (
                "x-ms-blob-content-disposition",
                "attachment; filename=\"r-1.csv\"",
            ),
            ("x-ms-blob-content-type", "text/csv; charset=utf-8"),
            ("x-ms-client-request-id", "c"),
            ("x-ms-date", "Tue, 24 Nov 2026 09:40:38 GMT"),
            ("x-ms-meta-attempt", "1"),
            ("accept", "application/xml"),
        ] {
            headers.insert(name, value);
        }
        assert_eq!(
            string_to_sign("devstoreaccount1", Method::Put, &url, &headers, 112),
            "PUT\n\n\n112\n\napplication/xml\n\n\n\n*\n\n\n\
             x-ms-blob-content-disposition:attachment; filename=\"r-1.csv\"\n\
             x-ms-blob-content-type:text/csv; charset=utf-8\nx-ms-client-request-id:c\n\
             x-ms-date:Tue, 24 Nov 2026 09:40:38 GMT\nx-ms-meta-attempt:1\nx-ms-version:2026-04-06\n\
             /devstoreaccount1/devstoreaccount1/dur/sts\ncomp:blocklist"
        );
    }

    #[test]
    fn queries_are_signed_decoded_sorted_and_joined() {
        let url = Url::parse("https://acct.blob.core.windows.net/reports?restype=container&comp=list&include=metadata&prefix=a%2Fb&include=copy").unwrap();
        let text = string_to_sign("acct", Method::Get, &url, &Headers::new(), 0);
        assert!(
            text.ends_with(
                "\n/acct/reports\ncomp:list\ninclude:copy,metadata\nprefix:a/b\nrestype:container"
            )
        );
        assert!(
            text.starts_with("GET\n\n\n\n"),
            "an empty body is signed as an empty length"
        );
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let policy = SharedKey {
            account: "acct".into(),
            key: Secret::new("a2V5"),
        };
        assert!(!format!("{policy:?}").contains("a2V5"));
    }
}
