//! What the user says of servers: where they are, how they know us, and the model they are asked for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::logic::token::Token;

/// More would be no list that somebody wrote.
const MOST_URIS: usize = 32;
/// Letters of an address, a name or a version: together they are a URI that every server takes.
const MOST_LETTERS: usize = 1024;

/// Servers that all have the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Servers {
    /// One at least.
    pub uris: Vec<ServerUri>,
    /// What each of them is shown.
    pub token: Option<Token>,
    /// PEM certificates of whom to trust with https; None are those that the system trusts.
    pub ca_file: Option<PathBuf>,
}

/// `http[s]://HOST[:PORT][/PATH]`, the path being in front of `v2`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServerUri {
    pub secure: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// Empty, or with a slash at its beginning and none at its end.
    pub path: String,
}

/// A value of `server-uris` that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUris {
    #[error(
        "it names no server; http://HOST:PORT or https://HOST:PORT is right, several with commas between them"
    )]
    None,
    #[error("it names more than {MOST_URIS} servers")]
    TooMany,
    #[error(
        "{0:?} is no address of a server; http://HOST:PORT or https://HOST:PORT is right, such as http://127.0.0.1:8000"
    )]
    NoUri(String),
    #[error("an address has more than {MOST_LETTERS} letters")]
    TooLong,
    /// It is not told, because of what it carries.
    #[error(
        "an address with a name and a password in it is not taken; a server is shown the property server-token"
    )]
    Credentials,
}

impl FromStr for ServerUri {
    type Err = BadUris;

    fn from_str(text: &str) -> Result<Self, BadUris> {
        if text.contains('@') {
            return Err(BadUris::Credentials);
        }
        if text.len() > MOST_LETTERS {
            return Err(BadUris::TooLong);
        }
        let bad = || BadUris::NoUri(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => [80, 443][usize::from(secure)],
            // Zero is a port that nobody listens on.
            Some(_) => authority
                .port_u16()
                .filter(|&port| port > 0)
                .ok_or_else(bad)?,
            None => return Err(bad()),
        };
        if host.is_empty() || uri.query().is_some() || text.contains('#') {
            return Err(bad());
        }
        Ok(ServerUri {
            secure,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl ServerUri {
    /// All in a list with commas or spaces between them, each once.
    pub fn list(text: &str) -> Result<Vec<ServerUri>, BadUris> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        let mut uris: Vec<ServerUri> = Vec::new();
        for word in words.filter(|word| !word.is_empty()) {
            let uri = word.parse()?;
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
        match uris.len() {
            0 => Err(BadUris::None),
            1..=MOST_URIS => Ok(uris),
            _ => Err(BadUris::TooMany),
        }
    }

    /// `HOST:PORT`, as in the header of that name.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for ServerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = ["http", "https"][usize::from(self.secure)];
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Debug for ServerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `NAME` or `NAME/VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteModel {
    pub name: String,
    /// None leaves it to the server.
    pub version: Option<String>,
}

/// A value of `model` that names none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a model on a server; NAME or NAME/VERSION is right, such as shapes or shapes/1"
)]
pub struct BadModel(String);

impl FromStr for RemoteModel {
    type Err = BadModel;

    fn from_str(text: &str) -> Result<Self, BadModel> {
        let (name, version) = match text.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let fits = |part: &str| {
            let is_long = part.len() > MOST_LETTERS;
            !part.is_empty() && !is_long && !part.contains('/') && part != ".."
        };
        if !fits(name) || !version.is_none_or(fits) {
            return Err(BadModel(text.chars().take(MOST_LETTERS).collect()));
        }
        Ok(RemoteModel {
            name: name.into(),
            version: version.map(Into::into),
        })
    }
}

impl RemoteModel {
    /// Where a server has it, under the path of its address.
    pub fn path(&self) -> String {
        const KEPT: &AsciiSet = &NON_ALPHANUMERIC
            .remove(b'-')
            .remove(b'.')
            .remove(b'_')
            .remove(b'~');
        let encoded = |part| utf8_percent_encode(part, KEPT);
        let mut path = format!("/v2/models/{}", encoded(&self.name));
        if let Some(version) = &self.version {
            path += &format!("/versions/{}", encoded(version));
        }
        path
    }
}

impl fmt::Display for RemoteModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.version {
            Some(version) => write!(f, "/{version}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_told_the_same() {
        for (text, told, authority) in [
            (
                "http://127.0.0.1:8000",
                "http://127.0.0.1:8000",
                "127.0.0.1:8000",
            ),
            (
                "https://gpu.example/",
                "https://gpu.example:443",
                "gpu.example:443",
            ),
            ("http://gpu", "http://gpu:80", "gpu:80"),
            (
                "http://[::1]:8000/a/b/",
                "http://[::1]:8000/a/b",
                "[::1]:8000",
            ),
            ("https://[::1]", "https://[::1]:443", "[::1]:443"),
        ] {
            let uri: ServerUri = text.parse().unwrap();
            assert_eq!(
                (uri.to_string(), uri.authority()),
                (told.into(), authority.into())
            );
            assert_eq!(told.parse(), Ok(uri));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be() {
        for bad in [
            "127.0.0.1:8000",
            "grpc://a:8001",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://a:port",
            "http://a?b=c",
            "http://a#b",
            "/v2",
        ] {
            let refused = bad.parse::<ServerUri>().unwrap_err();
            assert_eq!(refused, BadUris::NoUri(bad.into()));
            assert!(
                refused.to_string().contains("http://HOST:PORT"),
                "{refused}"
            );
        }
        assert_eq!(ServerUri::list(" , "), Err(BadUris::None));
        let long = format!("http://a/{}", "b".repeat(70_000));
        assert_eq!(ServerUri::list(&long), Err(BadUris::TooLong));
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_told() {
        let refused = ServerUri::list("http://ann:s3cret@gpu:8000").unwrap_err();
        assert_eq!(refused, BadUris::Credentials);
        assert!(!refused.to_string().contains("s3cret"), "{refused}");
    }

    #[test]
    fn a_list_has_commas_or_spaces_and_names_each_once() {
        let uris = ServerUri::list("http://a:1, http://b:2 http://a:1/").unwrap();
        let told: Vec<_> = uris.iter().map(ServerUri::to_string).collect();
        assert_eq!(told, ["http://a:1", "http://b:2"]);
        let many: String = (1..40).map(|port| format!("http://a:{port} ")).collect();
        assert_eq!(ServerUri::list(&many), Err(BadUris::TooMany));
    }

    #[test]
    fn models_are_named_with_a_version_or_without() {
        let paths = [
            ("shapes", "/v2/models/shapes"),
            ("shapes/1", "/v2/models/shapes/versions/1"),
            ("two words/v1?", "/v2/models/two%20words/versions/v1%3F"),
        ];
        for (text, path) in paths {
            let model: RemoteModel = text.parse().unwrap();
            assert_eq!(
                (model.to_string(), model.path()),
                (text.into(), path.into())
            );
        }
        let long = "a".repeat(70_000);
        for bad in [
            "",
            "/",
            "a/",
            "/1",
            "a/1/b",
            "models/shapes.onnx/x",
            "..",
            &long,
        ] {
            let refused = bad.parse::<RemoteModel>().unwrap_err();
            assert!(refused.to_string().contains("NAME/VERSION"), "{refused}");
        }
    }
}
