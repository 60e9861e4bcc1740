//! The alerts, by Prometheus' own checker: each fires when it should, and none when nothing is wrong.

use std::fs;
use std::process::Command;

use rstest::rstest;
use serde_json::{Value, json};

use crate::helm::{NAMESPACE, everything, objects};

const OUTBOX: &str = "popularity_reports_outbox_oldest_age_seconds";
const CONSUMED: &str = "popularity_reports_consumed_messages_total";
const FINISHED: &str = "popularity_reports_reports_finished_total";
const REQUESTS: &str = "api_http_requests_total";

/// A series of our namespace, one value each minute, in the notation of promtool.
fn series(name: &str, label: &str, values: &str) -> Value {
    json!({"series": format!("{name}{{namespace=\"{NAMESPACE}\",{label}}}"), "values": values})
}

fn all_is_well() -> Vec<Value> {
    vec![
        series(OUTBOX, "pod=\"a\"", "0x60"),
        series(CONSUMED, "outcome=\"dispatched\"", "0+1x60"),
        series(CONSUMED, "outcome=\"dead_lettered\"", "0x60"),
        series("popularity_reports_leader", "pod=\"a\"", "1x60"),
        series("popularity_reports_leader", "pod=\"b\"", "0x60"),
        series(FINISHED, "reason=\"Completed\"", "0+10x60"),
        series(FINISHED, "reason=\"ExporterFailed\"", "0+1x60"),
        series(FINISHED, "reason=\"Cancelled\"", "0+10x60"),
        series(REQUESTS, "status=\"202\"", "0+100x60"),
        series(REQUESTS, "status=\"404\"", "0+100x60"),
        series(REQUESTS, "status=\"503\"", "0+1x60"),
    ]
}

/// Whether exactly these alerts fire after 40 minutes of these series among the good ones.
fn check(trouble: Vec<Value>, expected: &[Value]) -> Result<(), String> {
    let rules = objects(&everything())
        .into_iter()
        .find(|object| object["kind"] == "PrometheusRule")
        .expect("the alerts are rendered");
    let mut input = all_is_well();
    for worse in trouble {
        input.retain(|series| series["series"] != worse["series"]);
        input.push(worse);
    }
    let test = json!({
        "rule_files": ["rules.json"],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": input,
            "promql_expr_test": [{
                "expr": "count by (alertname) (ALERTS{alertstate=\"firing\"})",
                "eval_time": "40m",
                "exp_samples": expected,
            }],
        }],
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.json"), rules["spec"].to_string()).unwrap();
    let file = folder.path().join("test.json");
    fs::write(&file, test.to_string()).unwrap();
    let promtool = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let output = Command::new(&promtool)
        .args(["test", "rules"])
        .arg(&file)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run {}: {error}; `cargo xtask test` sets PROMTOOL",
                promtool.display()
            )
        });
    if output.status.success() {
        Ok(())
    } else {
        let said = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&said).into_owned())
    }
}

#[test]
fn none_fires_while_all_is_well() {
    assert_eq!(check(Vec::new(), &[]), Ok(()));
}

#[rstest]
#[case::the_queue_is_away("OutboxBacklog", series(OUTBOX, "pod=\"a\"", "0+60x60"))]
#[case::a_message_nobody_can_read("DeadLetters", series(CONSUMED, "outcome=\"dead_lettered\"", "0x30 1x30"))]
#[case::nobody_leads("NoLeader", series("popularity_reports_leader", "pod=\"a\"", "1x20 0x40"))]
#[case::the_leader_is_gone("NoLeader", series("popularity_reports_leader", "pod=\"a\"", "1x20 stale"))]
#[case::every_other_report_fails("Failing", series(FINISHED, "reason=\"ExporterFailed\"", "0+10x60"))]
#[case::the_database_is_away("ApiErrors", series(REQUESTS, "status=\"503\"", "0+50x60"))]
fn one_fires_when_something_is_wrong(#[case] alert: &str, #[case] trouble: Value) {
    let name = format!("{{alertname=\"PopularityReports{alert}\"}}");

    assert_eq!(
        check(vec![trouble], &[json!({"labels": name, "value": 1})]),
        Ok(())
    );
}

#[test]
fn an_operator_that_is_not_there_at_all_is_no_leader() {
    let gone = |pod: &str| {
        series(
            "popularity_reports_leader",
            &format!("pod=\"{pod}\""),
            "1x20 stale",
        )
    };
    let alert = json!({"labels": "{alertname=\"PopularityReportsNoLeader\"}", "value": 1});

    assert_eq!(check(vec![gone("a"), gone("b")], &[alert]), Ok(()));
}
