//! From the CSV's bytes to the stored ones.

use std::io::{self, Write as _};

use domain::Compression;
use flate2::write::GzEncoder;

/// Compresses in passing, or not. The same input gives the same bytes: a gzip member of no name and no time.
pub(crate) enum Packing {
    Plain,
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl Packing {
    pub(crate) fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::Plain,
            Compression::Gzip => Self::Gzip(Box::new(GzEncoder::new(
                Vec::new(),
                flate2::Compression::default(),
            ))),
        }
    }

    /// Takes a piece in and gives out what is ready.
    pub(crate) fn pack(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(piece),
            Self::Gzip(encoder) => {
                encoder.write_all(&piece)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// What remains at the end.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// The media type of the stored bytes. A compressed file is served as what it is and under a name that says
/// so, without a content encoding: a reader would unpack that in passing, and size and sum would not be
/// those of the file that it gets.
pub(crate) const fn content_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "text/csv; charset=utf-8",
        Compression::Gzip => "application/gzip",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn packed(compression: Compression, pieces: &[&[u8]]) -> Vec<u8> {
        let mut packing = Packing::new(compression);
        let mut stored = Vec::new();
        for piece in pieces {
            stored.extend(packing.pack(piece.to_vec()).unwrap());
        }
        stored.extend(packing.finish().unwrap());
        stored
    }

    #[test]
    fn gzip_unpacks_to_what_went_in_and_is_the_same_every_time() {
        let pieces: [&[u8]; 3] = [b"rank,", b"", b"album_id\n"];
        let stored = packed(Compression::Gzip, &pieces);
        let mut text = String::new();
        flate2::read::GzDecoder::new(stored.as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "rank,album_id\n");
        assert_eq!(stored, packed(Compression::Gzip, &pieces));
    }

    #[test]
    fn plain_is_what_went_in() {
        assert_eq!(packed(Compression::None, &[b"a", b"b"]), b"ab");
    }
}
