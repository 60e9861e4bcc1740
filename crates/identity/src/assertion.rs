//! The file that the kubelet writes the service account's token into.

use std::path::PathBuf;

use azure_core::error::{Error, ErrorKind, ResultExt as _};
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;

/// Read again for every request: the SDK's own credential looks at the file once in ten minutes, and sends
/// what was there at the start until then.
#[derive(Debug)]
pub(crate) struct TokenFile(pub(crate) PathBuf);

#[async_trait::async_trait]
impl ClientAssertion for TokenFile {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let path = self.0.display();
        let text = tokio::fs::read_to_string(&self.0)
            .await
            .with_context_fn(ErrorKind::Credential, || {
                format!("failed to read the service account's token from {path}")
            })?;
        match text.trim() {
            "" => Err(Error::with_message(
                ErrorKind::Credential,
                format!("there is no service account's token in {path}: it is empty"),
            )),
            token => Ok(token.to_owned()),
        }
    }
}
