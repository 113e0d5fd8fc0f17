//! WHEP (draft-ietf-wish-whep): media from a server, as [WHIP](super::whip) has it to one.

use futures_util::future::BoxFuture;
use url::Url;

use super::http::Http;
use super::kinds::{self, Receive};
use super::{
    Address, Answer, DialError, Kind, OptionError, OptionKind, OptionSpec, Options, Party,
    Protocol, Wanted, whip,
};

const NAME: &str = "whep";

/// The server would rather make the offer; what it has is in the body.
const COUNTER_OFFER: u16 = 406;

pub const KIND: Kind = Kind {
    name: NAME,
    options: &[OptionSpec {
        name: kinds::RECEIVE,
        kind: OptionKind::Texts,
        blurb: "Kinds of media to be received: video, audio or both, which is the default",
    }],
    make,
};

struct Whep {
    url: Url,
    receive: Receive,
}

fn make(address: &Address, options: &Options) -> Result<Box<dyn Protocol>, OptionError> {
    let both = Receive {
        video: true,
        audio: true,
    };
    Ok(Box::new(Whep {
        url: address.url.clone(),
        receive: Receive::of(options)?.unwrap_or(both),
    }))
}

impl Protocol for Whep {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wanted(&self, party: &Party) -> Result<Wanted, OptionError> {
        if party.sends_video + party.sends_audio > 0 {
            return Err(OptionError::Party {
                protocol: NAME,
                problem: "something is sent, and a WHEP server takes nothing",
            });
        }
        Ok(Wanted {
            lines: kinds::lines(NAME, party, Some(self.receive), 0)?,
            channels: Vec::new(),
        })
    }

    fn call<'a>(
        &'a self,
        http: &'a Http,
        sdp: &'a str,
    ) -> BoxFuture<'a, Result<Answer, DialError>> {
        Box::pin(async move {
            let answer = whip::exchange(http, &self.url, sdp).await;
            answer.map_err(|error| match error {
                DialError::Status { url, code, .. } if code == COUNTER_OFFER => {
                    let text = "the server does not take the offer and makes one of its own, \
                                which is not answered here";
                    DialError::Status {
                        url,
                        code,
                        text: text.into(),
                    }
                }
                error => error,
            })
        })
    }
}
