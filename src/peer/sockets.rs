//! A UDP socket for each local address, all on one port where that can be had.
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
}

impl Sockets {
    /// Binds a socket to each address. Fails if there is none that can be bound.
    pub fn bind(addresses: Addresses, unsent: Counter) -> io::Result<Self> {
        let mut sockets = Self {
            port: addresses.port,
            addresses,
            bound: Vec::new(),
            index: HashMap::new(),
            turn: 0,
            unsent,
        };
        sockets.refresh()?;
        Ok(sockets)
    }

    /// Follows addresses that came and went.
    pub fn refresh(&mut self) -> io::Result<()> {
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
        host.chain(reflexive).collect()
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

    /// Sends a datagram from one of our addresses. What the kernel does not take at once is lost, as UDP may be.
    pub fn send(&mut self, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) {
        let Some(bound) = self.index.get(&source).map(|i| &self.bound[*i]) else {
            self.unsent.inc();
            return;
        };
        if bound.send(destination, bytes).is_err() {
            self.unsent.inc();
        }
    }

    /// The next datagram: how long it is, from where, to which of our addresses.
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<(usize, SocketAddr, SocketAddr)> {
        for step in 0..self.bound.len() {
            let at = (self.turn + step) % self.bound.len();
            let bound = &self.bound[at];
            let mut buffer = ReadBuf::new(bytes);
            // A pending ICMP error is reported once by the kernel; what follows it is read next.
            while let Poll::Ready(result) = bound.socket.poll_recv_from(context, &mut buffer) {
                if let Ok(source) = result {
                    self.turn = at + 1;
                    return Poll::Ready((buffer.filled().len(), source, bound.address));
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
