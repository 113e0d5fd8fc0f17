//! The life of one connection: its phases, why it ended, and when silence means that the peer is gone.

use std::time::{Duration, Instant};

/// Where a connection is in its life; it only moves downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Its offer is being answered.
    Signalling,
    /// The answer is out; ICE and DTLS are at work.
    Connecting,
    /// Media and data can flow.
    Playing,
    /// EOS is going down its branches.
    Ending,
    /// Everything of it is freed.
    Ended,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signalling => "signalling",
            Self::Connecting => "connecting",
            Self::Playing => "playing",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }
}

/// Why a connection, or a stream of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    ClientClosed,
    PeerLost,
    TimeLimit,
    ClosedByApplication,
    SourceEnded,
    SetupTimeout,
    SetupFailed,
    HandlerError,
    ServerShutdown,
    /// The server that we called has closed.
    ServerClosed,
    /// The server that we called is there, and nothing comes from it.
    Stalled,
}

impl EndReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client-closed",
            Self::PeerLost => "peer-lost",
            Self::TimeLimit => "time-limit",
            Self::ClosedByApplication => "closed-by-application",
            Self::SourceEnded => "source-ended",
            Self::SetupTimeout => "setup-timeout",
            Self::SetupFailed => "setup-failed",
            Self::HandlerError => "handler-error",
            Self::ServerShutdown => "server-shutdown",
            Self::ServerClosed => "server-closed",
            Self::Stalled => "stalled",
        }
    }
}

impl EndReason {
    /// Whether the peer is there to be told why.
    pub fn is_ours(self) -> bool {
        match self {
            Self::TimeLimit
            | Self::ClosedByApplication
            | Self::SourceEnded
            | Self::HandlerError
            | Self::ServerShutdown
            | Self::Stalled => true,
            Self::ClientClosed
            | Self::PeerLost
            | Self::SetupTimeout
            | Self::SetupFailed
            | Self::ServerClosed => false,
        }
    }
}

/// How long silence is borne; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From the answer to the end of the DTLS handshake.
    pub setup: Option<Duration>,
    /// Between two datagrams of a connected peer.
    pub disconnect: Option<Duration>,
}

/// Tells a peer that went without a word.
#[derive(Debug, Clone)]
pub struct Watchdog {
    patience: Patience,
    connected: bool,
    /// When the connection was made, or the last datagram of a connected peer came.
    since: Instant,
}

impl Watchdog {
    pub fn new(patience: Patience, now: Instant) -> Self {
        Self {
            patience,
            connected: false,
            since: now,
        }
    }

    pub fn on_connected(&mut self, now: Instant) {
        self.connected = true;
        self.since = now;
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// A datagram of the peer came. Before the connection stands this proves nothing: anyone can send one.
    pub fn on_datagram(&mut self, now: Instant) {
        if self.connected {
            self.since = self.since.max(now);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        let patience = match self.connected {
            true => self.patience.disconnect,
            false => self.patience.setup,
        };
        patience.map(|p| self.since + p)
    }

    pub fn check(&self, now: Instant) -> Option<EndReason> {
        (self.deadline()? <= now).then_some(match self.connected {
            true => EndReason::PeerLost,
            false => EndReason::SetupTimeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        setup: Some(Duration::from_secs(10)),
        disconnect: Some(Duration::from_secs(5)),
    };

    #[test]
    fn a_peer_that_never_connects_times_out_whatever_it_sends() {
        let start = Instant::now();
        let mut dog = Watchdog::new(PATIENCE, start);
        dog.on_datagram(start + Duration::from_secs(9));
        assert_eq!(dog.check(start + Duration::from_millis(9_999)), None);
        assert_eq!(
            dog.check(start + Duration::from_secs(10)),
            Some(EndReason::SetupTimeout)
        );
    }

    #[test]
    fn a_silent_peer_is_lost_and_a_talking_one_is_not() {
        let start = Instant::now();
        let mut dog = Watchdog::new(PATIENCE, start);
        dog.on_connected(start);
        dog.on_datagram(start + Duration::from_secs(4));
        assert_eq!(dog.check(start + Duration::from_secs(8)), None);
        assert_eq!(
            dog.check(start + Duration::from_secs(9)),
            Some(EndReason::PeerLost)
        );
    }

    #[test]
    fn no_patience_limit_is_for_ever() {
        let start = Instant::now();
        let patience = Patience {
            setup: None,
            disconnect: None,
        };
        assert_eq!(Watchdog::new(patience, start).deadline(), None);
    }
}
