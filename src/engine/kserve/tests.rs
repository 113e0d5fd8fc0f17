//! What no real server does when asked to: each stub speaks HTTP on the loopback, and the protocol as Triton does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread;

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};
use serde_json::{Value, json};
use socket2::SockRef;

use super::*;
use crate::engine::tensor::Element;

/// Five times what anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// What a stub does with a question.
enum Reply {
    /// Says this, and goes on.
    Whole(Vec<u8>),
    /// Says this, and closes.
    Cut(Vec<u8>),
    Reset,
    /// Until the other side has had enough.
    Nothing,
    /// A body without an end, until the other side has had enough.
    Endless,
}

/// A question as it came.
#[derive(Debug, Clone)]
struct Asked {
    /// Of the connections in the order in which they came.
    connection: usize,
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn is_infer(&self) -> bool {
        self.head.starts_with("POST /v2/models/twice/infer ")
    }
}

struct Stub {
    address: SocketAddr,
    secure: bool,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Bytes that were said without an end.
    endless: mpsc::Receiver<usize>,
}

impl Stub {
    /// `infer` is told how many such questions came before.
    fn start(infer: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Stub {
        Stub::on(TcpListener::bind("127.0.0.1:0").unwrap(), None, infer)
    }

    fn on(
        listener: TcpListener,
        tls: Option<SslAcceptor>,
        infer: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static,
    ) -> Stub {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (tell, endless) = mpsc::channel();
        let stub = Stub {
            address: listener.local_addr().unwrap(),
            secure: tls.is_some(),
            asked: asked.clone(),
            endless,
        };
        let infer = Arc::new(infer);
        // It goes with the process.
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (infer, asked, tls, tell) =
                    (infer.clone(), asked.clone(), tls.clone(), tell.clone());
                thread::spawn(move || {
                    let stream = stream.unwrap();
                    let plain = stream.try_clone().unwrap();
                    let answer = |question: Asked| {
                        let mut asked = asked.lock().unwrap();
                        let before = asked.iter().filter(|asked| asked.is_infer()).count();
                        asked.push(question.clone());
                        drop(asked);
                        match question.is_infer() {
                            true => infer(before, &question),
                            false => about(&question.head),
                        }
                    };
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream) {
                                serve(stream, &plain, connection, answer, &tell);
                            }
                        }
                        None => serve(stream, &plain, connection, answer, &tell),
                    }
                });
            }
        });
        stub
    }

    fn uri(&self) -> String {
        let scheme = ["http", "https"][usize::from(self.secure)];
        format!("{scheme}://{}", self.address)
    }

    fn infers(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.is_infer())
            .cloned()
            .collect()
    }
}

fn serve(
    mut stream: impl Read + Write,
    plain: &TcpStream,
    connection: usize,
    answer: impl Fn(Asked) -> Reply,
    tell: &mpsc::Sender<usize>,
) {
    while let Some(asked) = question(&mut stream, connection) {
        match answer(asked) {
            Reply::Whole(bytes) => stream.write_all(&bytes).unwrap(),
            Reply::Cut(bytes) => {
                stream.write_all(&bytes).unwrap();
                return;
            }
            Reply::Reset => {
                SockRef::from(plain)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                return;
            }
            Reply::Nothing => {
                let _ = stream.read(&mut [0]);
                return;
            }
            Reply::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                let chunk = [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat();
                let said = (0..)
                    .take_while(|_| stream.write_all(&chunk).is_ok())
                    .count();
                tell.send(said * 0x10000).unwrap();
                return;
            }
        }
    }
}

fn question(stream: &mut impl Read, connection: usize) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some(Asked {
        connection,
        head,
        body,
    })
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn metadata() -> Value {
    json!({
        "name": "twice", "versions": ["1"],
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    })
}

/// What is asked before a server is used.
fn about(head: &str) -> Reply {
    let path = head.split(' ').nth(1).unwrap();
    let (status, body) = match path {
        "/v2/health/ready" | "/v2/models/twice/ready" => ("200 OK", json!("")),
        "/v2" => ("200 OK", json!({"extensions": ["binary_tensor_data"]})),
        "/v2/models/twice" => ("200 OK", metadata()),
        "/v2/repository/index" => ("200 OK", json!([{"name": "twice", "version": "1"}])),
        _ => (
            "404 Not Found",
            json!({"error": "Request for unknown model"}),
        ),
    };
    Reply::Whole(http(status, "", body.to_string().as_bytes()))
}

/// Two numbers.
fn tensors() -> Vec<u8> {
    let json = json!({"outputs": [
        {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
    ]});
    let json = json.to_string();
    let header = format!("Inference-Header-Content-Length: {}\r\n", json.len());
    http(
        "200 OK",
        &header,
        &[json.as_bytes(), &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]].concat(),
    )
}

fn right() -> Reply {
    Reply::Whole(tensors())
}

fn busy() -> Reply {
    Reply::Whole(http("503 Service Unavailable", "", b"busy"))
}

fn servers(uris: &str) -> Servers {
    Servers {
        uris: super::servers::ServerUri::list(uris).unwrap(),
        ..Servers::default()
    }
}

fn connect(uris: &str) -> Result<Kserve, ConnectError> {
    Kserve::connect("twice", &servers(uris))
}

fn input() -> Tensor {
    Tensor::new(&[1, 2], &[0.5_f32, 1.0])
}

fn expected() -> Vec<Tensor> {
    vec![Tensor::new(&[1, 2], &[1.0_f32, 2.0])]
}

fn within(limit: Duration) -> Option<Instant> {
    Some(Instant::now() + limit)
}

#[test]
fn a_model_is_known_by_what_the_server_says_of_it() {
    let stub = Stub::start(|_, _| right());
    let engine = connect(&stub.uri()).unwrap();
    let info = InputInfo {
        name: "x".into(),
        shape: Some(vec![None, Some(2)]),
        element: Ok(Element::F32),
    };
    assert_eq!(
        (engine.inputs(), engine.outputs()),
        (&[info][..], &["y".to_owned()][..])
    );
    assert_eq!(engine.device(), stub.address.to_string());
    assert_eq!(engine.hash(), "kserve:twice/1");
    assert_eq!(engine.run(&input(), None), Ok(expected()));
}

#[test]
fn one_connection_serves_one_frame_after_the_other() {
    let stub = Stub::start(|_, _| right());
    let engine = connect(&stub.uri()).unwrap();
    for _ in 0..20 {
        assert_eq!(engine.run(&input(), None), Ok(expected()));
    }
    let asked = stub.asked.lock().unwrap();
    assert!(asked.iter().all(|asked| asked.connection == 0), "{asked:?}");
}

#[test]
fn a_connection_that_the_server_has_closed_meanwhile_costs_no_frame() {
    // Each connection has one answer, and is found closed when it is used again.
    let used: Mutex<BTreeSet<usize>> = Mutex::default();
    let stub = Stub::start(move |_, asked| {
        let is_new = used.lock().unwrap().insert(asked.connection);
        if is_new { right() } else { Reply::Reset }
    });
    let other = Stub::start(|_, _| right());
    let engine = connect(&format!("{},{}", stub.uri(), other.uri())).unwrap();
    for _ in 0..20 {
        assert_eq!(engine.run(&input(), None), Ok(expected()));
    }
    // It does not count as a failure, after which the other server would have had the frames.
    assert_eq!((stub.infers().len(), other.infers().len()), (19, 10));
}

#[test]
fn a_server_that_has_no_time_is_asked_again() {
    let stub = Stub::start(|before, _| if before < 3 { busy() } else { right() });
    let engine = connect(&stub.uri()).unwrap();
    let started = Instant::now();
    assert_eq!(engine.run(&input(), within(LONG)), Ok(expected()));
    assert_eq!(stub.infers().len(), 4);
    // Half of 20, 40 and 80 ms at least.
    assert!(started.elapsed() >= Duration::from_millis(70));
}

#[test]
fn a_server_that_never_has_time_is_asked_until_the_frame_has_none() {
    let stub = Stub::start(|_, _| busy());
    let engine = connect(&stub.uri()).unwrap();
    let started = Instant::now();
    let limit = Duration::from_millis(300);
    let EngineError::Failed(reason) = engine.run(&input(), within(limit)).unwrap_err() else {
        panic!();
    };
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    let asked = stub.infers().len();
    // Waits are 20, 40, 80, 160 ms, or half of that: with the longest four questions fit, with the shortest five.
    assert!((2..=5).contains(&asked), "{asked}");
    let told = format!("{}: HTTP 503: busy (asked {asked} times)", stub.uri());
    assert_eq!(reason, told);
}

#[test]
fn a_connection_that_breaks_is_made_anew() {
    let stub = Stub::start(|before, _| match before {
        0 => Reply::Reset,
        1 => Reply::Cut(tensors()[..40].to_vec()),
        2 => Reply::Cut(tensors()[..tensors().len() - 1].to_vec()),
        3 => Reply::Cut(b"what?".to_vec()),
        _ => right(),
    });
    let engine = connect(&stub.uri()).unwrap();
    assert_eq!(engine.run(&input(), within(LONG)), Ok(expected()));
    assert_eq!(stub.infers().len(), 5);
}

#[test]
fn a_server_that_never_answers_costs_a_frame_its_time_and_no_more() {
    let stub = Stub::start(|_, _| Reply::Nothing);
    let engine = connect(&stub.uri()).unwrap();
    let limit = Duration::from_millis(200);
    for _ in 0..2 {
        let started = Instant::now();
        let failed = engine.run(&input(), within(limit)).unwrap_err();
        assert_eq!(
            failed.to_string(),
            format!("{}: no answer in time", stub.uri())
        );
        let took = started.elapsed();
        assert!((limit..5 * limit).contains(&took), "{took:?}");
    }
    let past = Some(Instant::now() - limit);
    assert!(engine.run(&input(), past).is_err());
}

#[test]
fn a_server_that_is_silent_is_not_asked_on_older_connections() {
    let both = Barrier::new(2);
    let stub = Stub::start(move |before, _| {
        if before >= 2 {
            return Reply::Nothing;
        }
        both.wait();
        right()
    });
    let kserve = connect(&stub.uri()).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| kserve.run(&input(), within(LONG)).unwrap());
        }
    });
    for _ in 0..2 {
        kserve
            .run(&input(), within(Duration::from_millis(300)))
            .unwrap_err();
    }
    let connections: Vec<_> = stub.infers().iter().map(|asked| asked.connection).collect();
    let [first, second, third, fourth] = connections[..] else {
        panic!("{connections:?}")
    };
    assert!([first, second].contains(&third), "{connections:?}");
    assert!(fourth > first.max(second), "{connections:?}");
}

#[test]
fn a_server_that_reads_nothing_costs_a_frame_its_time_and_no_more() {
    let stub = Stub::start(|_, _| right());
    let engine = connect(&stub.uri()).unwrap();
    // Connections are taken by the kernel, and more than it holds is sent.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = Kserve {
        servers: vec![Server {
            client: Client::new(
                format!("http://{}", deaf.local_addr().unwrap())
                    .parse()
                    .unwrap(),
                None,
                None,
            ),
            encoding: KnownEncoding(AtomicU8::new(KnownEncoding::BINARY)),
        }],
        ..engine
    };
    let (limit, started) = (Duration::from_millis(200), Instant::now());
    let much = Tensor::zeros(&[8 << 20, 2], Element::F32);
    assert!(engine.run(&much, within(limit)).is_err());
    let took = started.elapsed();
    assert!((limit..5 * limit).contains(&took), "{took:?}");
}

#[test]
fn other_failures_are_told_in_the_servers_words_and_not_tried_again() {
    let stub = Stub::start(|_, _| {
        let body = json!({"error": "pixels are never negative"}).to_string();
        Reply::Whole(http("500 Internal Server Error", "", body.as_bytes()))
    });
    let engine = connect(&stub.uri()).unwrap();
    let failed = engine.run(&input(), within(LONG)).unwrap_err();
    let told = format!("{}: HTTP 500: pixels are never negative", stub.uri());
    assert_eq!(failed, EngineError::Failed(told));
    assert_eq!(stub.infers().len(), 1);
}

#[test]
fn an_answer_that_would_be_too_long_is_not_read() {
    let stub = Stub::start(|before, _| match before {
        0 => Reply::Cut(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                MOST_TENSORS + 1
            )
            .into(),
        ),
        _ => Reply::Endless,
    });
    let engine = connect(&stub.uri()).unwrap();
    for _ in 0..2 {
        let failed = engine.run(&input(), within(LONG)).unwrap_err().to_string();
        assert!(failed.ends_with("longer than 67108864 bytes"), "{failed}");
    }
    assert_eq!(stub.infers().len(), 2);
    // What the kernel holds on both sides comes on top.
    let said = stub.endless.recv_timeout(LONG).unwrap();
    assert!(
        (MOST_TENSORS..MOST_TENSORS + (32 << 20)).contains(&said),
        "{said}"
    );
}

#[test]
fn a_server_that_does_not_take_bytes_is_sent_json_from_then_on() {
    let extensions = |asked: &Asked| {
        let has_bytes = asked.head.contains("inference-header-content-length");
        match has_bytes {
            true => Reply::Whole(http("422 Unprocessable Entity", "", b"{}")),
            false => {
                let data = json!({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]});
                Reply::Whole(http("200 OK", "", data.to_string().as_bytes()))
            }
        }
    };
    let stub = Stub::start(move |_, asked| extensions(asked));
    let engine = connect(&stub.uri()).unwrap();
    // As of a server that does not say what it takes.
    engine.servers[0]
        .encoding
        .0
        .store(KnownEncoding::UNKNOWN, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(engine.run(&input(), None), Ok(expected()));
    }
    let infers = stub.infers();
    assert_eq!(infers.len(), 4);
    let sent: Value = serde_json::from_slice(&infers[3].body).unwrap();
    assert_eq!(sent["inputs"][0]["data"], json!([0.5, 1.0]));
}

#[test]
fn another_server_takes_over_and_the_broken_one_is_left_alone_for_a_while() {
    let broken = Stub::start(|_, _| Reply::Reset);
    let sound = Stub::start(|_, _| right());
    let engine = connect(&format!("{},{}", broken.uri(), sound.uri())).unwrap();
    assert_eq!(
        engine.device(),
        format!("{},{}", broken.address, sound.address)
    );
    for _ in 0..20 {
        assert_eq!(engine.run(&input(), within(LONG)), Ok(expected()));
    }
    assert_eq!(sound.infers().len(), 20);
    // The first frame, and one for each time the pause was over: after a second first.
    assert!(
        (1..=5).contains(&broken.infers().len()),
        "{:?}",
        broken.infers()
    );
}

#[test]
fn servers_that_work_share_the_frames() {
    let (one, other) = (Stub::start(|_, _| right()), Stub::start(|_, _| right()));
    let engine = connect(&format!("{} {}", one.uri(), other.uri())).unwrap();
    for _ in 0..20 {
        assert_eq!(engine.run(&input(), within(LONG)), Ok(expected()));
    }
    assert_eq!((one.infers().len(), other.infers().len()), (10, 10));
}

#[test]
fn a_server_that_was_down_at_the_start_is_used_when_it_is_there() {
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let sound = Stub::start(|_, _| right());
    let engine = connect(&format!("http://{address},{}", sound.uri())).unwrap();
    assert_eq!(engine.run(&input(), within(LONG)), Ok(expected()));

    let late = Stub::on(TcpListener::bind(address).unwrap(), None, |_, _| right());
    let until = Instant::now() + LONG;
    while late.infers().is_empty() {
        assert!(Instant::now() < until, "it was never asked");
        assert_eq!(engine.run(&input(), within(LONG)), Ok(expected()));
    }
}

#[test]
fn who_is_not_there_is_named() {
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let Err(ConnectError::Unreachable(told)) = connect(&format!("http://{address}")) else {
        panic!();
    };
    assert!(
        told.starts_with(&format!("no server at http://{address}: ")),
        "{told}"
    );
    assert!(
        told.contains("refused") && told.contains("server-uris"),
        "{told}"
    );
}

#[test]
fn who_says_nothing_is_waited_for_so_long_and_no_longer() {
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = format!("http://{}", deaf.local_addr().unwrap());
    let started = Instant::now();
    let Err(ConnectError::Unreachable(told)) = connect(&deaf) else {
        panic!();
    };
    assert!((CONNECT_LIMIT..5 * CONNECT_LIMIT).contains(&started.elapsed()));
    assert!(
        told.starts_with(&format!("{deaf} does not answer within 5s")),
        "{told}"
    );
}

#[test]
fn a_model_that_is_not_there_is_named_with_those_that_are() {
    let stub = Stub::start(|_, _| right());
    let unknown = Kserve::connect("thrice/2", &servers(&stub.uri()));
    let told = format!(
        "{} has no model \"thrice/2\": HTTP 404: Request for unknown model; it has twice/1",
        stub.uri()
    );
    assert_eq!(unknown.err(), Some(ConnectError::NoModel(told)));
}

#[test]
fn a_token_is_shown_and_never_told() {
    // Tells what it was shown, as some servers do.
    let stub = Stub::start(|_, asked| {
        let shown = asked
            .head
            .lines()
            .find(|line| line.starts_with("authorization"))
            .unwrap_or("nothing");
        Reply::Whole(http("403 Forbidden", "", shown.as_bytes()))
    });
    let servers = Servers {
        token: Some("s3cret".parse().unwrap()),
        ..servers(&stub.uri())
    };
    let engine = Kserve::connect("twice", &servers).unwrap();
    let failed = engine.run(&input(), None).unwrap_err().to_string();
    assert!(
        failed.ends_with("HTTP 403: authorization: Bearer …"),
        "{failed}"
    );
    assert!(!format!("{servers:?}").contains("s3cret"));
    let asked = stub.asked.lock().unwrap();
    assert!(
        asked
            .iter()
            .all(|asked| asked.head.contains("authorization: Bearer s3cret\r\n"))
    );
}

#[test]
fn an_application_may_call_from_its_own_runtime() {
    let stub = Stub::start(|_, _| right());
    let own = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    own.block_on(async {
        let engine = connect(&stub.uri()).unwrap();
        assert_eq!(engine.run(&input(), None), Ok(expected()));
    });
}

/// Of whoever signs for themselves, at 127.0.0.1.
fn certificate() -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "stub").unwrap();
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
        .set_not_after(&Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    let authority = BasicConstraints::new().critical().ca().build().unwrap();
    builder.append_extension(authority).unwrap();
    let context = builder.x509v3_context(None, None);
    let place = SubjectAlternativeName::new()
        .ip("127.0.0.1")
        .build(&context)
        .unwrap();
    builder.append_extension(place).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    (builder.build(), key)
}

#[test]
fn with_https_only_whom_the_file_names_is_trusted() {
    let (certificate, key) = certificate();
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    tls.set_certificate(&certificate).unwrap();
    tls.set_private_key(&key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stub = Stub::on(listener, Some(tls.build()), |_, _| right());

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Some(path)
    };
    let trusting = |ca_file: Option<PathBuf>| {
        let servers = Servers {
            ca_file,
            ..servers(&stub.uri())
        };
        Kserve::connect("twice", &servers)
    };
    let engine = trusting(file("right.pem", &certificate.to_pem().unwrap())).unwrap();
    for _ in 0..5 {
        assert_eq!(engine.run(&input(), None), Ok(expected()));
    }
    let asked = stub.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|asked| asked.connection == 0));

    let (other, _) = self::certificate();
    for ca_file in [None, file("wrong.pem", &other.to_pem().unwrap())] {
        let Err(ConnectError::Unreachable(told)) = trusting(ca_file) else {
            panic!();
        };
        assert!(
            told.contains(&stub.uri()) && told.contains("not trusted: self"),
            "{told}"
        );
        assert!(told.contains("server-ca-file"), "{told}");
    }
    for ca_file in [file("none.pem", b"hello"), Some("/nowhere/ca.pem".into())] {
        let told = trusting(ca_file.clone()).err().unwrap().to_string();
        let path = ca_file.unwrap();
        assert!(
            told.starts_with(&format!("server-ca-file {}: ", path.display())),
            "{told}"
        );
    }
}

#[test]
fn servers_of_different_models_are_not_mixed() {
    let stub = Stub::start(|_, _| right());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (connection, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            while let Some(asked) = question(&mut stream, connection) {
                let mut said = metadata();
                said["outputs"][0]["datatype"] = json!("FP16");
                let reply = match asked.head.starts_with("GET /v2/models/twice ") {
                    true => Reply::Whole(http("200 OK", "", said.to_string().as_bytes())),
                    false => about(&asked.head),
                };
                if let Reply::Whole(bytes) = reply {
                    stream.write_all(&bytes).unwrap();
                }
            }
        }
    });
    let Err(ConnectError::Unusable(told)) = connect(&format!("{},http://{other}", stub.uri()))
    else {
        panic!();
    };
    assert!(told.contains("different models \"twice\""), "{told}");
}
