//! Artists, genres and albums.

use std::collections::{BTreeSet, HashMap};

use jiff::{Span, Timestamp};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Normal};
use uuid::{Builder, Uuid};

use crate::known::{self, KnownAlbum};
use crate::{Error, Plan, invented};

/// The last moment in the data, so that it does not hang on the day when it is generated:
/// 2026-01-01T00:00:00Z.
pub const END: i64 = 1_767_225_600;
/// How far back from [`END`] the data reaches: five years.
pub const SPAN_SECONDS: i64 = 5 * 365 * 24 * 60 * 60;

/// An artist.
#[derive(Clone, Debug)]
pub struct Artist {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Unique over the artists.
    pub slug: String,
}

/// An album with its places in the other tables.
#[derive(Clone, Debug)]
pub struct Album {
    /// Its id.
    pub id: Uuid,
    /// Unique over the albums.
    pub slug: String,
    /// Its title, which may be hostile.
    pub title: String,
    /// The year of release.
    pub year: i32,
    /// Indexes into [`Catalogue::artists`] with the `artist_order` of each. Two may share an order.
    pub artists: Vec<(usize, i32)>,
    /// Indexes into [`Catalogue::genres`].
    pub genres: Vec<usize>,
    /// NULL for some, as in the service's own data.
    pub created_at: Option<Timestamp>,
    /// NULL for some.
    pub updated_at: Option<Timestamp>,
    /// What its ratings scatter around, 1 to 5.
    pub quality: f64,
}

/// Everything but the ratings.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// The artists.
    pub artists: Vec<Artist>,
    /// The genres' names; the id is the index plus one.
    pub genres: Vec<String>,
    /// The albums, the most rated first.
    pub albums: Vec<Album>,
}

impl Catalogue {
    /// Invents the catalogue of a plan.
    ///
    /// # Errors
    /// [`Error::KnownAlbums`].
    pub fn generate(plan: &Plan) -> Result<Self, Error> {
        let known = known::albums().map_err(Error::KnownAlbums)?;
        let genres: BTreeSet<String> = known
            .iter()
            .flat_map(|album| album.genres.iter().cloned())
            .chain(invented::GENRES.map(str::to_owned))
            .collect();
        let genres: Vec<String> = genres.into_iter().collect();
        let mut generator = Generator::new(plan.seed, genres);

        let count = usize::try_from(plan.albums).unwrap_or(usize::MAX);
        for album in known.iter().take(count) {
            generator.known_album(album);
        }
        generator.invent_artists(count / 4 + 10);
        for n in generator.albums.len()..count {
            // Every hostile title once, then one ordinary album in fifty with one of them.
            let title = match n.checked_sub(known.len()) {
                Some(nth) if nth < invented::HOSTILE_TITLES.len() => invented::HOSTILE_TITLES[nth].to_owned(),
                _ if generator.random.random_ratio(1, 50) => {
                    let title = invented::HOSTILE_TITLES.choose(&mut generator.random);
                    title.copied().unwrap_or_default().to_owned()
                }
                _ => invented::title(&mut generator.random),
            };
            generator.invented_album(title);
        }
        Ok(Self {
            artists: generator.artists,
            genres: generator.genres,
            albums: generator.albums,
        })
    }
}

struct Generator {
    random: Xoshiro256PlusPlus,
    genres: Vec<String>,
    artists: Vec<Artist>,
    artist_of_name: HashMap<String, usize>,
    albums: Vec<Album>,
    artist_slugs: Slugs,
    album_slugs: Slugs,
}

impl Generator {
    fn new(seed: u64, genres: Vec<String>) -> Self {
        Self {
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            genres,
            artists: Vec::new(),
            artist_of_name: HashMap::new(),
            albums: Vec::new(),
            artist_slugs: Slugs::default(),
            album_slugs: Slugs::default(),
        }
    }

    fn known_album(&mut self, known: &KnownAlbum) {
        let artists = known.artists.iter().zip(1..);
        let artists = artists.map(|(name, order)| (self.artist(name), order)).collect();
        let genres = known.genres.iter();
        let genres = genres
            .filter_map(|name| self.genres.binary_search(name).ok())
            .collect();
        let quality = self.scatter(4.2, 0.3);
        self.album(known.title.clone(), known.year, artists, genres, quality);
    }

    fn invented_album(&mut self, title: String) {
        let artist_count = match self.random.random_range(0..100) {
            0 => 0,
            1..=79 => 1,
            80..=94 => 2,
            95..=98 => 3,
            _ => 6,
        };
        let mut artists = Vec::new();
        let mut order = 1;
        for index in sample(&mut self.random, self.artists.len(), artist_count) {
            artists.push((index, order));
            // Now and then two share a place, which only the name can order.
            order += i32::from(!self.random.random_ratio(1, 5));
        }
        let genre_count = match self.random.random_range(0..100) {
            0 | 1 => 0,
            2..=64 => 1,
            65..=89 => 2,
            _ => 3,
        };
        let genres = sample(&mut self.random, self.genres.len(), genre_count);
        let year = self.random.random_range(1950..=2025);
        let quality = self.scatter(3.5, 0.6);
        self.album(title, year, artists, genres, quality);
    }

    fn album(
        &mut self,
        title: String,
        year: i32,
        artists: Vec<(usize, i32)>,
        genres: Vec<usize>,
        quality: f64,
    ) {
        let slug = self.album_slugs.unique(&title, Some(year));
        let created_at = moment(self.random.random_range(0..SPAN_SECONDS), 0);
        let id = self.id();
        self.albums.push(Album {
            id,
            slug,
            title,
            year,
            artists,
            genres,
            created_at: created_at.filter(|_| !self.random.random_ratio(1, 100)),
            updated_at: created_at.filter(|_| !self.random.random_ratio(1, 50)),
            quality,
        });
    }

    fn invent_artists(&mut self, count: usize) {
        for _ in 0..count {
            let name = invented::artist(&mut self.random);
            self.artist(&name);
        }
    }

    /// The artist of that name, new when there is none.
    fn artist(&mut self, name: &str) -> usize {
        if let Some(&index) = self.artist_of_name.get(name) {
            return index;
        }
        let index = self.artists.len();
        self.artist_of_name.insert(name.to_owned(), index);
        let id = self.id();
        let slug = self.artist_slugs.unique(name, None);
        self.artists.push(Artist {
            id,
            name: name.to_owned(),
            slug,
        });
        index
    }

    fn id(&mut self) -> Uuid {
        Builder::from_random_bytes(self.random.random()).into_uuid()
    }

    fn scatter(&mut self, mean: f64, deviation: f64) -> f64 {
        let normal = Normal::new(mean, deviation).map(|normal| normal.sample(&mut self.random));
        normal.unwrap_or(mean).clamp(1.0, 5.0)
    }
}

/// A moment in the span of the data, to the microsecond.
pub fn moment(second: i64, microsecond: i32) -> Option<Timestamp> {
    Timestamp::new(END - SPAN_SECONDS + second, microsecond * 1_000).ok()
}

/// A later moment, at most at the end of the data.
pub fn later(moment: Timestamp, seconds: i64) -> Option<Timestamp> {
    let later = moment.checked_add(Span::new().seconds(seconds)).ok()?;
    Timestamp::from_second(END).ok().map(|end| later.min(end))
}

fn sample(random: &mut Xoshiro256PlusPlus, length: usize, amount: usize) -> Vec<usize> {
    rand::seq::index::sample(random, length, amount.min(length)).into_vec()
}

/// Makes words for URLs, each once.
#[derive(Default)]
struct Slugs {
    uses: HashMap<String, u32>,
}

impl Slugs {
    fn unique(&mut self, name: &str, year: Option<i32>) -> String {
        let parts = name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|part| !part.is_empty())
            .map(str::to_ascii_lowercase)
            .chain(year.map(|year| year.to_string()));
        let mut slug = parts.collect::<Vec<_>>().join("-");
        if slug.is_empty() {
            slug.push_str("artist");
        }
        // A slug with a number behind it may be another name's own slug.
        loop {
            let uses = self.uses.entry(slug.clone()).or_insert(0);
            *uses += 1;
            if *uses == 1 {
                return slug;
            }
            slug = format!("{slug}-{uses}");
        }
    }
}
