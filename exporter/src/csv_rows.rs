//! The CSV of schema `popularity.v1`: its columns and how each value is written. `docs/popularity-v1.md`
//! is the same for its readers.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use store::catalogue::AlbumPopularity;

use crate::cells::defused;

/// The header, in the order of the columns.
const COLUMNS: [&str; 17] = [
    "rank",
    "album_id",
    "slug",
    "title",
    "year_of_release",
    "artists",
    "genres",
    "rating_count",
    "average_rating",
    "popularity_score",
    "ratings_1",
    "ratings_2",
    "ratings_3",
    "ratings_4",
    "ratings_5",
    "first_rated_at",
    "last_rated_at",
];

/// RFC 3339 in UTC, always with the six decimals that PostgreSQL keeps, so that all are equally long.
const MOMENTS: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// Renders rows, and gives what it has rendered out in pieces. Lines end in LF; quotes are RFC 4180's, only
/// where they are needed; an empty text is written as NULL is, as nothing.
pub(crate) struct CsvRows {
    writer: csv::Writer<Vec<u8>>,
    spreadsheet_safe: bool,
}

impl CsvRows {
    /// Begins with the header, which is there also when no row follows.
    pub(crate) fn new(spreadsheet_safe: bool) -> Result<Self, csv::Error> {
        let mut writer = writer();
        writer.write_record(COLUMNS)?;
        Ok(Self {
            writer,
            spreadsheet_safe,
        })
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, album: &AlbumPopularity) -> Result<(), csv::Error> {
        let [ratings_1, ratings_2, ratings_3, ratings_4, ratings_5] = album.histogram.map(|n| n.to_string());
        self.writer.write_record([
            album.rank.to_string().as_bytes(),
            album.album_id.as_hyphenated().to_string().as_bytes(),
            self.text(&album.slug).as_bytes(),
            self.text(&album.title).as_bytes(),
            album.year_of_release.to_string().as_bytes(),
            self.text(&album.artists).as_bytes(),
            self.text(&album.genres).as_bytes(),
            album.rating_count.to_string().as_bytes(),
            album
                .average_rating
                .map(|mean| mean.to_string())
                .unwrap_or_default()
                .as_bytes(),
            album.popularity_score.to_string().as_bytes(),
            ratings_1.as_bytes(),
            ratings_2.as_bytes(),
            ratings_3.as_bytes(),
            ratings_4.as_bytes(),
            ratings_5.as_bytes(),
            moment(album.first_rated_at).as_bytes(),
            moment(album.last_rated_at).as_bytes(),
        ])
    }

    /// What has been rendered since the last time.
    pub(crate) fn take(&mut self) -> Result<Vec<u8>, csv::Error> {
        std::mem::replace(&mut self.writer, writer())
            .into_inner()
            .map_err(|error| {
                // a Vec takes everything, so this is the error of flushing into one
                csv::Error::from(error.into_error())
            })
    }

    fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.spreadsheet_safe {
            defused(text)
        } else {
            Cow::Borrowed(text)
        }
    }
}

fn writer() -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new()
        .quote_style(csv::QuoteStyle::Necessary)
        .terminator(csv::Terminator::Any(b'\n'))
        .from_writer(Vec::new())
}

fn moment(moment: Option<Timestamp>) -> String {
    moment
        .map(|moment| MOMENTS.timestamp_to_string(&moment))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use store::catalogue::TenThousandths;

    use super::*;

    fn an_album() -> AlbumPopularity {
        AlbumPopularity {
            rank: 1,
            album_id: "0190B7C4-0000-7000-8000-00000000000A".parse().unwrap(),
            slug: "kind-of-blue-1959".into(),
            title: "Kind of Blue".into(),
            year_of_release: 1959,
            artists: "Miles Davis".into(),
            genres: "Jazz; Modal jazz".into(),
            rating_count: 3,
            average_rating: Some(TenThousandths::new(46_667)),
            popularity_score: TenThousandths::new(31_538),
            histogram: [0, 0, 0, 1, 2],
            first_rated_at: Some("2026-01-02T03:04:05Z".parse().unwrap()),
            last_rated_at: Some("2026-01-02T03:04:05.678901Z".parse().unwrap()),
        }
    }

    fn rendered(spreadsheet_safe: bool, albums: &[AlbumPopularity]) -> String {
        let mut rows = CsvRows::new(spreadsheet_safe).unwrap();
        let mut text = rows.take().unwrap();
        for album in albums {
            rows.row(album).unwrap();
            text.extend(rows.take().unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    /// The one row's line, without the header.
    fn line(album: &AlbumPopularity) -> String {
        rendered(true, std::slice::from_ref(album))
            .split_once('\n')
            .unwrap()
            .1
            .to_owned()
    }

    #[test]
    fn there_is_a_header_without_rows() {
        insta::assert_snapshot!(rendered(true, &[]));
    }

    #[test]
    fn an_ordinary_row() {
        insta::assert_snapshot!(line(&an_album()));
    }

    #[test]
    fn an_unrated_album_has_no_mean_and_no_moments() {
        let album = AlbumPopularity {
            artists: String::new(),
            genres: String::new(),
            rating_count: 0,
            average_rating: None,
            popularity_score: TenThousandths::new(30_000),
            histogram: [0; 5],
            first_rated_at: None,
            last_rated_at: None,
            ..an_album()
        };
        insta::assert_snapshot!(line(&album));
    }

    #[rstest]
    #[case::comma("a,b", "\"a,b\"")]
    #[case::quote("a\"b", "\"a\"\"b\"")]
    #[case::line_feed("a\nb", "\"a\nb\"")]
    #[case::carriage_return("a\rb", "\"a\rb\"")]
    #[case::spaces_are_kept(" a ", " a ")]
    #[case::other_scripts("Ágætis byrjun 坂本", "Ágætis byrjun 坂本")]
    #[case::formula("=1+1", "'=1+1")]
    #[case::formula_to_quote("=\"x\",", "\"'=\"\"x\"\",\"")]
    #[case::semicolon("a;b", "a;b")]
    #[case::empty("", "")]
    fn a_title_is_quoted_only_where_it_must_be(#[case] title: &str, #[case] written: &str) {
        let album = AlbumPopularity {
            title: title.into(),
            ..an_album()
        };
        assert!(
            line(&album).contains(&format!("kind-of-blue-1959,{written},1959,")),
            "{}",
            line(&album)
        );
    }

    #[test]
    fn every_text_column_is_defused_and_no_other() {
        let album = AlbumPopularity {
            slug: "-s".into(),
            title: "=t".into(),
            artists: "@a".into(),
            genres: "+g".into(),
            year_of_release: -5,
            ..an_album()
        };
        assert!(line(&album).contains(",'-s,'=t,-5,'@a,'+g,"), "{}", line(&album));
        assert!(rendered(false, &[album]).contains(",-s,=t,-5,@a,+g,"));
    }

    proptest! {
        /// Whatever the texts are, a CSV reader gets them back.
        #[test]
        fn a_reader_gets_every_text_back(title in any::<String>(), artists in any::<String>()) {
            let album = AlbumPopularity { title: title.clone(), artists: artists.clone(), ..an_album() };
            let text = rendered(false, &[album.clone(), album]);
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            prop_assert_eq!(rows.len(), 2);
            for row in rows {
                prop_assert_eq!((&row[3], &row[5]), (title.as_str(), artists.as_str()));
            }
        }
    }
}
