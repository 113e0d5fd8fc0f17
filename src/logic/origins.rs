//! Which web pages of other origins may use the server.

use std::str::FromStr;

/// A scheme, a host and, where it is not the scheme's own, a port, as browsers write them (RFC 6454); or every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Any,
    Of(String),
}

/// What no browser calls itself from.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no origin; https://HOST or http://HOST:PORT with nothing after it is right, or * for every one"
)]
pub struct BadOrigin(String);

impl FromStr for Origin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let origin = text.to_ascii_lowercase();
        let bad = || BadOrigin(text.to_owned());
        let (scheme, authority) = origin.split_once("://").ok_or_else(bad)?;
        let names_one = !authority.is_empty() && !authority.contains(['/', '?', '#', '@', '*']);
        if scheme.is_empty() || !names_one {
            return Err(bad());
        }
        // A browser does not name the port that goes without saying.
        let usual = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let authority = authority.strip_suffix(usual).unwrap_or(authority);
        Ok(Self::Of(format!("{scheme}://{authority}")))
    }
}

impl Origin {
    /// Whether it is the one that a browser names.
    pub fn allows(&self, named: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(origin) => origin.eq_ignore_ascii_case(named),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_the_whole_of_it() {
        let origin: Origin = "https://Example.org".parse().unwrap();
        assert!(origin.allows("https://example.org"));
        for other in [
            "http://example.org",
            "https://example.org:8443",
            "https://www.example.org",
            "https://example.org.evil.example",
            "https://example.or",
            "null",
            "",
        ] {
            assert!(!origin.allows(other), "{other}");
        }
        let any: Origin = "*".parse().unwrap();
        assert!(any.allows("https://example.org") && any.allows("null"));
    }

    #[test]
    fn the_port_that_goes_without_saying_is_not_said() {
        for (written, named) in [
            ("https://a:443", "https://a"),
            ("http://a:80", "http://a"),
            ("https://a:80", "https://a:80"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            let origin: Origin = written.parse().unwrap();
            assert_eq!(origin, Origin::Of(named.to_owned()));
        }
    }

    #[test]
    fn what_is_no_origin_is_named() {
        for bad in [
            "",
            "example.org",
            "https://",
            "://a",
            "https://a/",
            "https://a/b",
            "https://*.a",
            "https://u@a",
        ] {
            assert_eq!(bad.parse::<Origin>(), Err(BadOrigin(bad.to_owned())));
        }
    }
}
