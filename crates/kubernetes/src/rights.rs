//! The one list of what the programs may do in Kubernetes. The chart's Roles are tested against it, and doctor
//! asks the API server for each right in it.

use crds::names;

/// Verbs on one resource in the release's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The plural, and a subresource behind a slash.
    pub resource: &'static str,
    /// Which objects.
    pub objects: Objects,
    /// The verbs.
    pub verbs: &'static [&'static str],
}

/// Which objects of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objects {
    /// All of the namespace.
    All,
    /// The Lease by which operators agree on who leads.
    Lease,
}

const fn all(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Rule {
    Rule {
        group,
        resource,
        objects: Objects::All,
        verbs,
    }
}

/// What the REST service does: create a report's resource behind the answer, and tell of itself.
pub const API: &[Rule] = &[
    all(names::GROUP, names::PLURAL, &["create"]),
    all("events.k8s.io", "events", &["create"]),
];

/// What the operator does.
pub const OPERATOR: &[Rule] = &[
    all(
        names::GROUP,
        names::PLURAL,
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    all(names::GROUP, "popularityreports/status", &["patch"]),
    all("batch", "jobs", &["get", "list", "watch", "create", "delete"]),
    all("", "pods", &["list", "delete"]),
    // a create cannot be limited to a name
    all("coordination.k8s.io", "leases", &["create"]),
    Rule {
        group: "coordination.k8s.io",
        resource: "leases",
        objects: Objects::Lease,
        verbs: &["get", "update"],
    },
    all("events.k8s.io", "events", &["create", "patch"]),
];
