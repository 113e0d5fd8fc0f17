//! One side of a WebRTC call, and everything it needs: the only place that knows str0m.
//!
//! | part | job |
//! |---|---|
//! | [`call`] | one connection without sockets or clocks: negotiation, gaps, data channels, silence |
//! | [`session`] | what doors and the element hold: answers offers, ends connections, shuts down |
//! | `transport` | the one task that owns the sockets and drives every call |
//! | `outbox` | what is said to a peer's data channel, and how much of it waits |
//! | [`sockets`] | a UDP socket for each local address, and what STUN servers say of them |
//! | `relays` | the addresses that TURN servers lend us, and their sockets |
//! | `allocation` | one of these without sockets or clocks |
//! | [`connection`] | one connection's own task: its streams start and end in order, exactly once |
//! | [`scene`] | what it plays: the private pipeline and its branches |
//! | [`args`] | what an application sets in a connection's chains |
//! | [`branch`] | one stream's way: encoded frames → decoder → pad or chain, each step bounded |
//! | [`chain`] | the description of a processing bin, and what leaves it |
//! | [`encoders`] | which element encodes which codec, and how it is made to do so at once |
//! | [`encoding`] | raw frames in, encoded ones out, as whoever takes them wants them |
//! | [`lane`] | one stream to a peer: its m-line, its share of the bandwidth, its keyframes |
//! | [`dialled`] | sessions with servers that somebody in this process calls |
//! | [`directory`] | who is where in this process: sessions by name, and what is published to them |
//! | [`publication`] | one stream that is published: to its origin, to one visitor, to all |
//! | [`feed`] | what of it goes to whom: a bounded queue, continuity, and the thread that encodes |
//! | `webrtcbin` | the neighbour: a webrtcbin of the user's instead of all that |
//! | `fan` | one encoder for many peers |
//! | `inline` | elements between two pads of ours |
//! | [`pump`] | a source pad, the queue in front of it, and the thread that pushes |
//! | [`codecs`] | which codec is which caps, and which element decodes it |
//! | [`stage`] | what all of this needs of the element that owns it |

use std::sync::LazyLock;

pub mod agreement;
mod allocation;
pub mod args;
pub mod branch;
pub mod call;
pub mod chain;
pub mod codecs;
pub mod connection;
pub mod dialled;
pub mod directory;
pub mod encoders;
pub mod encoding;
mod fan;
pub mod feed;
mod inlet;
mod inline;
pub mod lane;
mod outbox;
mod pictures;
mod planar;
pub mod publication;
pub mod pump;
mod relays;
pub mod scene;
pub mod session;
pub mod sockets;
pub mod stage;
pub mod supply;
mod transport;
pub mod webrtcbin;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtcpeer",
        gst::DebugColorFlags::empty(),
        Some("Connections of rtcsessionsrc"),
    )
});
