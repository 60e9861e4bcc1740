//! Wrong values are refused before anything is installed, by the name of the value.

use rstest::rstest;
use serde_json::{Value, json};

use crate::helm::{chart_values, merged, secrets, template};

fn refusal(values: &Value) -> String {
    match template(values) {
        Ok(_) => panic!("not refused: {values}"),
        Err(error) => error,
    }
}

/// The values of `base` with another one at a path such as `/api/replicas`.
fn with(base: Value, path: &str, value: Value) -> Value {
    let over = path
        .rsplit('/')
        .filter(|part| !part.is_empty())
        .fold(value, |below, part| json!({part: below}));
    merged(base, over)
}

#[rstest]
#[case::registry_with_scheme("/images/registry", json!("https://example.azurecr.io"))]
#[case::tag_with_colon("/images/tag", json!("a:b"))]
#[case::tag_as_number("/images/tag", json!(1))]
#[case::pull_policy("/images/pullPolicy", json!("Sometimes"))]
#[case::pull_secrets_as_text("/images/pullSecrets", json!("registry"))]
#[case::repository("/images/api/repository", json!("Popularity Reports"))]
#[case::no_repository("/images/exporter/repository", json!(""))]
#[case::short_digest("/images/operator/digest", json!("sha256:0123"))]
#[case::text_for_a_boolean("/crds/install", json!("yes"))]
#[case::no_secret_of_the_api("/secrets/api/name", json!(""))]
#[case::no_secret_of_the_operator("/secrets/operator/name", json!(""))]
#[case::no_secret_of_the_exporter("/secrets/exporter/name", json!(""))]
#[case::no_secret_of_the_migrations("/secrets/migrations/name", json!(""))]
#[case::name_in_capitals("/secrets/api/name", json!("The_API"))]
#[case::host_without_workload_identity("/database/host", json!("database.example.com"))]
#[case::namespace_without_workload_identity("/serviceBus/namespace", json!("example.servicebus.windows.net"))]
#[case::endpoint_without_workload_identity("/blob/endpoint", json!("https://example.blob.core.windows.net"))]
#[case::no_such_tls_mode("/database/sslMode", json!("prefer"))]
#[case::port_out_of_range("/database/port", json!(70000))]
#[case::port_of_the_catalogue("/database/catalogue/port", json!(0))]
#[case::no_queue("/serviceBus/queue", json!(""))]
#[case::public_endpoint_without_scheme("/blob/publicEndpoint", json!("files.example.com"))]
#[case::container_in_capitals("/blob/container", json!("Reports"))]
#[case::container_too_short("/blob/container", json!("ab"))]
#[case::no_issuer("/auth/issuer", json!(""))]
#[case::jwks_without_tls("/auth/jwksUrl", json!("http://identity.example.com/keys"))]
#[case::replicas_as_text("/api/replicas", json!("two"))]
#[case::replicas_below_none("/operator/replicas", json!(-1))]
#[case::retention_too_short("/api/reportRetentionSeconds", json!(59))]
#[case::link_too_long("/api/downloadUrlSeconds", json!(901))]
#[case::nobody_may_ask("/api/maxUnfinishedPerUser", json!(0))]
#[case::log_with_a_semicolon("/api/logLevel", json!("info;debug"))]
#[case::quantity("/api/resources/limits/memory", json!("1Gb"))]
#[case::no_such_resource("/api/resources/limits", json!({"memroy": "1Gi"}))]
#[case::label_of_the_chart("/api/podLabels", json!({"app.kubernetes.io/name": "mine"}))]
#[case::label_with_a_space("/operator/podLabels", json!({"team": "a b"}))]
#[case::number_as_annotation("/api/podAnnotations/note", json!(1))]
#[case::toleration("/operator/tolerations", json!([{"operator": "Sometimes"}]))]
#[case::affinity("/operator/affinity", json!({"nodeAfinity": {}}))]
#[case::spread("/api/topologySpreadConstraints", json!([{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]))]
#[case::variable_with_a_dash("/operator/extraEnv", json!([{"name": "A-B", "value": ""}]))]
#[case::number_as_variable("/api/extraEnv", json!([{"name": "A", "value": 1}]))]
#[case::service_type("/api/service/type", json!("ExternalName"))]
#[case::service_port("/api/service/port", json!(0))]
#[case::node_port_of_a_cluster_ip("/api/service/nodePort", json!(30080))]
#[case::disruption_of_nobody("/api/podDisruptionBudget/maxUnavailable", json!(0))]
#[case::ingress_without_a_host("/api/ingress", json!({"enabled": true}))]
#[case::ingress_of_a_url("/api/ingress", json!({"enabled": true, "hosts": ["https://reports.example.com"]}))]
#[case::relative_path("/api/ingress/path", json!("reports"))]
#[case::route_without_a_gateway("/api/httpRoute", json!({"enabled": true}))]
#[case::route_to_no_name("/api/httpRoute/parentRefs", json!([{"namespace": "gateways"}]))]
#[case::scaled_by_no_cpu("/api/autoscaling/targetCPUUtilizationPercentage", json!(0))]
#[case::no_place("/operator/maxInFlight", json!(0))]
#[case::too_many_retries("/exporter/backoffLimit", json!(21))]
#[case::memory_of_the_exporter("/exporter/resources/memory", json!("much"))]
#[case::variable_with_a_comma("/exporter/extraEnv", json!([{"name": "A", "value": "1,2"}]))]
#[case::variable_from_elsewhere("/exporter/extraEnv", json!([{"name": "A", "valueFrom": {"fieldRef": {}}}]))]
#[case::queue_name("/exporter/queueName", json!("My Queue"))]
#[case::deadline_of_nothing("/migrations/activeDeadlineSeconds", json!(0))]
#[case::mask_too_long("/networkPolicy/blob/cidrs", json!(["10.0.0.0/33"]))]
#[case::octet("/networkPolicy/database/cidrs", json!(["10.0.0.256/32"]))]
#[case::address_without_mask("/networkPolicy/kubernetes/cidrs", json!(["10.0.0.1"]))]
#[case::no_network("/networkPolicy/serviceBus/cidrs", json!([]))]
#[case::flow_to_no_port("/networkPolicy/identity/ports", json!([]))]
#[case::client("/networkPolicy/clients", json!([{"namespace": "gateways"}]))]
#[case::everybody_as_a_client("/networkPolicy/clients", json!([{}]))]
#[case::except("/networkPolicy/monitoring", json!([{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1"]}}]))]
#[case::priority_of_the_system("/priorityClass/value", json!(2_000_000_000))]
#[case::interval("/monitoring/serviceMonitor/interval", json!("soon"))]
#[case::ratio("/monitoring/prometheusRule/failedRatio", json!(20))]
#[case::download_base_with_a_path("/tests/downloadBase", json!("http://azurite:10000/account"))]
#[case::key_of_a_secret("/tests/tokenSecret/key", json!("a b"))]
fn a_wrong_value_is_refused_by_its_path(#[case] path: &str, #[case] value: Value) {
    let error = refusal(&with(secrets(), path, value));

    assert!(error.contains(&format!("at '{path}")), "{error}");
}

#[rstest]
#[case::at_the_top("", "replicaCount")]
#[case::of_a_program("/api", "replicaCount")]
#[case::of_an_image("/images/api", "repo")]
#[case::of_a_secret("/secrets/api", "value")]
#[case::of_the_exporter("/exporter", "replicas")]
#[case::of_a_flow("/networkPolicy/blob", "cidr")]
fn a_key_that_means_nothing_is_refused_by_its_name(#[case] at: &str, #[case] key: &str) {
    let error = refusal(&with(secrets(), &format!("{at}/{key}"), json!("1")));

    assert!(
        error.contains(&format!("at '{at}': additional properties '{key}' not allowed")),
        "{error}"
    );
}

#[rstest]
#[case("/workloadIdentity/tenantId")]
#[case("/workloadIdentity/api/clientId")]
#[case("/workloadIdentity/operator/clientId")]
#[case("/workloadIdentity/exporter/clientId")]
#[case("/workloadIdentity/migrations/clientId")]
#[case("/database/host")]
#[case("/database/users/api")]
#[case("/database/users/operator")]
#[case("/database/users/exporter")]
#[case("/database/users/migrations")]
#[case("/serviceBus/namespace")]
#[case("/blob/endpoint")]
fn workload_identity_needs_to_know_where_and_who(#[case] path: &str) {
    let error = refusal(&with(chart_values("aks"), path, json!("")));

    assert!(error.contains(&format!("at '{path}'")), "{error}");
}

#[test]
fn without_published_keys_the_api_needs_a_secret_for_its_key() {
    let error = refusal(&with(chart_values("aks"), "/auth/jwksUrl", json!("")));

    assert!(error.contains("at '/secrets/api/name'"), "{error}");
}

#[test]
fn a_value_that_was_removed_is_missed_by_its_name() {
    let error = refusal(&with(secrets(), "/api/resources", Value::Null));

    assert!(
        error.contains("at '/api': missing property 'resources'"),
        "{error}"
    );
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let values = with(secrets(), "/images/pullPolicy", json!("Sometimes"));
    let error = refusal(&with(values, "/api/replicas", json!("two")));

    assert!(
        error.contains("/images/pullPolicy") && error.contains("/api/replicas"),
        "{error}"
    );
}

#[test]
fn an_autoscaler_whose_least_is_more_than_its_most_is_refused() {
    let scaling = json!({"enabled": true, "minReplicas": 7, "maxReplicas": 6});
    let error = refusal(&with(secrets(), "/api/autoscaling", scaling));

    assert!(error.contains("api.autoscaling.minReplicas is 7"), "{error}");
}
