//! The product's own programs, with nothing but workload identities: tokens of real service accounts, no
//! password and no key in any environment, and every access token replaced while they work. Kubernetes is
//! real; the exporter runs as a process in place of its Pod, as the Job in the cluster has an image that is
//! nowhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod place;

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use place::{Part, Place, until};

const WAIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_report_is_made_by_workload_identities_alone() {
    let place = Place::start(Duration::from_secs(4)).await;
    place.run(Part::Migrations, "operator", &["migrate"], &[]).await;
    let api = place.spawn(Part::Api, "api", &[], &[]);
    let operator = place.spawn(Part::Operator, "operator", &[], &[]);
    for program in [&api, &operator] {
        program.becomes_ready(WAIT).await;
    }

    let (status, answer) = api.rest("POST", "/reports/popularity", Some(json!({}))).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let id = answer["reportId"]
        .as_str()
        .expect("the answer has the id")
        .to_owned();
    let report = format!("/reports/{id}");
    let job = format!("export-{id}");
    until(&format!("the operator makes Job {job}"), WAIT, async || {
        place.kubectl(&["get", "jobs", "-o", "name"]).await.contains(&id)
    })
    .await;

    place
        .run(Part::Exporter, "exporter", &[], &[("REPORT_ID", &id)])
        .await;
    let mut body = Value::Null;
    until("the report is completed", WAIT, async || {
        body = api.rest("GET", &report, None).await.1;
        body["status"] == "Completed"
    })
    .await;
    let first = body["downloadUrl"].as_str().expect("a link").to_owned();
    let file = place.http().get(&first).send().await.unwrap();
    assert_eq!(file.status(), StatusCode::OK);
    assert!(
        file.text().await.unwrap().lines().count() > 1,
        "a header and albums"
    );

    // both go on with other tokens
    let seen = (place.issued(Part::Api), place.issued(Part::Operator));
    until("both have got two more tokens", WAIT, async || {
        place.issued(Part::Api) > seen.0 + 1 && place.issued(Part::Operator) > seen.1 + 1
    })
    .await;
    let (status, second) = api
        .rest("POST", "/reports/popularity", Some(json!({"limit": 1})))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{second}");
    let second = second["reportId"].as_str().unwrap().to_owned();
    until("the operator makes the second Job", WAIT, async || {
        place
            .kubectl(&["get", "jobs", "-o", "name"])
            .await
            .contains(&second)
    })
    .await;
    for program in [&api, &operator] {
        assert_eq!(program.ready().await.0, StatusCode::OK, "{}", program.log());
        assert!(!program.log().contains("no token"), "{}", program.log());
    }
    place.remove().await;
}

#[tokio::test]
async fn a_service_account_that_is_not_federated_leaves_its_program_unready_with_one_line() {
    let place = Place::start(Duration::from_secs(60)).await;
    // the exporter's account, where the API's and the operator's are expected
    let foreign = place.token_file(Part::Exporter);
    let file = [("AZURE_FEDERATED_TOKEN_FILE", foreign.as_str())];

    for (part, program) in [(Part::Api, "api"), (Part::Operator, "operator")] {
        let program = place.spawn(part, program, &[], &file);
        let client = place.client(part).to_string();
        until("it is refused more than once", WAIT, async || {
            place.refused() >= 2 && program.ready().await.1.contains(&client)
        })
        .await;

        let (status, body) = program.ready().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        assert!(body.contains("identity"), "{body}");
        let log = program.log();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains("operator doctor"))
            .collect();
        let [line] = lines[..] else {
            panic!("one line says it:\n{log}")
        };
        assert!(line.contains(&client) && line.contains("AADSTS700213"), "{line}");
    }
    place.remove().await;
}
