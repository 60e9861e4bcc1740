//! Least privilege, compared: what the chart's Roles grant against what the API server's audit log of a whole
//! test run shows. A right that nothing used, a use that nothing of the chart grants and a refusal are
//! faults all three.

mod granted;
mod used;

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use xshell::cmd;

use crate::{chart, platform::cluster::Cluster, project::Project, tools::need_helm};
use used::Used;

/// How the tests' namespaces begin (`tests/testkit/cluster.rs`).
const NAMESPACES: &str = "e2e-";

/// Leave to do one thing to one sort of object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    /// The service account.
    account: String,
    /// The API group, empty for the core.
    group: String,
    /// The resource, with its subresource after a slash.
    resource: String,
    verb: String,
    /// Of a right: the one object that it is limited to. Of a use: the object, if one was named.
    name: Option<String>,
}

impl Right {
    fn covers(&self, use_: &Self) -> bool {
        (&self.account, &self.group, &self.resource, &self.verb)
            == (&use_.account, &use_.group, &use_.resource, &use_.verb)
            && (self.name.is_none() || self.name == use_.name)
    }
}

/// Rights beside uses.
#[derive(Debug, Default, PartialEq, Eq)]
struct Comparison {
    /// Every right, and how often it was used.
    rights: BTreeMap<Right, u64>,
    /// What is wrong, one line each.
    faults: Vec<String>,
}

/// Compares what the audit log has since `since` (RFC 3339, UTC) with the chart, and prints the table.
///
/// # Errors
/// When they differ, or when the log or the chart cannot be read.
pub fn check(project: &Project, cluster: &Cluster<'_>, since: &str) -> Result<()> {
    let Some(path) = cluster.audit_log()? else {
        eprintln!("   not compared: this cluster is kind's, which writes no audit log unless told so");
        return Ok(());
    };
    let log = fs::read_to_string(&path).with_context(|| {
        format!(
            "no audit log at {}: a cluster of an earlier version is up; dev/cluster/cluster restart apiserver",
            path.display()
        )
    })?;
    let rendered = render(project)?;
    let used = used::used(&log, since, NAMESPACES)?;
    let comparison = compare(granted::granted(&rendered)?, &used);
    println!("{}", table(&comparison));
    for (request, times) in &used.by_everybody {
        println!("   by a role that everybody has: {request} ({times})");
    }
    if comparison.faults.is_empty() {
        return Ok(());
    }
    bail!(
        "what the chart grants and what was used differ:\n{}",
        comparison.faults.join("\n")
    )
}

/// The chart as the tests install it.
fn render(project: &Project) -> Result<String> {
    let helm = need_helm(project)?;
    let (chart, kubernetes) = (chart::CHART, chart::KUBERNETES);
    let values = format!("{chart}/values-kind.yaml");
    Ok(cmd!(
        project.sh,
        "{helm} template popularity-reports {chart} --kube-version {kubernetes} --values {values} --show-only templates/*/rbac.yaml"
    )
    .read()?)
}

fn compare(granted: impl IntoIterator<Item = Right>, used: &Used) -> Comparison {
    let mut comparison = Comparison {
        rights: granted.into_iter().map(|right| (right, 0)).collect(),
        faults: Vec::new(),
    };
    for (use_, times) in &used.allowed {
        let mut covered = false;
        for (right, count) in &mut comparison.rights {
            if right.covers(use_) {
                covered = true;
                *count += times;
            }
        }
        if !covered {
            comparison
                .faults
                .push(format!("used and not granted by the chart: {}", sentence(use_)));
        }
    }
    let unused = comparison.rights.iter().filter(|(_, count)| **count == 0);
    let unused = unused.map(|(right, _)| format!("granted and never used: {}", sentence(right)));
    comparison.faults.extend(unused.collect::<Vec<_>>());
    let refused = used.refused.iter().map(|line| format!("refused: {line}"));
    comparison.faults.extend(refused);
    comparison
}

fn sentence(right: &Right) -> String {
    let Right {
        account,
        group,
        resource,
        verb,
        name,
    } = right;
    let name = name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let group = if group.is_empty() { "core" } else { group };
    format!("{account}: {verb} {resource}{name} ({group})")
}

fn table(comparison: &Comparison) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "service account",
        "API group",
        "resource",
        "verb",
        "granted for",
        "used",
    ]);
    for (right, count) in &comparison.rights {
        table.add_row([
            right.account.as_str(),
            if right.group.is_empty() {
                "core"
            } else {
                &right.group
            },
            &right.resource,
            &right.verb,
            right.name.as_deref().unwrap_or("all of the namespace"),
            &count.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CHART: &str = "
kind: Deployment
metadata: {name: p-operator}
---
kind: Role
metadata: {name: p-operator}
rules:
  - {apiGroups: [batch], resources: [jobs], verbs: [create, delete]}
  - {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [p-operator], verbs: [update]}
---
kind: RoleBinding
metadata: {name: p-operator}
roleRef: {kind: Role, name: p-operator}
subjects: [{kind: ServiceAccount, name: p-operator, namespace: n}]
";

    fn event(second: u8, user: &str, verb: &str, object: serde_json::Value, forbidden: bool) -> String {
        json!({
            "user": {"username": user},
            "verb": verb,
            "requestURI": "/apis/x",
            "requestReceivedTimestamp": format!("2026-01-01T00:00:{second:02}.000000Z"),
            "objectRef": object,
            "responseStatus": {
                "code": if forbidden { 403 } else if verb == "create" { 201 } else { 200 },
                "message": "no",
            },
            "annotations": {"authorization.k8s.io/decision": if forbidden { "forbid" } else { "allow" }},
        })
        .to_string()
    }

    const OPERATOR: &str = "system:serviceaccount:e2e-1:p-operator";

    fn job(verb: &str, second: u8) -> String {
        let object = json!({"apiGroup": "batch", "resource": "jobs", "namespace": "e2e-1", "name": "j"});
        event(second, OPERATOR, verb, object, false)
    }

    fn lease(name: &str, forbidden: bool, second: u8) -> String {
        let object = json!({"apiGroup": "coordination.k8s.io", "resource": "leases", "name": name});
        event(second, OPERATOR, "update", object, forbidden)
    }

    fn rbac(verb: &str, second: u8) -> String {
        let object = json!({
            "apiGroup": "rbac.authorization.k8s.io", "resource": "rolebindings", "namespace": "e2e-1",
        });
        event(second, "admin", verb, object, false)
    }

    fn faults(events: &[String]) -> Vec<String> {
        let used = used::used(&events.join("\n"), "2026-01-01T00:00:01", "e2e-").unwrap();
        compare(granted::granted(CHART).unwrap(), &used).faults
    }

    #[test]
    fn all_that_is_granted_and_used_is_in_order() {
        let events = [job("create", 1), job("delete", 2), lease("p-operator", false, 3)];
        assert_eq!(faults(&events), Vec::<String>::new());
    }

    #[test]
    fn a_superfluous_right_is_named_also_when_it_was_used_before_the_run_or_elsewhere() {
        let elsewhere = job("delete", 2).replace("e2e-1", "demo");
        let events = [
            job("create", 1),
            job("delete", 0),
            elsewhere,
            lease("p-operator", false, 3),
        ];
        assert_eq!(
            faults(&events),
            ["granted and never used: p-operator: delete jobs (batch)"]
        );
    }

    #[test]
    fn a_use_beyond_the_chart_is_named() {
        let events = [
            job("create", 1),
            job("delete", 2),
            job("patch", 2),
            lease("p-operator", false, 3),
            lease("other", false, 3),
        ];
        assert_eq!(
            faults(&events),
            [
                "used and not granted by the chart: p-operator: patch jobs j (batch)",
                "used and not granted by the chart: p-operator: update leases other (coordination.k8s.io)",
            ]
        );
    }

    #[test]
    fn a_refusal_is_named_unless_the_rights_were_taken_away_before() {
        let used = [job("create", 1), job("delete", 2), lease("p-operator", false, 3)];
        let with = |more: &[String]| faults(&[&used, more].concat());
        let refusal = ["refused: p-operator: update /apis/x: no"];

        assert_eq!(with(&[lease("p-operator", true, 4)]), refusal);
        assert_eq!(
            with(&[rbac("delete", 4), lease("p-operator", true, 5)]),
            Vec::<String>::new()
        );
        assert_eq!(
            with(&[rbac("delete", 4), rbac("create", 5), lease("p-operator", true, 6)]),
            refusal
        );
    }

    #[test]
    fn a_refusal_by_the_policy_is_named_unless_an_upgrade_has_replaced_it() {
        let used = [job("create", 1), job("delete", 2), lease("p-operator", false, 3)];
        let with = |more: &[String]| faults(&[&used, more].concat());
        let policy = json!({"apiGroup": "admissionregistration.k8s.io", "resource": "validatingadmissionpolicies",
            "name": "p-jobs"});
        let upgrade = event(4, "admin", "patch", policy, false);
        let refusal = lease("p-operator", true, 5)
            .replace("forbid", "allow")
            .replace("\"no\"", "\"ValidatingAdmissionPolicy 'p-jobs' denied request\"");

        assert_eq!(with(std::slice::from_ref(&refusal)).len(), 1);
        assert_eq!(with(&[upgrade, refusal]), Vec::<String>::new());
    }

    #[test]
    fn a_right_to_everything_is_an_error() {
        let all = CHART.replace("[create, delete]", "['*']");
        assert!(granted::granted(&all).is_err());
    }
}
