//! The token endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Form, Json, Router};
use futures::future::BoxFuture;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use url::Url;
use uuid::Uuid;

use crate::federation::{Federation, Refusal};
use crate::keys::SigningKey;
use crate::tls::Tls;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What the endpoint is started with.
pub struct Setup {
    /// The address to listen on.
    pub host: String,
    /// The identities.
    pub federations: Vec<Federation>,
    /// The keys of the cluster that issues the service accounts' tokens.
    pub cluster_keys: JwkSet,
    /// How long an access token is good for, whole seconds.
    pub lifetime: Duration,
}

/// What the endpoint is to do instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refuse every assertion: 400 `invalid_grant`.
    Refuse,
    /// Answer 503.
    Away,
    /// Answer so much later.
    Slow(Duration),
}

/// One access token that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// For whom.
    pub client_id: Uuid,
    /// For what, such as `https://storage.azure.com/.default`.
    pub scope: String,
    /// The token.
    pub token: SecretString,
}

type Hook = Arc<dyn Fn(Issued) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// The running endpoint. It ends with this value.
pub struct Entra {
    shared: Arc<Shared>,
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

struct Shared {
    tenant: Uuid,
    key: SigningKey,
    federations: Vec<Federation>,
    cluster_keys: JwkSet,
    hook: Hook,
    state: Mutex<Changing>,
}

struct Changing {
    lifetime: Duration,
    fault: Option<Fault>,
    issued: Vec<(Uuid, String)>,
    refused: HashMap<u32, u64>,
}

impl Entra {
    /// Starts it with TLS. `hook` hears of every token before its taker does, and is waited for: where a role's
    /// password is the token, it sets the password.
    ///
    /// # Errors
    /// It cannot listen, or make its key.
    pub async fn start<F>(setup: Setup, tls: &Tls, hook: F) -> anyhow::Result<Self>
    where
        F: Fn(Issued) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind((setup.host.as_str(), 0))
            .await
            .with_context(|| format!("failed to listen on {}", setup.host))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            tenant: Uuid::new_v4(),
            key: SigningKey::generate()?,
            federations: setup.federations,
            cluster_keys: setup.cluster_keys,
            hook: Arc::new(hook),
            state: Mutex::new(Changing {
                lifetime: setup.lifetime,
                fault: None,
                issued: Vec::new(),
                refused: HashMap::new(),
            }),
        });
        let router = Router::new()
            .route("/{tenant}/oauth2/v2.0/token", post(token))
            .with_state(Arc::clone(&shared));
        let listener = tls.listener(listener);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the token endpoint ended");
            }
        });
        Ok(Self {
            shared,
            address,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// For `AZURE_AUTHORITY_HOST`.
    ///
    /// # Errors
    /// None that is known: an address makes a URL.
    pub fn authority_host(&self) -> anyhow::Result<Url> {
        Ok(format!("https://{}/", self.address).parse()?)
    }

    /// For `AZURE_TENANT_ID`.
    pub fn tenant(&self) -> Uuid {
        self.shared.tenant
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> String {
        self.shared.issuer()
    }

    /// The key that its tokens are signed with.
    pub fn keys(&self) -> &JwkSet {
        self.shared.key.public()
    }

    /// How many tokens were issued to a client for a scope.
    pub fn issued(&self, client_id: Uuid, scope: &str) -> usize {
        let state = self.shared.state();
        let all = state.issued.iter();
        all.filter(|(client, what)| *client == client_id && what == scope)
            .count()
    }

    /// How many requests were refused with this AADSTS number.
    pub fn refused(&self, code: u32) -> u64 {
        self.shared
            .state()
            .refused
            .get(&code)
            .copied()
            .unwrap_or_default()
    }

    /// From now on it does this instead of its work.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shared.state().fault = fault;
    }

    /// How long the tokens from now on are good for.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.shared.state().lifetime = lifetime;
    }

    /// A token as it would be issued, without having been asked for: for tests of those who check tokens.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn token(&self, client_id: Uuid, scope: &str, expires_at: Timestamp) -> anyhow::Result<String> {
        self.shared.sign(client_id, scope, Timestamp::now(), expires_at)
    }
}

#[derive(Deserialize)]
struct Request {
    client_id: Uuid,
    scope: String,
    grant_type: String,
    client_assertion_type: String,
    client_assertion: String,
}

async fn token(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<Uuid>,
    Form(request): Form<Request>,
) -> Response {
    let fault = shared.state().fault;
    match fault {
        Some(Fault::Away) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Refuse) | None => {}
    }
    let checked = if fault == Some(Fault::Refuse) {
        Err(Refusal {
            error: "invalid_grant",
            code: 50_000,
            text: "Refused by a fault switch of the stand-in.".to_owned(),
        })
    } else {
        shared.check(tenant, &request)
    };
    match checked {
        Ok(()) => match shared.issue(request).await {
            Ok(answer) => Json(answer).into_response(),
            Err(error) => {
                tracing::error!(error = &*error, "no token could be issued");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        },
        Err(Refusal { error, code, text }) => {
            *shared.state().refused.entry(code).or_default() += 1;
            let status = match error {
                "invalid_client" => StatusCode::UNAUTHORIZED,
                _ => StatusCode::BAD_REQUEST,
            };
            let body = json!({
                "error": error,
                "error_description": format!("AADSTS{code}: {text}"),
                "error_codes": [code],
                "timestamp": Timestamp::now().to_string(),
                "trace_id": Uuid::new_v4(),
                "correlation_id": Uuid::new_v4(),
            });
            (status, Json(body)).into_response()
        }
    }
}

impl Shared {
    fn check(&self, tenant: Uuid, request: &Request) -> Result<(), Refusal> {
        let refused = |error, code, text: &str| {
            Err(Refusal {
                error,
                code,
                text: text.to_owned(),
            })
        };
        if tenant != self.tenant {
            return refused("invalid_request", 90_002, "Tenant not found.");
        }
        if request.grant_type != "client_credentials" || request.client_assertion_type != ASSERTION_TYPE {
            return refused("unsupported_grant_type", 70_003, "The grant is not supported.");
        }
        if !request.scope.starts_with("https://") || !request.scope.ends_with("/.default") {
            return refused(
                "invalid_scope",
                1_002_012,
                "The scope must be a resource and /.default.",
            );
        }
        let known = self.federations.iter();
        match known.into_iter().find(|one| one.client_id == request.client_id) {
            None => refused("unauthorized_client", 700_016, "The application was not found."),
            Some(federation) => federation.check(&request.client_assertion, &self.cluster_keys),
        }
    }

    async fn issue(&self, request: Request) -> anyhow::Result<serde_json::Value> {
        let lifetime = self.state().lifetime;
        let now = Timestamp::now();
        let token = self.sign(request.client_id, &request.scope, now, now + lifetime)?;
        (self.hook)(Issued {
            client_id: request.client_id,
            scope: request.scope.clone(),
            token: token.as_str().into(),
        })
        .await?;
        self.state().issued.push((request.client_id, request.scope));
        Ok(json!({
            "token_type": "Bearer",
            "expires_in": lifetime.as_secs(),
            "access_token": token,
        }))
    }

    fn sign(&self, client_id: Uuid, scope: &str, now: Timestamp, end: Timestamp) -> anyhow::Result<String> {
        let audience = scope.trim_end_matches("/.default").trim_end_matches('/');
        self.key.sign(&json!({
            "aud": audience,
            "iss": self.issuer(),
            "iat": now.as_second(),
            "nbf": now.as_second() - 60,
            // whole seconds, as Entra ID writes them, and not before what the answer promises
            "exp": end.as_second() + 1,
            "appid": client_id,
            "oid": client_id,
            "sub": client_id,
            "tid": self.tenant,
            // so that two tokens of one second differ
            "uti": Uuid::new_v4(),
        }))
    }

    fn issuer(&self) -> String {
        format!("https://sts.windows.net/{}/", self.tenant)
    }

    fn state(&self) -> MutexGuard<'_, Changing> {
        // no code panics while it holds the lock
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
