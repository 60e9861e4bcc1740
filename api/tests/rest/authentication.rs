//! All the ways in which a token can be bad, and both kinds of keys.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RsaKeyPair};
use axum::Json;
use axum::routing::get;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Answer, Api, JWT_KEY, Token, USER, assert_answer, seconds_from_now};

/// No report's path: what a good token gets there is a 400, and no database is asked.
const PATH: &str = "/reports/not-an-id";
const TAKEN: &str = "invalid-report-id";

async fn ask(api: &Api, token: &str) -> Answer {
    Answer::to(api.anonymous(Method::GET, PATH).bearer_auth(token)).await
}

fn assert_refused(answer: &Answer, detail: &str) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
    assert_eq!(answer.problem(), "unauthenticated");
    assert!(
        answer.body["detail"].as_str().unwrap().contains(detail),
        "{answer:?}"
    );
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with(r#"Bearer error="invalid_token""#),
        "{challenge}"
    );
}

#[tokio::test]
async fn without_a_token_the_scheme_is_named() {
    let api = Api::start_without_database(&[]).await;

    assert_answer!(Answer::to(api.anonymous(Method::POST, "/reports/popularity")).await);
}

#[tokio::test]
async fn another_scheme_is_refused() {
    let api = Api::start_without_database(&[]).await;

    let basic = Answer::to(
        api.anonymous(Method::GET, PATH)
            .header(AUTHORIZATION, "Basic dXNlcjpwYXNz"),
    )
    .await;

    assert_answer!(basic);
}

#[rstest]
#[case::other_key(Token::of(USER).signed_by(&EncodingKey::from_secret(b"another-key-of-at-least-thirty-two-bytes")), "signature")]
#[case::expired(Token::of(USER).with("exp", json!(seconds_from_now(-31))).signed(), "expired")]
#[case::no_expiry(Token::of(USER).without("exp").signed(), "exp claim")]
#[case::expiry_is_text(Token::of(USER).with("exp", json!("soon")).signed(), "exp claim")]
#[case::not_yet_valid(Token::of(USER).with("nbf", json!(seconds_from_now(60))).signed(), "not valid yet")]
#[case::other_issuer(Token::of(USER).with("iss", json!("Somebody")).signed(), "issuer")]
#[case::no_issuer(Token::of(USER).without("iss").signed(), "iss claim")]
#[case::other_audience(Token::of(USER).with("aud", json!("OtherApi")).signed(), "audience")]
#[case::no_audience(Token::of(USER).without("aud").signed(), "aud claim")]
#[case::no_user(Token::of(USER).without("userid").signed(), "userid")]
#[case::user_is_no_uuid(Token::of(USER).with("userid", json!("alice")).signed(), "userid")]
#[case::user_is_a_number(Token::of(USER).with("userid", json!(7)).signed(), "userid")]
#[case::admin_is_a_number(Token::of(USER).with("admin", json!(1)).signed(), "admin")]
#[case::wrong_hash(wrong_hash(), "alg")]
#[case::no_algorithm(unsigned("none"), "alg")]
#[case::no_algorithm_in_capitals(unsigned("NONE"), "alg")]
#[case::unknown_algorithm(unsigned("XX999"), "alg")]
#[case::public_key_algorithm_without_a_key_set(unsigned("RS256"), "alg")]
#[case::claims_changed(tampered(), "signature")]
#[case::signature_too_short(short_signature(), "signature")]
#[case::critical_extension(critical(), "crit")]
#[case::one_part("abc".to_owned(), "JSON Web Token")]
#[case::two_parts("abc.def".to_owned(), "JSON Web Token")]
#[case::not_base64("a+b.c/d.e=f".to_owned(), "JSON Web Token")]
#[case::not_json("YWJj.YWJj.YWJj".to_owned(), "JSON Web Token")]
#[tokio::test]
async fn a_bad_token_is_refused_with_its_reason(#[case] token: String, #[case] detail: &str) {
    let api = Api::start_without_database(&[]).await;

    assert_refused(&ask(&api, &token).await, detail);
}

#[rstest]
#[case::plain(Token::of(USER))]
#[case::just_expired_within_the_leeway(Token::of(USER).with("exp", json!(seconds_from_now(-5))))]
#[case::without_not_before(Token::of(USER).without("nbf"))]
#[case::one_of_several_audiences(Token::of(USER).with("aud", json!(["Other", "MusicAlbumsApi"])))]
#[case::admin_as_text(Token::of(USER).with("admin", json!("True")))]
#[case::claims_that_mean_nothing_here(Token::of(USER).with("trusted_member", json!(true)))]
#[tokio::test]
async fn a_good_token_is_taken(#[case] token: Token) {
    let api = Api::start_without_database(&[]).await;

    assert_eq!(ask(&api, &token.signed()).await.problem(), TAKEN);
}

fn wrong_hash() -> String {
    let mut token = Token::of(USER);
    token.header.alg = Algorithm::HS512;
    token.signed()
}

fn encode(part: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part.to_string())
}

/// Its signature is any text: the algorithm is refused before it is looked at.
fn unsigned(algorithm: &str) -> String {
    let header = encode(&json!({ "alg": algorithm, "typ": "JWT" }));
    format!("{header}.{}.c2ln", encode(&Token::of(USER).claims))
}

/// An admin claim, put in after signing.
fn tampered() -> String {
    let signed = Token::of(USER).signed();
    let mut parts: Vec<_> = signed.split('.').map(str::to_owned).collect();
    parts[1] = encode(&Token::of(USER).with("admin", json!(true)).claims);
    parts.join(".")
}

fn short_signature() -> String {
    let signed = Token::of(USER).signed();
    let (message, _) = signed.rsplit_once('.').unwrap();
    format!("{message}.c2ln")
}

fn critical() -> String {
    let mut token = Token::of(USER);
    token.header.crit = Some(vec!["b64".to_owned()]);
    token.signed()
}

/// A token issuer that publishes a key set which a test can change.
struct Issuer {
    address: SocketAddr,
    keys: Arc<Mutex<JwkSet>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: Vec<Jwk>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            keys: Arc::new(Mutex::new(JwkSet { keys })),
            fetches: Arc::default(),
        };
        let (keys, fetches) = (Arc::clone(&issuer.keys), Arc::clone(&issuer.fetches));
        let published = async move || {
            fetches.fetch_add(1, Ordering::Relaxed);
            Json(keys.lock().unwrap().clone())
        };
        let router = axum::Router::new().route("/jwks.json", get(published));
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn publish(&self, keys: Vec<Jwk>) {
        *self.keys.lock().unwrap() = JwkSet { keys };
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    async fn api(&self, refresh_seconds: u64) -> Api {
        Api::start_without_database(&[
            &format!("--jwt-jwks-url=http://{}/jwks.json", self.address),
            &format!("--jwt-jwks-refresh-seconds={refresh_seconds}"),
        ])
        .await
    }
}

/// A pair of keys with its id.
struct Pair {
    algorithm: Algorithm,
    kid: &'static str,
    private: EncodingKey,
}

impl Pair {
    fn rsa(kid: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der = pair.as_der().unwrap();
        let body = BASE64_STANDARD.encode(der.as_ref());
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        );
        Self {
            algorithm: Algorithm::RS256,
            kid,
            private: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        }
    }

    fn ec(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self {
            algorithm: Algorithm::ES256,
            kid,
            private: EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
        }
    }

    fn public(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.to_owned());
        jwk
    }

    fn token(&self) -> Token {
        Token {
            header: Header::new(self.algorithm),
            ..Token::of(USER)
        }
        .key_id(Some(self.kid))
    }

    fn sign(&self, token: &Token) -> String {
        token.signed_by(&self.private)
    }
}

#[tokio::test]
async fn tokens_of_published_keys_are_taken_beside_those_of_the_shared_key() {
    let (rsa, ec) = (Pair::rsa("rsa-1"), Pair::ec("ec-1"));
    let issuer = Issuer::start(vec![rsa.public(), ec.public()]).await;
    let api = issuer.api(3600).await;

    for token in [
        rsa.sign(&rsa.token()),
        ec.sign(&ec.token()),
        // the only key for its algorithm need not be named
        rsa.sign(&rsa.token().key_id(None)),
        Token::of(USER).signed(),
    ] {
        assert_eq!(ask(&api, &token).await.problem(), TAKEN);
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_shared_one() {
    let rsa = Pair::rsa("rsa-1");
    let issuer = Issuer::start(vec![rsa.public()]).await;
    let api = issuer.api(3600).await;
    let public = serde_json::to_vec(&rsa.public()).unwrap();

    let forged = Token::of(USER)
        .key_id(Some("rsa-1"))
        .signed_by(&EncodingKey::from_secret(&public));

    assert_refused(&ask(&api, &forged).await, "signature");
}

#[tokio::test]
async fn a_key_of_the_other_algorithm_is_not_the_tokens_key() {
    let (rsa, ec) = (Pair::rsa("key-1"), Pair::ec("key-1"));
    let issuer = Issuer::start(vec![ec.public()]).await;
    let api = issuer.api(3600).await;

    assert_refused(&ask(&api, &rsa.sign(&rsa.token())).await, "kid");
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_found() {
    let (old, new) = (Pair::ec("ec-1"), Pair::ec("ec-2"));
    let issuer = Issuer::start(vec![old.public()]).await;
    let api = issuer.api(0).await;
    assert_eq!(ask(&api, &old.sign(&old.token())).await.problem(), TAKEN);

    issuer.publish(vec![new.public()]);

    assert_eq!(ask(&api, &new.sign(&new.token())).await.problem(), TAKEN);
    assert_refused(&ask(&api, &old.sign(&old.token())).await, "kid");
}

#[tokio::test]
async fn tokens_with_invented_keys_do_not_make_the_service_ask_again_and_again() {
    let (known, invented) = (Pair::ec("ec-1"), Pair::ec("invented"));
    let issuer = Issuer::start(vec![known.public()]).await;
    let api = issuer.api(3600).await;
    ask(&api, &known.sign(&known.token())).await;

    for _ in 0..10 {
        assert_refused(&ask(&api, &invented.sign(&invented.token())).await, "kid");
    }

    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn with_the_issuer_away_the_caller_is_told_to_come_again() {
    let ec = Pair::ec("ec-1");
    let api = Api::start_without_database(&["--jwt-jwks-url=http://127.0.0.1:1/jwks.json"]).await;

    let answer = ask(&api, &ec.sign(&ec.token())).await;
    let shared = ask(&api, &Token::of(USER).signed()).await;

    assert_answer!(answer);
    assert_eq!(shared.problem(), TAKEN);
}

#[tokio::test]
async fn neither_token_nor_key_is_repeated_in_an_answer() {
    let api = Api::start_without_database(&[]).await;
    let token = tampered();

    let answer = ask(&api, &token).await;

    assert!(!answer.text.contains(&token) && !answer.text.contains(JWT_KEY));
}
