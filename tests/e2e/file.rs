//! What is in the file.

use std::io::Read as _;
use std::path::Path;

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use sha2::Digest as _;
use testkit::reports::SOON;
use testkit::{Part, Release, World, in_a_world};

/// What psql computes for these parameters.
async fn expected(world: &World, parameters: &Value) -> String {
    let text = |name: &str| parameters[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str, default: u64| parameters[name].as_u64().unwrap_or(default).to_string();
    let safe = parameters["spreadsheetSafe"].as_bool().unwrap_or(true);
    let variables = [
        ("from", text("from")),
        ("to", text("to")),
        ("genre", text("genre")),
        ("min_ratings", number("minRatings", 1)),
        ("limit", number("limit", 1_000_000)),
        ("prior_weight", number("priorWeight", 10)),
        ("spreadsheet_safe", safe.to_string()),
    ];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/expected.sql");
    String::from_utf8(world.database.psql(&script, &variables).await).unwrap()
}

/// Downloads a completed report by its link, as anybody could.
async fn download(report: &Value) -> Vec<u8> {
    let url = report["downloadUrl"].as_str().unwrap();
    let answer = reqwest::Client::builder()
        .build()
        .unwrap()
        .get(url)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let content_type = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    assert_eq!(content_type, report["result"]["file"]["contentType"]);
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_byte_for_byte_what_psql_computes_for_every_parameter() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;
        let application = release.application();
        let requests = [
            json!({}),
            json!({"minRatings": 0, "spreadsheetSafe": false}),
            json!({"minRatings": 0, "priorWeight": 0}),
            json!({"from": "2022-07-01T00:00:00Z", "to": "2023-07-01T02:00:00+02:00", "minRatings": 2}),
            json!({"from": "2025-01-01T00:00:00.000001Z", "priorWeight": 100_000, "limit": 7}),
            json!({"genre": "Jazz", "minRatings": 0}),
            json!({"genre": "Drum & Bass", "to": "2024-01-01T00:00:00Z"}),
            json!({"genre": "no such genre"}),
            json!({"from": "1999-01-01T00:00:00Z", "to": "2000-01-01T00:00:00Z", "minRatings": 0}),
        ];
        let mut ids = Vec::new();
        for request in &requests {
            ids.push(application.accepted(request).await);
        }
        for (request, id) in requests.iter().zip(ids) {
            let report = application.completed(id, SOON).await;

            let file = String::from_utf8(download(&report).await).unwrap();

            let expected = expected(world, request).await;
            let first_difference = file
                .lines()
                .zip(expected.lines())
                .find(|(file, expected)| file != expected);
            assert_eq!(first_difference, None, "{request}: file, psql");
            assert!(
                file == expected,
                "{request}: {} and {} bytes",
                file.len(),
                expected.len()
            );
            let rows = report["result"]["file"]["rows"].as_u64().unwrap();
            let mut records = csv::Reader::from_reader(file.as_bytes());
            assert_eq!(
                u64::try_from(records.records().map(Result::unwrap).count()).unwrap(),
                rows
            );
            world.completed_everywhere(id).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_average_rounded_to_one_digit_is_what_the_music_albums_service_shows() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;
        let application = release.application();
        let id = application.accepted(&json!({})).await;
        let report = application.completed(id, SOON).await;

        let file = download(&report).await;

        let shown: Vec<(String, String)> = sqlx::query_as(
            "SELECT music_album_id::text, round(avg(rating), 1)::text FROM ratings GROUP BY music_album_id",
        )
        .fetch_all(&world.database.pool)
        .await
        .unwrap();
        let shown: std::collections::HashMap<_, _> = shown.into_iter().collect();
        let mut reader = csv::Reader::from_reader(file.as_slice());
        let mut compared = 0;
        for record in reader.records() {
            let record = record.unwrap();
            let (album, average) = (&record[1], &record[8]);
            // Rounded from four digits, half up, in whole numbers: no float has a say.
            let digits: u32 = average.replace('.', "").parse().unwrap();
            let tenths = (digits + 500) / 1_000;
            assert_eq!(
                format!("{}.{}", tenths / 10, tenths % 10),
                shown[album],
                "album {album}"
            );
            compared += 1;
        }
        assert_eq!(compared, shown.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_file_holds_the_same_bytes() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;
        let application = release.application();
        let request = json!({"compression": "gzip", "minRatings": 0});
        let id = application.accepted(&request).await;
        let report = application.completed(id, SOON).await;
        assert!(
            report["result"]["file"]["name"]
                .as_str()
                .unwrap()
                .ends_with(".csv.gz")
        );

        let stored = download(&report).await;

        let mut file = String::new();
        flate2::read::GzDecoder::new(stored.as_slice())
            .read_to_string(&mut file)
            .unwrap();
        assert!(file == expected(world, &request).await);
        world.completed_everywhere(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_link_leads_to_the_public_endpoint_which_no_pod_can_reach() {
    in_a_world(async |world| {
        // This machine's loopback is nobody's in a Pod but the Pod's own.
        let public = world.platform.blob_endpoint();
        assert_eq!(public.host_str(), Some("127.0.0.1"));
        let internal = &world.environment(Part::Api)["AZURE_STORAGE_CONNECTION_STRING"];
        assert!(!internal.contains("127.0.0.1"), "Pods go another way");
        let release = Release::setup(world)
            .value("blob.publicEndpoint", public.as_str())
            .install()
            .await;
        let application = release.application();
        let id = application.accepted(&json!({"limit": 5})).await;
        let report = application.completed(id, SOON).await;

        let link: url::Url = report["downloadUrl"].as_str().unwrap().parse().unwrap();
        let file = download(&report).await;

        assert_eq!(link.origin(), public.origin());
        let sha256 = format!("{:x}", sha2::Sha256::digest(&file));
        assert_eq!(sha256, report["result"]["file"]["sha256"]);
        world.completed_everywhere(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_link_reads_its_own_file_and_nothing_else() {
    in_a_world(async |world| {
        let release = Release::setup(world).install().await;
        let application = release.application();
        let first = application.accepted(&json!({"limit": 1})).await;
        let second = application.accepted(&json!({"limit": 2})).await;
        let report = application.completed(first, SOON).await;
        application.completed(second, SOON).await;
        let link = report["downloadUrl"].as_str().unwrap();

        let other = link.replace(&first.to_string(), &second.to_string());
        assert_ne!(other, link);
        let status = async |method: reqwest::Method, url: &str| {
            let request = reqwest::Client::new()
                .request(method, url)
                .header("x-ms-blob-type", "BlockBlob");
            request.body("x").send().await.unwrap().status()
        };
        assert_eq!(status(reqwest::Method::GET, &other).await, StatusCode::FORBIDDEN);
        assert_eq!(status(reqwest::Method::PUT, link).await, StatusCode::FORBIDDEN);
        assert_eq!(status(reqwest::Method::DELETE, link).await, StatusCode::FORBIDDEN);
        assert_eq!(status(reqwest::Method::GET, link).await, StatusCode::OK);
        // No signed link is stored anywhere.
        let signature = link.split("sig=").nth(1).unwrap().split('&').next().unwrap();
        assert!(!world.database.dump().await.contains(signature));
        let custom_resource = world.custom_resource(first).await.unwrap();
        assert!(!serde_json::to_string(&custom_resource).unwrap().contains("sig="));
    })
    .await;
}
