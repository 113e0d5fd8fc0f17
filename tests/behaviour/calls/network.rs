//! A network between two ends: loses, delays, reorders, duplicates and goes dark, the same way for the same seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// 0 to 1.
    pub loss: f64,
    /// 0 to 1.
    pub duplication: f64,
    /// What every datagram takes.
    pub delay: Duration,
    /// What it may take in addition; datagrams overtake each other.
    pub jitter: Duration,
    /// Bits a second that each destination can be sent; more waits, and what would wait for longer than half a second is lost.
    pub rate: Option<u64>,
    /// Since the bench began; nothing passes.
    pub blackout: Option<Range<Duration>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    pub at: Instant,
    /// Keeps the order of datagrams that arrive together.
    number: u64,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub bytes: Vec<u8>,
}

pub struct Network {
    pub conditions: Conditions,
    start: Instant,
    random: fastrand::Rng,
    number: u64,
    under_way: BinaryHeap<Reverse<Datagram>>,
    /// Until when the way to each destination is taken.
    busy: HashMap<SocketAddr, Instant>,
}

impl Network {
    pub fn new(seed: u64, start: Instant) -> Self {
        Self {
            conditions: Conditions::default(),
            start,
            random: fastrand::Rng::with_seed(seed),
            number: 0,
            under_way: BinaryHeap::new(),
            busy: HashMap::new(),
        }
    }

    pub fn send(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
    ) {
        let dark = self.conditions.blackout.clone();
        if dark.is_some_and(|dark| dark.contains(&(now - self.start))) {
            return;
        }
        let copies = 1 + usize::from(self.random.f64() < self.conditions.duplication);
        for _ in 0..copies {
            if self.random.f64() < self.conditions.loss {
                continue;
            }
            let mut leaves = now;
            if let Some(rate) = self.conditions.rate {
                let busy = self.busy.entry(destination).or_insert(now);
                if *busy > now + Duration::from_millis(500) {
                    continue;
                }
                let takes = Duration::from_secs_f64(bytes.len() as f64 * 8.0 / rate as f64);
                *busy = (*busy).max(now) + takes;
                leaves = *busy;
            }
            let jitter = self.conditions.jitter.mul_f64(self.random.f64());
            self.number += 1;
            self.under_way.push(Reverse(Datagram {
                at: leaves + self.conditions.delay + jitter,
                number: self.number,
                source,
                destination,
                bytes: bytes.to_vec(),
            }));
        }
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(datagram)| datagram.at)
    }

    pub fn arrive(&mut self, now: Instant) -> Option<Datagram> {
        if self.next_at()? > now {
            return None;
        }
        self.under_way.pop().map(|Reverse(datagram)| datagram)
    }
}
