use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::{Uuid, uuid};

pub const JWT_KEY: &str = "a-test-key-of-at-least-thirty-two-bytes";
pub const USER: Uuid = uuid!("11111111-1111-4111-8111-111111111111");
pub const OTHER_USER: Uuid = uuid!("22222222-2222-4222-8222-222222222222");
const ADMIN: Uuid = uuid!("99999999-9999-4999-8999-999999999999");

/// A token that is good until a test makes it bad.
#[derive(Clone, Debug)]
pub struct Token {
    pub header: Header,
    pub claims: Value,
}

impl Token {
    pub fn of(user: Uuid) -> Self {
        Self {
            header: Header::new(Algorithm::HS256),
            claims: json!({
                "iss": "MusicAlbumsIdentity",
                "aud": "MusicAlbumsApi",
                "nbf": seconds_from_now(-60),
                "exp": seconds_from_now(600),
                "userid": user,
            }),
        }
    }

    pub fn of_admin() -> Self {
        Self::of(ADMIN).with("admin", json!(true))
    }

    pub fn with(mut self, claim: &str, value: Value) -> Self {
        self.claims[claim] = value;
        self
    }

    pub fn without(mut self, claim: &str) -> Self {
        self.claims.as_object_mut().unwrap().remove(claim);
        self
    }

    pub fn key_id(mut self, kid: Option<&str>) -> Self {
        self.header.kid = kid.map(ToOwned::to_owned);
        self
    }

    pub fn signed(&self) -> String {
        self.signed_by(&EncodingKey::from_secret(JWT_KEY.as_bytes()))
    }

    pub fn signed_by(&self, key: &EncodingKey) -> String {
        jsonwebtoken::encode(&self.header, &self.claims, key).unwrap()
    }
}

pub fn seconds_from_now(seconds: i64) -> i64 {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).as_second()
}
