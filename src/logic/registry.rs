//! Which connections exist. A connection exists only through a [`Place`], whatever the door.
//!
//! One lock holds ids and the limit for all doors. Dropping a place frees it, on every path. One that is being
//! ended [leaves](Place::leave) first: its slot and its id are free at once, though it is not gone yet.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::shares::Network;

/// Candidates that wait for their offers, over all clients.
pub const EARLY_CANDIDATES: usize = 256;
/// Those of one address, which may be that of many.
pub const EARLY_OF_ADDRESS: usize = 64;
/// Those of one offer: more than a browser finds before its offer has left.
pub const EARLY_OF_ID: usize = 32;
/// How long one waits.
pub const EARLY_FOR: Duration = Duration::from_secs(10);
/// Connections that may be on their way out at once, or as many as may be present if that is more.
pub const MAX_LEAVING: usize = 16;

/// Our own unguessable name of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Arc<str>);

impl ConnectionId {
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ConnectionId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

/// Why a place is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{}", full(*.0))]
    Full(u32),
    #[error("{0} visitors who have left are still being taken apart; try again later")]
    Leaving(usize),
    #[error(
        "{0} connections of this address are not made yet (max-pending); try again when they are"
    )]
    Pending(u32),
    #[error("a connection with the id {0:?} exists already")]
    Duplicate(String),
    #[error("the server is shutting down")]
    Closed,
}

fn full(limit: u32) -> String {
    match limit {
        0 => "nobody is let in (max-connections is 0)".into(),
        _ => format!(
            "all {limit} places are taken (max-connections); try again when a visitor has left"
        ),
    }
}

struct Entry<T> {
    external_id: Option<String>,
    /// Where its offer came from.
    remote: Network,
    /// ICE and DTLS have not come to an end.
    pending: bool,
    /// Absent until the answer was handed out.
    handle: Option<T>,
    /// It is being ended, and takes up no slot any more.
    leaving: bool,
}

/// A candidate that came before the offer it belongs to.
struct Early {
    external_id: String,
    remote: Network,
    candidate: String,
    came: Instant,
}

struct Inner<T> {
    entries: HashMap<ConnectionId, Entry<T>>,
    early: VecDeque<Early>,
    limit: u32,
    max_pending: u32,
    closed: bool,
}

/// Where a candidate goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate<T> {
    For(T),
    Kept,
    /// Too many wait already.
    NoRoom,
}

impl<T: Clone> Inner<T> {
    fn find(&self, id: &str) -> Option<T> {
        let mut entries = self.entries.iter().filter(|(_, entry)| !entry.leaving);
        let (_, entry) =
            entries.find(|(own, e)| own.as_str() == id || e.external_id.as_deref() == Some(id))?;
        entry.handle.clone()
    }
}

impl<T> Inner<T> {
    fn present(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.values().filter(|entry| !entry.leaving)
    }

    fn refuses(&self, remote: Network) -> Option<Refused> {
        if self.present().count() as u64 >= u64::from(self.limit) {
            return Some(Refused::Full(self.limit));
        }
        // Those that do not get away in time are not let grow without bound either.
        let leaving = self.entries.values().filter(|entry| entry.leaving).count();
        if leaving >= MAX_LEAVING.max(self.limit as usize) {
            return Some(Refused::Leaving(leaving));
        }
        // One client that never comes shall not take every place.
        let pending = self.present().filter(|e| e.pending && e.remote == remote);
        (self.max_pending > 0 && pending.count() as u64 >= u64::from(self.max_pending))
            .then_some(Refused::Pending(self.max_pending))
    }
}

/// The connections of one `rtcsessionsrc`; `T` is what reaches one of them.
pub struct Registry<T> {
    inner: Arc<Mutex<Inner<T>>>,
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<T: Clone> Registry<T> {
    /// With places for `limit` connections, of which `max_pending` of one address may be on their way; 0 is any number.
    pub fn new(limit: u32, max_pending: u32) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                entries: HashMap::new(),
                early: VecDeque::new(),
                limit,
                max_pending,
                closed: false,
            })),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner<T>) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a place; it is free again when the returned value is dropped.
    pub fn reserve(&self, external_id: Option<&str>, remote: IpAddr) -> Result<Place<T>, Refused> {
        let remote = Network::from(remote);
        self.with(|inner| {
            if inner.closed {
                return Err(Refused::Closed);
            }
            if let Some(id) = external_id
                && inner
                    .present()
                    .any(|e| e.external_id.as_deref() == Some(id))
            {
                return Err(Refused::Duplicate(id.to_owned()));
            }
            if let Some(refused) = inner.refuses(remote) {
                return Err(refused);
            }
            let id = ConnectionId::random();
            inner.entries.insert(
                id.clone(),
                Entry {
                    external_id: external_id.map(str::to_owned),
                    remote,
                    pending: true,
                    handle: None,
                    leaving: false,
                },
            );
            Ok(Place {
                id,
                registry: self.clone(),
            })
        })
    }

    /// The connection of that id, ours or the client's, if its answer was handed out and it is not being ended.
    pub fn find(&self, id: &str) -> Option<T> {
        self.with(|inner| inner.find(id))
    }

    /// Takes a candidate of a client: for its connection, or kept for the offer that it has overtaken.
    pub fn candidate(
        &self,
        id: &str,
        candidate: &str,
        remote: IpAddr,
        now: Instant,
    ) -> Candidate<T> {
        let remote = Network::from(remote);
        self.with(|inner| {
            // Under the one lock that also commits: none is kept that nobody will ask for.
            if let Some(handle) = inner.find(id) {
                return Candidate::For(handle);
            }
            forget_old(&mut inner.early, now);
            let of = |is: &dyn Fn(&Early) -> bool| inner.early.iter().filter(|e| is(e)).count();
            // One client that sends no offer shall not take every place.
            if inner.closed
                || inner.early.len() >= EARLY_CANDIDATES
                || of(&|early| early.remote == remote) >= EARLY_OF_ADDRESS
                || of(&|early| early.external_id == id) >= EARLY_OF_ID
            {
                return Candidate::NoRoom;
            }
            inner.early.push_back(Early {
                external_id: id.to_owned(),
                remote,
                candidate: candidate.to_owned(),
                came: now,
            });
            Candidate::Kept
        })
    }

    /// The candidates that came before the offer of that client; they are not kept any more.
    pub fn take_candidates(&self, external_id: &str, now: Instant) -> Vec<String> {
        self.with(|inner| {
            forget_old(&mut inner.early, now);
            let (its, others) = std::mem::take(&mut inner.early)
                .into_iter()
                .partition(|early| early.external_id == external_id);
            inner.early = others;
            let its: VecDeque<Early> = its;
            its.into_iter().map(|early| early.candidate).collect()
        })
    }

    /// Every connection whose answer was handed out, those too that are being ended.
    pub fn all(&self) -> Vec<T> {
        self.with(|inner| {
            inner
                .entries
                .values()
                .filter_map(|e| e.handle.clone())
                .collect()
        })
    }

    /// Slots taken, by connections and by offers being answered.
    pub fn len(&self) -> usize {
        self.with(|inner| inner.present().count())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing is admitted any more.
    pub fn close(&self) {
        self.with(|inner| inner.closed = true);
    }
}

/// A place in the registry.
pub struct Place<T: Clone> {
    id: ConnectionId,
    registry: Registry<T>,
}

impl<T: Clone> Place<T> {
    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// The answer was handed out: by-id calls reach the connection from now on. Refused once the registry
    /// is closed, so that nothing slips in behind a shutdown that has already collected everyone.
    pub fn commit(&self, handle: T) -> Result<(), Refused> {
        self.registry.with(|inner| {
            if inner.closed {
                return Err(Refused::Closed);
            }
            if let Some(entry) = inner.entries.get_mut(&self.id) {
                entry.handle = Some(handle);
            }
            Ok(())
        })
    }
}

impl<T: Clone> Place<T> {
    /// ICE and DTLS have come to their end: it is pending no more.
    pub fn connected(&self) {
        self.registry.with(|inner| {
            if let Some(entry) = inner.entries.get_mut(&self.id) {
                entry.pending = false;
            }
        });
    }

    /// It is being ended: its slot and its client's id are free from now on.
    pub fn leave(&self) {
        self.registry.with(|inner| {
            if let Some(entry) = inner.entries.get_mut(&self.id) {
                entry.leaving = true;
            }
        });
    }
}

fn forget_old(early: &mut VecDeque<Early>, now: Instant) {
    while early
        .front()
        .is_some_and(|oldest| now.saturating_duration_since(oldest.came) >= EARLY_FOR)
    {
        early.pop_front();
    }
}

impl<T: Clone> Drop for Place<T> {
    fn drop(&mut self) {
        // The handle may hold the last reference to something that takes locks of its own.
        let entry = self.registry.with(|inner| inner.entries.remove(&self.id));
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_dropped_place_is_free_again() {
        let registry = Registry::<u32>::new(1, 0);
        let place = registry.reserve(None, HERE).unwrap();
        assert_eq!(registry.reserve(None, HERE).err(), Some(Refused::Full(1)));
        drop(place);
        assert!(registry.is_empty());
        assert!(registry.reserve(None, HERE).is_ok());
    }

    #[test]
    fn a_connection_is_found_between_commit_and_end() {
        let registry = Registry::new(2, 0);
        let place = registry.reserve(None, HERE).unwrap();
        let id = place.id().clone();
        assert_eq!(registry.find(id.as_str()), None);
        place.commit(7).unwrap();
        assert_eq!(registry.find(id.as_str()), Some(7));
        drop(place);
        assert_eq!(registry.find(id.as_str()), None);
    }

    #[test]
    fn a_connection_that_is_being_ended_frees_its_slot_and_its_id_at_once() {
        let registry = Registry::new(1, 0);
        let place = registry.reserve(Some("abc"), HERE).unwrap();
        place.commit(7).unwrap();
        assert_eq!(registry.find("abc"), Some(7));
        place.leave();
        assert_eq!((registry.len(), registry.find("abc")), (0, None));
        assert_eq!(registry.all(), [7], "it is not gone yet");
        let next = registry.reserve(Some("abc"), HERE).unwrap();
        drop(place);
        assert_eq!(registry.len(), 1);
        drop(next);
    }

    #[test]
    fn those_that_do_not_get_away_are_bounded() {
        let registry = Registry::<u32>::new(2, 0);
        let stuck: Vec<_> = (0..MAX_LEAVING)
            .map(|_| {
                let place = registry.reserve(None, HERE).unwrap();
                place.leave();
                place
            })
            .collect();
        let refused = registry.reserve(None, HERE).err();
        assert_eq!(refused, Some(Refused::Leaving(MAX_LEAVING)));
        drop(stuck);
        assert!(registry.reserve(None, HERE).is_ok());
    }

    #[test]
    fn candidates_wait_for_their_offer_so_many_and_so_long() {
        let registry = Registry::<u32>::new(2, 0);
        let start = Instant::now();
        let came = |id: &str, text: &str, at| registry.candidate(id, text, HERE, at);
        assert_eq!(came("a", "first", start), Candidate::Kept);
        assert_eq!(came("b", "other", start + EARLY_FOR / 2), Candidate::Kept);
        assert_eq!(came("a", "second", start + EARLY_FOR / 2), Candidate::Kept);
        let taken = registry.take_candidates("a", start + EARLY_FOR);
        assert_eq!(taken, ["second"], "the first has waited too long");
        assert!(registry.take_candidates("a", start + EARLY_FOR).is_empty());
        let place = registry.reserve(Some("d"), HERE).unwrap();
        place.commit(4).unwrap();
        let now = start + EARLY_FOR;
        assert_eq!(came("d", "of one that stands", now), Candidate::For(4));
        assert_eq!(registry.take_candidates("b", now), ["other"]);
    }

    #[test]
    fn candidates_of_one_client_leave_room_for_those_of_others() {
        let registry = Registry::<u32>::new(2, 0);
        let now = Instant::now();
        let there = |n: usize| IpAddr::from([192, 0, 2, n as u8]);
        let came = |id: &str, remote| registry.candidate(id, "one", remote, now);
        for _ in 0..EARLY_OF_ID {
            assert_eq!(came("a", HERE), Candidate::Kept);
        }
        assert_eq!(came("a", HERE), Candidate::NoRoom);
        for _ in EARLY_OF_ID..EARLY_OF_ADDRESS {
            assert_eq!(came("b", HERE), Candidate::Kept);
        }
        assert_eq!(came("c", HERE), Candidate::NoRoom);
        // An address that speaks for nobody else takes nothing from another.
        assert_eq!(came("c", there(0)), Candidate::Kept);
        for n in EARLY_OF_ADDRESS + 1..EARLY_CANDIDATES {
            assert_eq!(came(&n.to_string(), there(n)), Candidate::Kept);
        }
        assert_eq!(came("d", there(1)), Candidate::NoRoom);
        assert_eq!(registry.take_candidates("a", now).len(), EARLY_OF_ID);
        assert_eq!(came("d", there(1)), Candidate::Kept);
    }

    #[test]
    fn external_ids_are_unique_while_they_live() {
        let registry = Registry::<u32>::new(2, 0);
        let place = registry.reserve(Some("abc"), HERE).unwrap();
        assert_eq!(
            registry.reserve(Some("abc"), HERE).err(),
            Some(Refused::Duplicate("abc".into()))
        );
        drop(place);
        assert!(registry.reserve(Some("abc"), HERE).is_ok());
    }

    #[test]
    fn a_closed_registry_admits_nobody_not_even_who_was_being_answered() {
        let registry = Registry::<u32>::new(2, 0);
        let early = registry.reserve(None, HERE).unwrap();
        registry.close();
        assert_eq!(registry.reserve(None, HERE).err(), Some(Refused::Closed));
        assert_eq!(early.commit(1), Err(Refused::Closed));
    }

    #[test]
    fn connections_of_one_address_that_are_not_made_are_bounded() {
        let registry = Registry::<u32>::new(9, 2);
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
        let there = IpAddr::from([192, 0, 2, 1]);
        let reserve = |remote| registry.reserve(None, remote);
        let first = reserve(HERE).unwrap();
        let second = reserve(mapped).unwrap();
        assert_eq!(reserve(HERE).err(), Some(Refused::Pending(2)));
        let elsewhere = [there, there].map(|remote| reserve(remote).unwrap());
        assert_eq!(reserve(there).err(), Some(Refused::Pending(2)));
        first.commit(1).unwrap();
        assert_eq!(reserve(mapped).err(), Some(Refused::Pending(2)));
        first.connected();
        let third = reserve(HERE).unwrap();
        assert_eq!(reserve(HERE).err(), Some(Refused::Pending(2)));
        second.leave();
        let fourth = reserve(HERE).unwrap();
        drop(third);
        assert!(reserve(HERE).is_ok());
        assert_eq!(registry.len(), 2 + elsewhere.len());
        drop((first, second, fourth));
    }

    #[test]
    fn a_bound_of_zero_is_none() {
        let registry = Registry::<u32>::new(99, 0);
        let places: Vec<_> = (0..99).map(|_| registry.reserve(None, HERE)).collect();
        assert!(places.iter().all(Result::is_ok));
        assert_eq!(registry.reserve(None, HERE).err(), Some(Refused::Full(99)));
    }
}
