//! To whom a TURN server relays for us: it asks for a permission for each address, and both sides keep them.
//!
//! A visitor names its addresses itself, so there are bounds: of one connection, and of all. What is said to an address
//! before it may be sent to waits, so that the first check of a connection is not lost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Addresses of one connection that are sent to; a client has a handful.
const MAX_OF_ONE: usize = 16;
/// Addresses that one allocation sends to. A permission is never taken back, so this bounds what one allocation serves.
const MAX_PEERS: usize = 512;
/// With so many another allocation is needed soon.
const CROWD: usize = MAX_PEERS * 3 / 4;
/// Datagrams to one address that wait for its permission.
const MAX_WAITING: usize = 4;
/// An address that the server refused is asked for again after this.
const REFUSED: Duration = Duration::from_secs(30);
/// With so many datagrams a peer is worth a channel, which saves 32 bytes of each.
const WORTH_A_CHANNEL: u32 = 32;
/// Peers that are counted for a channel; others do without.
const MAX_CHANNELS: usize = 512;

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Send,
    /// The same, and bind a channel to the peer.
    SendAndBind,
    /// It waits; ask for a permission.
    Ask,
    /// It waits.
    Wait,
    Drop(DropReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The server does not relay to that address.
    Refused,
    /// The bound of the connection, or of all.
    TooManyPeers,
    /// More waits for the permission already.
    Waiting,
    /// No relay has that address any more.
    Gone,
}

impl DropReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TooManyPeers => "too-many-peers",
            Self::Waiting => "waiting",
            Self::Gone => "gone",
        }
    }
}

enum Peer {
    Asked(VecDeque<(SocketAddr, Vec<u8>)>),
    Open,
    Refused(Instant),
}

/// The peers of one allocation; an owner is a connection.
pub struct RelayPeers<Owner> {
    peers: HashMap<IpAddr, Peer>,
    owners: HashMap<Owner, HashSet<IpAddr>>,
    /// Datagrams to each peer.
    sent: HashMap<SocketAddr, u32>,
}

impl<Owner> Default for RelayPeers<Owner> {
    fn default() -> Self {
        Self {
            peers: HashMap::new(),
            owners: HashMap::new(),
            sent: HashMap::new(),
        }
    }
}

impl<Owner: Clone + Eq + Hash> RelayPeers<Owner> {
    pub fn send(&mut self, owner: &Owner, to: SocketAddr, data: &[u8], now: Instant) -> Verdict {
        let ip = to.ip();
        let of_owner = self.owners.get(owner);
        if !of_owner.is_some_and(|ips| ips.contains(&ip)) {
            if of_owner.is_some_and(|ips| ips.len() >= MAX_OF_ONE) {
                return Verdict::Drop(DropReason::TooManyPeers);
            }
            if !self.peers.contains_key(&ip) && !self.has_room(now) {
                return Verdict::Drop(DropReason::TooManyPeers);
            }
            self.owners.entry(owner.clone()).or_default().insert(ip);
        }
        match self.peers.get_mut(&ip) {
            Some(Peer::Open) => self.count(to),
            Some(Peer::Asked(waiting)) if waiting.len() < MAX_WAITING => {
                waiting.push_back((to, data.to_owned()));
                Verdict::Wait
            }
            Some(Peer::Asked(_)) => Verdict::Drop(DropReason::Waiting),
            Some(Peer::Refused(until)) if *until > now => Verdict::Drop(DropReason::Refused),
            Some(Peer::Refused(_)) | None => {
                let waiting = VecDeque::from([(to, data.to_owned())]);
                self.peers.insert(ip, Peer::Asked(waiting));
                Verdict::Ask
            }
        }
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.peers.len() >= MAX_PEERS {
            self.peers
                .retain(|_, peer| !matches!(peer, Peer::Refused(until) if *until <= now));
        }
        self.peers.len() < MAX_PEERS
    }

    fn count(&mut self, to: SocketAddr) -> Verdict {
        if !self.sent.contains_key(&to) && self.sent.len() >= MAX_CHANNELS {
            return Verdict::Send;
        }
        let sent = self.sent.entry(to).or_default();
        *sent = sent.saturating_add(1);
        match *sent == WORTH_A_CHANNEL {
            true => Verdict::SendAndBind,
            false => Verdict::Send,
        }
    }

    /// The server relays to that address from now on; what waited for it is given back.
    pub fn permitted(&mut self, ip: IpAddr) -> VecDeque<(SocketAddr, Vec<u8>)> {
        match self.peers.get_mut(&ip) {
            Some(peer) => match std::mem::replace(peer, Peer::Open) {
                Peer::Asked(waiting) => waiting,
                Peer::Open | Peer::Refused(_) => VecDeque::new(),
            },
            // Nobody asked.
            None => VecDeque::new(),
        }
    }

    /// The server does not; how many datagrams waited for it is told.
    pub fn refused(&mut self, ip: IpAddr, now: Instant) -> usize {
        match self.peers.get_mut(&ip) {
            Some(peer) => match std::mem::replace(peer, Peer::Refused(now + REFUSED)) {
                Peer::Asked(waiting) => waiting.len(),
                Peer::Open | Peer::Refused(_) => 0,
            },
            None => 0,
        }
    }

    pub fn forget(&mut self, owner: &Owner) {
        self.owners.remove(owner);
    }

    /// Whether there is room for few more peers.
    pub fn is_crowded(&self) -> bool {
        self.peers.len() >= CROWD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: u32, port: u16) -> SocketAddr {
        (IpAddr::V4(ip.into()), port).into()
    }

    fn open(peers: &mut RelayPeers<u32>, owner: u32, ip: u32, now: Instant) {
        let to = address(ip, 1);
        assert_eq!(peers.send(&owner, to, b"", now), Verdict::Ask);
        peers.permitted(to.ip());
    }

    #[test]
    fn what_is_said_before_the_permission_waits_for_it() {
        let (mut peers, now) = (RelayPeers::default(), Instant::now());
        assert_eq!(peers.send(&1, address(1, 1), b"a", now), Verdict::Ask);
        assert_eq!(peers.send(&1, address(1, 2), b"b", now), Verdict::Wait);
        assert_eq!(peers.send(&2, address(1, 1), b"c", now), Verdict::Wait);
        assert_eq!(peers.send(&2, address(1, 1), b"d", now), Verdict::Wait);
        let verdict = peers.send(&2, address(1, 1), b"e", now);
        assert_eq!(verdict, Verdict::Drop(DropReason::Waiting));
        let waited: Vec<_> = peers.permitted(address(1, 1).ip()).into();
        let data: Vec<_> = waited.iter().map(|(_, data)| &data[..]).collect();
        assert_eq!(data, [b"a", b"b", b"c", b"d"]);
        assert_eq!(waited[1].0, address(1, 2));
        assert_eq!(peers.send(&1, address(1, 1), b"f", now), Verdict::Send);
        assert!(peers.permitted(address(1, 1).ip()).is_empty());
    }

    #[test]
    fn an_address_that_was_refused_is_asked_for_again_later() {
        let (mut peers, now) = (RelayPeers::default(), Instant::now());
        let to = address(1, 1);
        assert_eq!(peers.send(&1, to, b"", now), Verdict::Ask);
        assert_eq!(peers.refused(to.ip(), now), 1);
        let refused = Verdict::Drop(DropReason::Refused);
        assert_eq!(peers.send(&1, to, b"", now + REFUSED / 2), refused);
        assert_eq!(peers.send(&1, to, b"", now + REFUSED), Verdict::Ask);
    }

    #[test]
    fn one_connection_cannot_take_all_the_room() {
        let (mut peers, now) = (RelayPeers::default(), Instant::now());
        for ip in 0..MAX_OF_ONE as u32 {
            open(&mut peers, 1, ip, now);
        }
        let full = Verdict::Drop(DropReason::TooManyPeers);
        assert_eq!(peers.send(&1, address(99, 1), b"", now), full);
        assert_eq!(peers.send(&1, address(0, 9), b"", now), Verdict::Send);
        assert_eq!(peers.send(&2, address(99, 1), b"", now), Verdict::Ask);
        peers.forget(&1);
        assert_eq!(peers.send(&1, address(99, 1), b"", now), Verdict::Wait);
    }

    #[test]
    fn an_allocation_is_crowded_before_it_is_full() {
        let (mut peers, now) = (RelayPeers::default(), Instant::now());
        for ip in 0..MAX_PEERS as u32 {
            assert_eq!(peers.is_crowded(), ip as usize >= CROWD);
            open(&mut peers, ip, ip, now);
        }
        let full = Verdict::Drop(DropReason::TooManyPeers);
        assert_eq!(peers.send(&9999, address(9999, 1), b"", now), full);
        // What was refused makes room when its time is over.
        peers.refused(address(0, 1).ip(), now);
        assert_eq!(peers.send(&9999, address(9999, 1), b"", now), full);
        let later = now + REFUSED;
        assert_eq!(
            peers.send(&9999, address(9999, 1), b"", later),
            Verdict::Ask
        );
    }

    #[test]
    fn a_peer_of_many_datagrams_gets_one_channel() {
        let (mut peers, now) = (RelayPeers::default(), Instant::now());
        open(&mut peers, 1, 1, now);
        let verdicts = (0..1000).map(|_| peers.send(&1, address(1, 1), b"", now));
        let binds: Vec<_> = verdicts
            .enumerate()
            .filter(|(_, v)| *v == Verdict::SendAndBind)
            .collect();
        assert_eq!(binds.len(), 1);
        assert_eq!(binds[0].0 as u32, WORTH_A_CHANNEL - 1);
        // Ports cost nothing to invent.
        for port in 2..=u16::MAX {
            peers.send(&1, address(1, port), b"", now);
        }
        assert_eq!(peers.sent.len(), MAX_CHANNELS);
    }
}
