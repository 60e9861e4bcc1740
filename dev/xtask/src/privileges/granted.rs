//! What the chart's Roles grant to its service accounts.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::Right;

/// An object of the rendered chart, as far as RBAC is concerned.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    rules: Vec<Rule>,
    role_ref: Option<RoleRef>,
    #[serde(default)]
    subjects: Vec<Subject>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    api_groups: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct Subject {
    kind: String,
    name: String,
}

/// Every right that the rendered chart grants, one by one.
///
/// # Errors
/// When it is no YAML, or grants in a way that cannot be compared with single uses: by `*`, to others than
/// service accounts, by a role that is not in the chart, or for a path.
pub fn granted(rendered: &str) -> Result<BTreeSet<Right>> {
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(rendered) {
        let value = serde_yaml_ng::Value::deserialize(document)?;
        let kind = value.get("kind").and_then(|kind| kind.as_str());
        if kind.is_some_and(|kind| kind.ends_with("Role") || kind.ends_with("RoleBinding")) {
            objects.push(serde_yaml_ng::from_value::<Object>(value)?);
        }
    }
    let mut rights = BTreeSet::new();
    for binding in &objects {
        let Some(role_ref) = &binding.role_ref else {
            continue;
        };
        let role = objects
            .iter()
            .find(|role| role.kind == role_ref.kind && role.metadata.name == role_ref.name)
            .with_context(|| {
                format!(
                    "{} {} is bound by {} and not in the chart",
                    role_ref.kind, role_ref.name, binding.metadata.name
                )
            })?;
        for subject in &binding.subjects {
            if subject.kind != "ServiceAccount" {
                bail!("{} grants to a {}", binding.metadata.name, subject.kind);
            }
            for rule in &role.rules {
                add(&mut rights, &subject.name, rule)
                    .with_context(|| format!("in {} {}", role.kind, role.metadata.name))?;
            }
        }
    }
    Ok(rights)
}

fn add(rights: &mut BTreeSet<Right>, account: &str, rule: &Rule) -> Result<()> {
    if !rule.non_resource_urls.is_empty() {
        bail!("a path is granted");
    }
    let names: Vec<Option<&String>> = match rule.resource_names.as_slice() {
        [] => vec![None],
        names => names.iter().map(Some).collect(),
    };
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                if [group, resource, verb].iter().any(|word| word.contains('*')) {
                    bail!("'*' is granted");
                }
                rights.extend(names.iter().map(|name| Right {
                    account: account.to_owned(),
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    name: name.cloned(),
                }));
            }
        }
    }
    Ok(())
}
