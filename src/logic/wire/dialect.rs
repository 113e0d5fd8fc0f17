//! How a visitor is spoken to on its data channels: a connection says what happens, a dialect says it in the words of the
//! clients of one door.

use std::time::{Duration, Instant};

use crate::logic::connection::EndReason;
use crate::logic::wire::roboflow_client::Said;

/// What is sent on a data channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Text(String),
    Bytes(Vec<u8>),
}

impl Payload {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::Text(value.to_string())
    }
}

/// A message: what the other side takes as several is only of use as a whole.
pub type Pieces = Vec<Payload>;

/// What happens in a connection.
#[derive(Debug, Clone, Copy)]
pub enum News<'a> {
    /// A data channel of that label has opened.
    Channel(&'a str),
    /// What was found in a frame, as JSON.
    Result(&'a str),
    /// The same with the picture, as JPEG, that left the chain.
    Picture { result: &'a str, jpeg: &'a [u8] },
    /// Something failed that the connection survives.
    Trouble(&'a str),
    /// The visitor is asked to start or to stop.
    Playing(bool),
    /// Nothing follows.
    Over {
        reason: EndReason,
        detail: Option<&'a str>,
    },
}

/// What the visitor said, understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    /// What it is answered.
    pub answers: Vec<Pieces>,
    /// Whether it was meant for the server and is none of the application's business.
    pub taken: bool,
    /// So many results have reached the visitor.
    pub acknowledged: Option<u64>,
    /// Whether it wants its video back.
    pub sends_back: Option<bool>,
    /// What a server that we called says of what it was sent.
    pub said: Vec<Said>,
}

/// The language of one visitor.
pub trait Dialect: Send {
    /// What the visitor is told of it, in order.
    fn tell(&mut self, news: News<'_>) -> Vec<Pieces>;

    /// Reads what came on a channel; whatever the bytes are.
    fn hear(&mut self, label: &str, data: &[u8], binary: bool, now: Instant) -> Heard;

    /// What a server is told when the frame of that id, or its result where it has no frame, was delivered.
    fn delivered(&mut self, _frame_id: u64) -> Option<Pieces> {
        None
    }

    /// Whether what comes on that channel is a file.
    fn is_file(&self, _label: &str) -> bool {
        false
    }

    /// How long the visitor is told again and again that its source has ended, unless it goes.
    fn lingers(&self) -> Duration {
        Duration::ZERO
    }

    /// The label of the channel that it listens to; `None` for the one that is open longest.
    fn channel(&self) -> Option<String>;
}

/// Ours: the JSON of results as it is, and everything from the visitor goes to the application.
#[derive(Debug, Default)]
pub struct Plain;

impl Dialect for Plain {
    fn tell(&mut self, news: News<'_>) -> Vec<Pieces> {
        match news {
            News::Channel(_) | News::Trouble(_) => Vec::new(),
            News::Result(json) | News::Picture { result: json, .. } => {
                vec![vec![Payload::Text(json.to_owned())]]
            }
            News::Playing(playing) => {
                let wish = serde_json::json!({ "desired_playing_state": playing });
                vec![vec![Payload::json(&wish)]]
            }
            News::Over { reason, detail } => vec![vec![Payload::Text(last_text(reason, detail))]],
        }
    }

    fn hear(&mut self, _label: &str, _data: &[u8], _binary: bool, _now: Instant) -> Heard {
        Heard::default()
    }

    fn channel(&self) -> Option<String> {
        None
    }
}

/// What readers of results are told of an end.
pub fn last_text(reason: EndReason, detail: Option<&str>) -> String {
    let failed = reason == EndReason::HandlerError;
    let errors: Vec<_> = detail.iter().filter(|_| failed).collect();
    serde_json::json!({
        "errors": errors,
        "processing_complete": true,
        "termination_reason": reason.as_str(),
        "detail": detail,
    })
    .to_string()
}
