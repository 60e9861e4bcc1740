//! Whether Kubernetes is as a program needs it.

use std::time::Duration;

use checks::Check;
use futures::future::try_join_all;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use kube::client::Body;
use serde_json::Value;
use tokio::time::timeout;

use crds::names::{GROUP, KIND, PLURAL, VERSION};

use crate::error_chain;
use crate::rights::{Objects, Rule};

/// Names of the checks here.
pub mod names {
    /// The PopularityReport resource.
    pub const DEFINITION: &str = "kubernetes resource";
    /// The service account's rights.
    pub const RIGHTS: &str = "kubernetes rights";
    /// The API server's clock.
    pub const CLOCK: &str = "clock of kubernetes";
}

/// The longest that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for every verb of the rules, in this namespace.
pub async fn rights(client: &Client, namespace: &str, lease: &str, rules: &[Rule]) -> Check {
    let reviews = rules.iter().flat_map(|rule| {
        rule.verbs.iter().map(async |verb| {
            Ok::<_, kube::Error>((*rule, *verb, allowed(client, namespace, lease, rule, verb).await?))
        })
    });
    let answers = match within(try_join_all(reviews)).await {
        Ok(answers) => answers,
        Err(words) => return away(names::RIGHTS, &words),
    };
    let denied: Vec<(Rule, &str)> = answers
        .iter()
        .filter(|(.., allowed)| !allowed)
        .map(|(rule, verb, _)| (*rule, *verb))
        .collect();
    let who = user(client).await;
    if denied.is_empty() {
        return Check::ok(
            names::RIGHTS,
            format!(
                "{who} may do all {} things in namespace {namespace}",
                answers.len()
            ),
        );
    }
    let what = denied
        .iter()
        .map(|(rule, verb)| format!("{verb} {}", full_name(rule)));
    let remedy = rules
        .iter()
        .filter_map(|rule| {
            let verbs: Vec<&str> = denied
                .iter()
                .filter(|(denied, _)| denied == rule)
                .map(|(_, verb)| *verb)
                .collect();
            (!verbs.is_empty()).then(|| grant(namespace, &who, rule, &verbs))
        })
        .collect::<Vec<_>>();
    Check::missing(
        names::RIGHTS,
        format!(
            "{who} may not {} in namespace {namespace}",
            what.collect::<Vec<_>>().join(", ")
        ),
        format!(
            "helm upgrade, which restores the Role; or by hand: {}",
            remedy.join(" && ")
        ),
    )
}

async fn allowed(
    client: &Client,
    namespace: &str,
    lease: &str,
    rule: &Rule,
    verb: &str,
) -> Result<bool, kube::Error> {
    let (resource, subresource) = match rule.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (rule.resource, None),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                group: Some(rule.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                verb: Some(verb.to_owned()),
                name: (rule.objects == Objects::Lease).then(|| lease.to_owned()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::all(client.clone())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Who the API server takes us for.
async fn user(client: &Client) -> String {
    let review = Api::all(client.clone());
    let asked = within(async {
        review
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await
    })
    .await;
    asked
        .ok()
        .and_then(|answer| answer.status?.user_info?.username)
        .unwrap_or_else(|| "this program".to_owned())
}

/// As `kubectl auth can-i` and `kubectl create role` take it.
fn full_name(rule: &Rule) -> String {
    let (resource, rest) = match rule.resource.split_once('/') {
        Some((resource, subresource)) => (resource, format!("/{subresource}")),
        None => (rule.resource, String::new()),
    };
    if rule.group.is_empty() {
        format!("{resource}{rest}")
    } else {
        format!("{resource}.{}{rest}", rule.group)
    }
}

fn grant(namespace: &str, who: &str, rule: &Rule, verbs: &[&str]) -> String {
    let role = format!("allow-{}", rule.resource.replace('/', "-"));
    let subject = match who
        .strip_prefix("system:serviceaccount:")
        .and_then(|who| who.split_once(':'))
    {
        Some((namespace, name)) => format!("--serviceaccount={namespace}:{name}"),
        None => format!("--user='{who}'"),
    };
    format!(
        "kubectl --namespace {namespace} create role {role} --verb={} --resource={} && kubectl --namespace \
         {namespace} create rolebinding {role} --role={role} {subject}",
        verbs.join(","),
        full_name(rule)
    )
}

/// Whether the PopularityReport resource is there, in the version that this program reads and writes.
pub async fn definition(client: &Client) -> Check {
    match served(client).await {
        Ok(true) => Check::ok(names::DEFINITION, format!("{PLURAL}.{GROUP}/{VERSION} is there")),
        Ok(false) => no_definition(),
        Err(words) => away(names::DEFINITION, &words),
    }
}

/// The same, and whether its fields are those of this program, as `operator crd` prints them. It is read from
/// the API server's OpenAPI document, which every service account may read.
pub async fn definition_of_this_version(client: &Client) -> Check {
    let path = format!("/openapi/v3/apis/{GROUP}/{VERSION}");
    let found = within(async {
        match client.request::<Value>(get(&path)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            other => other.map(Some),
        }
    });
    let document = match found.await {
        Ok(Some(document)) => document,
        Ok(None) => return definition(client).await,
        Err(words) => return away(names::DEFINITION, &words),
    };
    let Some(served) = schema(&document) else {
        return no_definition();
    };
    let ours = match serde_json::to_value(crds::manifest::definition()) {
        Ok(definition) => definition,
        Err(error) => {
            return Check::unavailable(
                names::DEFINITION,
                error.to_string(),
                "this is a fault of operator",
            );
        }
    };
    let ours = ours
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .unwrap_or(&Value::Null);
    for field in ["spec", "status"] {
        if let Some(place) = difference(&ours["properties"][field], &served["properties"][field], field) {
            return Check::missing(
                names::DEFINITION,
                format!("{PLURAL}.{GROUP} is of another version than this program: they differ at {place}"),
                apply(),
            );
        }
    }
    Check::ok(
        names::DEFINITION,
        format!("{PLURAL}.{GROUP}/{VERSION} is that of this program"),
    )
}

async fn served(client: &Client) -> Result<bool, String> {
    let path = format!("/apis/{GROUP}/{VERSION}");
    within(async {
        match client.request::<Value>(get(&path)).await {
            Ok(list) => Ok(list["resources"]
                .as_array()
                .is_some_and(|resources| resources.iter().any(|resource| resource["name"] == PLURAL))),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    })
    .await
}

/// The kind's schema in an OpenAPI document, whatever its key.
fn schema(document: &Value) -> Option<&Value> {
    let schemas = document.pointer("/components/schemas")?.as_object()?;
    schemas.values().find(|schema| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| {
            kinds
                .iter()
                .any(|kind| kind["kind"] == KIND && kind["group"] == GROUP)
        })
    })
}

/// The first place, in the order of names, where the two differ.
fn difference(ours: &Value, theirs: &Value, place: &str) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            names.into_iter().find_map(|name| {
                let (ours, theirs) = (ours.get(name), theirs.get(name));
                let place = format!("{place}.{name}");
                match (ours, theirs) {
                    (Some(ours), Some(theirs)) => difference(ours, theirs, &place),
                    _ => Some(place),
                }
            })
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            let pairs = ours.iter().zip(theirs).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (ours, theirs))| difference(ours, theirs, &format!("{place}[{index}]")))
        }
        // 0 and 0.0 are one
        (Value::Number(ours), Value::Number(theirs)) => {
            (ours.as_f64() != theirs.as_f64()).then(|| place.to_owned())
        }
        _ => (ours != theirs).then(|| place.to_owned()),
    }
}

fn no_definition() -> Check {
    Check::missing(
        names::DEFINITION,
        format!("there is no resource {PLURAL}.{GROUP}/{VERSION}"),
        apply(),
    )
}

fn apply() -> String {
    "helm upgrade with crds.install=true, or: operator crd | kubectl apply --server-side --force-conflicts -f -".to_owned()
}

/// Compares the API server's clock with ours, by the `Date` of an answer.
pub async fn clock(client: &Client) -> Check {
    let sent = Timestamp::now();
    let request = http::Request::get("/version").body(Body::empty());
    let answer = match request {
        Ok(request) => timeout(REQUEST_TIMEOUT, client.send(request)).await,
        Err(error) => return Check::not_checked(names::CLOCK, error.to_string()),
    };
    let received = Timestamp::now();
    let Ok(Ok(answer)) = answer else {
        return Check::not_checked(names::CLOCK, "the API server cannot be asked");
    };
    let date = answer
        .headers()
        .get(http::header::DATE)
        .and_then(|date| date.to_str().ok())
        .and_then(|date| rfc2822::parse(date).ok());
    match date {
        Some(date) => checks::clock(names::CLOCK, "the API server", date.timestamp(), sent, received),
        None => Check::not_checked(names::CLOCK, "the answer has no Date"),
    }
}

/// All that a program needs to begin: its resource and its rights.
pub async fn to_begin(client: &Client, namespace: &str, lease: &str, rules: &[Rule]) -> Vec<Check> {
    let (definition, rights) = tokio::join!(definition(client), rights(client, namespace, lease, rules));
    vec![definition, rights]
}

fn get(path: &str) -> http::Request<Vec<u8>> {
    let mut request = http::Request::new(Vec::new());
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    request
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| error_chain(&error)),
        Err(_) => Err(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())),
    }
}

fn away(name: &'static str, words: &str) -> Check {
    Check::unavailable(
        name,
        format!("the API server does not answer: {words}"),
        "see that it runs and that no NetworkPolicy is between: kubectl version",
    )
}
