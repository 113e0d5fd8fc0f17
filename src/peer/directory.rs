//! Who is where in this process: sessions by name, and what is published to them.
//!
//! Elements reach the connections of another element only through this.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::codecs::Media;
use super::connection::Connection;
use super::session::Session;
use crate::logic::registry::ConnectionId;

/// Whoever publishes to a session; told from threads that serve every visitor, so it must not block.
pub trait Publisher: Send + Sync {
    /// A visitor's connection stands.
    fn joined(&self, connection: &Arc<Connection>);
    /// It has ended.
    fn left(&self, connection: &ConnectionId);
    /// What waits to be sent to that connection is of no more use.
    fn interrupt(&self, connection: &ConnectionId);
    /// The server that is sent to says something of the frame of those seconds, of its own clock.
    fn said(&self, _seconds: Option<f64>, _failed: bool) {}
}

struct Directory {
    sessions: Vec<(String, Weak<Session>)>,
    publishers: Vec<(String, Weak<dyn Publisher>)>,
    /// Numbers of published streams that are taken.
    claims: BTreeSet<(String, &'static str, u32)>,
    /// Sessions to which something is published of which nothing was known when it was started.
    reserved: Vec<(String, Weak<Reservation>)>,
}

static DIRECTORY: Mutex<Directory> = Mutex::new(Directory {
    sessions: Vec::new(),
    publishers: Vec::new(),
    claims: BTreeSet::new(),
    reserved: Vec::new(),
});

fn with<R>(look: impl FnOnce(&mut Directory) -> R) -> R {
    look(&mut DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The number of a published stream, from which its line follows; free again when this is dropped.
pub struct Claim {
    session: String,
    media: Media,
    pub number: u32,
}

impl Drop for Claim {
    fn drop(&mut self) {
        with(|directory| {
            let session = std::mem::take(&mut self.session);
            directory
                .claims
                .remove(&(session, self.media.as_str(), self.number))
        });
    }
}

/// Takes the lowest free number of that kind.
pub fn claim(session: &str, media: Media) -> Claim {
    with(|directory| {
        let taken = |number: &u32| {
            let claim = (session.to_owned(), media.as_str(), *number);
            directory.claims.contains(&claim)
        };
        let number = (0..).find(|number| !taken(number));
        let number = number.expect("there are fewer pads than numbers");
        let session = session.to_owned();
        directory
            .claims
            .insert((session.clone(), media.as_str(), number));
        Claim {
            session,
            media,
            number,
        }
    })
}

/// Says that something is published to a session, of whatever kind, as long as this lives.
pub struct Reservation {
    known: AtomicBool,
}

impl Reservation {
    /// What is published has claims of its own now.
    pub fn set_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

pub fn reserve(session: &str) -> Arc<Reservation> {
    let reservation = Arc::new(Reservation {
        known: AtomicBool::new(false),
    });
    with(|directory| {
        directory.reserved.retain(|(_, r)| r.strong_count() > 0);
        directory
            .reserved
            .push((session.to_owned(), Arc::downgrade(&reservation)));
    });
    reservation
}

/// How many streams of that kind are published to a session, or may yet be.
pub fn published(session: &str, media: Media) -> u32 {
    with(|directory| {
        let mut reservations = directory.reservations(session);
        let unknown = reservations.any(|r| !r.known.load(Ordering::Relaxed));
        directory.claimed(session, media).max(unknown.into())
    })
}

/// Whether nobody chose what is published to a session: it was started before anything was known of that.
pub fn is_reserved(session: &str) -> bool {
    with(|directory| directory.reservations(session).next().is_some())
}

impl Directory {
    fn reservations(&self, session: &str) -> impl Iterator<Item = Arc<Reservation>> {
        let named = self.reserved.iter().filter(move |(n, _)| n == session);
        named.filter_map(|(_, reservation)| reservation.upgrade())
    }

    fn claimed(&self, session: &str, media: Media) -> u32 {
        let claims = self.claims.iter();
        let ours = claims.filter(|(name, kind, _)| name == session && *kind == media.as_str());
        ours.map(|(.., number)| number + 1).max().unwrap_or(0)
    }
}

/// From now on the session can be found by that name, as long as it lives.
pub fn open_session(name: &str, session: &Arc<Session>) {
    with(|directory| {
        directory.sessions.retain(|(_, s)| s.strong_count() > 0);
        directory
            .sessions
            .push((name.to_owned(), Arc::downgrade(session)));
    });
}

/// From now on the publisher is told who comes to sessions of that name and who goes, as long as it lives.
pub fn publish(name: &str, publisher: &Arc<dyn Publisher>) {
    with(|directory| {
        directory.publishers.retain(|(_, p)| p.strong_count() > 0);
        directory
            .publishers
            .push((name.to_owned(), Arc::downgrade(publisher)));
    });
}

/// The latest session of that name.
pub fn session(name: &str) -> Option<Arc<Session>> {
    with(|directory| {
        let named = directory.sessions.iter().rev().filter(|(n, _)| n == name);
        named.filter_map(|(_, session)| session.upgrade()).next()
    })
}

/// Every connection of the sessions of that name.
pub fn connections(name: &str) -> Vec<Arc<Connection>> {
    let sessions: Vec<_> = with(|directory| {
        let named = directory.sessions.iter().filter(|(n, _)| n == name);
        named.filter_map(|(_, session)| session.upgrade()).collect()
    });
    sessions.iter().flat_map(|s| s.standing()).collect()
}

/// Tells the publishers of a session.
pub fn tell(name: &str, say: impl Fn(&dyn Publisher)) {
    let publishers: Vec<_> = with(|directory| {
        let named = directory.publishers.iter().filter(|(n, _)| n == name);
        named.filter_map(|(_, p)| p.upgrade()).collect()
    });
    for publisher in publishers {
        say(&*publisher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_published_streams_are_the_lowest_free_ones() {
        let name = "numbers_of_published_streams";
        let first = claim(name, Media::Video);
        let second = claim(name, Media::Video);
        let audio = claim(name, Media::Audio);
        assert_eq!((first.number, second.number, audio.number), (0, 1, 0));
        drop(first);
        assert_eq!(published(name, Media::Video), 2);
        assert_eq!(claim(name, Media::Video).number, 0);
        drop(second);
        assert_eq!(published(name, Media::Video), 0);
        assert_eq!(published("another", Media::Audio), 0);
    }

    #[test]
    fn what_is_reserved_is_of_any_kind_until_it_is_known() {
        let name = "what_is_reserved";
        let reservation = reserve(name);
        let _video = claim(name, Media::Video);
        assert_eq!(published(name, Media::Audio), 1);
        assert!(is_reserved(name));
        reservation.set_known();
        assert_eq!(published(name, Media::Audio), 0);
        assert_eq!(published(name, Media::Video), 1);
        assert!(is_reserved(name));
        drop(reservation);
        assert!(!is_reserved(name));
    }
}
