//! Ratings: a long tail over the albums, and each user rates an album once.

use jiff::Timestamp;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::index::{IndexVecIntoIter, sample};
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Normal};
use uuid::{Builder, Uuid};

use crate::catalogue::{SPAN_SECONDS, later, moment};
use crate::{Album, Error, Plan};

/// How fast the number of ratings falls with an album's rank: `1 / rank^0.8`.
const ZIPF_EXPONENT: f64 = 0.8;
/// How many ratings a user gives on average.
const RATINGS_PER_USER: u32 = 20;
/// One album in so many, the newest ones, is not rated yet.
const UNRATED_ONE_IN: usize = 32;

/// One user's rating of one album.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rating {
    /// Who.
    pub user_id: Uuid,
    /// What.
    pub album_id: Uuid,
    /// 1 to 5.
    pub rating: u8,
    /// NULL for a few, as the service's own table allows.
    pub created_at: Option<Timestamp>,
    /// Later than `created_at` where the user changed their mind; NULL for a few.
    pub updated_at: Option<Timestamp>,
}

/// All ratings of a plan, one album after another, made as they are asked for.
pub struct Ratings<'a> {
    albums: &'a [Album],
    counts: Vec<u32>,
    users: Vec<Uuid>,
    random: Xoshiro256PlusPlus,
    next_album: usize,
    raters: Option<IndexVecIntoIter>,
}

impl<'a> Ratings<'a> {
    /// Ratings for these albums, exactly as many as the plan says.
    ///
    /// # Errors
    /// [`Error::NothingToRate`] without any album.
    pub fn new(plan: &Plan, albums: &'a [Album]) -> Result<Self, Error> {
        let rated = albums.len() - albums.len() / UNRATED_ONE_IN;
        if rated == 0 && plan.ratings > 0 {
            return Err(Error::NothingToRate {
                ratings: plan.ratings,
            });
        }
        // Another stream than the catalogue's, which starts from the seed itself.
        let mut random = Xoshiro256PlusPlus::seed_from_u64(!plan.seed);
        let least_users = plan
            .ratings
            .div_ceil(u32::try_from(rated.max(1)).unwrap_or(u32::MAX));
        let users = (plan.ratings / RATINGS_PER_USER).max(1_000).max(least_users);
        let counts = allot(plan.ratings, rated, users);
        let users = (0..users)
            .map(|_| Builder::from_random_bytes(random.random()).into_uuid())
            .collect();
        Ok(Self {
            albums,
            counts,
            users,
            random,
            next_album: 0,
            raters: None,
        })
    }

    fn rate(&mut self, album: &Album, user: usize) -> Rating {
        let opinion = Normal::new(album.quality, 1.0).map(|normal| normal.sample(&mut self.random));
        let stars = opinion.unwrap_or(album.quality).round().clamp(1.0, 5.0);
        let second = self.random.random_range(0..SPAN_SECONDS);
        let created_at = moment(second, self.random.random_range(0..1_000_000));
        let updated_at = if self.random.random_ratio(1, 10) {
            let wait = self.random.random_range(60..90 * 24 * 60 * 60);
            created_at.and_then(|created_at| later(created_at, wait))
        } else {
            created_at
        };
        Rating {
            user_id: self.users[user],
            album_id: album.id,
            rating: [1.0, 2.0, 3.0, 4.0]
                .iter()
                .fold(1, |sum, edge| sum + u8::from(stars > *edge)),
            created_at: created_at.filter(|_| !self.random.random_ratio(1, 100)),
            updated_at: updated_at.filter(|_| !self.random.random_ratio(1, 50)),
        }
    }
}

impl Iterator for Ratings<'_> {
    type Item = Rating;

    fn next(&mut self) -> Option<Rating> {
        loop {
            if let Some(user) = self.raters.as_mut().and_then(Iterator::next) {
                let album = &self.albums[self.next_album - 1];
                return Some(self.rate(album, user));
            }
            let count = *self.counts.get(self.next_album)?;
            self.next_album += 1;
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            self.raters = Some(sample(&mut self.random, self.users.len(), count).into_iter());
        }
    }
}

/// How many ratings each album has: falling with its rank, never more than there are users, `total`
/// together.
fn allot(total: u32, albums: usize, users: u32) -> Vec<u32> {
    let weights: Vec<f64> = (1..=albums)
        .map(|rank| f64::from(u32::try_from(rank).unwrap_or(u32::MAX)).powf(-ZIPF_EXPONENT))
        .collect();
    let sum: f64 = weights.iter().sum();
    let mut left = total;
    let mut counts: Vec<u32> = weights
        .iter()
        .map(|weight| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a u32 is one"
            )]
            let share = (f64::from(total) * weight / sum).floor() as u32;
            let count = share.min(users).min(left);
            left -= count;
            count
        })
        .collect();
    // What rounding and the limit have left over: one each, from the top, until nothing is left.
    while left > 0 {
        let before = left;
        for count in counts.iter_mut().filter(|count| **count < users) {
            if left == 0 {
                break;
            }
            *count += 1;
            left -= 1;
        }
        if left == before {
            break;
        }
    }
    counts
}
