//! FastRTC: `POST /webrtc/offer` with `{"sdp","type","webrtc_id"}`. It refuses with status 200.
//!
//! All candidates are in the offer: its way to take later ones wants more words in a candidate than there need be. No
//! media flows without the channel `text`.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use super::answer::{self, JsonAnswer};
use super::http::{Authorization, Http, Question};
use super::kinds::{self, Receive};
use super::{
    Address, Answer, DialError, Kind, OptionError, OptionKind, OptionSpec, Options, Party,
    Protocol, Wanted, shown,
};

const NAME: &str = "fastrtc";
const CHANNEL: &str = "text";

const WEBRTC_ID: &str = "webrtc-id";
const INPUT_HOOK: &str = "input-hook";
/// Where FastRTC's own examples take arguments.
const USUAL_HOOK: &str = "/input_hook";

pub const KIND: Kind = Kind {
    name: NAME,
    options: &[
        OptionSpec {
            name: WEBRTC_ID,
            kind: OptionKind::Text,
            blurb: "Name of the connection at the server; one of its own for each call where it is not set",
        },
        OptionSpec {
            name: INPUT_HOOK,
            kind: OptionKind::Text,
            blurb: "Path below the server's address that takes the arguments of set-args; /input_hook where it is not set",
        },
        kinds::SPEC,
    ],
    make,
};

struct FastRtc {
    url: Url,
    hook: Url,
    id: Option<String>,
    receive: Option<Receive>,
}

fn make(address: &Address, options: &Options) -> Result<Box<dyn Protocol>, OptionError> {
    Ok(Box::new(FastRtc {
        url: address.below("/webrtc/offer"),
        hook: hook(address, options)?,
        id: options.text(WEBRTC_ID).map(str::to_owned),
        receive: Receive::of(options)?,
    }))
}

fn hook(address: &Address, options: &Options) -> Result<Url, OptionError> {
    let path = options.text(INPUT_HOOK).unwrap_or(USUAL_HOOK);
    match path.starts_with('/') {
        true => Ok(address.below(path)),
        false => Err(OptionError::value(
            INPUT_HOOK,
            "a path with a / at its beginning is right",
        )),
    }
}

impl Protocol for FastRtc {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wanted(&self, party: &Party) -> Result<Wanted, OptionError> {
        Ok(Wanted {
            lines: kinds::lines(NAME, party, self.receive, 1)?,
            channels: vec![CHANNEL.into()],
        })
    }

    fn send_args<'a>(
        &'a self,
        http: &'a Http,
        id: &'a str,
        args: Map<String, Value>,
    ) -> Option<BoxFuture<'a, Result<(), DialError>>> {
        Some(Box::pin(self.tell(http, id, args)))
    }

    fn call<'a>(
        &'a self,
        http: &'a Http,
        sdp: &'a str,
    ) -> BoxFuture<'a, Result<Answer, DialError>> {
        Box::pin(async move {
            // A name is taken for half a minute after its connection was lost, so each call has a new one.
            let id = self.id.clone();
            let id = id.unwrap_or_else(|| Uuid::new_v4().simple().to_string());
            let body = json!({ "sdp": sdp, "type": "offer", "webrtc_id": id });
            let question = Question::json(&self.url, &body, Authorization::Token);
            let reply = http.ask(question).await?;
            if reply.code != 200 {
                return Err(http.declined(&reply, None));
            }
            if let Some(Refusal { cause, busy }) = refusal(&reply.body) {
                return Err(DialError::Refused {
                    url: shown(&reply.url),
                    cause: answer::plain(&http.hide(&cause)),
                    busy,
                });
            }
            Ok(Answer {
                sdp: JsonAnswer::of(&reply)?.sdp,
                external_id: Some(id),
                resource: None,
            })
        })
    }
}

impl FastRtc {
    async fn tell(
        &self,
        http: &Http,
        id: &str,
        mut args: Map<String, Value>,
    ) -> Result<(), DialError> {
        args.insert("webrtc_id".into(), id.into());
        let question = Question::json(&self.hook, &args.into(), Authorization::Token);
        let reply = http.ask(question).await?;
        match reply.code {
            200..300 => Ok(()),
            _ => Err(http.declined(&reply, None)),
        }
    }
}

struct Refusal {
    cause: String,
    busy: bool,
}

/// `{"status":"failed","meta":{"error":…,"limit":…}}`
fn refusal(body: &[u8]) -> Option<Refusal> {
    let body: Value = serde_json::from_slice(body).ok()?;
    if body.get("status")?.as_str()? != "failed" {
        return None;
    }
    let meta = |name| body.get("meta").and_then(|meta| meta.get(name));
    let error = meta("error").and_then(Value::as_str).unwrap_or_default();
    let limit = meta("limit").and_then(Value::as_u64);
    let cause = match (error, limit) {
        ("concurrency_limit_reached", Some(limit)) => {
            format!("the server serves {limit} at once, and no more")
        }
        ("concurrency_limit_reached", None) => "the server serves no more at once".into(),
        ("connection_already_exists", _) => "there is a connection of that webrtc-id".into(),
        ("", _) => "the server does not say why".into(),
        (error, _) => error.to_owned(),
    };
    Some(Refusal {
        cause,
        busy: matches!(
            error,
            "concurrency_limit_reached" | "connection_already_exists"
        ),
    })
}
