//! Who is let in and who is kept out of `rtcsessionsrc`'s listener, and what the others are told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use minreq::Method;
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslMethod};
use openssl::symm::Cipher;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name};

use crate::server::{Server, text};
use crate::visitor::{self, Manner};

const TOKEN: &str = "s3cret-s3cret";

/// An offer as a client posts it.
fn offer() -> String {
    let server = Server::playing("rtcsessionsrc listen=http://127.0.0.1:0");
    let stop = Arc::new(AtomicBool::new(true));
    let offer = visitor::visit(&server.url(), &[], Manner::Mute, &stop).offer;
    server.stop();
    offer
}

fn ask(method: Method, url: String, authorization: Option<&str>) -> minreq::Response {
    let request = minreq::Request::new(method, url).with_timeout(10);
    let request = match authorization {
        Some(said) => request.with_header("Authorization", said),
        None => request,
    };
    request.send().unwrap()
}

fn guarded(properties: &str) -> Server {
    Server::playing(&format!(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 auth-token={TOKEN} {properties}"
    ))
}

#[test]
fn who_does_not_know_the_token_gets_the_page_and_nothing_else() {
    let server = guarded("video-chain=fakesink");
    let url = server.url();
    let closed = [
        (Method::Get, "/info"),
        (Method::Get, "/rtc-config"),
        (Method::Get, "/desired-playing-state"),
        (Method::Get, "/outputs?webrtc_id=any"),
        (Method::Get, "/connections"),
        (Method::Delete, "/connections/any"),
        (Method::Get, "/metrics"),
        (Method::Get, "/nowhere"),
        (Method::Get, "/offer"),
        (Method::Post, "/offer"),
        (Method::Post, "/api/offer"),
        (Method::Patch, "/offer"),
        (Method::Patch, "/api/offer"),
        (Method::Post, "/webrtc/offer"),
        (Method::Post, "/input_hook"),
    ];
    let wrong = [
        None,
        Some("Bearer s3cret"),
        Some("Basic s3cret-s3cret"),
        Some("s3cret-s3cret"),
    ];
    for (method, path) in &closed {
        for said in wrong {
            let answer = ask(method.clone(), format!("{url}{path}"), said);
            assert_eq!(answer.status_code, 401, "{path} {said:?}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            let problem: serde_json::Value = answer.json().unwrap();
            assert_eq!(problem["error"], "unauthorized");
            assert!(problem["message"].is_string());
        }
    }
    for path in ["/", "/page.js", "/page.css", "/healthz"] {
        let answer = ask(Method::Get, format!("{url}{path}"), None);
        assert_eq!(answer.status_code, 200, "{path}");
    }
    // Who asked to come in is told of on the bus; everybody is counted.
    let rejected = server.named("rtc-connection-rejected");
    assert_eq!(rejected.len(), 4 * wrong.len());
    assert!(
        rejected
            .iter()
            .all(|r| ["offer", "fastrtc"].contains(&text(r, "door").as_str()))
    );
    let figures = ask(
        Method::Get,
        format!("{url}/metrics"),
        Some("Bearer s3cret-s3cret"),
    );
    let figures = figures.as_str().unwrap();
    for (door, paths) in [("page", 2), ("listener", 6), ("offer", 5), ("fastrtc", 2)] {
        let line = format!(
            "rtcinference_connections_rejected_total{{door=\"{door}\",error=\"unauthorized\"}} {}\n",
            paths * wrong.len()
        );
        assert!(figures.contains(&line), "no {line} in {figures}");
    }
    server.stop();
}

#[test]
fn who_knows_the_token_comes_in_and_it_is_told_to_nobody() {
    let server = guarded("eos-policy=never");
    let url = server.url();
    let source = server.pipeline.by_name("s").unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    source.connect("authorize", false, {
        let asked = asked.clone();
        move |args| {
            let visitor: gst::Structure = args[1].get().unwrap();
            asked.lock().unwrap().push(visitor);
            Some(true.to_value())
        }
    });
    let known = format!("bearer {TOKEN}");
    let answer = minreq::post(format!("{url}/offer"))
        .with_header("Authorization", &known)
        .with_body(offer())
        .send()
        .unwrap();
    assert_eq!(answer.status_code, 200, "{:?}", answer.as_str());
    server.wait("rtc-connection-created", 1);
    let mut told = vec![answer.as_str().unwrap().to_owned()];
    for path in ["/info", "/connections", "/metrics", "/rtc-config"] {
        let answer = ask(Method::Get, format!("{url}{path}"), Some(&known));
        assert_eq!(answer.status_code, 200, "{path}");
        told.push(answer.as_str().unwrap().to_owned());
    }
    told.push(source.property::<gst::Structure>("connections").to_string());
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].has_field("authorization"), "{}", asked[0]);
    told.push(asked[0].to_string());
    server.pipeline.set_state(gst::State::Null).unwrap();
    for (_, message) in &server.said.lock().unwrap().messages {
        told.push(format!("{message:?}"));
    }
    for said in &told {
        assert!(!said.contains(TOKEN), "{said}");
    }
    // Who set it may read it.
    assert_eq!(source.property::<String>("auth-token"), TOKEN);
    server.stop();
}

#[test]
fn roboflows_clients_send_the_token_as_their_api_key() {
    let server = guarded("video-chain=fakesink");
    let ask = |key: Option<&str>| {
        let body = serde_json::json!({
            "api_key": key,
            "workflow_configuration": { "type": "WorkflowConfiguration" },
            "webrtc_offer": { "type": "offer", "sdp": "" },
        });
        let request = minreq::post(format!("{}/initialise_webrtc_worker", server.url()));
        request.with_body(body.to_string()).send().unwrap()
    };
    for key in [None, Some(""), Some("s3cret")] {
        let answer = ask(key);
        assert_eq!(answer.status_code, 401, "{key:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let rejected = server.named("rtc-connection-rejected");
    assert_eq!(rejected.len(), 3);
    assert!(rejected.iter().all(|r| text(r, "door") == "roboflow"));
    // Let in, to be told what is wrong with the offer.
    assert_eq!(ask(Some(TOKEN)).status_code, 400);
    // What cannot be read holds no token either.
    let garbage = minreq::post(format!("{}/initialise_webrtc_worker", server.url()));
    assert_eq!(
        garbage.with_body("no JSON").send().unwrap().status_code,
        401
    );
    server.stop();
}

#[test]
fn what_the_application_asks_for_is_its_own_without_a_token() {
    let server = Server::playing("rtcsessionsrc name=s listen=http://127.0.0.1:0");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let source = server.pipeline.by_name("s").unwrap();
    source.connect("authorize", false, {
        let asked = asked.clone();
        move |args| {
            let visitor: gst::Structure = args[1].get().unwrap();
            asked.lock().unwrap().push(text(&visitor, "authorization"));
            Some(false.to_value())
        }
    });
    let answer = minreq::post(format!("{}/offer", server.url()))
        .with_header("Authorization", "Bearer of good news")
        .with_body(offer())
        .send()
        .unwrap();
    assert_eq!(answer.status_code, 403);
    assert_eq!(*asked.lock().unwrap(), ["Bearer of good news"]);
    server.stop();
}

/// The error with which an element of these properties does not get READY.
fn refusal(properties: &str) -> String {
    let server = Server::new(&format!("rtcsessionsrc {properties}"));
    let ready = server.pipeline.set_state(gst::State::Ready);
    assert!(ready.is_err(), "{properties}");
    let said = server.said.lock().unwrap();
    let error = said.messages.iter().find_map(|(_, m)| match m.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    });
    drop(said);
    server.pipeline.set_state(gst::State::Null).unwrap();
    error.expect("an error message")
}

#[test]
fn a_token_that_no_client_can_send_is_named_and_not_told() {
    for token in ["\"\"", "\"two words\"", "gärtner"] {
        let error = refusal(&format!("listen=http://127.0.0.1:0 auth-token={token}"));
        assert!(error.starts_with("auth-token=…: "), "{error}");
        assert!(
            !error.contains("words") && !error.contains("tner"),
            "{error}"
        );
    }
}

#[test]
fn other_machines_reach_it_with_a_token_or_when_everybody_is_meant_to() {
    for address in ["0.0.0.0:0", "[::ffff:0.0.0.0]:0"] {
        let error = refusal(&format!("listen=http://{address}"));
        assert!(
            error.starts_with(&format!("listen=http://{address}: ")),
            "{error}"
        );
        assert!(error.contains("auth-token="), "{error}");
        assert!(error.contains("insecure=true"), "{error}");
    }
    for start in [
        "listen=http://0.0.0.0:0 auth-token=secret",
        "listen=http://0.0.0.0:0 insecure=true",
        "listen=http://127.0.0.2:0",
        "listen=http://localhost:0",
    ] {
        let server = Server::new(&format!("rtcsessionsrc {start}"));
        assert!(
            server.pipeline.set_state(gst::State::Ready).is_ok(),
            "{start}"
        );
        server.stop();
    }
}

/// A folder with files of a certificate for localhost, its key and others; gone with the value.
struct Papers(std::path::PathBuf);

impl Papers {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let papers = Self(folder);
        let (certificate, key) = self_signed();
        let (_, other) = self_signed();
        let pem = |key: &PKey<Private>| key.private_key_to_pem_pkcs8().unwrap();
        papers.write("certificate.pem", &certificate.to_pem().unwrap());
        papers.write("key.pem", &pem(&key));
        papers.write("other-key.pem", &pem(&other));
        let locked = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"secret");
        papers.write("locked-key.pem", &locked.unwrap());
        papers.write("text.pem", b"no PEM");
        papers
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn properties(&self, certificate: &str, key: &str) -> String {
        let (certificate, key) = (self.path(certificate), self.path(key));
        format!("tls-certificate={certificate} tls-private-key={key}")
    }
}

impl Drop for Papers {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn self_signed() -> (X509, PKey<Private>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "localhost").unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_pubkey(&key).unwrap();
    let day = |day| Asn1Time::days_from_now(day).unwrap();
    certificate.set_not_before(&day(0)).unwrap();
    certificate.set_not_after(&day(1)).unwrap();
    let named = SubjectAlternativeName::new()
        .dns("localhost")
        .build(&certificate.x509v3_context(None, None))
        .unwrap();
    certificate.append_extension(named).unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    (certificate.build(), key)
}

#[test]
fn https_is_spoken_with_the_certificate_that_was_given() {
    let papers = Papers::new("https");
    let server = Server::playing(&format!(
        "rtcsessionsrc listen=https://localhost:0 {}",
        papers.properties("certificate.pem", "key.pem")
    ));
    let address = server.url().strip_prefix("https://").unwrap().to_owned();
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector
        .set_ca_file(papers.path("certificate.pem"))
        .unwrap();
    let connector = connector.build();
    let stream = TcpStream::connect(&address).unwrap();
    let mut stream = connector.connect("localhost", stream).unwrap();
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Who speaks plain HTTP is not answered in it.
    let mut plain = TcpStream::connect(&address).unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n");
    // In one piece: a second one may find the connection closed.
    plain.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // An alert, and a reset for what was not read.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    server.stop();
}

#[test]
fn what_https_lacks_is_named() {
    let papers = Papers::new("lacking");
    let with = |certificate, key| papers.properties(certificate, key);
    let only = |property: &str, file| format!("{property}={}", papers.path(file));
    for (scheme, properties, property, problem) in [
        ("https", String::new(), "tls-certificate", "needs"),
        (
            "https",
            only("tls-certificate", "certificate.pem"),
            "tls-private-key",
            "needs",
        ),
        (
            "https",
            only("tls-private-key", "key.pem"),
            "tls-certificate",
            "needs",
        ),
        (
            "http",
            with("certificate.pem", "key.pem"),
            "listen",
            "https://",
        ),
        (
            "http",
            only("tls-certificate", "certificate.pem"),
            "listen",
            "https://",
        ),
        (
            "https",
            with("none.pem", "key.pem"),
            "tls-certificate",
            "No such file",
        ),
        (
            "https",
            with("text.pem", "key.pem"),
            "tls-certificate",
            "no certificate",
        ),
        (
            "https",
            with("certificate.pem", "none.pem"),
            "tls-private-key",
            "No such file",
        ),
        (
            "https",
            with("certificate.pem", "text.pem"),
            "tls-private-key",
            "no private key",
        ),
        (
            "https",
            with("certificate.pem", "locked-key.pem"),
            "tls-private-key",
            "passphrase",
        ),
        (
            "https",
            with("certificate.pem", "other-key.pem"),
            "tls-private-key",
            "not the key",
        ),
    ] {
        let error = refusal(&format!("listen={scheme}://127.0.0.1:0 {properties}"));
        assert!(
            error.starts_with(&format!("{property}=")),
            "{properties}: {error}"
        );
        assert!(error.contains(problem), "{properties}: {error}");
    }
}

#[test]
fn pages_of_other_origins_get_in_where_they_are_named() {
    let page = "https://pages.example:8443";
    let server = guarded(&format!(
        "video-chain=fakesink allowed-origins=\"https://other.example, {page}\""
    ));
    let url = server.url();
    let known = format!("Bearer {TOKEN}");
    let asks = |method, path: &str, headers: &[(&str, &str)]| {
        let request = minreq::Request::new(method, format!("{url}{path}"));
        let headers = headers.iter().copied();
        headers
            .fold(request, |request, (name, value)| {
                request.with_header(name, value)
            })
            .send()
            .unwrap()
    };
    let preflight = |origin| {
        let wish = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            (
                "Access-Control-Request-Headers",
                "authorization,content-type",
            ),
        ];
        asks(Method::Options, "/offer", &wish)
    };
    let allowed = preflight(page);
    assert_eq!(allowed.status_code, 204);
    for (name, value) in [
        ("access-control-allow-origin", page),
        ("access-control-allow-methods", "GET, POST, PATCH, DELETE"),
        (
            "access-control-allow-headers",
            "Authorization, Content-Type, If-Match",
        ),
        ("access-control-expose-headers", "Location, ETag, Link"),
        ("vary", "Origin"),
    ] {
        assert_eq!(allowed.headers[name], value);
    }
    // The token is asked for all the same, and the page may read that it is.
    let refused = asks(Method::Post, "/offer", &[("Origin", page)]);
    assert_eq!(refused.status_code, 401);
    assert_eq!(refused.headers["access-control-allow-origin"], page);
    let headers = [("Origin", page), ("Authorization", known.as_str())];
    let answer = asks(Method::Get, "/rtc-config", &headers);
    assert_eq!(answer.status_code, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], page);
    assert_eq!(answer.headers["vary"], "Origin");
    // Figures and the list of visitors are for who sits at this machine, and not for whose page is open there.
    assert_eq!(asks(Method::Get, "/connections", &headers).status_code, 403);
    let local = [("Authorization", known.as_str())];
    assert_eq!(asks(Method::Get, "/connections", &local).status_code, 200);

    for origin in [
        "https://pages.example",
        "http://pages.example:8443",
        "https://evil.example",
        "null",
    ] {
        let headers = [("Origin", origin), ("Authorization", known.as_str())];
        for refused in [preflight(origin), asks(Method::Get, "/info", &headers)] {
            assert_eq!(refused.status_code, 403, "{origin}");
            assert!(!refused.headers.contains_key("access-control-allow-origin"));
            let problem: serde_json::Value = refused.json().unwrap();
            assert_eq!(problem["error"], "origin-not-allowed");
        }
    }
    // The built-in page's own origin, as ever.
    let headers = [("Origin", url.as_str()), ("Authorization", known.as_str())];
    let own = asks(Method::Get, "/info", &headers);
    assert_eq!(own.status_code, 200);
    assert!(!own.headers.contains_key("access-control-allow-origin"));
    server.stop();
}

#[test]
fn every_origin_gets_in_only_where_that_was_said() {
    for (origins, status) in [("", 403), ("allowed-origins=*", 200)] {
        let server = Server::playing(&format!(
            "rtcsessionsrc listen=http://127.0.0.1:0 {origins}"
        ));
        let request = minreq::get(format!("{}/info", server.url()));
        let answer = request
            .with_header("Origin", "https://any.example")
            .send()
            .unwrap();
        assert_eq!(answer.status_code, status);
        let echoed = answer.headers.get("access-control-allow-origin");
        let expected = (status == 200).then_some("https://any.example");
        assert_eq!(echoed.map(String::as_str), expected);
        server.stop();
    }
    let error = refusal("listen=http://127.0.0.1:0 allowed-origins=https://a.example/page");
    assert!(
        error.starts_with("allowed-origins=https://a.example/page: "),
        "{error}"
    );
}
