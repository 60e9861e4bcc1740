//! The one table of bad parameters, at both doors.

use crds::testing::bad_parameters;
use kube::api::PostParams;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use testkit::{Part, Release, in_a_world};

#[tokio::test(flavor = "multi_thread")]
async fn rest_refuses_bad_parameters_and_names_the_field() {
    in_a_world(async |world| {
        let release = Release::setup(world).without(Part::Operator).install().await;
        let application = release.application();
        for bad in bad_parameters() {
            let answer = application.request(&bad.parameters).await;

            let name = bad.name;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}: {}", answer.body);
            assert_eq!(answer.headers[CONTENT_TYPE], "application/problem+json", "{name}");
            let errors = answer.body["errors"].as_array().unwrap();
            assert_eq!(errors.len(), 1, "{name}: {}", answer.body);
            assert_eq!(errors[0]["pointer"], bad.pointer(), "{name}");
            assert_eq!(errors[0]["propertyName"], bad.property, "{name}");
            assert_eq!(errors[0]["message"], bad.message, "{name}");
        }
        assert!(
            world.database.reports().await.is_empty(),
            "nothing is half-written"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_bad_parameters_with_the_same_words() {
    in_a_world(async |world| {
        let path = kube::Api::<crds::PopularityReport>::namespaced(
            world.cluster.client.clone(),
            &world.cluster.namespace,
        )
        .resource_url()
        .to_owned();
        for bad in bad_parameters() {
            let object = json!({
                "apiVersion": "reports.musicalbums.dev/v1alpha1",
                "kind": "PopularityReport",
                "metadata": {"name": bad.name},
                "spec": bad.parameters,
            });
            let mut request = kube::core::Request::new(&path)
                .create(&PostParams::default(), object.to_string().into_bytes())
                .unwrap();
            // as kubectl asks
            *request.uri_mut() = format!("{path}?fieldValidation=Strict").parse().unwrap();

            let applied = world.cluster.client.request::<Value>(request).await;

            let error = applied.expect_err(bad.name);

            let kube::Error::Api(status) = &error else {
                panic!("{}: {error}", bad.name);
            };
            assert!(matches!(status.code, 400 | 422), "{}: {status:?}", bad.name);
            assert!(
                status.message.contains(bad.custom_resource),
                "{}: {}",
                bad.name,
                status.message
            );
            assert!(
                status.message.contains(bad.property),
                "{}: {}",
                bad.name,
                status.message
            );
        }
        assert!(world.cluster.reports().await.is_empty());
    })
    .await;
}
