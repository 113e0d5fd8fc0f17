//! The two kinds of stream.

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Media {
    Video,
    Audio,
}

impl Media {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }

    /// What the word at the head of an m-line means; `None` for data channels and what else there may be.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Video, Self::Audio]
            .into_iter()
            .find(|media| media.as_str() == word)
    }
}
