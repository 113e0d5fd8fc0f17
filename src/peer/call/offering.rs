//! Calls that we begin: the offer, and what becomes of it with the peer's answer.

use std::time::Instant;

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::{Candidate, Input};

use super::{Call, CallConfig, CallError, rtc_config, without_addresses};
use crate::logic::connection::{EndReason, Patience, Watchdog};
use crate::logic::return_lines::Returns;
use crate::logic::wire::sdp::{CheckedOffer, SdpError, check_offer};
use crate::peer::codecs::Media;

/// A line of an offer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferLine {
    pub media: Media,
    pub sends: bool,
    pub receives: bool,
}

/// What an offer of ours has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferTerms {
    /// In their order; data channels come after them.
    pub lines: Vec<OfferLine>,
    /// Labels.
    pub channels: Vec<String>,
}

/// A call whose offer waits for its answer.
pub struct Offered {
    call: Call,
    pending: SdpPendingOffer,
    patience: Patience,
    lines: Vec<OfferLine>,
    pub sdp: String,
}

/// Why an answer is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Sdp(#[from] SdpError),
    #[error("the answer is not understood: {0}")]
    NotUnderstood(String),
    #[error("it takes no codec of the offer's {0} line")]
    NoCodec(&'static str),
    #[error("it declines the offer's {0} line")]
    Declined(&'static str),
}

impl Offered {
    /// What is learned of the peer may be used from here on.
    pub fn accept(
        mut self,
        answer: &str,
        now: Instant,
    ) -> Result<(Call, CheckedOffer), AnswerError> {
        let checked = check_offer(answer, &[], &Returns::UNLIMITED)?;
        for (offered, line) in self.lines.iter().zip(&checked.media) {
            if !line.sends && !line.receives {
                return Err(AnswerError::Declined(offered.media.as_str()));
            }
        }
        let parsed = SdpAnswer::from_sdp_string(&checked.sdp)
            .map_err(|error| AnswerError::NotUnderstood(without_addresses(&error.to_string())))?;
        let call = &mut self.call;
        call.watchdog = Watchdog::new(self.patience, now);
        let accepted = call.rtc.sdp_api().accept_answer(self.pending, parsed);
        call.drain(now);
        accepted.map_err(|error| AnswerError::NotUnderstood(error.to_string()))?;
        call.input(Input::Timeout(now), now);
        // A peer that takes no codec of a line leaves nothing to send or receive on it.
        for line in checked
            .media
            .iter()
            .filter(|line| line.sends || line.receives)
        {
            let Some(media) = line.media() else { continue };
            let mid = Mid::from(line.mid.as_str());
            let agreed = call
                .rtc
                .media(mid)
                .is_some_and(|m| !m.remote_pts().is_empty());
            if !agreed {
                return Err(AnswerError::NoCodec(media.as_str()));
            }
        }
        Ok((self.call, checked))
    }
}

impl Call {
    /// Makes an offer. `candidates` are the addresses the peer may reach us at.
    pub fn offer(
        config: &CallConfig,
        terms: &OfferTerms,
        candidates: &[Candidate],
        now: Instant,
    ) -> Result<Offered, CallError> {
        let sends = terms.lines.iter().any(|line| line.sends);
        let mut call = Self::new(config, rtc_config(config, sends, sends), now)?;
        call.closed = EndReason::ServerClosed;
        call.add_local(candidates, now);
        let mut changes = call.rtc.sdp_api();
        for line in &terms.lines {
            let kind = match line.media {
                Media::Video => MediaKind::Video,
                Media::Audio => MediaKind::Audio,
            };
            let direction = match (line.sends, line.receives) {
                (true, true) => Direction::SendRecv,
                (true, false) => Direction::SendOnly,
                (false, true) => Direction::RecvOnly,
                (false, false) => Direction::Inactive,
            };
            changes.add_media(kind, direction, None, None, None);
        }
        for label in &terms.channels {
            changes.add_channel(label.clone());
        }
        let (offer, pending) = changes
            .apply()
            .ok_or_else(|| CallError::Sdp("it has no line".into()))?;
        call.drain(now);
        Ok(Offered {
            call,
            pending,
            patience: config.patience,
            lines: terms.lines.clone(),
            // The peer begins with DTLS: who begins sends again what is lost, and our side of it does not.
            sdp: offer
                .to_sdp_string()
                .replace("a=setup:actpass", "a=setup:passive"),
        })
    }
}
