//! Events on the Pod that the program runs in.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use runtime::PodArgs;
use tokio::time::timeout;

use crate::error_chain;

/// The longest note that the API server takes
/// (<https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>), in bytes.
const NOTE_MAX_BYTES: usize = 1_024;
/// The longest that an Event may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The Pod that this program runs in.
#[derive(Clone, Debug)]
pub struct OwnPod {
    name: String,
    namespace: String,
    uid: Option<String>,
    program: &'static str,
}

/// What became of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is there.
    Sent,
    /// The program does not run in a Pod.
    NoPod,
    /// Why it is not there.
    Failed(String),
}

/// One word for logs, and the reason where there is one.
impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sent => f.write_str("sent"),
            Self::NoPod => f.write_str("none, not in a Pod"),
            Self::Failed(why) => write!(f, "not sent: {why}"),
        }
    }
}

/// Sends the Event of a program that ends because of its options: from what the environment says of Pod and
/// cluster, as nothing else may be there yet.
pub async fn cannot_start(program: &'static str, note: &str) -> Told {
    let Some(pod) = OwnPod::new(&PodArgs::from_environment(), program) else {
        return Told::NoPod;
    };
    match Client::try_default().await {
        Ok(client) => pod.warn(&client, OwnPod::CANNOT_START, note).await,
        Err(error) => Told::Failed(error_chain(&error)),
    }
}

impl OwnPod {
    /// Reason of the Event of a program that waits for what is missing.
    pub const NOT_READY: &'static str = "SomethingMissing";
    /// Reason of the Event of a program that cannot start with its options.
    pub const CANNOT_START: &'static str = "CannotStart";

    /// The Pod that the downward API names; none when it names none.
    pub fn new(args: &PodArgs, program: &'static str) -> Option<Self> {
        Some(Self {
            name: args.pod_name.clone()?,
            namespace: args.pod_namespace.clone()?,
            uid: args.pod_uid.clone(),
            program,
        })
    }

    /// Sends a Warning. Each call makes an Event of its own, so it is for what changes seldom.
    pub async fn warn(&self, client: &Client, reason: &str, note: &str) -> Told {
        let event = self.event(reason, note, Timestamp::now());
        let events: Api<Event> = Api::namespaced(client.clone(), &self.namespace);
        match timeout(REQUEST_TIMEOUT, events.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => Told::Sent,
            Ok(Err(error)) => Told::Failed(error_chain(&error)),
            Err(_) => Told::Failed(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())),
        }
    }

    fn event(&self, reason: &str, note: &str, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                // the name that client-go gives: the object's, and the moment
                name: Some(format!("{}.{:x}", self.name, now.as_nanosecond())),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                uid: self.uid.clone(),
                ..ObjectReference::default()
            }),
            type_: Some("Warning".to_owned()),
            reason: Some(reason.to_owned()),
            action: Some("Start".to_owned()),
            note: Some(shortened(note)),
            reporting_controller: Some(format!("popularity-reports-{}", self.program)),
            reporting_instance: Some(self.name.clone()),
            event_time: Some(MicroTime(now)),
            ..Event::default()
        }
    }
}

fn shortened(note: &str) -> String {
    const ELLIPSIS: &str = "…";
    if note.len() <= NOTE_MAX_BYTES {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(NOTE_MAX_BYTES - ELLIPSIS.len());
    format!("{}{ELLIPSIS}", &note[..end])
}
