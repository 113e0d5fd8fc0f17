//! Requests to the server that is called. Knows HTTP and TLS, and nothing of offers.
//!
//! Nothing outlives a request: no connection is kept, there are no cookies, and no proxy is taken from the environment.

use std::error::Error;
use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector};
use openssl::x509::X509;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response};
use tokio::time::timeout;
use url::Url;

use super::options::{OptionError, OptionKind, OptionSpec, Options};
use super::secret::Secret;
use super::{Address, DialError, answer, shown};
use crate::logic::token::Token;

const ANSWER_TIMEOUT: &str = "answer-timeout";
const CA_FILE: &str = "ca-file";
pub const TOKEN: &str = "token";

pub const JSON: &str = "application/json";

/// Options that every protocol takes.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: ANSWER_TIMEOUT,
        kind: OptionKind::Integer,
        blurb: "Seconds in which the server has to answer an offer, connecting included; 90 where it is not set",
    },
    OptionSpec {
        name: CA_FILE,
        kind: OptionKind::Text,
        blurb: "PEM file with the certificates to trust with https, and no others; those of the system where it is not set",
    },
    OptionSpec {
        name: TOKEN,
        kind: OptionKind::Text,
        blurb: "Sent as Authorization: Bearer; nothing where it is not set",
    },
];

/// A server that first loads a model takes its time; clients of Roboflow's wait as long.
const PATIENCE: u32 = 90;
/// Longer than any server needs to accept, shorter than the system would try.
const CONNECTING: Duration = Duration::from_secs(10);
/// Nobody waits for what an end is answered with.
const LEAVE: Duration = Duration::from_secs(2);
const MOST_REDIRECTS: usize = 5;
/// An answer has some kilobytes.
const MOST_BODY: usize = 1 << 20;
/// What is read of a body that only explains a failure.
const MOST_EXPLANATION: usize = 64 << 10;

/// Asks one server, as the options say.
#[derive(Clone)]
pub struct Http {
    client: Client,
    /// Where the token is for.
    home: Url,
    token: Option<Token>,
    patience: Duration,
}

/// What is sent.
pub struct Question {
    pub method: Method,
    pub url: Url,
    /// A type, and what is of it.
    pub body: Option<(&'static str, Vec<u8>)>,
    pub accept: &'static str,
    pub authorization: Authorization,
    /// Whether 307 and 308 are followed.
    pub redirects: bool,
}

/// What a server is shown.
pub enum Authorization {
    None,
    /// The option's; with https also on another host that the server names, as RFC 9725 (4.7) wants each request of a
    /// session to have it.
    Token,
    Own(HeaderValue),
}

/// What came back, whatever its status.
pub struct Reply {
    /// Where it came from in the end.
    pub url: Url,
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Question {
    /// One in JSON, for an answer in JSON.
    pub fn json(url: &Url, body: &serde_json::Value, authorization: Authorization) -> Self {
        Self {
            method: Method::POST,
            url: url.clone(),
            body: Some((JSON, body.to_string().into_bytes())),
            accept: JSON,
            authorization,
            redirects: false,
        }
    }
}

impl Http {
    /// Reads the file of certificates.
    pub fn new(address: &Address, options: &Options) -> Result<Self, OptionError> {
        let patience = options.integer(ANSWER_TIMEOUT, 1..=3600)?;
        let token = options.text(TOKEN).map(str::parse::<Token>).transpose();
        let token = token.map_err(|error| OptionError::value(TOKEN, error.to_string()))?;
        let no_tls = |error: native_tls::Error| {
            OptionError::value(CA_FILE, format!("no TLS can be had: {error}"))
        };
        let trust = match options.text(CA_FILE) {
            Some(path) => {
                let bad = |problem| OptionError::value(CA_FILE, format!("{path}: {problem}"));
                trusting(certificates(path).map_err(bad)?).map_err(no_tls)?
            }
            None => system_trust().map_err(no_tls)?,
        };
        let client = Client::builder()
            .tls_backend_preconfigured(trust)
            .user_agent(concat!("rtcinference/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECTING)
            .pool_max_idle_per_host(0)
            .build()
            .expect("nothing of it comes from outside");
        Ok(Self {
            client,
            home: address.url.clone(),
            token,
            patience: Duration::from_secs(patience.unwrap_or(PATIENCE).into()),
        })
    }

    pub async fn ask(&self, question: Question) -> Result<Reply, DialError> {
        self.ask_within(self.patience, question).await
    }

    pub async fn ask_within(
        &self,
        patience: Duration,
        question: Question,
    ) -> Result<Reply, DialError> {
        let answered = timeout(patience, self.follow(&question)).await;
        answered.unwrap_or_else(|_| {
            Err(DialError::TimedOut {
                url: shown(&question.url),
                after: patience,
            })
        })
    }

    pub(super) async fn delete(&self, url: Url) {
        let question = Question {
            method: Method::DELETE,
            url,
            body: None,
            accept: "*/*",
            authorization: Authorization::Token,
            redirects: true,
        };
        let _ = self.ask_within(LEAVE, question).await;
    }

    /// A text of the server's, which may say what it was shown.
    pub fn hide(&self, text: &str) -> String {
        match &self.token {
            Some(token) => token.hide_in(text),
            None => text.to_owned(),
        }
    }

    /// A reply of a status that is no success; `key` is another secret that the server was shown.
    pub fn declined(&self, reply: &Reply, key: Option<&Secret>) -> DialError {
        // Cut at last: half a secret would not be found.
        let mut text = self.hide(&answer::explanation(reply.code, &reply.body));
        if let Some(key) = key {
            text = key.hide_in(&text);
        }
        DialError::Status {
            url: shown(&reply.url),
            code: reply.code,
            text: answer::plain(&text),
        }
    }

    async fn follow(&self, question: &Question) -> Result<Reply, DialError> {
        let mut url = question.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let sent = self.request(question, &url).send().await;
            let response = sent.map_err(|error| failure(&url, error))?;
            let code = response.status().as_u16();
            if !matches!(code, 301 | 302 | 303 | 307 | 308) {
                return read(url, response).await;
            }
            let declined = |text: String| DialError::Status {
                url: shown(&url),
                code,
                text,
            };
            let Some(next) = location(&url, response.headers()) else {
                return Err(declined("a redirect to nowhere".into()));
            };
            // RFC 9725, 4.5: after the others a POST would become a GET.
            if !question.redirects || !matches!(code, 307 | 308) {
                let next = shown(&next);
                return Err(declined(format!(
                    "a redirect to {next}, which is not followed"
                )));
            }
            if next.scheme() != url.scheme() {
                let next = shown(&next);
                return Err(declined(format!("a redirect to {next}, of another scheme")));
            }
            url = next;
        }
        Err(DialError::NotAnAnswer {
            url: shown(&url),
            cause: format!("more than {MOST_REDIRECTS} redirects"),
        })
    }

    fn request(&self, question: &Question, url: &Url) -> RequestBuilder {
        let mut request = self.client.request(question.method.clone(), url.clone());
        request = request.header(ACCEPT, question.accept);
        if let Some((kind, body)) = &question.body {
            request = request.header(CONTENT_TYPE, *kind).body(body.clone());
        }
        match self.authorization(question, url) {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    fn authorization(&self, question: &Question, url: &Url) -> Option<HeaderValue> {
        let mut value = match &question.authorization {
            Authorization::None => return None,
            Authorization::Own(value) => value.clone(),
            Authorization::Token => {
                let same = url.scheme() == self.home.scheme();
                let own = same && (url.scheme() == "https" || url.host() == self.home.host());
                let token = self.token.as_ref().filter(|_| own)?;
                let value = HeaderValue::try_from(token.authorization());
                value.expect("a token has only letters that a header takes")
            }
        };
        value.set_sensitive(true);
        Some(value)
    }
}

/// What a `Location` names, seen from where it was said.
pub fn location(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let mut location = url.join(location).ok()?;
    location.set_fragment(None);
    matches!(location.scheme(), "http" | "https").then_some(location)
}

/// Whom the system trusts, read once: a client without https would have to read it too.
fn system_trust() -> Result<TlsConnector, native_tls::Error> {
    static TRUST: OnceLock<TlsConnector> = OnceLock::new();
    match TRUST.get() {
        Some(trust) => Ok(trust.clone()),
        None => TlsConnector::new().map(|trust| TRUST.get_or_init(|| trust).clone()),
    }
}

fn trusting(certificates: Vec<Certificate>) -> Result<TlsConnector, native_tls::Error> {
    let mut builder = TlsConnector::builder();
    builder.disable_built_in_roots(true);
    for certificate in certificates {
        builder.add_root_certificate(certificate);
    }
    builder.build()
}

fn certificates(path: &str) -> Result<Vec<Certificate>, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let certificates = X509::stack_from_pem(&text).unwrap_or_default();
    let certificates = certificates.iter().filter_map(|certificate| {
        let bytes = certificate.to_der().ok()?;
        Certificate::from_der(&bytes).ok()
    });
    let certificates: Vec<_> = certificates.collect();
    match certificates.is_empty() {
        true => Err("there is no certificate in PEM form in it".into()),
        false => Ok(certificates),
    }
}

async fn read(url: Url, mut response: Response) -> Result<Reply, DialError> {
    let explains = !response.status().is_success();
    let limit = if explains {
        MOST_EXPLANATION
    } else {
        MOST_BODY
    };
    let too_long = || DialError::NotAnAnswer {
        url: shown(&url),
        cause: format!("the body is longer than {limit} bytes"),
    };
    let announced = response.content_length();
    if !explains && announced.is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await;
        let Some(chunk) = chunk.map_err(|error| failure(&url, error))? else {
            break;
        };
        let room = limit - body.len();
        if chunk.len() > room {
            if explains {
                body.extend_from_slice(&chunk[..room]);
                break;
            }
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply {
        code: response.status().as_u16(),
        headers: response.headers().clone(),
        url,
        body,
    })
}

/// What kept a request from its answer.
fn failure(url: &Url, error: reqwest::Error) -> DialError {
    let url = shown(url);
    let cause = reason(&error);
    // Its own words name the URL, query and all.
    if find::<native_tls::Error>(&error).is_some() {
        return DialError::Tls { url, cause };
    }
    match find::<hyper::Error>(&error) {
        Some(error) if error.is_parse() => DialError::NotAnAnswer {
            url,
            cause: format!("what came is no HTTP: {cause}"),
        },
        _ => DialError::Unreachable { url, cause },
    }
}

/// Causes from the outermost to the innermost. That of an [`io::Error`] is in it rather than behind it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| {
        let inner = error.downcast_ref::<io::Error>();
        match inner.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The innermost cause is the one that tells something; but OpenSSL's own does not say what is wrong with a certificate.
fn reason(error: &(dyn Error + 'static)) -> String {
    if let Some(error) = find::<native_tls::Error>(error) {
        return answer::plain(&error.to_string());
    }
    let innermost = causes(error)
        .last()
        .filter(|last| !last.is::<reqwest::Error>());
    match innermost {
        Some(cause) => answer::plain(&cause.to_string()),
        None => "the request failed".into(),
    }
}
