//! A UDP socket for each local address, all on one port where that can be had, and what TURN servers relay.
//!
//! One for each address rather than a wildcard: a datagram's destination is then known, and so is the source an
//! answer leaves from.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use str0m::Candidate;
use stun_types::attribute::XorMappedAddress;
use stun_types::message::{BINDING, Message, MessageClass, MessageWriteVec, TransactionId};
use stun_types::prelude::*;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::relays::Relays;
use super::stage::Stage;
use crate::logic::ice_servers::{TransportPolicy, TurnServer};
use crate::logic::metrics::Metrics;
use crate::logic::registry::ConnectionId;

/// Most local addresses that are listened on.
const MAX_ADDRESSES: usize = 32;
/// How long what a STUN server said is believed; it also keeps the binding open.
const STUN_REFRESH: Duration = Duration::from_secs(15);
/// A server that has not answered yet is asked again after this.
const STUN_RETRY: Duration = Duration::from_secs(1);
/// Kernel buffer for what arrives while another datagram is handled: a few keyframes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Where connections may reach us.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// 0 is any port.
    pub port: u16,
    /// Empty: every local address.
    pub only: Vec<IpAddr>,
    pub stun_servers: Vec<SocketAddr>,
    pub turn_servers: Vec<TurnServer>,
    /// Where only relays may be used, no local address is listened on.
    pub policy: TransportPolicy,
}

/// What came, and which way.
pub struct Datagram {
    pub length: usize,
    pub source: SocketAddr,
    /// The address of ours that it came to, here or on a TURN server.
    pub destination: SocketAddr,
}

struct Bound {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    /// One for each STUN server that this socket reaches.
    questions: Vec<Question>,
}

/// What a STUN server is asked of one socket.
struct Question {
    server: SocketAddr,
    /// How the server sees the socket.
    reflexive: Option<SocketAddr>,
    /// The request under way, and when it went out.
    asked: Option<(TransactionId, Instant)>,
}

impl Question {
    /// To each server that such a socket reaches.
    fn to_all(servers: &[SocketAddr], from: IpAddr) -> Vec<Self> {
        let reaches = |server: &&SocketAddr| {
            from.is_ipv4() == server.is_ipv4() && (!from.is_loopback() || server.ip().is_loopback())
        };
        let servers = servers.iter().filter(reaches);
        let question = |server: &SocketAddr| Self {
            server: *server,
            reflexive: None,
            asked: None,
        };
        servers.map(question).collect()
    }
}

impl Bound {
    /// Past tokio, which would refuse to write before it has seen the socket writable.
    fn send(&self, destination: SocketAddr, bytes: &[u8]) -> io::Result<usize> {
        socket2::SockRef::from(&*self.socket).send_to(bytes, &destination.into())
    }
}

pub struct Sockets {
    addresses: Addresses,
    bound: Vec<Bound>,
    /// The port all sockets share once the first has one.
    port: u16,
    index: HashMap<SocketAddr, usize>,
    /// Where the next round of reading begins, so that no socket starves another.
    turn: usize,
    /// Datagrams that the kernel did not take.
    unsent: Counter,
    relays: Relays,
    /// Whether relays are read first, next time.
    relays_first: bool,
}

impl Sockets {
    /// Binds a socket to each address. Fails if there is none that can be bound.
    pub fn bind(
        addresses: Addresses,
        metrics: &Arc<Metrics>,
        stage: &Arc<dyn Stage>,
    ) -> io::Result<Self> {
        let relays = Relays::new(
            addresses.turn_servers.clone(),
            addresses.only.clone(),
            metrics.clone(),
            stage.clone(),
            Instant::now(),
        );
        let mut sockets = Self {
            port: addresses.port,
            addresses,
            bound: Vec::new(),
            index: HashMap::new(),
            turn: 0,
            unsent: metrics.datagrams_unsent(),
            relays,
            relays_first: false,
        };
        sockets.refresh()?;
        Ok(sockets)
    }

    /// Follows addresses that came and went.
    pub fn refresh(&mut self) -> io::Result<()> {
        if self.addresses.policy == TransportPolicy::Relay {
            return Ok(());
        }
        let wanted = match self.addresses.only.as_slice() {
            [] => local_addresses()?,
            only => only.to_vec(),
        };
        let before = self.bound.len();
        self.bound.retain(|b| wanted.contains(&b.address.ip()));
        let mut failed = None;
        for ip in wanted.into_iter().take(MAX_ADDRESSES) {
            if self.bound.iter().any(|b| b.address.ip() == ip) {
                continue;
            }
            match bind(ip, self.port).or_else(|error| match self.addresses.port {
                // Somebody else has our port on this address; another one will do.
                0 if self.port != 0 => bind(ip, 0),
                _ => Err(error),
            }) {
                Ok(socket) => {
                    let address = socket.local_addr()?;
                    self.port = address.port();
                    self.bound.push(Bound {
                        socket: Arc::new(socket),
                        address,
                        questions: Question::to_all(&self.addresses.stun_servers, ip),
                    });
                }
                Err(error) => failed = Some((ip, error)),
            }
        }
        // One address may have come for another that went.
        let addresses = self.bound.iter().map(|b| b.address);
        self.index = addresses
            .enumerate()
            .map(|(i, address)| (address, i))
            .collect();
        match (self.bound.is_empty(), failed) {
            (true, Some((ip, error))) => Err(io::Error::new(
                error.kind(),
                format!("UDP {}: {error}", SocketAddr::new(ip, self.port)),
            )),
            (true, None) => Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "there is no local address",
            )),
            // A fixed port is a promise: half of it is not kept in silence.
            (false, Some((ip, error))) if self.addresses.port != 0 && before == 0 => {
                Err(io::Error::new(
                    error.kind(),
                    format!("UDP {}: {error}", SocketAddr::new(ip, self.port)),
                ))
            }
            _ => Ok(()),
        }
    }

    /// What is said to a peer.
    pub fn candidates(&self) -> Vec<Candidate> {
        let host = self
            .bound
            .iter()
            .filter_map(|b| Candidate::host(b.address, "udp").ok());
        let mut known = HashSet::new();
        let reflexive = self.bound.iter().flat_map(|bound| {
            let seen = bound.questions.iter().filter_map(|q| q.reflexive);
            seen.map(|seen| (seen, bound.address))
        });
        // Behind most networks all servers see the same.
        let reflexive = reflexive.filter(|pair| pair.0 != pair.1 && known.insert(*pair));
        let reflexive = reflexive
            .filter_map(|(seen, base)| Candidate::server_reflexive(seen, base, "udp").ok());
        host.chain(reflexive).chain(self.relayed()).collect()
    }

    /// Of these the ones on TURN servers, which come and go.
    pub fn relayed(&self) -> Vec<Candidate> {
        self.relays.candidates()
    }

    /// Whether a TURN server is asked for the first time: what is said to a peer may be more in a moment.
    pub fn are_settling(&self, now: Instant) -> bool {
        self.relays.are_settling(now)
    }

    /// Does what is due on TURN servers. Says when something is due again.
    pub fn tend_relays(&mut self, now: Instant) -> Option<Instant> {
        self.relays.tick(now)
    }

    /// A connection is gone.
    pub fn forget(&mut self, owner: &ConnectionId) {
        self.relays.forget(owner);
    }

    /// Asks the STUN servers how they see us, where that is due. Says when it is due again.
    pub fn ask_stun_servers(&mut self, now: Instant) -> Option<Instant> {
        for bound in &mut self.bound {
            let mut due = Vec::new();
            for question in &mut bound.questions {
                let again = match question.reflexive {
                    Some(_) => STUN_REFRESH,
                    None => STUN_RETRY,
                };
                if question.asked.is_none_or(|(_, at)| now >= at + again) {
                    let request = Message::builder_request(BINDING, MessageWriteVec::new());
                    question.asked = Some((request.transaction_id(), now));
                    due.push((question.server, request.finish()));
                }
            }
            for (server, request) in due {
                // A request that is lost is repeated.
                let _ = bound.send(server, &request);
            }
        }
        (!self.addresses.stun_servers.is_empty()).then_some(now + STUN_RETRY)
    }

    /// Takes an answer of a STUN server; `false` for every other datagram.
    pub fn take_stun_answer(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        if !self.addresses.stun_servers.contains(&source) {
            return false;
        }
        let Ok(message) = Message::from_bytes(bytes) else {
            return false;
        };
        let id = message.transaction_id();
        let bound = self.index.get(&destination).map(|i| &mut self.bound[*i]);
        let questions = bound.into_iter().flat_map(|bound| &mut bound.questions);
        let asked =
            |q: &&mut Question| q.server == source && q.asked.is_some_and(|(asked, _)| asked == id);
        let Some(question) = questions.into_iter().find(asked) else {
            return false;
        };
        if message.has_class(MessageClass::Success)
            && let Ok(seen) = message.attribute::<XorMappedAddress>()
        {
            question.reflexive = Some(seen.addr(id));
        }
        true
    }

    /// Sends a connection's datagram from one of our addresses. What the kernel does not take at once is lost, as UDP
    /// may be.
    pub fn send(
        &mut self,
        owner: &ConnectionId,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) {
        match self.index.get(&source).map(|i| &self.bound[*i]) {
            Some(bound) => {
                if bound.send(destination, bytes).is_err() {
                    self.unsent.inc();
                }
            }
            None => self.relays.send(owner, source, destination, bytes),
        }
    }

    /// The next datagram; `None` when something else has changed.
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<Option<Datagram>> {
        // In turn, so that neither starves the other.
        let relays_first = self.relays_first;
        self.relays_first = !relays_first;
        for relays in [relays_first, !relays_first] {
            let polled = match relays {
                true => self.poll_relays(context, bytes),
                false => self.poll_bound(context, bytes).map(Some),
            };
            if polled.is_ready() {
                return polled;
            }
        }
        Poll::Pending
    }

    fn poll_relays(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<Option<Datagram>> {
        let polled = self.relays.poll_receive(context);
        polled.map(|came| {
            let relayed = came?;
            let room = bytes.get_mut(..relayed.data.len())?;
            room.copy_from_slice(&relayed.data);
            Some(Datagram {
                length: relayed.data.len(),
                source: relayed.source,
                destination: relayed.destination,
            })
        })
    }

    fn poll_bound(&mut self, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<Datagram> {
        for step in 0..self.bound.len() {
            let at = (self.turn + step) % self.bound.len();
            let bound = &self.bound[at];
            let mut buffer = ReadBuf::new(bytes);
            // A pending ICMP error is reported once by the kernel; what follows it is read next.
            while let Poll::Ready(result) = bound.socket.poll_recv_from(context, &mut buffer) {
                if let Ok(source) = result {
                    self.turn = at + 1;
                    return Poll::Ready(Datagram {
                        length: buffer.filled().len(),
                        source,
                        destination: bound.address,
                    });
                }
            }
        }
        Poll::Pending
    }
}

fn bind(ip: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(SocketAddr::new(ip, port))?;
    socket.set_nonblocking(true)?;
    // The kernel may give less; it is a wish.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    UdpSocket::from_std(socket)
}

fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = if_addrs::get_if_addrs()?
        .iter()
        .map(if_addrs::Interface::ip)
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_unspecified(),
            // A link-local address means nothing without its interface.
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}
