//! Tokens as the music-albums service's identity server issues them, good and bad.

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

/// The key that the tests' API is given.
pub const KEY: &str = "a key for tests of at least thirty-two bytes";

/// A user's claims; valid unless a test changes something.
#[derive(Clone, Debug)]
pub struct Token {
    claims: Value,
    key: String,
}

/// A user with an id, for an hour.
pub fn a_user(user: Uuid) -> Token {
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    Token {
        claims: json!({
            "jti": Uuid::new_v4(),
            "sub": "someone@example.invalid",
            "email": "someone@example.invalid",
            "userid": user,
            "admin": false,
            "trusted_member": true,
            "iss": "MusicAlbumsIdentity",
            "aud": "MusicAlbumsApi",
            "nbf": (now - hour).as_second(),
            "iat": now.as_second(),
            "exp": (now + hour).as_second(),
        }),
        key: KEY.to_owned(),
    }
}

impl Token {
    /// One who sees everybody's reports.
    #[must_use]
    pub fn admin(self) -> Self {
        self.claim("admin", true)
    }

    /// With another value of a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    /// Signed by someone else.
    #[must_use]
    pub fn signed_with(mut self, key: &str) -> Self {
        self.key = key.to_owned();
        self
    }

    /// The token as it stands behind `Bearer`.
    pub fn encode(&self) -> String {
        let key = EncodingKey::from_secret(self.key.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &self.claims, &key)
            .expect("claims are JSON and the key is bytes")
    }
}
