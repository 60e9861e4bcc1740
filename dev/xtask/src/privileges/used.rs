//! What the service accounts asked of the API server, by its audit log.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Right;

/// <https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/#audit-k8s-io-v1-Event>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    user: User,
    impersonated_user: Option<User>,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    /// RFC 3339 in UTC with microseconds, so that the order of the texts is that of the times.
    request_received_timestamp: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

const CREATED: u16 = 201;
const FORBIDDEN: u16 = 403;

/// What became of the requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Allowed, and how often. `name` is the object's, where the request has one.
    pub allowed: BTreeMap<Right, u64>,
    /// Allowed to everybody who has logged in, by the roles that come with Kubernetes.
    pub by_everybody: BTreeMap<String, u64>,
    /// Refused although nobody had taken the right away: one line each.
    pub refused: BTreeSet<String>,
}

/// Reads the log's lines from the moment `since` (RFC 3339), as far as they are of service accounts in
/// namespaces that begin with `namespaces`.
///
/// # Errors
/// When a line is no event.
pub fn used(log: &str, since: &str, namespaces: &str) -> Result<Used> {
    let mut events = Vec::new();
    for line in log.lines() {
        let event: Event =
            serde_json::from_str(line).with_context(|| format!("not an audit event: {line}"))?;
        if event.request_received_timestamp.as_str() >= since {
            events.push(event);
        }
    }
    // a watch is written down when it ends
    events.sort_by(|one, other| {
        one.request_received_timestamp
            .cmp(&other.request_received_timestamp)
    });
    let mut used = Used::default();
    // Tests take rights away, and so does the end of a test: what is refused after that is as it should be.
    let mut taken_away = BTreeSet::new();
    // While an upgrade rolls out, the operator that goes asks for Jobs of the image that the policy has left
    // behind; its successor makes them.
    let mut upgraded = BTreeSet::new();
    for event in events {
        let object = event.object_ref.unwrap_or_default();
        if object.api_group == "rbac.authorization.k8s.io" {
            let made = event.response_status.is_some_and(|status| status.code == CREATED);
            match event.verb.as_str() {
                "delete" | "deletecollection" => taken_away.insert(object.namespace),
                // `kubectl apply --server-side` makes by a patch
                _ if made => taken_away.remove(&object.namespace),
                _ => false,
            };
            continue;
        }
        if object.resource == "validatingadmissionpolicies" {
            upgraded.insert(format!("ValidatingAdmissionPolicy '{}'", object.name));
            continue;
        }
        if object.resource == "namespaces" && event.verb == "delete" {
            taken_away.insert(object.name);
            continue;
        }
        let Some((namespace, account)) = event
            .user
            .username
            .strip_prefix("system:serviceaccount:")
            .and_then(|name| name.split_once(':'))
        else {
            continue;
        };
        if !namespace.starts_with(namespaces) || event.impersonated_user.is_some() {
            continue;
        }
        let annotation = |name: &str| {
            event
                .annotations
                .get(&format!("authorization.k8s.io/{name}"))
                .map_or("", String::as_str)
        };
        let forbidden = event
            .response_status
            .as_ref()
            .filter(|status| status.code == FORBIDDEN || annotation("decision") == "forbid");
        if let Some(status) = forbidden {
            let left_behind = || upgraded.iter().any(|policy| status.message.contains(policy));
            if !taken_away.contains(namespace) && !left_behind() {
                used.refused.insert(format!(
                    "{account}: {} {}: {}",
                    event.verb, event.request_uri, status.message
                ));
            }
        } else if annotation("reason").contains("of ClusterRole \"system:") {
            let path = event.request_uri.split('?').next().unwrap_or_default();
            let request = format!("{account}: {} {path}", event.verb);
            *used.by_everybody.entry(request).or_default() += 1;
        } else {
            let resource = match object.subresource.as_str() {
                "" => object.resource,
                subresource => format!("{}/{subresource}", object.resource),
            };
            let right = Right {
                account: account.to_owned(),
                group: object.api_group,
                resource,
                verb: event.verb,
                name: Some(object.name).filter(|name| !name.is_empty()),
            };
            *used.allowed.entry(right).or_default() += 1;
        }
    }
    Ok(used)
}
