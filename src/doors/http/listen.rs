//! Where the listener listens, as the property `listen` says it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Where the listener listens: `http://HOST:PORT`, or the same with https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub(super) secure: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// A value of `listen` that is not understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no address to listen on; http://HOST:PORT is right, such as http://127.0.0.1:8080"
)]
pub struct BadListen(String);

impl FromStr for Listen {
    type Err = BadListen;

    fn from_str(uri: &str) -> Result<Self, BadListen> {
        let bad = || BadListen(uri.to_owned());
        let parsed: axum::http::Uri = uri.parse().map_err(|_| bad())?;
        let secure = parsed.scheme_str() == Some("https");
        let plain = (secure || parsed.scheme_str() == Some("http"))
            && matches!(parsed.path(), "" | "/")
            && parsed.query().is_none();
        let host = parsed
            .host()
            .filter(|host| plain && !host.is_empty())
            .ok_or_else(bad)?;
        let authority = parsed.authority().map(|a| a.as_str()).unwrap_or_default();
        if authority.contains('@') || (authority.ends_with(':')) {
            return Err(bad());
        }
        Ok(Self {
            secure,
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: match (parsed.port(), authority.rsplit_once(':')) {
                (Some(_), _) => parsed.port_u16().ok_or_else(bad)?,
                // What follows the last colon is no port that fits.
                (None, Some((_, rest))) if !rest.ends_with(']') => return Err(bad()),
                (None, _) if secure => 443,
                (None, _) => 80,
            },
        })
    }
}

impl Listen {
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// What the host means: the first that can be bound is listened on.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let found = (self.host.as_str(), self.port).to_socket_addrs()?;
        Ok(found.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on_are_understood_or_named() {
        let listen: Listen = "http://127.0.0.1:8080".parse().unwrap();
        assert_eq!((listen.host.as_str(), listen.port), ("127.0.0.1", 8080));
        let listen: Listen = "http://[::1]:0/".parse().unwrap();
        assert_eq!((listen.host.as_str(), listen.port), ("::1", 0));
        assert_eq!("http://localhost".parse::<Listen>().unwrap().port, 80);
        let listen: Listen = "https://localhost".parse().unwrap();
        assert_eq!((listen.is_secure(), listen.port), (true, 443));
        for bad in [
            "",
            "8080",
            "ftp://a:1",
            "http://a:99999",
            "http://:80",
            "http://a:1/x",
            "http://u@a:1",
        ] {
            let error = bad.parse::<Listen>().unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }
}
