//! What a server takes and nobody else is told.

use std::fmt;

/// What stands in a secret's place.
const HIDDEN: &str = "…";

/// A key. Unlike a [`Token`](crate::logic::token::Token) it may be any text: it also travels in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For the server only.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// A text without it.
    pub fn hide_in(&self, text: &str) -> String {
        match self.0.is_empty() {
            true => text.to_owned(),
            false => text.replace(&self.0, HIDDEN),
        }
    }
}
