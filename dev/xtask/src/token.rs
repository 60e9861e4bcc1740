//! Tokens as the music-albums service's identity provider gives them out: JWT, HS256.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;

/// A token for the user, signed with `key`, that is good for `lifetime` from `now`.
///
/// # Errors
/// When the clock stands before 1970.
pub fn mint(key: &str, user: &str, admin: bool, now: SystemTime, lifetime: Duration) -> Result<String> {
    let now = now.duration_since(UNIX_EPOCH)?;
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let claims = json!({
        "iss": "MusicAlbumsIdentity",
        "aud": "MusicAlbumsApi",
        "sub": user,
        "userid": user,
        "admin": admin.to_string(),
        "trusted_member": admin.to_string(),
        "iat": now.as_secs(),
        "nbf": now.as_secs(),
        "exp": (now + lifetime).as_secs(),
    });
    let signed = format!(
        "{}.{}",
        BASE64URL.encode(header.to_string()),
        BASE64URL.encode(claims.to_string())
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes())?;
    mac.update(signed.as_bytes());
    Ok(format!(
        "{signed}.{}",
        BASE64URL.encode(mac.finalize().into_bytes())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_signed_as_openssl_signs_it() {
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let token = mint(
            "0123456789abcdef0123456789abcdef",
            "u",
            false,
            at,
            Duration::from_secs(60),
        )
        .unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let expected = std::process::Command::new("sh")
            .args([
                "-c",
                "printf %s \"$1\" | openssl dgst -sha256 -hmac \"$2\" -binary | openssl base64 -A",
                "sh",
            ])
            .args([signed, "0123456789abcdef0123456789abcdef"])
            .output()
            .unwrap();
        let expected = String::from_utf8(expected.stdout).unwrap();
        assert_eq!(
            signature,
            expected.trim_end_matches('=').replace('+', "-").replace('/', "_")
        );
    }
}
