//! The secret that opens the doors: compared in constant time, and shown to nobody.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// What stands in a secret's place.
const HIDDEN: &str = "…";
/// Properties with secrets, as GObject takes them; one that begins with another comes before it.
const NAMES: [&str; 8] = [
    "auth-token",
    "auth_token",
    "server-token",
    "server_token",
    "turn-servers",
    "turn_servers",
    "turn-server",
    "turn_server",
];

/// A bearer token (RFC 6750).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(String);

/// A value that no client could send; it is a secret, so it is not told.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is one or more of A-Z a-z 0-9 - . _ ~ + /, with = at its end if at all")]
pub struct BadToken;

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let letters = text.trim_end_matches('=');
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        match !letters.is_empty() && letters.chars().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadToken),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Token {
    /// How long it takes tells the length of the token at most.
    pub fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }

    /// Whether it is what an `Authorization` header says.
    pub fn is_in(&self, authorization: &str) -> bool {
        let bearer = authorization
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        bearer.is_some_and(|(_, text)| self.is(text.trim()))
    }

    /// What a client that knows it sends as `Authorization`.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// A text without it.
    pub fn hide_in(&self, text: &str) -> String {
        text.replace(&self.0, HIDDEN)
    }
}

/// A launch line without the values of properties with secrets, whosoever they are.
pub fn hide_secrets(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    let found = |rest: &str| {
        let found = NAMES
            .iter()
            .filter_map(|name| rest.find(name).map(|at| (at, name.len())));
        // Of several at one place the first.
        found.min_by_key(|(at, _)| *at)
    };
    while let Some((at, name)) = found(rest) {
        let (before, after) = rest.split_at(at + name);
        shown.push_str(before);
        rest = after;
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let value = value.trim_start();
            shown.push('=');
            shown.push_str(HIDDEN);
            rest = &value[length(value)..];
        }
    }
    shown.push_str(rest);
    shown
}

/// How long a value is: up to white space that is in no quotes.
fn length(value: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in value.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ if quote.is_none() && c.is_whitespace() => return at,
            _ => {}
        }
    }
    value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_token_itself_opens() {
        let token = token("s3cret/+~==");
        assert!(token.is("s3cret/+~=="));
        for wrong in ["", "s3cret/+~=", "s3cret/+~===", "S3cret/+~==", "s"] {
            assert!(!token.is(wrong), "{wrong}");
        }
        for right in [
            "Bearer s3cret/+~==",
            "bearer s3cret/+~==",
            "BEARER  s3cret/+~== ",
        ] {
            assert!(token.is_in(right), "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "s3cret/+~==",
            "Basic s3cret/+~==",
            "Bearers3cret/+~==",
            "Bearer s3cret/+~== more",
            "Bearer s3cret",
        ] {
            assert!(!token.is_in(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_no_client_can_send_is_no_token() {
        for bad in ["", "=", "two words", "a\"b", "ü", "a=b", "a\nb"] {
            assert_eq!(bad.parse::<Token>(), Err(BadToken), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_not_told() {
        let token = token("abcd1234");
        assert_eq!(format!("{token:?}"), "…");
        assert!(token.is_in(&token.authorization()));
        assert_eq!(token.hide_in("1 abcd1234 2 abcd1234"), "1 … 2 …");
    }

    #[test]
    fn launch_lines_are_shown_without_secrets() {
        for (line, shown) in [
            ("rtcsessionsrc ! fakesink", "rtcsessionsrc ! fakesink"),
            ("a auth-token=s b=c", "a auth-token=… b=c"),
            ("a auth-token=s", "a auth-token=…"),
            (
                "a server-token=s server_token=t",
                "a server-token=… server_token=…",
            ),
            ("a auth_token=s\n b", "a auth_token=…\n b"),
            ("a auth-token = s b", "a auth-token=… b"),
            ("a auth-token=\"s t\" b", "a auth-token=… b"),
            ("a auth-token='s \" t' b", "a auth-token=… b"),
            ("a auth-token=\"s \\\" t\" b", "a auth-token=… b"),
            ("a auth-token=s\\ t b", "a auth-token=… b"),
            ("a auth-token=(string)s b", "a auth-token=… b"),
            ("auth-token=s auth_token=t", "auth-token=… auth_token=…"),
            ("a turn-servers=turn://u:s@a b", "a turn-servers=… b"),
            ("a turn-servers=\"turn://u:s@a, b\" c", "a turn-servers=… c"),
            ("a turn_servers = s b", "a turn_servers=… b"),
            ("webrtcbin turn-server=s b", "webrtcbin turn-server=… b"),
            (
                "a turn-servers=s auth-token=t",
                "a turn-servers=… auth-token=…",
            ),
            ("a auth-token b", "a auth-token b"),
            ("a auth-token=", "a auth-token=…"),
        ] {
            assert_eq!(hide_secrets(line), shown);
        }
    }
}
