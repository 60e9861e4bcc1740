use domain::Parameters;
use futures::TryStreamExt as _;
use sqlx::Executor as _;
use store::catalogue::Snapshot;
use store::testing;

/// Resident bytes of this process (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn ninety_five_megabytes_of_rows_are_streamed_without_being_held() {
    const ALBUMS: u64 = 50_000;
    const TITLE_BYTES: u64 = 1_900;
    let database = testing::database().await;
    database
        .admin_pool
        .execute(
            "INSERT INTO music_albums (id, slug, title, year_of_release)
             SELECT gen_random_uuid(), 'album-' || n, rpad('Album ' || n, 1900, 'x'), 2000
             FROM generate_series(1, 50000) AS n",
        )
        .await
        .unwrap();
    let parameters = Parameters {
        min_ratings: 0,
        ..Parameters::default()
    };
    let mut snapshot = Snapshot::open(&database.exporter_pool).await.unwrap();
    let mut albums = std::pin::pin!(snapshot.albums(&parameters));

    let before = resident();
    let (mut rows, mut bytes, mut most) = (0, 0, before);
    while let Some(album) = albums.try_next().await.unwrap() {
        rows += 1;
        bytes += album.title.len() as u64;
        if rows % 1000 == 0 {
            most = most.max(resident());
        }
    }

    assert_eq!((rows, bytes), (ALBUMS, ALBUMS * TITLE_BYTES));
    // a fifth of what passes through leaves room for other tests in the same process
    assert!(
        most - before < bytes / 5,
        "{} MB more than before",
        (most - before) / 1_000_000
    );
}
