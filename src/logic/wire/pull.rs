//! URLs that a visitor asks us to pull video from: understood, and allowed or refused before anything is opened.
//!
//! Whoever may make a server open connections may look into its network: only hosts that are listed are asked, a name is
//! resolved once, and a private address is opened only where it or its name is listed itself. A certificate vouches for
//! a name, which is resolved again then: such a name is opened only where it is listed itself, whatever its address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::Uri;

use crate::logic::percent::decoded;

/// Longest URL.
const MAX_URL: usize = 2048;

/// A URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    scheme: String,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    path: String,
    /// Kept out of the URL, which errors repeat.
    pub user: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    #[error("this server pulls nothing; property allow-pull lists hosts that it may pull from")]
    Off,
    #[error("{0} is right")]
    Url(&'static str),
    #[error("{0:?} is no host that this server pulls from; property allow-pull lists those")]
    Host(String),
    #[error(
        "{host:?} has the private address {address}, and neither is in the property allow-pull"
    )]
    Private { host: String, address: IpAddr },
    /// What it means may have changed until it is opened, to an address that nobody has checked.
    #[error(
        "{0:?} is not listed itself in the property allow-pull, and a certificate's name is opened only then"
    )]
    Unpinned(String),
    #[error("{0:?} has no address")]
    NoAddress(String),
}

/// What a field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rtsp,
    Mjpeg,
}

impl Kind {
    fn port(self, scheme: &str) -> Option<u16> {
        match (self, scheme) {
            (Self::Rtsp, "rtsp") => Some(554),
            (Self::Rtsp, "rtsps") => Some(322),
            (Self::Mjpeg, "http") => Some(80),
            (Self::Mjpeg, "https") => Some(443),
            _ => None,
        }
    }

    fn right(self) -> &'static str {
        match self {
            Self::Rtsp => "rtsp://HOST/PATH or rtsps://HOST/PATH",
            Self::Mjpeg => "http://HOST/PATH or https://HOST/PATH",
        }
    }
}

impl Pull {
    pub fn parse(text: &str, kind: Kind) -> Result<Self, PullError> {
        let bad = || PullError::Url(kind.right());
        let uri: Uri = match text.len() {
            0..=MAX_URL => text.parse().map_err(|_| bad())?,
            _ => return Err(bad()),
        };
        let scheme = uri.scheme_str().ok_or_else(bad)?.to_ascii_lowercase();
        let port = kind.port(&scheme).ok_or_else(bad)?;
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host();
        // What is no address in brackets has none: players would read another host out of it.
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let host = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().map(|_| address),
            None => Ok(host),
        };
        let host = host.map_err(|_| bad())?;
        if bracketed.is_none() && host.contains(['[', ']', ':']) {
            return Err(bad());
        }
        let user = match authority.as_str().rsplit_once('@') {
            Some((user, _)) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let decoded = decoded(name).zip(decoded(password));
                Some(decoded.ok_or_else(bad)?)
            }
            None => None,
        };
        if host.is_empty() || text.chars().any(char::is_control) {
            return Err(bad());
        }
        Ok(Self {
            scheme,
            host: host.to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(port),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            user,
        })
    }

    /// Whether it is opened by name, for the sake of the certificate.
    fn needs_name(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "rtsps") && self.host.parse::<IpAddr>().is_err()
    }

    /// The URL to open. The address takes the name's place, but where a certificate vouches for the name.
    pub fn uri(&self, address: IpAddr) -> String {
        let host = match address {
            _ if self.needs_name() => self.host.clone(),
            IpAddr::V6(address) => format!("[{address}]"),
            IpAddr::V4(address) => address.to_string(),
        };
        format!("{}://{host}:{}{}", self.scheme, self.port, self.path)
    }
}

/// Hosts that may be pulled from.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    hosts: Vec<String>,
}

impl Allowed {
    /// Names and addresses; `*` is every host with a public address.
    pub fn new(hosts: impl Iterator<Item = impl AsRef<str>>) -> Self {
        let hosts = hosts.map(|host| {
            let host = host.as_ref().trim_start_matches('[').trim_end_matches(']');
            host.to_ascii_lowercase()
        });
        Self {
            hosts: hosts.collect(),
        }
    }

    fn lists(&self, host: &str) -> bool {
        self.hosts.iter().any(|listed| listed == host)
    }

    /// Whether its host may be looked up at all.
    pub fn host(&self, pull: &Pull) -> Result<(), PullError> {
        let host = || pull.host.chars().take(64).collect();
        match self.hosts.is_empty() {
            true => Err(PullError::Off),
            false if self.lists(&pull.host) => Ok(()),
            false if !self.lists("*") => Err(PullError::Host(host())),
            false if pull.needs_name() => Err(PullError::Unpinned(host())),
            false => Ok(()),
        }
    }

    /// Which of a name's addresses is opened.
    pub fn address(
        &self,
        host: &str,
        mut addresses: impl Iterator<Item = IpAddr>,
    ) -> Result<IpAddr, PullError> {
        let host = || host.chars().take(64).collect();
        let address = addresses.next();
        let address = address.ok_or_else(|| PullError::NoAddress(host()))?;
        let address = address.to_canonical();
        if is_public(address) || self.lists(&host()) || self.lists(&address.to_string()) {
            return Ok(address);
        }
        let host = host();
        Err(PullError::Private { host, address })
    }
}

/// Whether anybody on the internet could open it as well.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        // This network; shared with the provider; protocol assignments; benchmarks; reserved and broadcast.
        || a == 0
        || (a == 100 && b & 0xc0 == 64)
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && b & 0xfe == 18)
        || a >= 240;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let octets = address.octets();
    // Where a gateway leads on to an address of the old kind.
    let inner =
        |at: usize| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]);
    match (first, second) {
        (0x64, 0xff9b) => is_public_v4(inner(12)),
        (0x2002, _) => is_public_v4(inner(2)),
        // The one block that is given out, but for documentation.
        (0x2001, 0x0db8) => false,
        _ => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_its_password_left_out() {
        let pull = Pull::parse("rtsp://me:secret@Cam.lan/live?x=1", Kind::Rtsp).unwrap();
        assert_eq!((pull.host.as_str(), pull.port), ("cam.lan", 554));
        assert_eq!(pull.user, Some(("me".into(), "secret".into())));
        let address = "192.0.2.7".parse().unwrap();
        assert_eq!(pull.uri(address), "rtsp://192.0.2.7:554/live?x=1");
        let pull = Pull::parse("http://[2001:db8::1]:81", Kind::Mjpeg).unwrap();
        let address = pull.host.parse().unwrap();
        assert_eq!(pull.uri(address), "http://[2001:db8::1]:81/");
        let pull = Pull::parse("https://cam.example/a", Kind::Mjpeg).unwrap();
        let address = "8.8.8.8".parse().unwrap();
        assert_eq!(pull.uri(address), "https://cam.example:443/a");
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        for (kind, text) in [
            (Kind::Rtsp, ""),
            (Kind::Rtsp, "http://a/"),
            (Kind::Rtsp, "file:///etc/passwd"),
            (Kind::Mjpeg, "rtsp://a/"),
            (Kind::Mjpeg, "/etc/passwd"),
            (Kind::Mjpeg, "http:///a"),
            (Kind::Mjpeg, "http://a b/"),
            (Kind::Rtsp, "rtsps://a[::1]b"),
            (Kind::Rtsp, "rtsps://[[::1]]"),
            (Kind::Mjpeg, "https://[cam.lan]/"),
        ] {
            assert!(Pull::parse(text, kind).is_err(), "{text}");
        }
        let long = format!("http://a/{}", "x".repeat(MAX_URL));
        assert!(Pull::parse(&long, Kind::Mjpeg).is_err());
    }

    #[test]
    fn a_name_and_a_password_are_decoded() {
        let user =
            |user: &str| Pull::parse(&format!("rtsp://{user}@a/"), Kind::Rtsp).map(|p| p.user);
        for (text, name, password) in [
            ("me%40home:p%3Ass%2Fw%20rd", "me@home", "p:ss/w rd"),
            ("me:100%25", "me", "100%"),
            ("m%C3%BCller:", "müller", ""),
            ("me", "me", ""),
            ("me:a:b", "me", "a:b"),
        ] {
            let right = Some((name.to_owned(), password.to_owned()));
            assert_eq!(user(text), Ok(right), "{text}");
        }
        for wrong in ["me:%ff", "%fe:x", "me:a%0d%0aX: y", "%00:x"] {
            assert!(user(wrong).is_err(), "{wrong}");
        }
    }

    fn allowed(list: &str) -> Allowed {
        Allowed::new(list.split(',').filter(|h| !h.is_empty()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn opens(list: &str, kind: Kind, url: &str, address: &str) -> Result<IpAddr, PullError> {
        let (allowed, pull) = (allowed(list), Pull::parse(url, kind)?);
        allowed.host(&pull)?;
        allowed.address(&pull.host, std::iter::once(ip(address)))
    }

    #[test]
    fn a_name_that_is_resolved_again_is_opened_only_where_it_is_listed_itself() {
        for (kind, scheme) in [(Kind::Mjpeg, "https"), (Kind::Rtsp, "rtsps")] {
            let url = format!("{scheme}://cam.example/");
            for list in ["*", "*,other.example", "*,8.8.8.8"] {
                let refused = opens(list, kind, &url, "8.8.8.8");
                assert!(matches!(refused, Err(PullError::Unpinned(_))), "{list}");
            }
            // Whoever lists a name trusts it with every address.
            for address in ["8.8.8.8", "127.0.0.1"] {
                assert_eq!(opens("*,cam.example", kind, &url, address), Ok(ip(address)));
            }
            let by_address = format!("{scheme}://8.8.8.8/");
            assert_eq!(opens("*", kind, &by_address, "8.8.8.8"), Ok(ip("8.8.8.8")));
        }
        assert_eq!(
            opens("*", Kind::Rtsp, "rtsp://cam.example/", "8.8.8.8"),
            Ok(ip("8.8.8.8"))
        );
    }

    #[test]
    fn only_what_is_listed_is_opened_and_nothing_private_by_another_name() {
        let opens = |list: &str, host: &str, address: &str| {
            opens(list, Kind::Mjpeg, &format!("http://{host}/"), address)
        };
        assert_eq!(opens("", "cam.lan", "8.8.8.8"), Err(PullError::Off));
        assert!(matches!(
            opens("other.lan", "cam.lan", "8.8.8.8"),
            Err(PullError::Host(_))
        ));
        for (list, host, address) in [
            ("*", "cam.example", "8.8.8.8"),
            ("*", "cam.example", "2a00:1450::1"),
            ("cam.lan", "cam.lan", "192.168.1.5"),
            ("*,192.168.1.5", "cam.example", "192.168.1.5"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(opens(list, host, address), Ok(ip(address)), "{list} {host}");
        }
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            let refused = opens("*", "cam.example", address);
            assert!(
                matches!(refused, Err(PullError::Private { .. })),
                "{address}"
            );
        }
        assert!(matches!(
            allowed("*").address("x", std::iter::empty()),
            Err(PullError::NoAddress(_))
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(rtsp|http)?(://)?[ -~]{0,60}") {
            let _ = Pull::parse(&text, Kind::Rtsp);
            let _ = Pull::parse(&text, Kind::Mjpeg);
        }
    }
}
