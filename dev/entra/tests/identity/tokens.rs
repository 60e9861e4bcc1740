//! How tokens are got, kept, renewed and missed.

use std::time::{Duration, Instant};

use entra::{AUDIENCE, Fault, SigningKey};
use rstest::rstest;

use crate::support::{STORAGE, SUBJECT, a_world, chain, sign, until};

#[tokio::test]
async fn one_token_serves_all_callers_of_a_scope_and_no_other() {
    // the SDK's own cache asks for a token of less than five minutes at every call
    let world = a_world(Duration::from_secs(100)).await;
    let identity = world.identity();

    let calls = (0..50).map(|_| identity.token(STORAGE));
    let tokens = futures::future::try_join_all(calls).await.unwrap();
    let other = identity
        .token("https://servicebus.azure.net/.default")
        .await
        .unwrap();

    assert!(
        tokens
            .iter()
            .all(|token| token.token.secret() == tokens[0].token.secret())
    );
    assert_ne!(other.token.secret(), tokens[0].token.secret());
    assert_eq!(world.entra.issued(world.client(), STORAGE), 1);
}

#[tokio::test]
async fn a_token_is_replaced_before_it_ends() {
    let world = a_world(Duration::from_secs(2)).await;
    let identity = world.identity();
    let began = Instant::now();

    while began.elapsed() < Duration::from_secs(7) {
        let token = identity.token(STORAGE).await.unwrap();
        assert!(token.expires_on > azure_core::time::OffsetDateTime::now_utc());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let issued = world.entra.issued(world.client(), STORAGE);
    assert!((4..=5).contains(&issued), "every 1.6 s in 7 s: {issued}");
}

#[tokio::test]
async fn the_service_accounts_token_is_read_for_every_request() {
    let world = a_world(Duration::from_secs(1)).await;
    let identity = world.identity();
    identity.token(STORAGE).await.unwrap();

    world.write_token(&world.service_account_token("system:serviceaccount:reports:other", AUDIENCE, 60));
    until("the wrong token is noticed", async || {
        identity.token(STORAGE).await.is_err()
    })
    .await;
    assert!(world.entra.refused(700_213) > 0);

    // with a final newline, as an editor would leave it
    world.write_token(&format!(
        "{}\n",
        world.service_account_token(SUBJECT, AUDIENCE, 60)
    ));
    until("the right one serves again", async || {
        identity.token(STORAGE).await.is_ok()
    })
    .await;
    assert!(identity.health().is_ok());
}

#[rstest]
#[case::subject("system:serviceaccount:other:exporter", AUDIENCE, 60, "AADSTS700213")]
#[case::audience(SUBJECT, "https://kubernetes.default.svc", 60, "AADSTS700212")]
#[case::expired(SUBJECT, AUDIENCE, -1, "AADSTS700024")]
#[tokio::test]
async fn a_wrong_service_accounts_token_is_refused_at_once(
    #[case] subject: &str,
    #[case] audience: &str,
    #[case] seconds: i64,
    #[case] code: &str,
) {
    let world = a_world(Duration::from_secs(60)).await;
    world.write_token(&world.service_account_token(subject, audience, seconds));
    let identity = world.patient_identity(Duration::from_secs(60));
    let began = Instant::now();

    let error = identity.token(STORAGE).await.unwrap_err();

    assert!(error.is_refused());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "no patience with a refusal"
    );
    assert!(chain(&error).contains(code), "{}", chain(&error));
    let told = identity.health().unwrap_err().to_string();
    assert!(told.contains(&world.client().to_string()), "{told}");
    assert_eq!(world.entra.issued(world.client(), STORAGE), 0);
}

#[tokio::test]
async fn a_token_of_another_cluster_is_refused() {
    let world = a_world(Duration::from_secs(60)).await;
    let foreign = SigningKey::generate().unwrap();
    world.write_token(&sign(
        &foreign,
        "https://cluster.example/oidc",
        SUBJECT,
        AUDIENCE,
        60,
    ));

    let error = world.identity().token(STORAGE).await.unwrap_err();

    assert!(
        error.is_refused() && chain(&error).contains("AADSTS7000272"),
        "{}",
        chain(&error)
    );
}

#[rstest]
#[case::missing(None, "failed to read the service account's token from")]
#[case::empty(Some("\n"), "it is empty")]
#[tokio::test]
async fn a_token_file_without_a_token_is_named(#[case] content: Option<&str>, #[case] text: &str) {
    let world = a_world(Duration::from_secs(60)).await;
    match content {
        None => std::fs::remove_file(world.token_file()).unwrap(),
        Some(content) => world.write_token(content),
    }

    let error = world.identity().token(STORAGE).await.unwrap_err();

    let told = chain(&error);
    assert!(told.contains(text), "{told}");
    assert!(told.contains(world.token_file().to_str().unwrap()), "{told}");
    assert!(!error.is_refused(), "the kubelet may write it yet");
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_waited_for() {
    let world = a_world(Duration::from_secs(60)).await;
    world.entra.set_fault(Some(Fault::Away));
    let identity = world.patient_identity(Duration::from_secs(60));
    let waiting = tokio::spawn({
        let identity = identity.clone();
        async move { identity.token(STORAGE).await }
    });
    until("the failure is told", async || identity.health().is_err()).await;
    assert!(!waiting.is_finished());

    world.entra.set_fault(None);

    waiting.await.unwrap().unwrap();
    assert!(identity.health().is_ok());
}

#[tokio::test]
async fn while_the_endpoint_is_away_the_token_at_hand_serves_to_its_end() {
    let world = a_world(Duration::from_secs(3)).await;
    let identity = world.identity();
    let token = identity.token(STORAGE).await.unwrap();
    world.entra.set_fault(Some(Fault::Refuse));

    until("a renewal is refused", async || {
        let served = identity.token(STORAGE).await;
        if azure_core::time::OffsetDateTime::now_utc() < token.expires_on {
            assert_eq!(served.unwrap().token.secret(), token.token.secret());
            assert!(identity.health().is_ok());
        }
        world.entra.refused(50_000) > 0
    })
    .await;
    until("the token's end", async || identity.token(STORAGE).await.is_err()).await;

    assert!(azure_core::time::OffsetDateTime::now_utc() >= token.expires_on);
    assert!(identity.health().unwrap_err().is_refused());
}

#[tokio::test]
async fn a_slow_endpoint_holds_up_nobody_who_has_a_token() {
    let world = a_world(Duration::from_secs(20)).await;
    let identity = world.identity();
    identity.token(STORAGE).await.unwrap();
    world.entra.set_fault(Some(Fault::Slow(Duration::from_secs(3))));
    let began = Instant::now();
    let mut longest = Duration::ZERO;

    // 16 s on the renewal is due
    while world.entra.issued(world.client(), STORAGE) < 2 {
        assert!(began.elapsed() < Duration::from_secs(30));
        let call = Instant::now();
        identity.token(STORAGE).await.unwrap();
        longest = longest.max(call.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    assert!(longest < Duration::from_millis(2_500), "{longest:?}");
}

#[tokio::test]
async fn what_is_not_set_is_named() {
    let world = a_world(Duration::from_secs(60)).await;
    let mut settings = world.settings(world.client());
    settings.tenant_id = None;

    let error = identity::Identity::new(&settings).unwrap_err();

    assert!(
        error.to_string().starts_with("AZURE_TENANT_ID is not set"),
        "{error}"
    );
}
