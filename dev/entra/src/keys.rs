//! Keys that tokens are signed with.

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

/// An ES256 key with an id: Entra ID's own, or that of a cluster that issues tokens of service accounts.
pub struct SigningKey {
    id: String,
    key: EncodingKey,
    public: JwkSet,
}

impl SigningKey {
    /// A new one.
    ///
    /// # Errors
    /// The provider makes no key.
    pub fn generate() -> anyhow::Result<Self> {
        let pair = KeyPair::generate().context("failed to make a key")?;
        let id = Uuid::new_v4().to_string();
        // SEC 1, section 2.3.3: 04, then the two coordinates of 32 bytes each
        let point = pair.public_key_raw();
        let (x, y) = (point.get(1..33), point.get(33..65));
        let coordinate = |bytes: Option<&[u8]>| {
            bytes
                .map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes))
                .context("a P-256 key has two coordinates of 32 bytes")
        };
        let public = serde_json::from_value(json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id,
            "x": coordinate(x)?, "y": coordinate(y)?,
        }]}))?;
        Ok(Self {
            key: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?,
            id,
            public,
        })
    }

    /// What others check the tokens with.
    pub fn public(&self) -> &JwkSet {
        &self.public
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// They are no JSON object.
    pub fn sign(&self, claims: &impl Serialize) -> anyhow::Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}
