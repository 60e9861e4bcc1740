//! What the generator promises of its data.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use sample_data::{Catalogue, Error, Plan, Rating, Ratings};
use sha2::{Digest as _, Sha256};

const PLAN: Plan = Plan {
    albums: 1_000,
    ratings: 20_000,
    seed: 1,
};

fn generate(plan: &Plan) -> (Catalogue, Vec<Rating>) {
    let catalogue = Catalogue::generate(plan).unwrap();
    let ratings = Ratings::new(plan, &catalogue.albums).unwrap().collect();
    (catalogue, ratings)
}

fn fingerprint(plan: &Plan) -> String {
    let mut sha = Sha256::new();
    sha.update(format!("{:?}", generate(plan)));
    sha.finalize().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// When this fails, the data of every installation changes with the next load: say so in the changelog.
#[test]
fn the_same_seed_gives_the_same_data_on_every_machine() {
    assert_eq!(
        fingerprint(&PLAN),
        "99904db768ab3c2f10b2244db0df24c71a9f85d831b31cec80fbdc481e8f0047"
    );
}

#[test]
fn another_seed_gives_other_data() {
    assert_ne!(fingerprint(&PLAN), fingerprint(&Plan { seed: 2, ..PLAN }));
}

#[test]
fn there_are_exactly_as_many_ratings_as_asked_for_and_each_user_rates_an_album_once() {
    for (albums, count) in [(1, 5_000), (3, 10), (50, 0), (1_000, 20_000)] {
        let plan = Plan {
            albums,
            ratings: count,
            seed: 3,
        };
        let (_, ratings) = generate(&plan);
        let pairs: HashSet<_> = ratings
            .iter()
            .map(|rating| (rating.user_id, rating.album_id))
            .collect();
        assert_eq!(pairs.len(), usize::try_from(count).unwrap(), "{albums} albums");
    }
}

#[test]
fn ratings_have_a_long_tail() {
    let (catalogue, ratings) = generate(&PLAN);
    let mut counts = HashMap::new();
    for rating in &ratings {
        *counts.entry(rating.album_id).or_insert(0_usize) += 1;
    }
    let of = |range: std::ops::Range<usize>| -> usize {
        let albums = catalogue.albums[range].iter();
        albums
            .map(|album| counts.get(&album.id).copied().unwrap_or_default())
            .sum()
    };
    assert!(
        of(0..100) > ratings.len() / 3,
        "the top tenth has over a third of the ratings"
    );
    assert!(
        of(500..1_000) > ratings.len() / 10,
        "the lower half is still rated"
    );
    assert_eq!(of(980..1_000), 0, "the newest are not rated yet");
}

#[test]
fn the_catalogue_has_every_awkward_case() {
    let (catalogue, ratings) = generate(&PLAN);
    let albums = &catalogue.albums;
    assert_eq!(albums.len(), 1_000);
    assert_eq!(albums[0].title, "Kind of Blue");

    assert!(albums.iter().any(|album| album.artists.is_empty()));
    assert!(albums.iter().any(|album| album.genres.is_empty()));
    assert!(
        albums
            .iter()
            .any(|album| album.genres.len() == 3 && album.artists.len() >= 2)
    );
    let share_an_order = |artists: &[(usize, i32)]| artists.windows(2).any(|pair| pair[0].1 == pair[1].1);
    assert!(albums.iter().any(|album| share_an_order(&album.artists)));
    assert!(albums.iter().any(|album| album.created_at.is_none()));
    assert!(albums.iter().any(|album| album.updated_at.is_none()));

    for sign in ["\"", ",", "\n", "\r\n", "雨", "🎸", "\u{feff}"] {
        assert!(albums.iter().any(|album| album.title.contains(sign)), "{sign:?}");
    }
    for start in ["=", "+", "-", "@", "\t", "＝"] {
        assert!(
            albums.iter().any(|album| album.title.starts_with(start)),
            "{start:?}"
        );
    }

    assert!(ratings.iter().any(|rating| rating.created_at.is_none()));
    assert!(ratings.iter().any(|rating| rating.updated_at.is_none()));
    assert!(ratings.iter().any(|rating| rating.updated_at > rating.created_at));
    for stars in 1..=5 {
        assert!(ratings.iter().any(|rating| rating.rating == stars));
    }

    let slugs: HashSet<_> = albums.iter().map(|album| &album.slug).collect();
    assert_eq!(slugs.len(), albums.len());
}

#[test]
fn ratings_without_an_album_are_refused() {
    let plan = Plan { albums: 0, ..PLAN };
    assert!(matches!(
        Ratings::new(&plan, &[]),
        Err(Error::NothingToRate { .. })
    ));
}
