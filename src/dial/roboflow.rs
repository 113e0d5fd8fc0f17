//! Roboflow's inference server: `POST /initialise_webrtc_worker` with a workflow and an offer → an answer.
//!
//! Video goes up on a line of the offer, or the server fetches it, or a file is uploaded over a channel. What comes back
//! is a picture on the line, and the rest over the channel `inference`.

mod ice;
mod request;
mod table;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::Value;
use url::Url;

use self::ice::{ice_servers, turn_config};
use self::request::{Source, request};
use super::http::{self, Authorization, Http, Question};
use super::secret::Secret;
use super::{
    Address, Answer, DialError, Direction, IceServers, Kind, Line, OptionError, Options, Party,
    Protocol, Wanted, answer, external_id, shown,
};
use crate::logic::wire::roboflow_client::{self, CHANNEL, ROUTE, Request, UPLOAD_CHANNEL};

const NAME: &str = "roboflow";

/// Where the key is when no option says it; the server's own tools read it too.
const KEY_VARIABLE: &str = "ROBOFLOW_API_KEY";

/// Calls go on without them.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

pub const KIND: Kind = Kind {
    name: NAME,
    options: table::TABLE,
    make,
};

/// Where the key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyIn {
    Body,
    Header,
    Both,
}

/// What is known once the offer is under way.
#[derive(Default)]
struct Arranged {
    ice_servers: Option<Value>,
    /// The offer has a line on which video comes back.
    video_back: bool,
}

pub struct Roboflow {
    url: Url,
    /// Where the customers of a hosted server ask for TURN servers.
    turn_config: Option<Url>,
    key: Option<Secret>,
    key_in: KeyIn,
    turn: Option<Value>,
    source: Source,
    /// As it is for every call.
    request: Request,
    /// Also where pictures come as data.
    stream_output: Vec<String>,
    arranged: Mutex<Arranged>,
}

fn make(address: &Address, options: &Options) -> Result<Box<dyn Protocol>, OptionError> {
    let key = std::env::var(KEY_VARIABLE).ok();
    Ok(Box::new(Roboflow::new(address, options, key)?))
}

impl Roboflow {
    fn new(
        address: &Address,
        options: &Options,
        key_of_environment: Option<String>,
    ) -> Result<Self, OptionError> {
        let key = options.text(table::API_KEY).map(str::to_owned);
        let key = key.or(key_of_environment).filter(|key| !key.is_empty());
        let key_in = match options.text(table::API_KEY_IN) {
            None | Some("body") => KeyIn::Body,
            Some("header") => KeyIn::Header,
            Some("both") => KeyIn::Both,
            Some(_) => {
                let problem = "body, header or both is right";
                return Err(OptionError::value(table::API_KEY_IN, problem));
            }
        };
        if key_in != KeyIn::Body {
            if options.text(http::TOKEN).is_some() {
                return Err(OptionError::Together(http::TOKEN, table::API_KEY_IN));
            }
            let fits = |key: &String| key.bytes().all(|byte| byte.is_ascii_graphic());
            if !key.as_ref().is_none_or(fits) {
                let problem = "it has letters that a header does not take";
                return Err(OptionError::value(table::API_KEY, problem));
            }
        }
        let turn = options.text(table::TURN_SERVER).map(|text| {
            let value = serde_json::from_str(text).map_err(|_| "it is no JSON")?;
            ice_servers(&value, true)
        });
        let turn = turn.transpose();
        let turn = turn.map_err(|problem| OptionError::value(table::TURN_SERVER, problem))?;
        let source = Source::of(options)?;
        Ok(Self {
            url: address.below(ROUTE),
            turn_config: turn_config(&address.url),
            key: key.map(Secret::new),
            key_in,
            turn,
            request: request(options, &source)?,
            stream_output: options.texts(table::STREAM_OUTPUT).unwrap_or_default(),
            source,
            arranged: Mutex::default(),
        })
    }

    /// Whether the server skips frames; where not, each is told when it was taken ([`roboflow_client::ack`]).
    pub fn realtime(&self) -> bool {
        self.request.realtime
    }

    /// The file that goes over the channel `video_upload` as soon as that is open.
    pub fn upload(&self) -> Option<&Path> {
        match &self.source {
            Source::Upload { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether pictures come as data rather than as video.
    pub fn pictures_in_channel(&self) -> bool {
        matches!(self.source, Source::Upload { on_track, .. } if !on_track)
    }

    fn arranged(&self) -> MutexGuard<'_, Arranged> {
        self.arranged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self) -> Request {
        let key = self.key.as_ref().filter(|_| self.key_in != KeyIn::Header);
        let mut request = self.request.clone();
        request.api_key = key.map(|key| key.reveal().to_owned());
        let arranged = self.arranged();
        request.ice_servers.clone_from(&arranged.ice_servers);
        if !arranged.video_back {
            // Nobody encodes a video that has no line to come on.
            request.stream_output.clear();
        }
        request
    }

    fn authorization(&self) -> Authorization {
        let key = self.key.as_ref().filter(|_| self.key_in != KeyIn::Body);
        let value = key.map(|key| HeaderValue::try_from(format!("Bearer {}", key.reveal())));
        match value {
            Some(Ok(value)) => Authorization::Own(value),
            // Which letters are in it was seen to.
            _ => Authorization::Token,
        }
    }

    async fn fetch_turn(&self, http: &Http, url: &Url) -> Result<Value, String> {
        let named = shown(url);
        let Some(key) = &self.key else {
            return Err(format!(
                "{named}: no TURN servers are asked for without an api-key"
            ));
        };
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("api_key", key.reveal());
        let question = Question {
            method: Method::GET,
            url,
            body: None,
            accept: http::JSON,
            authorization: Authorization::None,
            redirects: false,
        };
        let reply = http.ask_within(TURN_TIMEOUT, question).await;
        let reply = reply.and_then(|reply| match reply.code {
            200 => Ok(reply),
            _ => Err(http.declined(&reply, Some(key))),
        });
        let reply = reply.map_err(|error| error.to_string())?;
        let servers = serde_json::from_slice(&reply.body).map_err(|_| "it is no JSON");
        let servers = servers.and_then(|servers| ice_servers(&servers, false));
        servers.map_err(|problem| format!("{named}: no TURN servers: {problem}"))
    }
}

impl Protocol for Roboflow {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wanted(&self, party: &Party) -> Result<Wanted, OptionError> {
        let wrong = |problem| OptionError::Party {
            protocol: NAME,
            problem,
        };
        if party.sends_audio > 0 {
            return Err(wrong("audio is sent, and the server takes none"));
        }
        let wants_video = party.receives && !self.stream_output.is_empty();
        let (direction, upload) = match (&self.source, party.sends_video) {
            (Source::Sent, 1) if wants_video => (Some(Direction::SendRecv), false),
            (Source::Sent, 1) => (Some(Direction::SendOnly), false),
            (Source::Sent, 0) => {
                return Err(wrong(
                    "there is no video: nothing is sent, and none of the options rtsp-url, mjpeg-url and upload-location is set",
                ));
            }
            (Source::Sent, _) => {
                return Err(wrong("more than one video is sent; the server takes one"));
            }
            (Source::Rtsp(_) | Source::Mjpeg(_), 0) => (Some(Direction::RecvOnly), false),
            (Source::Upload { on_track, .. }, 0) => (on_track.then_some(Direction::RecvOnly), true),
            (Source::Rtsp(_), _) => {
                return Err(wrong("video is sent, and rtsp-url names another"));
            }
            (Source::Mjpeg(_), _) => {
                return Err(wrong("video is sent, and mjpeg-url names another"));
            }
            (Source::Upload { .. }, _) => {
                return Err(wrong("video is sent, and upload-location names another"));
            }
        };
        let comes_back = direction.is_some_and(|direction| direction != Direction::SendOnly);
        self.arranged().video_back = comes_back;
        let line = |direction| Line {
            video: true,
            direction,
        };
        let upload = upload.then(|| UPLOAD_CHANNEL.to_owned());
        Ok(Wanted {
            lines: direction.map(line).into_iter().collect(),
            channels: std::iter::once(CHANNEL.to_owned()).chain(upload).collect(),
        })
    }

    fn ice_servers<'a>(&'a self, http: &'a Http) -> BoxFuture<'a, IceServers> {
        Box::pin(async move {
            let (list, warning) = match (&self.turn, &self.turn_config) {
                (Some(list), _) => (Some(list.clone()), None),
                (None, None) => (None, None),
                (None, Some(url)) => match self.fetch_turn(http, url).await {
                    Ok(list) => (Some(list), None),
                    Err(warning) => (None, Some(warning)),
                },
            };
            self.arranged().ice_servers = list.clone();
            IceServers { list, warning }
        })
    }

    fn call<'a>(
        &'a self,
        http: &'a Http,
        sdp: &'a str,
    ) -> BoxFuture<'a, Result<Answer, DialError>> {
        Box::pin(async move {
            let body = self.request().body(sdp);
            let question = Question::json(&self.url, &body, self.authorization());
            let reply = http.ask(question).await?;
            let url = shown(&reply.url);
            if reply.code != 200 {
                let key = self.key.as_ref().map(Secret::reveal);
                // The text is cut: half a secret would not be found in it.
                let body = http.hide(&String::from_utf8_lossy(&reply.body));
                let body = self.source.hide_in(&body);
                let text = roboflow_client::refusal(reply.code, body.as_bytes(), key);
                return Err(DialError::Status {
                    url,
                    code: reply.code,
                    text,
                });
            }
            let read = roboflow_client::answer(&reply.body);
            let none = |cause: String| DialError::NotAnAnswer {
                url: url.clone(),
                cause,
            };
            let read = read.map_err(|error| none(error.to_string()))?;
            answer::check_sdp(&read.sdp).map_err(|cause| none(cause.into()))?;
            Ok(Answer {
                sdp: read.sdp,
                external_id: read.pipeline_id.as_deref().and_then(external_id),
                resource: None,
            })
        })
    }

    fn roboflow(&self) -> Option<&Roboflow> {
        Some(self)
    }
}
