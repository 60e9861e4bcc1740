//! What doctor and readiness say of a container, for each thing that may be missing.

use blob::checks as of_blob;
use blob::{BlobConfig, BlobStore, RetryProfile};
use checks::{Check, Outcome};
use futures::TryStreamExt as _;
use jiff::Timestamp;

use crate::support::{a_container, config};

const PROBE: &str = "doctor-00000000-0000-4000-8000-000000000001";

fn quick(connection_string: &str) -> BlobStore {
    let config = BlobConfig {
        retry: RetryProfile::Interactive,
        ..config(connection_string)
    };
    BlobStore::new(config).unwrap()
}

#[track_caller]
fn assert_missing(check: &Check, what: &str, remedy: &str) {
    assert!(check.is_missing(), "{check}");
    assert!(check.outcome.message().contains(what), "{check}");
    assert!(
        check.remedy.clone().unwrap_or_default().contains(remedy),
        "{check}"
    );
}

#[tokio::test]
async fn a_container_that_can_be_used_is_well_and_is_left_empty() {
    let store = a_container().await;

    let mut checks = of_blob::write_and_delete(&store, PROBE).await;
    checks.push(of_blob::read(&store, PROBE).await);
    checks.push(of_blob::link(&store, Timestamp::now()).await);
    checks.push(of_blob::clock(&store).await);

    for check in &checks {
        assert!(matches!(check.outcome, Outcome::Ok(_)), "{check}");
    }
    let left: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_missing_container_is_told_by_name_with_the_command_that_makes_it() {
    let store = quick(&azurite::connection_string().unwrap());

    let checks = of_blob::write_and_delete(&store, PROBE).await;
    let read = of_blob::read(&store, PROBE).await;

    let what = format!("has no container {}", store.container());
    let remedy = format!("--name {} --auth-mode login", store.container());
    assert_missing(&checks[0], &what, &remedy);
    assert_missing(&read, &what, &remedy);
    assert!(matches!(checks[2].outcome, Outcome::NotChecked(_)), "{checks:?}");
}

#[tokio::test]
async fn a_wrong_key_is_told_and_not_shown() {
    let text = azurite::connection_string().unwrap();
    let (before, after) = text.split_once("AccountKey=").unwrap();
    let rest = after.split_once(';').map_or("", |(_, rest)| rest);
    let store = quick(&format!("{before}AccountKey=bm90IHRoZSBrZXk=;{rest}"));

    let check = of_blob::read(&store, PROBE).await;

    assert_missing(
        &check,
        "refuses the account key",
        "az storage account show-connection-string",
    );
    assert!(!check.to_string().contains("bm90"), "{check}");
    assert_missing(
        &of_blob::write_and_delete(&store, PROBE).await[0],
        "refuses the account key",
        "AZURE_STORAGE_CONNECTION_STRING",
    );
}

#[tokio::test]
async fn storage_that_is_away_may_come_back_by_itself() {
    let store = quick("AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:9/a;");

    let check = of_blob::read(&store, PROBE).await;

    assert!(matches!(check.outcome, Outcome::Unavailable(_)), "{check}");
    assert!(matches!(
        of_blob::clock(&store).await.outcome,
        Outcome::NotChecked(_)
    ));
}
