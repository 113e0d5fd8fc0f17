//! What WHIP (RFC 9725) says in headers, and what it asks of an offer.

/// What `If-Match` names: ICE sessions, each by its entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(String);

impl IfMatch {
    pub fn new(value: &str) -> Self {
        Self(value.to_owned())
    }

    /// Whether it names this ICE session.
    pub fn allows(&self, session: &str) -> bool {
        let own = entity_tag(session);
        let mut tags = self.0.split(',').map(str::trim);
        // In the RFC's own example the asterisk is in quotes.
        tags.any(|tag| tag == "*" || tag == "\"*\"" || tag == own)
    }
}

/// Names an ICE session, by our username fragment in it, which each restart changes.
pub fn entity_tag(session: &str) -> String {
    format!("\"{session}\"")
}

/// `Link` headers for ICE servers given as in RTCConfiguration.iceServers. What no header can carry is left out.
pub fn ice_links(servers: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Server {
        urls: Urls,
        username: Option<String>,
        credential: Option<String>,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Urls {
        One(String),
        Several(Vec<String>),
    }
    let servers: Vec<Server> = serde_json::from_str(servers).unwrap_or_default();
    let mut links = Vec::new();
    for server in servers {
        let urls = match server.urls {
            Urls::One(url) => vec![url],
            Urls::Several(urls) => urls,
        };
        let account = match (server.username, server.credential) {
            (Some(name), Some(word)) => match (quoted(&name), quoted(&word)) {
                (Some(name), Some(word)) => {
                    format!("; username={name}; credential={word}; credential-type=\"password\"")
                }
                _ => continue,
            },
            _ => String::new(),
        };
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"');
        for url in urls.iter().filter(|url| url.chars().all(plain)) {
            links.push(format!("<{url}>; rel=\"ice-server\"{account}"));
        }
    }
    links
}

fn quoted(text: &str) -> Option<String> {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => return None,
        }
    }
    Some(out + "\"")
}

/// The offer, with every line that would also receive made to send only: nothing is ever sent to a WHIP client.
pub fn sends_only(offer: &str) -> String {
    const DIRECTIONS: [&str; 3] = ["a=sendonly", "a=recvonly", "a=inactive"];
    let lines = offer.lines().map(|line| match line.trim_end() {
        "a=sendrecv" => "a=sendonly",
        line => line,
    });
    let lines: Vec<&str> = lines.collect();
    let directed = |section: &[&str]| section.iter().any(|line| DIRECTIONS.contains(line));
    let mut by_default = false;
    let mut text = String::with_capacity(offer.len());
    for section in lines.chunk_by(|_, next| !next.starts_with("m=")) {
        for line in section {
            text.push_str(line);
            text.push_str("\r\n");
        }
        if !section[0].starts_with("m=") {
            by_default = directed(section);
        } else if !by_default && !directed(section) && !section[0].starts_with("m=application") {
            text.push_str("a=sendonly\r\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ice_session_is_named_by_its_tag_or_by_the_asterisk() {
        for value in ["*", "\"*\"", "\"abcd\"", "\"old\", \"abcd\""] {
            assert!(IfMatch::new(value).allows("abcd"), "{value}");
        }
        for value in ["", "abcd", "W/\"abcd\"", "\"old\"", "\"abcd"] {
            assert!(!IfMatch::new(value).allows("abcd"), "{value}");
        }
    }

    #[test]
    fn every_ice_server_has_a_link_with_its_account() {
        let servers = r#"[{"urls":"stun:192.0.2.1"},
            {"urls":["turn:a?transport=udp","turns:a"],"username":"u\"s","credential":"c\\d"}]"#;
        let account = r#"username="u\"s"; credential="c\\d"; credential-type="password""#;
        assert_eq!(
            ice_links(servers),
            [
                r#"<stun:192.0.2.1>; rel="ice-server""#.to_owned(),
                format!(r#"<turn:a?transport=udp>; rel="ice-server"; {account}"#),
                format!(r#"<turns:a>; rel="ice-server"; {account}"#),
            ]
        );
    }

    #[test]
    fn an_ice_server_that_fits_no_header_has_no_link() {
        for servers in [
            "[]",
            "none",
            r#"[{"urls":"stun:a\r\nSet-Cookie: b"}]"#,
            r#"[{"urls":"stun:a>b"}]"#,
            r#"[{"urls":"turn:a","username":"é","credential":"c"}]"#,
            r#"[{"urls":"turn:a","username":"u","credential":"\n"}]"#,
        ] {
            assert_eq!(ice_links(servers), [""; 0], "{servers}");
        }
    }

    #[test]
    fn lines_that_would_also_receive_only_send() {
        let offer = "v=0\r\nm=audio 9 X 0\r\na=mid:0\r\na=sendrecv\r\nm=video 9 X 0\r\na=mid:1\r\n\
                     m=video 9 X 0\r\na=recvonly\r\nm=application 9 X x\r\na=mid:3";
        assert_eq!(
            sends_only(offer),
            "v=0\r\nm=audio 9 X 0\r\na=mid:0\r\na=sendonly\r\nm=video 9 X 0\r\na=mid:1\r\na=sendonly\r\n\
             m=video 9 X 0\r\na=recvonly\r\nm=application 9 X x\r\na=mid:3\r\n"
        );
    }

    #[test]
    fn a_direction_of_the_session_is_kept() {
        let offer = "v=0\na=inactive\nm=audio 9 X 0\na=mid:0\n";
        assert_eq!(
            sends_only(offer),
            "v=0\r\na=inactive\r\nm=audio 9 X 0\r\na=mid:0\r\n"
        );
        let both = sends_only("v=0\na=sendrecv\nm=audio 9 X 0\n");
        assert_eq!(both, "v=0\r\na=sendonly\r\nm=audio 9 X 0\r\n");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "((a=sendrecv|(a=|m=|m=audio |[a-zé]=)[ -~é]{0,20})(\r)?\n){0,30}.{0,20}") {
            let changed = sends_only(&text);
            proptest::prop_assert!(!changed.lines().any(|line| line == "a=sendrecv"));
            let _ = IfMatch::new(&text).allows("abcd");
            let _ = ice_links(&text);
        }
    }
}
