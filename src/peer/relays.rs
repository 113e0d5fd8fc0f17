//! The addresses that TURN servers lend us: one on each server, shared by all connections.
//!
//! Each has a socket of its own, as a server knows a client by its port. What fails or is lost is tried again with growing
//! pauses, said once and counted. One that has nearly as many peers as it takes is followed by another, and given
//! back when nothing comes through it any more.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use str0m::Candidate;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::allocation::{Allocation, Failure, Standing};
use super::stage::Stage;
use crate::logic::ice_servers::TurnServer;
use crate::logic::metrics::{Metrics, RelayNews};
use crate::logic::registry::ConnectionId;
use crate::logic::relay_peers::DropReason;

/// An offer waits for a server's first answer until so long after the start.
const SETTLING: Duration = Duration::from_secs(2);
/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A name is looked up for as long.
const LOOKUP: Duration = Duration::from_secs(5);
/// Addresses on one server, of which the newest is told to visitors.
const MAX_RELAYS: usize = 4;
/// One that was followed by another is given back when nothing has come for so long: peers check a path that they
/// use every few seconds.
const UNUSED: Duration = Duration::from_secs(60);
/// Longest datagram of a server.
const MAX_DATAGRAM: usize = 2048;

/// What came through a relay.
pub struct Relayed {
    /// The peer.
    pub source: SocketAddr,
    /// Our address on the server.
    pub destination: SocketAddr,
    pub data: Vec<u8>,
}

pub struct Relays {
    servers: Vec<Server>,
    /// Local addresses that may be used; empty is any.
    only: Vec<IpAddr>,
    metrics: Arc<Metrics>,
    stage: Arc<dyn Stage>,
    buffer: Box<[u8; MAX_DATAGRAM]>,
    /// When something is to be done.
    due: Instant,
    /// Where the next round of reading begins, so that no server starves another.
    turn: usize,
}

struct Server {
    turn: TurnServer,
    /// Those that stand, oldest first.
    standing: VecDeque<Relay>,
    attempt: Option<Attempt>,
    /// Since it last went well.
    failures: u32,
    /// When it is tried next, if it is wanted.
    try_at: Instant,
    /// Until then offers wait for it.
    settles: Option<Instant>,
    /// It was said that it does not work.
    complained: bool,
}

enum Attempt {
    /// The name is looked up.
    Lookup(oneshot::Receiver<io::Result<SocketAddr>>),
    Asking(Box<Relay>),
}

struct Relay {
    socket: UdpSocket,
    allocation: Allocation,
    /// When something came from a peer.
    heard: Instant,
}

impl Relays {
    pub fn new(
        servers: Vec<TurnServer>,
        only: Vec<IpAddr>,
        metrics: Arc<Metrics>,
        stage: Arc<dyn Stage>,
        now: Instant,
    ) -> Self {
        let servers = servers.into_iter().filter(TurnServer::is_ours_too);
        let server = |turn| Server {
            turn,
            standing: VecDeque::new(),
            attempt: None,
            failures: 0,
            try_at: now,
            settles: Some(now + SETTLING),
            complained: false,
        };
        Self {
            servers: servers.map(server).collect(),
            only,
            metrics,
            stage,
            buffer: Box::new([0; MAX_DATAGRAM]),
            due: now,
            turn: 0,
        }
    }

    /// What visitors are told.
    pub fn candidates(&self) -> Vec<Candidate> {
        let newest = self.servers.iter().filter_map(|s| s.standing.back());
        let addresses = newest.filter_map(|relay| relay.allocation.addresses());
        addresses
            .filter_map(|(relayed, local)| Candidate::relayed(relayed, local, "udp").ok())
            .collect()
    }

    /// Whether a server has not answered yet, and is still waited for.
    pub fn are_settling(&self, now: Instant) -> bool {
        let mut settles = self.servers.iter().filter_map(|server| server.settles);
        settles.any(|until| now < until)
    }

    /// Sends a datagram from an address that a server has lent us; what cannot go is counted.
    pub fn send(
        &mut self,
        owner: &ConnectionId,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) {
        let now = Instant::now();
        let mut relays = self.servers.iter_mut().flat_map(|s| &mut s.standing);
        let relay = relays.find(|relay| relay.has(source));
        let sent = match relay {
            Some(relay) => {
                let sent = relay.with(now, |a| a.send(owner, destination, data, now));
                self.due = match relay.is_up() {
                    true => self.due.min(relay.allocation.poll_timeout()),
                    false => now,
                };
                sent.unwrap_or(Err(DropReason::Gone))
            }
            None => Err(DropReason::Gone),
        };
        if let Err(reason) = sent {
            self.metrics.relay_dropped(reason.as_str(), 1);
        }
    }

    /// A connection is gone.
    pub fn forget(&mut self, owner: &ConnectionId) {
        for relay in self.servers.iter_mut().flat_map(|s| &mut s.standing) {
            relay.allocation.forget(owner);
        }
    }

    /// Does what is due. Says when something is due again; `None` where there is nothing to do.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        if self.servers.is_empty() {
            return None;
        }
        if now >= self.due {
            for index in 0..self.servers.len() {
                self.tend(index, now);
            }
            let dues = self.servers.iter().flat_map(|server| server.dues(now));
            self.due = dues.fold(now + UNUSED, Instant::min);
        }
        Some(self.due)
    }

    /// What came from a peer; `None` is something else that came.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Relayed>> {
        let now = Instant::now();
        for step in 0..self.servers.len() {
            let index = (self.turn + step) % self.servers.len();
            let server = &mut self.servers[index];
            if let Some(Attempt::Lookup(lookup)) = &mut server.attempt
                && let Poll::Ready(found) = std::pin::Pin::new(lookup).poll(context)
            {
                let gone = || io::Error::other("nobody looks it up");
                self.ask(index, found.unwrap_or_else(|_| Err(gone())), now);
                self.due = now;
                return Poll::Ready(None);
            }
            let asking = match &mut server.attempt {
                Some(Attempt::Asking(relay)) => Some(&mut **relay),
                _ => None,
            };
            for relay in server.standing.iter_mut().chain(asking) {
                let mut buffer = ReadBuf::new(&mut self.buffer[..]);
                let Poll::Ready(read) = relay.socket.poll_recv(context, &mut buffer) else {
                    continue;
                };
                let received = match read {
                    Ok(()) => relay
                        .with(now, |a| a.receive(buffer.filled(), now))
                        .flatten(),
                    Err(_) => {
                        relay.with(now, |a| a.unreachable(now));
                        None
                    }
                };
                self.turn = index + 1;
                let came = received.zip(relay.allocation.addresses());
                return Poll::Ready(match came {
                    Some(((source, data), (destination, _))) => {
                        relay.heard = now;
                        Some(Relayed {
                            source,
                            destination,
                            data,
                        })
                    }
                    None => {
                        self.due = now;
                        None
                    }
                });
            }
        }
        Poll::Pending
    }

    fn tend(&mut self, index: usize, now: Instant) {
        let server = &mut self.servers[index];
        let mut lost = None;
        let mut dropped = 0;
        for relay in &mut server.standing {
            relay.with(now, |a| a.tick(now));
            dropped += relay.allocation.take_dropped();
            if let Standing::Failed(failure) = relay.allocation.standing() {
                lost = Some(failure.clone());
            }
        }
        if dropped > 0 {
            let reason = DropReason::Refused.as_str();
            self.metrics.relay_dropped(reason, dropped as u64);
        }
        let before = server.standing.len();
        server.standing.retain(Relay::is_up);
        let gone = before - server.standing.len();
        while server.standing.len() > 1 && now >= server.standing[0].heard + UNUSED {
            server.standing.pop_front();
        }
        let left = server.standing.len();
        self.metrics.relays(left as i64 - before as i64);
        for _ in 0..gone {
            self.metrics.relay(RelayNews::Lost);
        }
        if let Some(failure) = lost {
            self.failed(index, &failure.to_string(), now);
            // What was there a moment ago is tried again at once.
            self.servers[index].try_at = now;
        }

        let server = &mut self.servers[index];
        if let Some(Attempt::Asking(relay)) = &mut server.attempt {
            relay.with(now, |a| a.tick(now));
        }
        match server.attempt.take() {
            Some(Attempt::Asking(relay)) => match relay.allocation.standing().clone() {
                Standing::Asking => server.attempt = Some(Attempt::Asking(relay)),
                Standing::Relayed(relayed) => self.stands(index, *relay, relayed),
                Standing::Failed(failure) => {
                    self.metrics.relay(RelayNews::Failed);
                    self.failed(index, &failure.to_string(), now);
                }
            },
            Some(lookup) => server.attempt = Some(lookup),
            None if server.is_wanted() && now >= server.try_at => server.look_up(),
            None => {}
        }
    }

    fn stands(&mut self, index: usize, mut relay: Relay, relayed: SocketAddr) {
        let server = &mut self.servers[index];
        gst::info!(super::CAT, "{} relays {relayed} to us", server.turn);
        relay.heard = Instant::now();
        server.standing.push_back(relay);
        (server.failures, server.settles, server.complained) = (0, None, false);
        self.metrics.relays(1);
        self.metrics.relay(RelayNews::Made);
    }

    /// Says why, if that is news, and when it is tried again.
    fn failed(&mut self, index: usize, why: &str, now: Instant) {
        let server = &mut self.servers[index];
        server.settles = None;
        server.failures += 1;
        let pause = FIRST_PAUSE * 2u32.pow(server.failures.min(8) - 1);
        server.try_at = now + pause.min(LONGEST_PAUSE);
        if std::mem::replace(&mut server.complained, true) {
            gst::info!(super::CAT, "{} {why}", server.turn);
            return;
        }
        let text = format!(
            "turn-servers: {} {why}; it is tried again, and until then visitors are not reached through it",
            server.turn
        );
        self.stage.warn(&text);
    }

    /// The server's address is known: an address on it is asked for.
    fn ask(&mut self, index: usize, found: io::Result<SocketAddr>, now: Instant) {
        let turn = &self.servers[index].turn;
        let relay = found.and_then(|server| Relay::ask(server, turn, &self.only, now));
        match relay {
            Ok(relay) => self.servers[index].attempt = Some(Attempt::Asking(relay.into())),
            Err(error) => {
                self.servers[index].attempt = None;
                self.metrics.relay(RelayNews::Failed);
                self.failed(index, &format!("is not reached: {error}"), now);
            }
        }
    }
}

impl Server {
    /// Whether another address is. One that something comes through makes no room for it.
    fn is_wanted(&self) -> bool {
        let newest = self.standing.back();
        self.standing.len() < MAX_RELAYS && newest.is_none_or(|r| r.allocation.is_crowded())
    }

    fn look_up(&mut self) {
        let (reply, found) = oneshot::channel();
        let place = (self.turn.place.host.clone(), self.turn.place.port);
        self.attempt = Some(Attempt::Lookup(found));
        crate::runtime::runtime().spawn(async move {
            let lookup = tokio::time::timeout(LOOKUP, tokio::net::lookup_host(place));
            let found = match lookup.await {
                Ok(found) => found.and_then(|mut found| {
                    let none = || io::Error::other("the name has no address");
                    found.next().ok_or_else(none)
                }),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            // Nobody waits any more where everything was stopped.
            let _ = reply.send(found);
        });
    }

    fn dues(&self, now: Instant) -> impl Iterator<Item = Instant> {
        let attempt = match &self.attempt {
            Some(Attempt::Asking(relay)) => Some(relay.allocation.poll_timeout()),
            Some(Attempt::Lookup(_)) => None,
            None => self.is_wanted().then_some(self.try_at),
        };
        let standing = self.standing.iter().map(|r| r.allocation.poll_timeout());
        let settles = self.settles.filter(|until| now < *until);
        standing.chain(attempt).chain(settles)
    }
}

impl Relay {
    /// Asks that server for an address, from a port of our own.
    fn ask(
        server: SocketAddr,
        turn: &TurnServer,
        only: &[IpAddr],
        now: Instant,
    ) -> io::Result<Self> {
        let any = match server {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let local = only.iter().find(|ip| ip.is_ipv4() == server.is_ipv4());
        let socket = std::net::UdpSocket::bind((local.copied().unwrap_or(any), 0))?;
        // Of nobody else a datagram is taken.
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let mut relay = Self {
            socket: UdpSocket::from_std(socket)?,
            allocation: Allocation::new(local, server, turn, now),
            heard: now,
        };
        relay.with(now, |_| ());
        Ok(relay)
    }

    fn has(&self, relayed: SocketAddr) -> bool {
        self.allocation
            .addresses()
            .is_some_and(|(known, _)| known == relayed)
    }

    fn is_up(&self) -> bool {
        self.allocation.addresses().is_some()
    }

    /// Does something to the allocation, then sends what it wants sent. A server's bytes must not end more than what
    /// was had of that server.
    fn with<R>(&mut self, now: Instant, change: impl FnOnce(&mut Allocation) -> R) -> Option<R> {
        let allocation = &mut self.allocation;
        let Ok(done) = catch_unwind(AssertUnwindSafe(|| change(allocation))) else {
            allocation.fail(Failure::Broken);
            return None;
        };
        let socket = socket2::SockRef::from(&self.socket);
        let mut refused = false;
        while let Some(datagram) = allocation.poll_transmit() {
            // What the kernel does not take at once is lost, as UDP may be. It tells here of what was sent before.
            let sent = socket.send(&datagram);
            refused |= sent.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        }
        if refused {
            allocation.unreachable(now);
        }
        Some(done)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let now = Instant::now();
        self.with(now, |allocation| allocation.delete(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::allocation::tests::crowded;

    #[test]
    fn no_address_is_given_up_for_another_while_something_comes_through_it() {
        let _inside = crate::runtime::runtime().enter();
        let now = Instant::now();
        let relay = || {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.connect(socket.local_addr().unwrap()).unwrap();
            socket.set_nonblocking(true).unwrap();
            Relay {
                socket: UdpSocket::from_std(socket).unwrap(),
                allocation: crowded(now),
                heard: now,
            }
        };
        let mut server = Server {
            turn: "turn://u:p@192.0.2.1".parse().unwrap(),
            standing: (1..MAX_RELAYS).map(|_| relay()).collect(),
            attempt: None,
            failures: 0,
            try_at: now,
            settles: None,
            complained: false,
        };
        assert!(server.is_wanted());
        server.standing.push_back(relay());
        assert!(!server.is_wanted());
        server.standing.pop_front();
        assert!(server.is_wanted());
    }
}
