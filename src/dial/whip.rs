//! WHIP (RFC 9725): media to a server, nothing back.
//!
//! `POST` of the offer as `application/sdp` → 201 with the answer; its `Location` takes the `DELETE`. Its `Link` headers
//! name ICE servers, which come too late for an offer that has all its candidates.

use futures_util::future::BoxFuture;
use reqwest::Method;
use url::Url;

use super::http::{Authorization, Http, Question, location};
use super::kinds::{self, MOST, Receive};
use super::{
    Address, Answer, DialError, Kind, OptionError, Options, Party, Protocol, Wanted, answer, shown,
};

const NAME: &str = "whip";
const SDP: &str = "application/sdp";

pub const KIND: Kind = Kind {
    name: NAME,
    options: &[],
    make,
};

struct Whip {
    url: Url,
}

fn make(address: &Address, _: &Options) -> Result<Box<dyn Protocol>, OptionError> {
    Ok(Box::new(Whip {
        url: address.url.clone(),
    }))
}

impl Protocol for Whip {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wanted(&self, party: &Party) -> Result<Wanted, OptionError> {
        if party.sends_video + party.sends_audio == 0 {
            return Err(OptionError::Party {
                protocol: NAME,
                problem: "nothing is sent, and a WHIP server sends nothing",
            });
        }
        let nothing = Receive {
            video: false,
            audio: false,
        };
        Ok(Wanted {
            lines: kinds::lines(NAME, party, Some(nothing), MOST)?,
            channels: Vec::new(),
        })
    }

    fn call<'a>(
        &'a self,
        http: &'a Http,
        sdp: &'a str,
    ) -> BoxFuture<'a, Result<Answer, DialError>> {
        Box::pin(exchange(http, &self.url, sdp))
    }
}

/// Offer and answer as descriptions by themselves; WHEP has it the same way.
pub async fn exchange(http: &Http, url: &Url, sdp: &str) -> Result<Answer, DialError> {
    let question = Question {
        method: Method::POST,
        url: url.clone(),
        body: Some((SDP, sdp.as_bytes().to_vec())),
        accept: SDP,
        authorization: Authorization::Token,
        redirects: true,
    };
    let reply = http.ask(question).await?;
    // 201 is right; some say 200.
    if !matches!(reply.code, 200 | 201) {
        return Err(http.declined(&reply, None));
    }
    let none = |cause: &str| DialError::NotAnAnswer {
        url: shown(&reply.url),
        cause: cause.to_owned(),
    };
    let resource = location(&reply.url, &reply.headers);
    let sdp = str::from_utf8(&reply.body).map_err(|_| none("it is no text"))?;
    answer::check_sdp(sdp).map_err(none)?;
    Ok(Answer {
        sdp: sdp.to_owned(),
        external_id: None,
        resource,
    })
}
