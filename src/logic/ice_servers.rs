//! STUN and TURN servers: as the properties name them, and as clients are told of them. Knows no socket and looks no
//! name up; what of it is secret shows nowhere but in what clients are told.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::percent::{decoded, is_well_encoded};

/// Most servers of one kind; each is one more that every offer's candidates are made of.
pub const MAX_SERVERS: usize = 8;

const STUN_PORT: u16 = 3478;
const TURNS_PORT: u16 = 5349;
/// What stands in a secret's place.
const HIDDEN: &str = "…";

/// Whether visitors may be reached by any address or by those of TURN servers only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransportPolicy {
    #[default]
    All,
    Relay,
}

impl TransportPolicy {
    /// As in RTCConfiguration.iceTransportPolicy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Relay => "relay",
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Place {
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                if host.is_empty() || !host.chars().all(fits) {
                    return None;
                }
                (host, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
            None if port.is_empty() => default_port,
            None => return None,
        };
        Some(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// A STUN server: `stun:HOST:PORT`, `stun://HOST:PORT`, or without the scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunServer(pub Place);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no STUN server; stun://HOST:PORT is right")]
pub struct BadStunServer(String);

impl FromStr for StunServer {
    type Err = BadStunServer;

    fn from_str(text: &str) -> Result<Self, BadStunServer> {
        let place = text.strip_prefix("stun:").unwrap_or(text);
        let place = place.strip_prefix("//").unwrap_or(place);
        Place::parse(place, STUN_PORT)
            .map(Self)
            .ok_or_else(|| BadStunServer(text.to_owned()))
    }
}

/// How a TURN server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Udp,
    Tcp,
}

/// A TURN server with an account on it: `turn://USER:PASSWORD@HOST:PORT?transport=udp`, or the same with turns.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnServer {
    pub place: Place,
    /// Under TLS, or DTLS.
    pub secure: bool,
    /// Where the URL says; clients choose where it does not.
    pub carrier: Option<Carrier>,
    pub username: String,
    pub password: String,
}

/// Why a value is no TURN server. It says no more of the value than what cannot be secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{problem}; turn://USER:PASSWORD@HOST:PORT?transport=udp is right, with %XX for what has a meaning in a URL"
)]
pub struct BadTurnServer {
    problem: &'static str,
}

impl FromStr for TurnServer {
    type Err = BadTurnServer;

    fn from_str(text: &str) -> Result<Self, BadTurnServer> {
        let bad = |problem| BadTurnServer { problem };
        let scheme = text.split_once(':');
        let (secure, rest) = match scheme {
            Some(("turn", rest)) => (false, rest),
            Some(("turns", rest)) => (true, rest),
            _ => return Err(bad("it does not begin with turn: or turns:")),
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (account, rest) = rest
            .rsplit_once('@')
            .ok_or_else(|| bad("there is no account in it"))?;
        let (username, password) = account
            .split_once(':')
            .ok_or_else(|| bad("there is no password in it"))?;
        let decoded = |text| {
            let decoded = is_well_encoded(text).then(|| decoded(text)).flatten();
            decoded.filter(|text| !text.is_empty())
        };
        let username =
            decoded(username).ok_or_else(|| bad("its user name is empty or not well encoded"))?;
        let password =
            decoded(password).ok_or_else(|| bad("its password is empty or not well encoded"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let carrier = match query {
            "" => None,
            "transport=udp" => Some(Carrier::Udp),
            "transport=tcp" => Some(Carrier::Tcp),
            _ => return Err(bad("transport is udp or tcp")),
        };
        let port = if secure { TURNS_PORT } else { STUN_PORT };
        let place = Place::parse(place, port).ok_or_else(|| bad("its host or port is none"))?;
        Ok(Self {
            place,
            secure,
            carrier,
            username,
            password,
        })
    }
}

impl TurnServer {
    /// One of an RTCIceServer, which has its account beside its URL.
    pub fn with_account(url: &str, username: &str, password: &str) -> Result<Self, BadTurnServer> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let [username, password] =
            [username, password].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        format!("{scheme}:{username}:{password}@{rest}").parse()
    }

    /// Whether our own side speaks to it: over plain UDP only.
    pub fn is_ours_too(&self) -> bool {
        !self.secure && self.carrier != Some(Carrier::Tcp)
    }
}

/// The URL without the account, as in RTCIceServer.urls.
impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "turns" } else { "turn" };
        write!(f, "{scheme}:{}", self.place)?;
        match self.carrier {
            Some(Carrier::Udp) => f.write_str("?transport=udp"),
            Some(Carrier::Tcp) => f.write_str("?transport=tcp"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is said of a value of `turn-servers`: where its servers are, and nothing that may be part of an account.
pub fn without_accounts(value: &str) -> String {
    let shown = words(value).map(|word| {
        let scheme = ["turn:", "turns:"].iter().find(|s| word.starts_with(**s));
        // Whatever is not known to be a host may be a piece of a password.
        let place = word.rsplit_once('@').map(|(_, rest)| rest);
        let host = place.map(|rest| rest.split_once('?').unwrap_or((rest, "")).0);
        let host = host.filter(|host| Place::parse(host, STUN_PORT).is_some());
        match (scheme, host) {
            (Some(scheme), Some(host)) => format!("{scheme}//{HIDDEN}@{host}"),
            (Some(scheme), None) => format!("{scheme}{HIDDEN}"),
            (None, _) => HIDDEN.to_owned(),
        }
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The words of a list, between commas and white space.
pub fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
}

/// RTCConfiguration.iceServers, as JSON.
pub fn as_json(stun: &[StunServer], turn: &[TurnServer]) -> String {
    #[derive(Serialize)]
    struct Server<'a> {
        urls: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        username: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        credential: Option<&'a str>,
    }
    let stun = stun.iter().map(|server| Server {
        urls: format!("stun:{}", server.0),
        username: None,
        credential: None,
    });
    let turn = turn.iter().map(|server| Server {
        urls: server.to_string(),
        username: Some(&server.username),
        credential: Some(&server.password),
    });
    let servers: Vec<_> = stun.chain(turn).collect();
    serde_json::to_string(&servers).expect("strings are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(text: &str) -> Result<TurnServer, BadTurnServer> {
        text.parse()
    }

    #[test]
    fn an_account_beside_a_url_may_have_any_letters() {
        let server = TurnServer::with_account("turn:192.0.2.1:1?transport=udp", "1700:me", "p@/ä");
        let server = server.unwrap();
        assert_eq!((&*server.username, &*server.password), ("1700:me", "p@/ä"));
        assert_eq!(server.to_string(), "turn:192.0.2.1:1?transport=udp");
        for (url, user, password) in [
            ("turn:", "u", "p"),
            ("stun:a:1", "u", "p"),
            ("turn:a:1", "", "p"),
        ] {
            assert!(
                TurnServer::with_account(url, user, password).is_err(),
                "{url}"
            );
        }
    }

    #[test]
    fn a_turn_server_is_understood_whichever_way_it_is_written() {
        for (text, urls, account, ours) in [
            (
                "turn://u:p@192.0.2.1:1?transport=udp",
                "turn:192.0.2.1:1?transport=udp",
                ("u", "p"),
                true,
            ),
            (
                "turn:u:p@a.example",
                "turn:a.example:3478",
                ("u", "p"),
                true,
            ),
            (
                "turn://u:p@[2001:db8::1]",
                "turn:[2001:db8::1]:3478",
                ("u", "p"),
                true,
            ),
            (
                "turn://u:p@a?transport=tcp",
                "turn:a:3478?transport=tcp",
                ("u", "p"),
                false,
            ),
            ("turns://u:p@a", "turns:a:5349", ("u", "p"), false),
            (
                "turn://1700000000%3Aann:a%40b%2c%20:%c3%A9@a",
                "turn:a:3478",
                ("1700000000:ann", "a@b, :é"),
                true,
            ),
            ("turn://u:p@q@a", "turn:a:3478", ("u", "p@q"), true),
        ] {
            let server = turn(text).unwrap();
            assert_eq!(server.to_string(), urls, "{text}");
            let said = (&*server.username, &*server.password);
            assert_eq!((said, server.is_ours_too()), (account, ours), "{text}");
        }
    }

    #[test]
    fn what_is_no_turn_server_is_refused_with_what_would_be_right() {
        for (text, problem) in [
            ("", "begin"),
            ("stun:a", "begin"),
            ("TURN:u:p@a", "begin"),
            ("turn://a:3478", "account"),
            ("turn://u@a", "password"),
            ("turn://:p@a", "user name"),
            ("turn://u:@a", "password"),
            ("turn://u:%@a", "password"),
            ("turn://u:%f@a", "password"),
            ("turn://u:%ff@a", "password"),
            ("turn://u:%0a@a", "password"),
            ("turn://u:p@", "host"),
            ("turn://u:p@a:0", "host"),
            ("turn://u:p@a:65536", "host"),
            ("turn://u:p@a:", "host"),
            ("turn://u:p@a/b", "host"),
            ("turn://u:p@[::1", "host"),
            ("turn://u:p@[a]", "host"),
            ("turn://u:p@::1", "host"),
            ("turn://u:p@a?transport=sctp", "transport"),
            ("turn://u:p@a?x", "transport"),
        ] {
            let said = turn(text).unwrap_err().to_string();
            assert!(said.contains(problem), "{text}: {said}");
            assert!(said.contains("turn://USER:PASSWORD@HOST:PORT"), "{said}");
        }
    }

    #[test]
    fn no_part_of_an_account_is_shown() {
        let value = "turn://secret:secret@a.example:1?transport=udp, turns:secret:sec ret@b secret \
                     turn://secret:secret@a/secret turn:secret:secret turn://secret";
        assert_eq!(
            without_accounts(value),
            "turn://…@a.example:1,turns:…,…,…,turn:…,turn:…,turn:…"
        );
        let server = turn("turn://secret:secret@a").unwrap();
        assert_eq!(format!("{server:?} {server}"), "turn:a:3478 turn:a:3478");
    }

    #[test]
    fn a_stun_server_is_understood_or_named() {
        for (text, place) in [
            ("stun://a:1", "a:1"),
            ("stun:a", "a:3478"),
            ("192.0.2.1:5", "192.0.2.1:5"),
            ("[::1]:5", "[::1]:5"),
            ("a", "a:3478"),
        ] {
            assert_eq!(text.parse::<StunServer>().unwrap().0.to_string(), place);
        }
        for bad in ["", "turn:a", "stun://", "a:x", "stun:stun:a"] {
            let said = bad.parse::<StunServer>().unwrap_err().to_string();
            assert!(said.contains(&format!("{bad:?}")), "{said}");
        }
    }

    #[test]
    fn clients_are_told_of_servers_as_their_connections_take_them() {
        let stun = ["stun://a:1".parse().unwrap()];
        let servers = [
            turn("turn://u:%22@b?transport=udp").unwrap(),
            turn("turns://u:p@[::1]").unwrap(),
        ];
        assert_eq!(
            as_json(&stun, &servers),
            r#"[{"urls":"stun:a:1"},{"urls":"turn:b:3478?transport=udp","username":"u","credential":"\""},{"urls":"turns:[::1]:5349","username":"u","credential":"p"}]"#
        );
        assert_eq!(as_json(&[], &[]), "[]");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_or_tell_a_secret(text in "(turns?:)?(//)?[ -~é]{0,40}") {
            let _ = turn(&text);
            let _ = text.parse::<StunServer>();
            let value = format!("turn://{}secret@a", text.replace("secret", ""));
            proptest::prop_assert!(!without_accounts(&value).contains("secret"));
        }
    }
}
