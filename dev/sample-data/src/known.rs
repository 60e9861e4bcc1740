//! The well-known albums, with their true artists, years and genres.

/// One of them.
pub struct KnownAlbum {
    pub title: String,
    /// In the order of the sleeve.
    pub artists: Vec<String>,
    pub year: i32,
    pub genres: Vec<String>,
}

/// Reads the list that is built into the program.
pub fn albums() -> Result<Vec<KnownAlbum>, csv::Error> {
    let list = csv::Reader::from_reader(include_bytes!("known_albums.csv").as_slice());
    list.into_deserialize::<(String, String, i32, String)>()
        .map(|line| {
            let (title, artists, year, genres) = line?;
            Ok(KnownAlbum {
                title,
                artists: words(&artists),
                year,
                genres: words(&genres),
            })
        })
        .collect()
}

fn words(cell: &str) -> Vec<String> {
    cell.split('|').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn there_are_a_hundred_different_ones() {
        let albums = super::albums().unwrap();
        let different: HashSet<_> = albums
            .iter()
            .map(|album| (&album.title, &album.artists))
            .collect();
        assert_eq!(different.len(), 100);
        assert!(albums.iter().all(|album| (1950..2020).contains(&album.year)));
        assert!(
            albums
                .iter()
                .all(|album| !album.genres.is_empty() && album.genres.iter().all(|genre| !genre.is_empty()))
        );
    }
}
