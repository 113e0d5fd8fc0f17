//! Calls against servers on this host that behave as the worst of them do.

use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;

const SDP: &str = "v=0\r\ns=theirs\r\n";
const OFFER: &str = "v=0\r\ns=ours\r\n";
const LONG: Duration = Duration::from_secs(20);

/// What a server does when it has read a request.
#[derive(Clone)]
pub enum Then {
    /// Status line and headers without their last line, and the body; its length is added.
    Say(String, Vec<u8>),
    /// Just that, and then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, until the client has gone.
    Wait,
}

pub fn say(status: &str, body: impl Into<Vec<u8>>) -> Then {
    Then::Say(status.to_owned(), body.into())
}

/// A server that takes one request a connection.
pub struct Server {
    pub url: String,
    /// As they came, head and body.
    pub requests: Arc<Mutex<Vec<String>>>,
    /// A client that was kept waiting has closed its connection.
    gone: mpsc::UnboundedReceiver<()>,
}

impl Server {
    pub async fn new(answer: impl Fn(&str) -> Then + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1", None, answer).await
    }

    async fn on(
        host: &str,
        acceptor: Option<SslAcceptor>,
        answer: impl Fn(&str) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (tell, gone) = mpsc::unbounded_channel();
        let (kept, answer) = (requests.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, answer, tell) = (kept.clone(), answer.clone(), tell.clone());
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        return serve(stream, &kept, &*answer, &tell).await;
                    };
                    let ssl = Ssl::new(acceptor.context()).unwrap();
                    let mut stream = tokio_openssl::SslStream::new(ssl, stream).unwrap();
                    if Pin::new(&mut stream).accept().await.is_ok() {
                        serve(stream, &kept, &*answer, &tell).await;
                    }
                });
            }
        });
        Self {
            url: format!("{scheme}://{host}:{port}"),
            requests,
            gone,
        }
    }

    pub fn request(&self, at: usize) -> String {
        self.requests.lock().unwrap()[at].clone()
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: &Mutex<Vec<String>>,
    answer: &(impl Fn(&str) -> Then + ?Sized),
    gone: &mpsc::UnboundedSender<()>,
) {
    let mut read = Vec::new();
    let request = loop {
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return,
            Ok(count) => read.extend_from_slice(&part[..count]),
        }
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.lines().next()?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break text;
            }
        }
    };
    let then = answer(&request);
    requests.lock().unwrap().push(request);
    match then {
        Then::Say(head, body) => {
            let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
            let _ = stream.shutdown().await;
        }
        Then::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Then::Wait => {
            let _ = stream.read(&mut [0; 16]).await;
            let _ = gone.send(());
        }
    }
}

/// A caller and what it calls with.
pub struct Caller {
    pub protocol: Box<dyn Protocol>,
    pub http: Http,
}

impl Caller {
    pub fn new(name: &str, url: &str, options: &[(&str, Value)]) -> Self {
        let address: Address = format!("{name}+{url}").parse().unwrap();
        let mut options = options.to_vec();
        if name == "roboflow" {
            options.extend([
                ("workspace", Value::Text("ours".into())),
                ("workflow-id", Value::Text("shapes".into())),
            ]);
        }
        let options = options.into_iter();
        let options = options
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Self {
            protocol: protocol(&address, &options).unwrap(),
            http: Http::new(&address, &options).unwrap(),
        }
    }

    pub async fn call(&self) -> Result<Answer, DialError> {
        in_time(self.protocol.call(&self.http, OFFER)).await
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("it ends by itself")
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn names() -> [&'static str; 5] {
    KINDS.each_ref().map(|kind| kind.name)
}

fn json_answer() -> String {
    serde_json::json!({ "sdp": SDP, "type": "answer", "pc_id": "7" }).to_string()
}

/// As each protocol wants it.
fn good(request: &str) -> Then {
    match request.contains("Content-Type: application/sdp")
        || request.contains("content-type: application/sdp")
    {
        true => say("201 Created\r\nLocation: here/1#x", SDP),
        false => say("200 OK", json_answer()),
    }
}

#[tokio::test]
async fn every_protocol_brings_its_answer_from_its_place() {
    for (name, at, place) in [
        ("roboflow", "/", "/initialise_webrtc_worker"),
        ("roboflow", "/api//", "/api/initialise_webrtc_worker"),
        ("fastrtc", "", "/webrtc/offer"),
        ("fastrtc", "/app/", "/app/webrtc/offer"),
        ("offer", "", "/offer"),
        ("offer", "/api/offer?x=1", "/api/offer?x=1"),
        ("whip", "/whip/a?k=v", "/whip/a?k=v"),
        ("whep", "/whep", "/whep"),
    ] {
        let server = Server::new(good).await;
        let caller = Caller::new(name, &format!("{}{at}", server.url), &[]);
        assert_eq!(caller.protocol.name(), name);
        let answer = caller.call().await.unwrap();
        assert_eq!(answer.sdp, SDP);
        let request = server.request(0);
        assert!(
            request.starts_with(&format!("POST {place} HTTP/1.1\r\n")),
            "{request}"
        );
        let lower = request.to_ascii_lowercase();
        assert!(lower.contains("user-agent: rtcinference/"), "{request}");
        for unwanted in ["cookie", "authorization", "accept-encoding"] {
            assert!(!lower.contains(unwanted), "{request}");
        }
        match name {
            "whip" | "whep" => assert!(request.ends_with(OFFER)),
            _ => {
                let (_, body) = request.split_once("\r\n\r\n").unwrap();
                let body: serde_json::Value = serde_json::from_str(body).unwrap();
                let offer = body.get("webrtc_offer").unwrap_or(&body);
                assert_eq!(
                    (&offer["sdp"], &offer["type"]),
                    (&OFFER.into(), &"offer".into())
                );
            }
        }
        match name {
            "offer" => assert_eq!(answer.external_id.as_deref(), Some("7")),
            "fastrtc" => {
                let id = answer.external_id.unwrap();
                assert!(
                    request.contains(&format!("\"webrtc_id\":\"{id}\"")),
                    "{request}"
                );
            }
            _ => assert_eq!(answer.external_id, None),
        }
    }
}

#[tokio::test]
async fn what_a_server_declines_is_told_with_its_status_and_words() {
    for (status, code, passes) in [
        ("404 Not Found", 404, false),
        ("401 Unauthorized", 401, false),
        ("422 Unprocessable Entity", 422, false),
        ("429 Too Many Requests", 429, true),
        ("500 Internal Server Error", 500, true),
        ("503 Service Unavailable", 503, true),
    ] {
        let server = Server::new(move |_| say(status, r#"{"message":"so it is"}"#)).await;
        for name in names() {
            let error = Caller::new(name, &format!("{}/a?key=s3cret", server.url), &[]);
            let error = error.call().await.unwrap_err();
            assert!(
                matches!(error, DialError::Status { code: c, .. } if c == code),
                "{error}"
            );
            assert_eq!(error.may_pass(), passes, "{error}");
            let told = error.to_string();
            assert!(
                told.starts_with(&server.url) && told.contains("so it is"),
                "{told}"
            );
            assert!(!told.contains("s3cret"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_success_without_a_description_is_no_answer() {
    for body in [
        "",
        "{}",
        "[]",
        "<html>",
        "{\"sdp\":\"\",\"type\":\"answer\"}",
        "\u{fffd}",
    ] {
        let server = Server::new(move |_| say("200 OK", body)).await;
        for name in names() {
            let error = Caller::new(name, &server.url, &[])
                .call()
                .await
                .unwrap_err();
            assert!(
                matches!(error, DialError::NotAnAnswer { .. }),
                "{name} {body}: {error}"
            );
            assert!(!error.may_pass());
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for name in names() {
        let caller = Caller::new(name, &format!("http://127.0.0.1:{port}/?k=s3cret"), &[]);
        let error = caller.call().await.unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
        assert!(error.may_pass());
        let told = format!("{error} {error:?}");
        assert!(
            told.contains(&port.to_string()) && told.contains("refused"),
            "{told}"
        );
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_may_pass_and_what_is_no_http_does_not() {
    let cut = |bytes: &'static [u8]| Server::new(move |_| Then::Raw(bytes.to_vec()));
    for bytes in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
        let server = cut(bytes).await;
        let error = Caller::new("offer", &server.url, &[])
            .call()
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
    }
    let server = cut(b"SSH-2.0-OpenSSH_9\r\n\r\n").await;
    let error = Caller::new("offer", &server.url, &[])
        .call()
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::NotAnAnswer { .. }), "{error}");
}

/// A certificate of its own for 127.0.0.1, and the same as a file.
fn acceptor() -> (SslAcceptor, tempfile::NamedTempFile) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "127.0.0.1").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::days_from_now(2).unwrap())
        .unwrap();
    let mut names = SubjectAlternativeName::new();
    let names = names
        .ip("127.0.0.1")
        .build(&builder.x509v3_context(None, None));
    builder.append_extension(names.unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let certificate = builder.build();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_private_key(&key).unwrap();
    acceptor.set_certificate(&certificate).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&certificate.to_pem().unwrap()).unwrap();
    (acceptor.build(), file)
}

#[tokio::test]
async fn a_certificate_is_trusted_if_the_file_has_it() {
    let (acceptor, file) = acceptor();
    let server = Server::on("127.0.0.1", Some(acceptor), good).await;
    let error = Caller::new("whip", &server.url, &[])
        .call()
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Tls { .. }), "{error}");
    assert!(!error.may_pass());
    assert!(error.to_string().contains("certificate"), "{error}");
    let trusted = [("ca-file", text(file.path().to_str().unwrap()))];
    for name in names() {
        Caller::new(name, &server.url, &trusted)
            .call()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_server_without_tls_is_no_https_server() {
    let server = Server::new(good).await;
    let https = server.url.replace("http:", "https:");
    // It waits for the end of a request that has none of HTTP's.
    let patience = [("answer-timeout", Value::Integer(1))];
    let error = Caller::new("whip", &https, &patience)
        .call()
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::TimedOut { .. }), "{error}");
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let https = format!("https://{}", server.local_addr().unwrap());
    let plain = async {
        let (mut stream, _) = server.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
    };
    let caller = Caller::new("whip", &https, &[]);
    let (error, ()) = tokio::join!(caller.call(), plain);
    assert!(matches!(error, Err(DialError::Tls { .. })), "{error:?}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_so_long_and_no_longer() {
    let mut server = Server::new(|_| Then::Wait).await;
    let patience = [("answer-timeout", Value::Integer(1))];
    let caller = Caller::new("roboflow", &server.url, &patience);
    let error = caller.call().await.unwrap_err();
    assert!(matches!(error, DialError::TimedOut { after, .. } if after == Duration::from_secs(1)));
    assert!(error.may_pass());
    in_time(server.gone.recv()).await.unwrap();
}

#[tokio::test]
async fn a_body_that_never_ends_is_waited_for_no_longer_than_an_answer() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let patience = [("answer-timeout", Value::Integer(1))];
    let caller = Caller::new("offer", &url, &patience);
    let dripping = async {
        let (mut stream, _) = server.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        answer = caller.call() => {
            assert!(matches!(answer, Err(DialError::TimedOut { .. })), "{answer:?}");
        }
        () = dripping => unreachable!("the client waits"),
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_closes_its_connection() {
    for name in names() {
        let mut server = Server::new(|_| Then::Wait).await;
        let caller = Caller::new(name, &server.url, &[]);
        {
            let call = caller.protocol.call(&caller.http, OFFER);
            let asked = async {
                while server.count() == 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                answer = call => panic!("{answer:?}"),
                () = in_time(asked) => {}
            }
        }
        in_time(server.gone.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound() {
    let long = vec![b' '; (1 << 20) + 1];
    let announced = say("200 OK", long.clone());
    let mut unannounced = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    unannounced.extend_from_slice(&long);
    for then in [announced, Then::Raw(unannounced)] {
        let server = Server::new(move |_| then.clone()).await;
        for name in names() {
            let error = Caller::new(name, &server.url, &[])
                .call()
                .await
                .unwrap_err();
            assert!(matches!(error, DialError::NotAnAnswer { .. }), "{error}");
            assert!(error.to_string().contains("longer"), "{error}");
        }
    }
    // What explains is cut instead.
    let server = Server::new(|_| say("500 No", "a".repeat(1 << 21))).await;
    for name in names() {
        let error = Caller::new(name, &server.url, &[])
            .call()
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::Status { code: 500, .. }),
            "{error}"
        );
        assert!(error.to_string().len() < 1_000);
    }
}

/// `/0` points to `/1` and so on, up to `last`, which answers.
async fn chain(status: &'static str, last: usize) -> Server {
    Server::new(move |request| {
        let at = request.split([' ', '/']).nth(2).unwrap();
        let at: usize = at.parse().unwrap();
        match at == last {
            true => good(request),
            false => say(&format!("{status}\r\nLocation: {}", at + 1), ""),
        }
    })
    .await
}

#[tokio::test]
async fn redirects_that_keep_the_request_are_followed_five_times_where_a_session_may_be_elsewhere()
{
    for name in ["whip", "whep"] {
        for status in ["307 Temporary Redirect", "308 Permanent Redirect"] {
            let server = chain(status, 5).await;
            let token = [("token", text("t0ken"))];
            let caller = Caller::new(name, &format!("{}/0", server.url), &token);
            let answer = caller.call().await.unwrap();
            let resource = answer.resource.unwrap();
            assert_eq!(resource.as_str(), format!("{}/here/1", server.url));
            assert_eq!(server.count(), 6);
            for at in 0..6 {
                let request = server.request(at);
                assert!(
                    request.starts_with("POST ") && request.ends_with(OFFER),
                    "{request}"
                );
                assert!(request.contains("Bearer t0ken"), "{request}");
            }
            let server = chain(status, 6).await;
            let caller = Caller::new(name, &format!("{}/0", server.url), &[]);
            let error = caller.call().await.unwrap_err();
            assert!(error.to_string().contains("more than 5"), "{error}");
        }
    }
}

#[tokio::test]
async fn other_redirects_are_told_and_not_followed() {
    for (name, status) in [
        ("whip", "301 Moved Permanently"),
        ("whip", "302 Found"),
        ("whep", "303 See Other"),
        ("offer", "307 Temporary Redirect"),
        ("fastrtc", "308 Permanent Redirect"),
    ] {
        let server =
            Server::new(move |_| say(&format!("{status}\r\nLocation: /b?k=s3cret"), "")).await;
        let error = Caller::new(name, &server.url, &[])
            .call()
            .await
            .unwrap_err();
        let told = error.to_string();
        assert!(
            matches!(error, DialError::Status { .. }) && !error.may_pass(),
            "{told}"
        );
        assert!(told.contains(&format!("{}/b, which", server.url)), "{told}");
        assert_eq!(server.count(), 1);
    }
    for location in ["https://127.0.0.1:1/", "ftp://127.0.0.1/"] {
        let head = format!("307 There\r\nLocation: {location}");
        let server = Server::new(move |_| say(&head, "")).await;
        let error = Caller::new("whip", &server.url, &[])
            .call()
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::Status { code: 307, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_token_is_not_shown_to_another_host_in_the_clear() {
    let other = Server::on("127.0.0.2", None, good).await;
    let there = format!("307 There\r\nLocation: {}/x", other.url);
    let server = Server::new(move |_| say(&there, "")).await;
    let caller = Caller::new("whip", &server.url, &[("token", text("t0ken"))]);
    let answer = caller.call().await.unwrap();
    hang_up(&caller.http, answer.resource.unwrap()).await;
    assert!(server.request(0).contains("Bearer t0ken"));
    for at in 0..2 {
        assert!(!other.request(at).contains("t0ken"));
    }
}

#[tokio::test]
async fn leave_is_taken_where_the_session_is_and_waits_for_nobody() {
    let server = Server::new(|request| match request.starts_with("POST") {
        true => good(request),
        false => Then::Wait,
    });
    let server = server.await;
    let caller = Caller::new(
        "whip",
        &format!("{}/a/b", server.url),
        &[("token", text("t0ken"))],
    );
    let resource = caller.call().await.unwrap().resource.unwrap();
    let began = Instant::now();
    in_time(hang_up(&caller.http, resource)).await;
    assert!(began.elapsed() >= Duration::from_secs(2));
    let request = server.request(1);
    assert!(
        request.starts_with("DELETE /a/here/1 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("Bearer t0ken"), "{request}");
}

#[tokio::test]
async fn fastrtc_refuses_with_a_success() {
    for (meta, told, passes) in [
        (
            r#"{"error":"concurrency_limit_reached","limit":2}"#,
            "serves 2 at once",
            true,
        ),
        (
            r#"{"error":"connection_already_exists"}"#,
            "of that webrtc-id",
            true,
        ),
        (r#"{"error":"no t0ken for\nyou"}"#, "no … for you", false),
        ("{}", "does not say why", false),
        ("7", "does not say why", false),
    ] {
        let body = format!(r#"{{"status":"failed","meta":{meta}}}"#);
        let server = Server::new(move |_| say("200 OK", body.clone())).await;
        let options = [("token", text("t0ken")), ("webrtc-id", text("me"))];
        let error = Caller::new("fastrtc", &server.url, &options)
            .call()
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.may_pass(), passes);
        assert!(server.request(0).contains(r#""webrtc_id":"me""#));
    }
}

#[tokio::test]
async fn a_counter_offer_is_told_as_what_it_is() {
    let server =
        Server::new(|_| say("406 Not Acceptable\r\nContent-Type: application/sdp", SDP)).await;
    let error = Caller::new("whep", &server.url, &[])
        .call()
        .await
        .unwrap_err();
    assert!(
        matches!(error, DialError::Status { code: 406, .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("makes one of its own"),
        "{error}"
    );
}

#[tokio::test]
async fn an_offer_has_what_the_server_wants_beside_it() {
    let server = Server::new(good).await;
    let data = [("data", text(r#"{"video_transform":"edges"}"#))];
    Caller::new("offer", &server.url, &data)
        .call()
        .await
        .unwrap();
    assert!(server.request(0).contains(r#""video_transform":"edges""#));
    let address: Address = "offer+http://a".parse().unwrap();
    let options = [("data".to_owned(), text(r#"{"sdp":"x"}"#))];
    let error = protocol(&address, &options.into_iter().collect())
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "option data: sdp is the offer's own");
}

#[tokio::test]
async fn what_a_server_repeats_of_a_token_is_not_told() {
    let server = Server::new(|request| say("403 Forbidden", request.as_bytes())).await;
    for name in names() {
        let caller = Caller::new(name, &server.url, &[("token", text("t0ken"))]);
        let error = caller.call().await.unwrap_err();
        assert!(server.request(0).contains("t0ken"));
        let told = format!("{error} {error:?}");
        assert!(!told.contains("t0ken"), "{told}");
    }
    // Nor half of it, where the text is cut.
    for length in 240..620 {
        let text = format!("{} t0ken", "a".repeat(length));
        let reply = http::Reply {
            url: "http://h".parse().unwrap(),
            code: 403,
            headers: Default::default(),
            body: text.into_bytes(),
        };
        let caller = Caller::new("whip", "http://h", &[("token", self::text("t0ken"))]);
        let told = caller.http.declined(&reply, None).to_string();
        assert!(!told.contains("t0"), "{told}");
    }
}

#[test]
fn an_address_is_a_protocol_and_a_url() {
    for (text, name, url, shown) in [
        (
            "roboflow+http://h:9001",
            "roboflow",
            "http://h:9001/",
            "roboflow+http://h:9001/",
        ),
        (
            "fastrtc+https://h/a/",
            "fastrtc",
            "https://h/a/",
            "fastrtc+https://h/a/",
        ),
        (
            "WHIP+HTTP://H/a?k=s#f",
            "whip",
            "http://h/a?k=s",
            "whip+http://h/a",
        ),
        (
            "whep+http://[::1]:8080/x",
            "whep",
            "http://[::1]:8080/x",
            "whep+http://[::1]:8080/x",
        ),
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!((address.protocol.name, address.url.as_str()), (name, url));
        assert_eq!(address.to_string(), shown);
        assert_eq!(format!("{address:?}"), shown);
    }
}

#[test]
fn what_is_no_address_is_told_without_its_secrets() {
    let wrong = |text: &str| text.parse::<Address>().unwrap_err().to_string();
    for text in [
        "",
        "http://h",
        "rtsp+http://h",
        "whip+ftp://h",
        "whip",
        "whip:http://h",
        "+http://h",
    ] {
        let told = wrong(text);
        assert!(names().iter().all(|name| told.contains(name)), "{told}");
    }
    for text in ["whip+http://u:s3cret@h", "whip+http://s3cret@h"] {
        assert!(matches!(
            text.parse::<Address>(),
            Err(AddressError::Account)
        ));
        assert!(!wrong(text).contains("s3cret"));
    }
    for text in ["whip+http:s3cret", "whip+http://", "whip+http://h:s3cret/"] {
        assert!(
            matches!(text.parse::<Address>(), Err(AddressError::Url(..))),
            "{text}"
        );
        assert!(!wrong(text).contains("s3cret"));
    }
}

#[test]
fn common_options_are_held_to_what_they_can_be() {
    let address: Address = "whip+http://h".parse().unwrap();
    for (key, value, problem) in [
        ("answer-timeout", Value::Integer(0), "0; 1 to 3600 is right"),
        ("ca-file", text("/nowhere"), "/nowhere: No such file"),
        ("ca-file", text("/dev/null"), "no certificate"),
        ("token", text("s3cret words"), "a token is"),
    ] {
        let options = [(key.to_owned(), value)].into_iter().collect();
        let error = Http::new(&address, &options).err().unwrap().to_string();
        assert!(error.starts_with(&format!("option {key}: ")), "{error}");
        assert!(
            error.contains(problem) && !error.contains("s3cret"),
            "{error}"
        );
    }
}

#[test]
fn whip_only_sends_and_whep_only_receives() {
    let wanted = |name: &str, party: Party| {
        let address: Address = format!("{name}+http://h").parse().unwrap();
        let protocol = protocol(&address, &Options::default()).unwrap();
        protocol.wanted(&party)
    };
    let sends = Party {
        sends_video: 1,
        sends_audio: 1,
        receives: true,
    };
    let receives = Party {
        receives: true,
        ..Party::default()
    };
    let both = |direction| {
        [true, false]
            .map(|video| Line { video, direction })
            .to_vec()
    };
    assert_eq!(
        wanted("whip", sends).unwrap().lines,
        both(Direction::SendOnly)
    );
    assert_eq!(
        wanted("whep", receives).unwrap().lines,
        both(Direction::RecvOnly)
    );
    for (name, party) in [
        ("whip", receives),
        ("whep", sends),
        ("whep", Party::default()),
    ] {
        let error = wanted(name, party).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("{name}: ")),
            "{error}"
        );
    }
    let offer = wanted("offer", sends).unwrap();
    assert_eq!(
        (offer.lines, offer.channels),
        (both(Direction::SendRecv), vec!["results".to_owned()])
    );
    assert_eq!(wanted("fastrtc", sends).unwrap().channels, ["text"]);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "((roboflow|whip|x)[+])?(https?)?(:)?(//)?[ -~é]{0,40}", body: Vec<u8>, code: u16) {
        let _ = text.parse::<Address>();
        let _ = answer::explanation(code, &body);
        let _ = answer::JsonAnswer::parse(text.as_bytes());
    }
}
