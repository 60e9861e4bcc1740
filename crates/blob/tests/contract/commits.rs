//! One name, several attempts: exactly one blob, whoever is slow and whatever answer is lost.

use blob::{Commit, Refusal};

use crate::faults::LostAnswer;
use crate::support::{KIB, a_container, a_writer, config, content, of_attempt, read, write};

#[tokio::test]
async fn a_second_commit_of_a_name_is_refused_and_leaves_the_first_intact() {
    let store = a_container().await;
    let first = content(3 * 64 * KIB);
    write(&store, "r.csv", &first).await;
    let before = store.facts("r.csv").await.unwrap().unwrap();

    let mut writer = a_writer(&store, "r.csv", 2);
    writer.write(b"another").await.unwrap();
    let commit = writer.commit(of_attempt(2)).await.unwrap();

    assert_eq!(commit, Commit::Exists(before.clone()));
    assert_eq!(store.facts("r.csv").await.unwrap(), Some(before));
    assert!(read(&store, "r.csv").await == first, "the first blob changed");
}

#[tokio::test]
async fn of_two_commits_at_once_exactly_one_is_the_blob() {
    let store = a_container().await;
    for round in 0..10 {
        let name = format!("r-{round}.csv");
        let attempt = |attempt: u32| {
            let mut writer = a_writer(&store, &name, attempt);
            async move {
                writer
                    .write(format!("attempt {attempt}").as_bytes())
                    .await
                    .unwrap();
                writer.commit(of_attempt(attempt)).await
            }
        };
        let (one, two) = tokio::join!(attempt(1), attempt(2));
        // the loser finds the winner's blob, or its own blocks thrown away by the winner's commit
        let created = [one, two]
            .into_iter()
            .filter(|commit| matches!(commit, Ok(Commit::Created(_))))
            .count();
        assert_eq!(created, 1, "round {round}");
        let winner = store.facts(&name).await.unwrap().unwrap();
        let text = format!("attempt {}", winner.metadata.get("attempt").unwrap());
        assert_eq!(read(&store, &name).await, text.as_bytes(), "round {round}");
    }
}

#[tokio::test]
async fn a_slow_attempt_that_commits_after_a_later_one_changes_nothing() {
    let store = a_container().await;
    let mut zombie = a_writer(&store, "r.csv", 1);
    zombie.write(&content(2 * 64 * KIB)).await.unwrap();

    let mut second = a_writer(&store, "r.csv", 2);
    second.write(b"the second attempt").await.unwrap();
    let Commit::Created(winner) = second.commit(of_attempt(2)).await.unwrap() else {
        panic!("nothing was committed before");
    };
    // it stages once more, so that it has a block again
    zombie.write(&content(64 * KIB)).await.unwrap();

    assert_eq!(
        zombie.commit(of_attempt(1)).await.unwrap(),
        Commit::Exists(winner)
    );
    assert_eq!(read(&store, "r.csv").await, b"the second attempt");
}

#[tokio::test]
async fn a_slow_attempt_whose_blocks_were_thrown_away_may_try_again() {
    let store = a_container().await;
    let mut zombie = a_writer(&store, "r.csv", 1);
    // four of the six blocks may be on their way still, so at least two have arrived
    zombie.write(&content(6 * 64 * KIB)).await.unwrap();
    write(&store, "r.csv", b"another").await;
    assert!(store.delete("r.csv").await.unwrap());

    let error = zombie.commit(of_attempt(3)).await.unwrap_err();
    assert_eq!(error.failure().unwrap().code(), Some("InvalidBlockList"));
    assert_eq!(error.refusal(), Refusal::Temporary);
    assert_eq!(store.facts("r.csv").await.unwrap(), None);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_known_as_our_own() {
    let azurite = azurite::Azurite::start().unwrap();
    let proxy = LostAnswer::to(azurite.endpoint()).await;
    let direct = config(&azurite.connection_string());
    let mut through_proxy = direct.clone();
    through_proxy.credential =
        blob::Credential::ConnectionString(proxy.rewritten(&azurite.connection_string()).into());
    let direct = blob::BlobStore::new(direct).unwrap();
    direct.ensure_container().await.unwrap();
    let store = blob::BlobStore::new(through_proxy).unwrap();

    let mut writer = a_writer(&store, "r.csv", 1);
    writer.write(b"once").await.unwrap();
    let commit = writer.commit(of_attempt(1)).await.unwrap();

    assert_eq!(proxy.lost(), 1, "the answer to the first commit was lost");
    assert!(matches!(commit, Commit::Created(_)), "{commit:?}");
    assert_eq!(read(&direct, "r.csv").await, b"once");
}
