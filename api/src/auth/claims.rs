//! From the claims of a token whose signature, times, issuer and audience hold, to the caller.

use serde::Deserialize;
use serde_json::Value;

use super::{Caller, TokenError};

/// The claims that are read, of any type: what is wrong with one is said of that one.
#[derive(Debug, Deserialize)]
pub struct Claims {
    userid: Option<Value>,
    admin: Option<Value>,
}

impl Claims {
    /// The caller.
    ///
    /// # Errors
    /// [`TokenError::UserId`] and [`TokenError::Admin`].
    pub fn caller(&self) -> Result<Caller, TokenError> {
        let user_id = self
            .userid
            .as_ref()
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok())
            .ok_or(TokenError::UserId)?;
        // token services differ on whether a boolean claim is a JSON boolean or a text
        let admin = match &self.admin {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => true,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => false,
            Some(_) => return Err(TokenError::Admin),
        };
        Ok(Caller { user_id, admin })
    }
}
