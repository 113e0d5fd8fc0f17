//! The offer dialect of aiortc's examples and Pipecat: `POST /offer` with `{"sdp","type"}` → the same, and a `pc_id`.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use url::Url;

use super::answer::JsonAnswer;
use super::http::{Authorization, Http, Question};
use super::kinds::{self, MOST, Receive};
use super::{
    Address, Answer, DialError, Kind, OptionError, OptionKind, OptionSpec, Options, Party,
    Protocol, Wanted,
};

const NAME: &str = "offer";

const CHANNEL: &str = "channel";
const DATA: &str = "data";

pub const KIND: Kind = Kind {
    name: NAME,
    options: &[
        OptionSpec {
            name: CHANNEL,
            kind: OptionKind::Text,
            blurb: "Label of the data channel to make, results where it is not set; empty: none",
        },
        OptionSpec {
            name: DATA,
            kind: OptionKind::Object,
            blurb: "Fields that the server wants beside sdp and type; none where it is not set",
        },
        kinds::SPEC,
    ],
    make,
};

struct Offer {
    url: Url,
    channel: String,
    data: Map<String, Value>,
    receive: Option<Receive>,
}

fn make(address: &Address, options: &Options) -> Result<Box<dyn Protocol>, OptionError> {
    let data = options.object(DATA)?.unwrap_or_default();
    if let Some(field) = ["sdp", "type"]
        .iter()
        .find(|field| data.contains_key(**field))
    {
        let problem = format!("{field} is the offer's own");
        return Err(OptionError::value(DATA, problem));
    }
    Ok(Box::new(Offer {
        url: address.or_at("/offer"),
        channel: options.text_or_empty(CHANNEL).unwrap_or("results").into(),
        data,
        receive: Receive::of(options)?,
    }))
}

impl Protocol for Offer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wanted(&self, party: &Party) -> Result<Wanted, OptionError> {
        let channel = Some(self.channel.clone()).filter(|label| !label.is_empty());
        Ok(Wanted {
            lines: kinds::lines(NAME, party, self.receive, MOST)?,
            channels: channel.into_iter().collect(),
        })
    }

    fn call<'a>(
        &'a self,
        http: &'a Http,
        sdp: &'a str,
    ) -> BoxFuture<'a, Result<Answer, DialError>> {
        Box::pin(async move {
            let mut body = self.data.clone();
            body.insert("sdp".into(), sdp.into());
            body.insert("type".into(), "offer".into());
            let question = Question::json(&self.url, &body.into(), Authorization::Token);
            let reply = http.ask(question).await?;
            if reply.code != 200 {
                return Err(http.declined(&reply, None));
            }
            let answer = JsonAnswer::of(&reply)?;
            Ok(Answer {
                external_id: answer.id("pc_id"),
                sdp: answer.sdp,
                resource: None,
            })
        })
    }
}
