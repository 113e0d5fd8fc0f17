//! Data channels of a webrtcbin.

use std::sync::Weak;
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst_webrtc::{WebRTCDataChannel, WebRTCDataChannelState};

use super::visit::Visit;
use crate::logic::wire::dialect::Payload;
use crate::peer::call::Sent;
use crate::peer::outbox::Message;

/// Channels of one connection that are listened to.
const MAX_CHANNELS: usize = 16;
/// Bytes that may wait in one channel.
const MAX_WAITING: u64 = 1 << 20;
/// Longest message where the peer says nothing of it (RFC 8841).
const DEFAULT_LENGTH: u64 = 65_536;

impl Visit {
    /// A channel that the peer opened, or that we opened for it.
    pub(super) fn on_channel(&self, channel: WebRTCDataChannel) {
        {
            let mut channels = self.channels();
            channels.retain(|channel| channel.ready_state() != WebRTCDataChannelState::Closed);
            if channels.len() == MAX_CHANNELS {
                gst::warning!(
                    crate::peer::CAT,
                    "more than {MAX_CHANNELS} data channels are not listened to"
                );
                return;
            }
            channels.push(channel.clone());
        }
        let label = || channel.label().map(String::from).unwrap_or_default();
        let (me, of) = (self.weak(), label());
        channel.connect_on_message_string(move |_, text| {
            heard(&me, &of, text.unwrap_or_default().as_bytes(), false);
        });
        let (me, of) = (self.weak(), label());
        channel.connect_on_message_data(move |_, data| {
            heard(&me, &of, data.map(|data| &**data).unwrap_or_default(), true);
        });
        if channel.ready_state() == WebRTCDataChannelState::Open {
            return self.on_open(&label());
        }
        let (me, of) = (self.weak(), label());
        channel.connect_on_open(move |_| {
            if let Some(visit) = me.upgrade() {
                visit.on_open(&of);
            }
        });
    }

    fn on_open(&self, label: &str) {
        if let Some(connection) = self.connection() {
            connection.on_channel(label);
        }
    }

    /// Sends a message whole or not at all; what cannot be is told where that is wanted.
    pub(super) fn send(&self, message: &Message) -> bool {
        let sent = self.try_send(message);
        if message.tell
            && let Some(connection) = self.connection()
            && let Some(problem) = sent.problem(message.channel.as_deref())
        {
            connection.complain(&problem);
        }
        sent == Sent::Yes
    }

    fn try_send(&self, message: &Message) -> Sent {
        let open = |channel: &&WebRTCDataChannel| {
            let labelled = channel.label();
            let meant = match &message.channel {
                Some(label) => labelled.as_deref() == Some(label.as_str()),
                None => true,
            };
            meant && channel.ready_state() == WebRTCDataChannelState::Open
        };
        let channels = self.channels();
        let Some(channel) = channels.iter().find(open).cloned() else {
            return Sent::NoChannel;
        };
        drop(channels);
        let length = |payload: &Payload| payload.as_bytes().len() as u64;
        let longest = self.longest_message().unwrap_or(DEFAULT_LENGTH);
        if message.pieces.iter().any(|piece| length(piece) > longest) {
            return Sent::TooLong;
        }
        let whole: u64 = message.pieces.iter().map(length).sum();
        let waiting = channel.buffered_amount();
        if waiting > 0 && waiting + whole > MAX_WAITING {
            return Sent::Full;
        }
        for piece in &message.pieces {
            let sent = match piece {
                Payload::Text(text) => channel.send_string_full(Some(text)),
                Payload::Bytes(bytes) => channel.send_data_full(Some(&glib::Bytes::from(bytes))),
            };
            // It closed in this moment.
            if sent.is_err() {
                return Sent::NoChannel;
            }
        }
        Sent::Yes
    }

    fn longest_message(&self) -> Option<u64> {
        let transport: Option<glib::Object> = self.webrtcbin().property("sctp-transport");
        let longest: u64 = transport?.property("max-message-size");
        (longest > 0).then_some(longest)
    }

    /// How much of what was said has not reached the peer yet.
    pub(super) fn unsent(&self) -> usize {
        let channels = self.channels().clone();
        let waiting = channels.iter().map(WebRTCDataChannel::buffered_amount);
        waiting.sum::<u64>() as usize
    }
}

fn heard(visit: &Weak<Visit>, label: &str, data: &[u8], binary: bool) {
    let Some(visit) = visit.upgrade() else {
        return;
    };
    visit.on_sign_of_life();
    if let Some(connection) = visit.connection() {
        connection.on_message(label.to_owned(), data.to_vec(), binary, Instant::now());
    }
}
