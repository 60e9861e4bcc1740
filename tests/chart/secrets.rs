//! Secrets are named, and never in what is rendered.

use rstest::rstest;
use serde_json::Value;
use url::Url;

use crate::helm::{chart_values, everything, objects, secrets};
use crate::objects::{containers, text};

/// The variables whose values are secrets; a URL is one when there is a password in it.
const SECRET: [&str; 4] = [
    "AZURE_STORAGE_CONNECTION_STRING",
    "SERVICEBUS_CONNECTION_STRING",
    "JWT_KEY",
    "TOKEN",
];

#[rstest]
#[case::secrets(secrets())]
#[case::kind(chart_values("kind"))]
#[case::aks(chart_values("aks"))]
#[case::everything(everything())]
fn no_rendered_object_contains_a_secret_value(#[case] values: Value) {
    let objects = objects(&values);
    let mut urls = 0;

    for object in &objects {
        assert_ne!(object["kind"], "Secret");
        let shown = object.to_string();
        for part in ["AccountKey=", "SharedAccessKey=", "SharedAccessSignature="] {
            assert!(!shown.contains(part), "{part} in {shown}");
        }
        for (name, value) in containers(object).iter().flat_map(variables) {
            assert!(!SECRET.contains(&name.as_str()), "{name} has a value");
            if let Ok(url) = Url::parse(&value)
                && url.scheme() == "postgres"
            {
                urls += 1;
                assert_eq!(url.password(), None, "{name} has a password");
            }
        }
    }
    let by_identity = values["workloadIdentity"]["enabled"] == true;
    assert_eq!(urls > 0, by_identity, "{urls} URLs of databases");
}

/// Variables with their values, those in the operator's EXPORTER_ENV too.
fn variables(container: &Value) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for variable in container["env"].as_array().into_iter().flatten() {
        let (name, value) = (text(&variable["name"]), text(&variable["value"]));
        if name == "EXPORTER_ENV" {
            let pairs = value.split(',').filter_map(|pair| pair.split_once('='));
            variables.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        } else if !value.is_empty() {
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    variables
}

#[test]
fn every_program_reads_its_own_secret() {
    let objects = objects(&secrets());
    let read = |container: &str| {
        objects
            .iter()
            .flat_map(containers)
            .find(|found| found["name"] == container)
            .map(|found| text(&found["envFrom"][0]["secretRef"]["name"]).to_owned())
    };

    for program in ["api", "operator", "migrations"] {
        assert_eq!(read(program), Some(format!("the-{program}")));
    }
}
