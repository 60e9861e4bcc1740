//! What is rendered, to the last field, and that its parts find each other.

use std::collections::{BTreeMap, BTreeSet};

use kubernetes::rights::{self, Objects, Rule};
use rstest::rstest;
use serde_json::{Value, json};

use crate::helm::{
    FULLNAME, NAMESPACE, RELEASE, chart_values, everything, merged, minimal, objects, secrets, template,
};
use crate::objects::{containers, name, pods, text};

/// All but the definition of PopularityReport, which is a generated file of its own.
#[rstest]
#[case::defaults("defaults", secrets())]
#[case::kind("kind", chart_values("kind"))]
#[case::aks("aks", chart_values("aks"))]
#[case::everything("everything", everything())]
#[case::minimal("minimal", minimal())]
fn the_objects_are_as_reviewed(#[case] name: &str, #[case] values: Value) {
    let rendered = template(&values).unwrap();
    let shown: Vec<_> = rendered
        .split("---\n")
        .filter(|document| !document.contains("\nkind: CustomResourceDefinition\n"))
        .collect();

    insta::assert_snapshot!(name, shown.join("---\n"));
}

#[test]
fn the_same_values_render_the_same() {
    assert_eq!(template(&everything()).unwrap(), template(&everything()).unwrap());
}

#[test]
fn every_selector_finds_pods_of_the_release() {
    let objects = objects(&everything());
    let mut labels: Vec<_> = pods(&objects)
        .map(|pod| pod["metadata"]["labels"].clone())
        .collect();
    labels.push(exporter_labels(&objects));
    let selected = |selector: &Value| {
        let selector = selector.as_object().expect("a selector of labels");
        labels
            .iter()
            .filter(|labels| selector.iter().all(|(key, value)| labels[key] == *value))
            .count()
    };

    for object in &objects {
        let selectors: Vec<&Value> = match text(&object["kind"]) {
            "Service" => vec![&object["spec"]["selector"]],
            "Deployment" | "PodDisruptionBudget" => vec![&object["spec"]["selector"]["matchLabels"]],
            "NetworkPolicy" => vec![&object["spec"]["podSelector"]["matchLabels"]],
            _ => continue,
        };
        for selector in selectors {
            assert!(
                selected(selector) > 0,
                "{} {} selects nothing: {selector}",
                object["kind"],
                name(object)
            );
        }
    }
    // and every Pod is under the policy that denies what no other allows
    assert_eq!(
        selected(&json!({"app.kubernetes.io/instance": RELEASE})),
        labels.len()
    );
}

/// The labels of the Pods that the operator makes, of which it sets two itself.
fn exporter_labels(objects: &[Value]) -> Value {
    let mut labels: BTreeMap<String, String> = operator_variable(objects, "EXPORTER_POD_LABEL")
        .split(',')
        .map(|pair| pair.split_once('=').expect("a pair"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    labels.insert(
        crds::names::APP_NAME_LABEL.to_owned(),
        crds::names::EXPORTER_APP_NAME.to_owned(),
    );
    json!(labels)
}

fn operator_variable(objects: &[Value], variable: &str) -> String {
    let operator = format!("{FULLNAME}-operator");
    objects
        .iter()
        .filter(|object| object["kind"] == "Deployment" && name(object) == operator)
        .flat_map(containers)
        .flat_map(|container| container["env"].as_array().cloned().unwrap_or_default())
        .find(|env| env["name"] == variable)
        .map(|env| text(&env["value"]).to_owned())
        .unwrap_or_else(|| panic!("the operator has no {variable}"))
}

#[test]
fn objects_of_the_whole_cluster_carry_namespace_and_release_in_their_names() {
    let of_the_cluster = [
        "PriorityClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    let objects = objects(&everything());
    let mut found = 0;

    for object in &objects {
        if of_the_cluster.contains(&text(&object["kind"])) {
            found += 1;
            assert!(
                name(object).starts_with(&format!("{NAMESPACE}-{FULLNAME}")),
                "{object}"
            );
        } else if object["kind"] != "CustomResourceDefinition" {
            assert_eq!(object["metadata"]["namespace"], NAMESPACE, "{object}");
        }
    }
    assert_eq!(found, of_the_cluster.len());
}

#[test]
fn only_programs_that_use_kubernetes_have_its_token() {
    let with_token: Vec<_> = pods(&objects(&everything()))
        .filter(|pod| pod["spec"]["automountServiceAccountToken"] != false)
        .map(|pod| text(&pod["spec"]["serviceAccountName"]).to_owned())
        .collect();

    let programs = ["api", "operator", "uninstall"].map(|program| format!("{FULLNAME}-{program}"));
    assert!(!with_token.is_empty());
    assert!(
        with_token.iter().all(|account| programs.contains(account)),
        "{with_token:?}"
    );
    for account in objects(&everything())
        .iter()
        .filter(|object| object["kind"] == "ServiceAccount")
    {
        assert_eq!(account["automountServiceAccountToken"], false, "{account}");
    }
}

#[test]
fn no_role_reaches_beyond_the_namespace_or_has_wildcards() {
    let objects = objects(&everything());
    let kinds: Vec<_> = objects.iter().map(|object| text(&object["kind"])).collect();
    assert!(
        !kinds.iter().any(|kind| kind.starts_with("ClusterRole")),
        "{kinds:?}"
    );

    for role in objects.iter().filter(|object| object["kind"] == "Role") {
        assert!(!role["rules"].to_string().contains('*'), "{role}");
        assert!(!role["rules"].to_string().contains("secrets"), "{role}");
    }
}

/// What a program may do, as the chart and the programs themselves list it: group, resource, name, verbs.
type Rights = BTreeSet<(String, String, Option<String>, Vec<String>)>;

#[rstest]
#[case::api("api", rights::API)]
#[case::operator("operator", rights::OPERATOR)]
fn a_role_grants_what_the_program_lists_and_no_more(#[case] program: &str, #[case] listed: &[Rule]) {
    let role = format!("{FULLNAME}-{program}");
    let listed: Rights = listed
        .iter()
        .map(|rule| {
            let name = (rule.objects == Objects::Lease).then(|| role.clone());
            let verbs = rule.verbs.iter().map(ToString::to_string).collect();
            (rule.group.to_owned(), rule.resource.to_owned(), name, verbs)
        })
        .collect();

    let granted: Rights = objects(&secrets())
        .iter()
        .filter(|object| object["kind"] == "Role" && name(object) == role)
        .flat_map(|object| object["rules"].as_array().cloned().unwrap_or_default())
        .map(|rule| {
            let one = |key: &str| text(&rule[key][0]).to_owned();
            let verbs = rule["verbs"].as_array().unwrap().iter();
            let verbs = verbs.map(|verb| text(verb).to_owned()).collect();
            let name = rule["resourceNames"].is_array().then(|| one("resourceNames"));
            (one("apiGroups"), one("resources"), name, verbs)
        })
        .collect();

    assert_eq!(granted, listed);
}

#[test]
fn workload_identity_is_on_every_pod_that_logs_in() {
    let objects = objects(&chart_values("aks"));
    let label = "azure.workload.identity/use";

    for pod in pods(&objects) {
        let account = text(&pod["spec"]["serviceAccountName"]);
        // the report of `helm test` only asks the API, and what uninstalls only Kubernetes
        if !account.is_empty() && !account.ends_with("-uninstall") {
            assert_eq!(pod["metadata"]["labels"][label], "true", "{account}");
        }
    }
    assert_eq!(exporter_labels(&objects)[label], "true");
    let ids: BTreeMap<_, _> = objects
        .iter()
        .filter(|object| object["kind"] == "ServiceAccount")
        .map(|account| {
            let id = &account["metadata"]["annotations"]["azure.workload.identity/client-id"];
            (name(account), text(id).to_owned())
        })
        .collect();
    let values = chart_values("aks");
    for program in ["api", "operator", "exporter", "migrations"] {
        assert_eq!(
            ids[&format!("{FULLNAME}-{program}")],
            text(&values["workloadIdentity"][program]["clientId"])
        );
    }
}

#[test]
fn the_catalogue_may_be_a_replica() {
    let variables = operator_variable(&objects(&everything()), "EXPORTER_ENV");

    assert!(
        variables.contains(
            "CATALOG_DATABASE_URL=postgres://popularity-reports-exporter@replica.example.com:6432/music?"
        ),
        "{variables}"
    );
    assert!(variables.contains("@example.postgres.database.azure.com:5432/popularity_reports?"));
}

#[test]
fn a_release_named_after_the_product_is_not_named_twice() {
    let rendered = |release: &str| {
        let chart = crate::helm::chart();
        crate::helm::run(
            &[
                "template",
                release,
                chart.to_str().unwrap(),
                "--kube-version",
                "1.34.0",
                "--show-only",
                "templates/api/service.yaml",
                "--values",
                "-",
            ],
            &secrets().to_string(),
        )
        .unwrap()
    };

    assert!(rendered("popularity-reports").contains("\n  name: popularity-reports-api\n"));
    assert!(rendered("a").contains("\n  name: a-popularity-reports-api\n"));
}

#[test]
fn an_autoscaled_api_has_no_number_of_its_own() {
    let replicas = |enabled: bool| {
        let values = merged(secrets(), json!({"api": {"autoscaling": {"enabled": enabled}}}));
        objects(&values)
            .into_iter()
            .find(|object| object["kind"] == "Deployment" && name(object).ends_with("-api"))
            .map(|deployment| deployment["spec"]["replicas"].clone())
    };

    assert_eq!(replicas(true), Some(Value::Null));
    assert_eq!(replicas(false), Some(json!(2)));
}
