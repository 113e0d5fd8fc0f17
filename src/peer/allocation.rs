//! One address on one TURN server, without sockets or clocks.
//!
//! An [`Allocation`] is told of datagrams and time, and says what to send to the server, what came from peers, and how
//! it stands. The protocol is the crate's; asked besides are what it does not tell: why there is no address, and, every
//! few seconds, whether the server still knows us.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun_types::TransportType::Udp;
use stun_types::attribute::ErrorCode;
use stun_types::message::{Message, MessageClass, MessageWriteVec, TransactionId};
use stun_types::prelude::*;
use turn_client_proto::api::{
    Transmit, TurnClientApi, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet,
};
use turn_client_proto::stun::Instant as Time;
use turn_client_proto::stun::auth::{LongTermClientAuth, LongTermClientValidation};
use turn_client_proto::types::TurnCredentials;
use turn_client_proto::types::attribute::Lifetime;
use turn_client_proto::types::message::{ALLOCATE, REFRESH};
use turn_client_proto::udp::TurnClientUdp;

use crate::logic::ice_servers::TurnServer;
use crate::logic::registry::ConnectionId;
use crate::logic::relay_peers::{DropReason, RelayPeers, Verdict};

/// A request is repeated after this, then after twice as long, and so on.
const FIRST_REPEAT: Duration = Duration::from_millis(300);
const LONGEST_REPEAT: Duration = Duration::from_secs(1);
const REPEATS: u32 = 5;
/// An answer to the last repeat is waited for as long.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// How often the server is asked whether it still knows us; it also keeps the way through a NAT open.
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBE_REPEAT: Duration = Duration::from_millis(500);
const PROBES: u32 = 6;
/// What a refresh asks for, seconds; the server gives what it likes.
const LIFETIME: u32 = 1800;
/// Steps of the protocol at one time; more follow at the next.
const MAX_STEPS: usize = 64;

/// Why there is no address, or none any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("does not answer")]
    Silent,
    #[error("is not there: nothing listens on that port")]
    Unreachable,
    #[error("does not take the user name and password")]
    Unauthorized,
    #[error("refuses to relay, with error {0}")]
    Refused(u16),
    #[error("has forgotten us")]
    Forgotten,
    #[error("says what is not understood")]
    Broken,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Asking,
    /// Peers reach us at that address.
    Relayed(SocketAddr),
    /// For good.
    Failed(Failure),
}

pub struct Allocation {
    client: TurnClientUdp,
    /// The crate's time counts from here.
    epoch: Instant,
    local: SocketAddr,
    server: SocketAddr,
    standing: Standing,
    /// The request that was answered with the question for an account.
    challenged: Option<TransactionId>,
    /// The last error that the server answered with otherwise.
    error: Option<u16>,
    probe: Probe,
    peers: RelayPeers<ConnectionId>,
    transmits: VecDeque<Vec<u8>>,
    /// Datagrams that waited in vain.
    dropped: usize,
    timeout: Instant,
}

impl Allocation {
    pub fn new(local: SocketAddr, server: SocketAddr, turn: &TurnServer, now: Instant) -> Self {
        let credentials = TurnCredentials::new(&turn.username, &turn.password);
        let mut config = TurnConfig::new(credentials.clone());
        config.set_request_retransmits(FIRST_REPEAT, LONGEST_REPEAT, REPEATS, LAST_WAIT);
        let mut allocation = Self {
            client: TurnClientUdp::allocate(local, server, config),
            epoch: now,
            local,
            server,
            standing: Standing::Asking,
            challenged: None,
            error: None,
            probe: Probe::new(credentials, now),
            peers: RelayPeers::default(),
            transmits: VecDeque::new(),
            dropped: 0,
            timeout: now,
        };
        allocation.drain(now);
        allocation
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// As a candidate needs it: what peers reach, and what the server is asked from.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self.standing {
            Standing::Relayed(relayed) => Some((relayed, self.local)),
            _ => None,
        }
    }

    /// Whether there is room for few more peers.
    pub fn is_crowded(&self) -> bool {
        self.peers.is_crowded()
    }

    /// Sends a datagram to a peer of that connection, or keeps it until it may be sent.
    pub fn send(
        &mut self,
        owner: &ConnectionId,
        to: SocketAddr,
        data: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let relayed = self.addresses().ok_or(DropReason::Gone)?.0;
        if relayed.is_ipv4() != to.is_ipv4() {
            return Err(DropReason::Refused);
        }
        match self.peers.send(owner, to, data, now) {
            Verdict::Send => self.emit(to, data, now),
            Verdict::SendAndBind => {
                self.emit(to, data, now);
                // Without a channel it goes on as it is.
                let _ = self.client.bind_channel(Udp, to, self.time(now));
                self.drain(now);
            }
            Verdict::Ask => {
                let time = self.time(now);
                if self.client.create_permission(Udp, to.ip(), time).is_err() {
                    self.dropped += self.peers.refused(to.ip(), now);
                }
                self.drain(now);
            }
            Verdict::Wait => {}
            Verdict::Drop(reason) => return Err(reason),
        }
        Ok(())
    }

    /// A connection is gone.
    pub fn forget(&mut self, owner: &ConnectionId) {
        self.peers.forget(owner);
    }

    /// Takes a datagram of the server; what a peer sent is given back, with where from.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        if let Ok(message) = Message::from_bytes(bytes) {
            match self.probe.receive(&message, now) {
                Probed::NotOurs => self.look_at_error(&message),
                Probed::Known => {
                    self.drain(now);
                    return None;
                }
                Probed::Forgotten => {
                    self.fail(Failure::Forgotten);
                    return None;
                }
            }
        }
        let datagram = Transmit::new(bytes, Udp, self.server, self.local);
        match self.client.recv(datagram, self.time(now)) {
            TurnRecvRet::PeerData(data) => Some((data.peer, data.data().to_owned())),
            _ => {
                self.drain(now);
                None
            }
        }
    }

    /// Nobody listens where the server should be.
    pub fn unreachable(&mut self, now: Instant) {
        match self.standing {
            Standing::Asking => self.fail(Failure::Unreachable),
            // It may be starting again, and have forgotten us: that is asked.
            Standing::Relayed(_) => self.probe.hasten(now),
            Standing::Failed(_) => {}
        }
        self.drain(now);
    }

    /// Time has come: see [`Allocation::poll_timeout`].
    pub fn tick(&mut self, now: Instant) {
        self.drain(now);
    }

    /// When it wants to be told of time.
    pub fn poll_timeout(&self) -> Instant {
        self.timeout
    }

    /// What is to be sent to the server, until there is nothing more.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// Datagrams that waited for a permission in vain, since this was asked last.
    pub fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    /// Gives the address back.
    pub fn delete(&mut self, now: Instant) {
        if self.client.delete(self.time(now)).is_ok() {
            // Requests keep a distance that nobody waits for any more.
            let soon = self.time(now + Duration::from_secs(1));
            self.transmits
                .extend(self.client.poll_transmit(soon).map(|t| t.data.to_vec()));
        }
    }

    fn emit(&mut self, to: SocketAddr, data: &[u8], now: Instant) {
        match self.client.send_to(Udp, to, data, self.time(now)) {
            Ok(Some(built)) => self.transmits.push_back(built.build().data),
            Ok(None) => {}
            Err(_) => self.dropped += 1,
        }
    }

    /// Remembers why there is no address: the crate only tells that there is none.
    fn look_at_error(&mut self, message: &Message<'_>) {
        if self.standing != Standing::Asking
            || !message.has_class(MessageClass::Error)
            || !message.has_method(ALLOCATE)
        {
            return;
        }
        let id = message.transaction_id();
        let code = message.attribute::<ErrorCode>().map(|error| error.code());
        match code {
            Ok(ErrorCode::UNAUTHORIZED) => match self.challenged {
                None => self.challenged = Some(id),
                // Said again, because it was asked again.
                Some(challenged) if challenged == id => {}
                Some(_) => self.fail(Failure::Unauthorized),
            },
            Ok(ErrorCode::STALE_NONCE) | Err(_) => {}
            Ok(code) => self.error = Some(code),
        }
    }

    /// It is over; the first reason counts.
    pub fn fail(&mut self, failure: Failure) {
        if !matches!(self.standing, Standing::Failed(_)) {
            self.standing = Standing::Failed(failure);
        }
    }

    fn drain(&mut self, now: Instant) {
        let time = self.time(now);
        self.timeout = now + PROBE_EVERY;
        if let Standing::Relayed(_) = self.standing {
            match self.probe.tick(now) {
                Ok(request) => self.transmits.extend(request),
                Err(Silent) => self.fail(Failure::Silent),
            }
            self.timeout = self.timeout.min(self.probe.due);
        }
        for step in 0..MAX_STEPS {
            if matches!(self.standing, Standing::Failed(_)) {
                return;
            }
            while let Some(transmit) = self.client.poll_transmit(time) {
                self.transmits.push_back(transmit.data.to_vec());
            }
            while let Some(event) = self.client.poll_event() {
                self.on_event(event, now);
            }
            match self.client.poll(time) {
                TurnPollRet::WaitUntil(wake) if wake > time => {
                    let wait = wake.duration_since(time);
                    self.timeout = self.timeout.min(now + wait);
                    return;
                }
                TurnPollRet::Closed => self.closed(),
                // Something is due at once.
                _ if step + 1 == MAX_STEPS => self.timeout = now + FIRST_REPEAT,
                _ => {}
            }
        }
    }

    fn on_event(&mut self, event: TurnEvent, now: Instant) {
        match event {
            TurnEvent::AllocationCreated(_, relayed) if self.standing == Standing::Asking => {
                self.standing = Standing::Relayed(relayed);
                self.probe.due = now + PROBE_EVERY;
                self.timeout = self.timeout.min(self.probe.due);
            }
            TurnEvent::AllocationCreateFailed(_) => self.closed(),
            TurnEvent::PermissionCreated(_, ip) => {
                for (to, data) in self.peers.permitted(ip) {
                    self.emit(to, &data, now);
                }
            }
            TurnEvent::PermissionCreateFailed(_, ip) => {
                self.dropped += self.peers.refused(ip, now);
                // Perhaps because it does not know us any more.
                self.probe.hasten(now);
            }
            // Without a channel it goes on as it is.
            _ => {}
        }
    }

    fn closed(&mut self) {
        self.fail(match (&self.standing, self.error) {
            (Standing::Asking, Some(code)) => Failure::Refused(code),
            _ => Failure::Silent,
        });
    }

    fn time(&self, now: Instant) -> Time {
        let since = now.saturating_duration_since(self.epoch);
        Time::from_nanos(since.as_nanos() as i64)
    }
}

/// Nothing was answered, however often it was asked.
struct Silent;

enum Probed {
    NotOurs,
    Known,
    Forgotten,
}

/// Asks the server now and then whether it still knows us, by a refresh: one that was started again does not, and says so
/// by itself only minutes later.
struct Probe {
    auth: LongTermClientAuth,
    due: Instant,
    /// Requests whose answers are waited for, of one round.
    pending: Vec<TransactionId>,
}

impl Probe {
    fn new(credentials: TurnCredentials, now: Instant) -> Self {
        let mut auth = LongTermClientAuth::new();
        auth.set_credentials(credentials.into());
        Self {
            auth,
            due: now + PROBE_EVERY,
            pending: Vec::new(),
        }
    }

    fn hasten(&mut self, now: Instant) {
        if self.pending.is_empty() {
            self.due = self.due.min(now + PROBE_REPEAT);
        }
    }

    /// The next request, where it is time for one.
    fn tick(&mut self, now: Instant) -> Result<Option<Vec<u8>>, Silent> {
        if now < self.due {
            return Ok(None);
        }
        if self.pending.len() >= PROBES as usize {
            return Err(Silent);
        }
        self.due = now + PROBE_REPEAT;
        let mut request = Message::builder_request(REFRESH, MessageWriteVec::new());
        let added = request.add_attribute(&Lifetime::new(LIFETIME));
        added.expect("a request has room for it");
        self.pending.push(request.transaction_id());
        // The first is not signed: the answer says how to.
        let request = match self.auth.message_signature_bytes() {
            0 => request.finish(),
            _ => match self.auth.sign_outgoing_message(request) {
                Ok(request) => request.finish(),
                Err(_) => return Err(Silent),
            },
        };
        Ok(Some(request))
    }

    fn receive(&mut self, message: &Message<'_>, now: Instant) -> Probed {
        let id = message.transaction_id();
        if !message.is_response() || !self.pending.contains(&id) {
            return Probed::NotOurs;
        }
        match self.auth.validate_incoming_message(message) {
            Ok(LongTermClientValidation::ResendRequest(_)) => {
                self.due = now;
                Probed::Known
            }
            Ok(_) if message.has_class(MessageClass::Success) => {
                self.pending.clear();
                self.due = now + PROBE_EVERY;
                Probed::Known
            }
            Ok(_) => Probed::Forgotten,
            // Not by who knows the password; the server's own answer may follow.
            Err(_) => Probed::Known,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::LazyLock;

    use stun_types::attribute::{Nonce, Realm};
    use stun_types::message::{
        IntegrityAlgorithm, LongTermCredentials, MessageIntegrityCredentials,
    };
    use turn_client_proto::types::attribute::{Data, XorPeerAddress, XorRelayedAddress};
    use turn_client_proto::types::message::{CREATE_PERMISSION, DATA};

    use super::*;
    use crate::logic::registry::Registry;

    const REALM: &str = "test";
    const LOCAL: &str = "192.0.2.1:1";
    const SERVER: &str = "192.0.2.2:3478";
    const RELAYED: &str = "192.0.2.2:50000";
    const PEER: &str = "192.0.2.3:7";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    static OWNER: LazyLock<ConnectionId> = LazyLock::new(|| {
        let registry = Registry::<()>::new(1, 0);
        let place = registry.reserve(None, address(PEER).ip()).unwrap();
        place.id().clone()
    });

    /// As much of a TURN server as an allocation needs.
    struct FakeServer {
        password: &'static str,
        nonce: &'static str,
        /// What requests that are let in are answered with instead of success.
        error: Option<u16>,
    }

    impl FakeServer {
        fn new() -> Self {
            Self {
                password: "right",
                nonce: "nonce",
                error: None,
            }
        }

        /// What it answers to a datagram, if anything.
        fn answer(&self, bytes: &[u8]) -> Option<Vec<u8>> {
            let request = Message::from_bytes(bytes).ok()?;
            if !request.has_class(MessageClass::Request) {
                return None;
            }
            let account = LongTermCredentials::new("ann".into(), self.password.into());
            let key = MessageIntegrityCredentials::LongTerm(account.to_key(REALM.into()));
            let signed = request.validate_integrity(&key).is_ok();
            let fresh = request.attribute::<Nonce>();
            let fresh = fresh.is_ok_and(|nonce| nonce.nonce() == self.nonce);
            let error = match (signed, fresh) {
                (false, _) => Some(ErrorCode::UNAUTHORIZED),
                (true, false) => Some(ErrorCode::STALE_NONCE),
                (true, true) => self.error,
            };
            let write = MessageWriteVec::new();
            let mut answer = match error {
                Some(code) => {
                    let mut answer = Message::builder_error(&request, write);
                    let error = ErrorCode::builder(code).reason("no").build().unwrap();
                    answer.add_attribute(&error).unwrap();
                    answer.add_attribute(&Realm::new(REALM).unwrap()).unwrap();
                    answer
                        .add_attribute(&Nonce::new(self.nonce).unwrap())
                        .unwrap();
                    answer
                }
                None => {
                    let mut answer = Message::builder_success(&request, write);
                    answer.add_attribute(&Lifetime::new(LIFETIME)).unwrap();
                    if request.has_method(ALLOCATE) {
                        let relayed = address(RELAYED);
                        let relayed = XorRelayedAddress::new(relayed, request.transaction_id());
                        answer.add_attribute(&relayed).unwrap();
                    }
                    answer
                }
            };
            if signed {
                answer
                    .add_message_integrity(&key, IntegrityAlgorithm::Sha1)
                    .unwrap();
            }
            Some(answer.finish())
        }
    }

    fn allocation(now: Instant) -> Allocation {
        let turn = "turn://ann:right@192.0.2.2".parse().unwrap();
        Allocation::new(address(LOCAL), address(SERVER), &turn, now)
    }

    /// Lets time pass, with that server at the other end, or with nobody. Says what was sent meanwhile.
    fn pass(
        allocation: &mut Allocation,
        server: Option<&FakeServer>,
        now: &mut Instant,
        time: Duration,
    ) -> Vec<Vec<u8>> {
        let end = *now + time;
        let mut sent = Vec::new();
        loop {
            while let Some(datagram) = allocation.poll_transmit() {
                if let Some(answer) = server.and_then(|server| server.answer(&datagram)) {
                    allocation.receive(&answer, *now);
                }
                sent.push(datagram);
            }
            let wake = allocation.poll_timeout().max(*now);
            if wake >= end || matches!(allocation.standing, Standing::Failed(_)) {
                *now = end;
                return sent;
            }
            *now = wake + Duration::from_millis(1);
            allocation.tick(*now);
        }
    }

    fn standing(now: &mut Instant) -> (Allocation, FakeServer) {
        let (mut allocation, server) = (allocation(*now), FakeServer::new());
        pass(&mut allocation, Some(&server), now, Duration::from_secs(1));
        let relayed = Standing::Relayed(address(RELAYED));
        assert_eq!(allocation.standing, relayed);
        (allocation, server)
    }

    /// One that stands and serves nearly as many peers as it can.
    pub fn crowded(mut now: Instant) -> Allocation {
        let (mut allocation, _) = standing(&mut now);
        let mut peers =
            (1..=u32::MAX).map(|ip| SocketAddr::from((std::net::Ipv4Addr::from(ip), 7)));
        while !allocation.is_crowded() {
            let to = peers.next().unwrap();
            allocation
                .send(&ConnectionId::random(), to, b"", now)
                .unwrap();
        }
        allocation
    }

    #[test]
    fn what_a_server_refuses_is_told_apart() {
        let refused = |server: Option<&FakeServer>| {
            let mut now = Instant::now();
            let mut allocation = allocation(now);
            pass(&mut allocation, server, &mut now, Duration::from_secs(10));
            allocation.standing
        };
        let wrong = FakeServer {
            password: "other",
            ..FakeServer::new()
        };
        let full = FakeServer {
            error: Some(486),
            ..FakeServer::new()
        };
        for (server, failure) in [
            (Some(&wrong), Failure::Unauthorized),
            (Some(&full), Failure::Refused(486)),
            (None, Failure::Silent),
        ] {
            assert_eq!(refused(server), Standing::Failed(failure));
        }
        let mut allocation = allocation(Instant::now());
        allocation.unreachable(Instant::now());
        let unreachable = Standing::Failed(Failure::Unreachable);
        assert_eq!(allocation.standing, unreachable);
    }

    #[test]
    fn an_address_is_kept_for_hours() {
        let mut now = Instant::now();
        let (mut allocation, mut server) = standing(&mut now);
        for nonce in ["second", "third"] {
            server.nonce = nonce;
            let hours = Duration::from_secs(3 * 3600);
            pass(&mut allocation, Some(&server), &mut now, hours);
            let relayed = Standing::Relayed(address(RELAYED));
            assert_eq!(allocation.standing, relayed);
        }
    }

    #[test]
    fn a_server_that_has_forgotten_us_or_gone_is_found_out() {
        let mut now = Instant::now();
        let (mut allocation, mut server) = standing(&mut now);
        (server.nonce, server.error) = ("after the start", Some(437));
        pass(&mut allocation, Some(&server), &mut now, 2 * PROBE_EVERY);
        let forgotten = Standing::Failed(Failure::Forgotten);
        assert_eq!(allocation.standing, forgotten);

        let (mut allocation, _) = standing(&mut now);
        pass(&mut allocation, None, &mut now, 2 * PROBE_EVERY);
        let silent = Standing::Failed(Failure::Silent);
        assert_eq!(allocation.standing, silent);
    }

    #[test]
    fn the_first_datagram_to_a_peer_goes_out_with_its_permission() {
        let mut now = Instant::now();
        let (mut allocation, server) = standing(&mut now);
        let peer = address(PEER);
        allocation.send(&OWNER, peer, b"check", now).unwrap();
        let sent = pass(&mut allocation, Some(&server), &mut now, FIRST_REPEAT);
        let asked = Message::from_bytes(&sent[0]).unwrap();
        assert!(asked.has_method(CREATE_PERMISSION), "{asked}");
        let check = sent.last().unwrap();
        assert!(check.windows(5).any(|bytes| bytes == b"check"));

        let mut came = Message::builder_indication(DATA, MessageWriteVec::new());
        let id = came.transaction_id();
        came.add_attribute(&XorPeerAddress::new(peer, id)).unwrap();
        came.add_attribute(&Data::new(b"reply")).unwrap();
        let came = allocation.receive(&came.finish(), now);
        assert_eq!(came, Some((peer, b"reply".to_vec())));

        // Of the other family nothing goes through it.
        let other = address("[2001:db8::1]:7");
        let refused = allocation.send(&OWNER, other, b"check", now);
        assert_eq!(refused, Err(DropReason::Refused));
    }

    #[test]
    fn a_peer_that_the_server_does_not_relay_to_is_counted() {
        let mut now = Instant::now();
        let (mut allocation, mut server) = standing(&mut now);
        server.error = Some(403);
        allocation.send(&OWNER, address(PEER), b"", now).unwrap();
        pass(&mut allocation, Some(&server), &mut now, FIRST_REPEAT);
        assert_eq!(allocation.take_dropped(), 1);
        let refused = allocation.send(&OWNER, address(PEER), b"", now);
        assert_eq!(refused, Err(DropReason::Refused));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_of_a_server_make_it_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            changes in proptest::collection::vec((0usize..200, proptest::num::u8::ANY), 0..4),
            cut in 0usize..200,
        ) {
            let mut now = Instant::now();
            let (mut stands, server) = standing(&mut now);
            let mut asks = allocation(now);
            let request = asks.poll_transmit().unwrap();
            let mut answer = server.answer(&request).unwrap();
            for (at, byte) in changes {
                let length = answer.len();
                answer[at % length] = byte;
            }
            // A longer one is whole.
            answer.truncate(cut);
            for allocation in [&mut asks, &mut stands] {
                allocation.receive(&bytes, now);
                allocation.receive(&answer, now);
                allocation.tick(now + PROBE_EVERY);
            }
        }
    }
}
