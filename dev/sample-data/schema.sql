-- The music-albums service's own tables, as that service creates them. Another team owns them: nothing in
-- this repository alters them, and only the sample data and the tests write to them. Safe to run twice.

CREATE TABLE IF NOT EXISTS music_albums (
    id uuid PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    title text NOT NULL,
    year_of_release integer NOT NULL,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);

CREATE TABLE IF NOT EXISTS genres (
    id serial PRIMARY KEY,
    name text NOT NULL UNIQUE
);

CREATE TABLE IF NOT EXISTS music_album_genres (
    music_album_id uuid NOT NULL REFERENCES music_albums (id) ON DELETE CASCADE,
    genre_id integer NOT NULL REFERENCES genres (id) ON DELETE CASCADE,
    PRIMARY KEY (music_album_id, genre_id)
);

CREATE TABLE IF NOT EXISTS tracks (
    id uuid PRIMARY KEY,
    album_id uuid NOT NULL REFERENCES music_albums (id) ON DELETE CASCADE,
    title text NOT NULL,
    track_number integer NOT NULL,
    duration_in_seconds integer
);

CREATE TABLE IF NOT EXISTS artists (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    slug text NOT NULL UNIQUE
);

CREATE TABLE IF NOT EXISTS album_artists (
    album_id uuid NOT NULL REFERENCES music_albums (id) ON DELETE CASCADE,
    artist_id uuid NOT NULL REFERENCES artists (id) ON DELETE CASCADE,
    artist_order integer NOT NULL,
    role text NOT NULL,
    PRIMARY KEY (album_id, artist_id)
);

CREATE TABLE IF NOT EXISTS track_artists (
    track_id uuid NOT NULL REFERENCES tracks (id) ON DELETE CASCADE,
    artist_id uuid NOT NULL REFERENCES artists (id) ON DELETE CASCADE,
    artist_order integer NOT NULL,
    role text NOT NULL,
    PRIMARY KEY (track_id, artist_id)
);

CREATE TABLE IF NOT EXISTS ratings (
    user_id uuid NOT NULL,
    music_album_id uuid NOT NULL REFERENCES music_albums (id) ON DELETE CASCADE,
    rating integer NOT NULL CHECK (rating BETWEEN 1 AND 5),
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    PRIMARY KEY (user_id, music_album_id)
);

CREATE INDEX IF NOT EXISTS ix_ratings_music_album_id ON ratings (music_album_id);
