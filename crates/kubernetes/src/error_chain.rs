//! An error and its causes in one line, for logs.

use std::error::Error;

/// The texts of the error and of its causes, joined by colons. What the API server says is taken from its
/// answer: the client's own text has all of it twice.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut words = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(kube::Error::Api(status)) = error.downcast_ref() {
            words.push(format!(
                "the API server answered {}: {}",
                status.code, status.message
            ));
            break;
        }
        let text = error.to_string();
        // many libraries put their cause's text into their own as well
        if !words.last().is_some_and(|before: &String| before.contains(&text)) {
            words.push(text);
        }
        cause = error.source();
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to create the Job")]
    struct Failed(#[source] kube::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("service error: {0}")]
    struct Doubled(#[source] std::io::Error);

    #[test]
    fn what_a_library_says_twice_is_said_once() {
        let error = Doubled(std::io::Error::other("connection refused"));

        assert_eq!(error_chain(&error), "service error: connection refused");
    }

    #[test]
    fn what_the_api_server_says_is_said_once() {
        let status = serde_json::json!({
            "status": "Failure", "message": "exceeded quota", "reason": "Forbidden", "code": 403,
        });
        let status = serde_json::from_value(status).unwrap();

        let text = error_chain(&Failed(kube::Error::Api(Box::new(status))));

        assert_eq!(
            text,
            "failed to create the Job: the API server answered 403: exceeded quota"
        );
    }
}
