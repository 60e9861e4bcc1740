//! `operator smoke-test`: one report from the request to the file, as an application would have it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::config::SmokeTestArgs;

/// How often the report is asked for.
const POLL: Duration = Duration::from_secs(1);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long failures of the API are looked past: a rollout, or a Service without endpoints for a moment.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a token that is made here is good, beyond the time limit.
const TOKEN_LIFE: Duration = Duration::from_secs(300);

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: String,
    userid: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    report_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    status: String,
    result: Option<Ended>,
    download_url: Option<String>,
    download_unavailable: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Ended {
    file: File,
}

#[derive(Deserialize)]
struct File {
    name: String,
    size: usize,
    rows: usize,
    sha256: String,
}

/// Requests, follows, downloads and compares. Prints each step.
///
/// # Errors
/// What did not go as it should, and what to look at.
pub async fn run(args: SmokeTestArgs) -> Result<()> {
    let limit = args.time_limit;
    match timeout(limit, test(args)).await {
        Ok(done) => done,
        Err(_) => bail!(
            "the report did not end within {} s; see `kubectl get popularityreports` and the operator's log",
            limit.as_secs()
        ),
    }
}

async fn test(args: SmokeTestArgs) -> Result<()> {
    let began = Instant::now();
    let api = Api {
        client: Client::builder().timeout(REQUEST_TIMEOUT).build()?,
        token: bearer(&args)?,
        reports: at(&args.api_url, "reports"),
    };
    let id = api.request(args.rows).await?;
    println!("{:>7.1} s  accepted as {id}", began.elapsed().as_secs_f64());
    let report = api.follow(&id, began).await?;
    let Some(Ended { file }) = report.result else {
        bail!("report {id} is Completed and its answer names no file");
    };
    let Some(link) = report.download_url else {
        bail!(
            "report {id} is Completed and has no downloadUrl: {}",
            report.download_unavailable.unwrap_or_default()
        );
    };
    let link: Url = link.parse().context("the report's downloadUrl is no URL")?;
    let link = match &args.download_base {
        Some(base) => rebased(&link, base)?,
        None => link,
    };
    let bytes = download(&api.client, link).await?;
    verify(&file, &bytes)?;
    println!(
        "{:>7.1} s  {}: {} bytes, {} rows, sha256 {}",
        began.elapsed().as_secs_f64(),
        file.name,
        file.size,
        file.rows,
        file.sha256
    );
    println!("ok: the file is the one that the report describes. The report stays until its retention ends.");
    Ok(())
}

struct Api {
    client: Client,
    token: SecretString,
    reports: Url,
}

impl Api {
    async fn request(&self, rows: u32) -> Result<String> {
        let url = at(&self.reports, "popularity");
        let deadline = Instant::now() + PATIENCE;
        // the same key each time, so that a lost answer makes no second report
        let key = uuid::Uuid::new_v4().to_string();
        loop {
            let sent = self
                .client
                .post(url.clone())
                .bearer_auth(self.token.expose_secret())
                .header("Idempotency-Key", &key)
                .json(&json!({ "limit": rows }))
                .send()
                .await;
            let problem = match sent {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    let accepted: Accepted = answer.json().await.context("the 202 has no reportId")?;
                    return Ok(accepted.report_id);
                }
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => bail!(
                    "the API answered 401: the token is not one of its issuer's; compare JWT_KEY, JWT_ISSUER and \
                     JWT_AUDIENCE with the API's"
                ),
                Ok(answer) if answer.status().is_server_error() => told(answer).await,
                Ok(answer) => bail!("POST {url}: {}", told(answer).await),
                Err(error) => chain(&error),
            };
            if Instant::now() >= deadline {
                bail!("POST {url} failed for {} s: {problem}", PATIENCE.as_secs());
            }
            println!("           not accepted yet: {problem}");
            sleep(POLL).await;
        }
    }

    async fn follow(&self, id: &str, began: Instant) -> Result<Report> {
        let url = at(&self.reports, id);
        let mut status = String::new();
        let mut well = Instant::now();
        loop {
            let asked = self
                .client
                .get(url.clone())
                .bearer_auth(self.token.expose_secret())
                .send()
                .await;
            let problem = match asked {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    well = Instant::now();
                    let report: Report = answer
                        .json()
                        .await
                        .context("the report's answer cannot be read")?;
                    if report.status != status {
                        status.clone_from(&report.status);
                        println!("{:>7.1} s  {status}", began.elapsed().as_secs_f64());
                    }
                    match report.status.as_str() {
                        "Completed" => return Ok(report),
                        "Failed" => bail!(
                            "report {id} has failed: {}; see `kubectl describe popularityreport report-{id}`",
                            report.error.unwrap_or_default()
                        ),
                        _ => {
                            sleep(POLL).await;
                            continue;
                        }
                    }
                }
                Ok(answer) if answer.status().is_server_error() => told(answer).await,
                Ok(answer) => bail!("GET {url}: {}", told(answer).await),
                Err(error) => chain(&error),
            };
            if well.elapsed() >= PATIENCE {
                bail!("GET {url} failed for {} s: {problem}", PATIENCE.as_secs());
            }
            sleep(POLL).await;
        }
    }
}

fn bearer(args: &SmokeTestArgs) -> Result<SecretString> {
    if let Some(token) = &args.token.token {
        return Ok(token.clone());
    }
    let Some(key) = &args.token.jwt_key else {
        bail!("neither TOKEN nor JWT_KEY is given");
    };
    let now = Timestamp::now().as_second();
    let life = i64::try_from((args.time_limit + TOKEN_LIFE).as_secs())?;
    let claims = Claims {
        iss: &args.jwt_issuer,
        aud: &args.jwt_audience,
        sub: args.user.to_string(),
        userid: args.user.to_string(),
        iat: now,
        // for an API whose clock is a little behind
        nbf: now - 5,
        exp: now + life,
    };
    let key = EncodingKey::from_secret(key.expose_secret().as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?.into())
}

/// The link at another scheme, host and port. Its path and signature stay: they do not cover the host.
fn rebased(link: &Url, base: &Url) -> Result<Url> {
    let mut rebased = base.clone();
    rebased.set_path(link.path());
    rebased.set_query(link.query());
    if rebased.cannot_be_a_base() {
        bail!("DOWNLOAD_BASE must be an http or https URL");
    }
    Ok(rebased)
}

async fn download(client: &Client, link: Url) -> Result<Vec<u8>> {
    // never shown: its query is as good as a key
    let host = link.host_str().unwrap_or_default().to_owned();
    let answer = client.get(link).send().await.map_err(reqwest::Error::without_url).with_context(|| {
        format!("the file cannot be fetched from {host}; is it reachable from here? --download-base names another way")
    })?;
    if answer.status() != StatusCode::OK {
        bail!("{host} answered {} for the file", answer.status());
    }
    let bytes = answer.bytes().await.map_err(reqwest::Error::without_url)?;
    Ok(bytes.to_vec())
}

fn verify(file: &File, bytes: &[u8]) -> Result<()> {
    let sha256: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut rows = 0;
    for record in csv::Reader::from_reader(bytes).byte_records() {
        record.context("the file is no CSV")?;
        rows += 1;
    }
    if (bytes.len(), rows, &sha256) != (file.size, file.rows, &file.sha256) {
        bail!(
            "the file is not the one that the report describes: it has {} bytes, {rows} rows, sha256 {sha256}; the \
             report says {} bytes, {} rows, sha256 {}",
            bytes.len(),
            file.size,
            file.rows,
            file.sha256
        );
    }
    Ok(())
}

fn at(base: &Url, segment: &str) -> Url {
    let mut url = base.clone();
    // only a URL without a host has no segments, and that is refused when it is asked
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(segment);
    }
    url
}

async fn told(answer: reqwest::Response) -> String {
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    format!("{status} {}", body.chars().take(500).collect::<String>())
}

fn chain(error: &reqwest::Error) -> String {
    crate::error_chain::error_chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &[u8] = b"rank,title\n1,\"a\nb\"\n2,c\n";

    fn file(rows: usize, sha256: &str) -> File {
        File {
            name: "r.csv".to_owned(),
            size: CSV.len(),
            rows,
            sha256: sha256.to_owned(),
        }
    }

    fn sum() -> String {
        Sha256::digest(CSV)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    #[test]
    fn a_file_is_judged_by_its_rows_and_its_sum() {
        verify(&file(2, &sum()), CSV).unwrap();

        assert!(
            verify(&file(3, &sum()), CSV)
                .unwrap_err()
                .to_string()
                .contains("it has 23 bytes, 2 rows")
        );
        assert!(verify(&file(2, "00"), CSV).is_err());
    }

    #[test]
    fn a_link_is_rebased_with_its_path_and_signature() {
        let link: Url = "http://localhost:10000/account/reports/r.csv?sig=a%2Bb"
            .parse()
            .unwrap();

        let rebased = rebased(&link, &"http://azurite:10000".parse().unwrap()).unwrap();

        assert_eq!(
            rebased.as_str(),
            "http://azurite:10000/account/reports/r.csv?sig=a%2Bb"
        );
    }

    #[test]
    fn the_apis_paths_are_below_its_url() {
        let api: Url = "http://api.example/music/".parse().unwrap();

        assert_eq!(
            at(&at(&api, "reports"), "popularity").as_str(),
            "http://api.example/music/reports/popularity"
        );
    }
}
