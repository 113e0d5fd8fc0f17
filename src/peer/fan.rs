//! One encoder for many peers: each frame goes to every lane that takes its codec.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::codecs::Codec;
use super::encoders::can_encode;
use super::encoding::{Encoded, Taker};
use super::lane::Lane;
use crate::logic::registry::ConnectionId;

/// Between two keyframes, whoever asks: all peers pay for each.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

pub struct Fan {
    codec: Codec,
    bitrate: u32,
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// What comes in, where it is encoded already.
    comes_as: Mutex<Option<Codec>>,
}

impl Fan {
    pub fn new(codec: Codec, bitrate: u32) -> Self {
        Self {
            codec,
            bitrate,
            lanes: Mutex::default(),
            comes_as: Mutex::default(),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn all(&self) -> Vec<Arc<Lane>> {
        self.lanes().clone()
    }

    /// Once for each connection.
    pub fn add(&self, lane: Arc<Lane>) {
        let mut lanes = self.lanes();
        if lanes.iter().all(|l| l.connection() != lane.connection()) {
            lanes.push(lane);
        }
    }

    pub fn remove(&self, connection: &ConnectionId) {
        self.lanes().retain(|lane| lane.connection() != connection);
    }

    /// Lanes that take this codec rather than another one that could be made for them.
    fn takers(&self) -> Vec<Arc<Lane>> {
        let comes_as = *self.comes_as.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = self.lanes();
        if let Some(codec) = comes_as {
            let fits = |lane: &&Arc<Lane>| codec == self.codec && lane.codecs().contains(&codec);
            return lanes.iter().filter(fits).cloned().collect();
        }
        let taken = |lane: &&Arc<Lane>| {
            let codecs = lane.codecs();
            codecs.into_iter().find(|codec| can_encode(*codec)) == Some(self.codec)
        };
        lanes.iter().filter(taken).cloned().collect()
    }
}

impl Taker for Fan {
    fn codecs(&self) -> Vec<Codec> {
        match self.takers().is_empty() {
            true => Vec::new(),
            false => vec![self.codec],
        }
    }

    fn comes_as(&self, codec: Option<Codec>) {
        *self.comes_as.lock().unwrap_or_else(PoisonError::into_inner) = codec;
    }

    /// Somebody who is behind holds up nobody.
    fn admits(&self) -> bool {
        true
    }

    fn bitrate(&self) -> u32 {
        self.bitrate
    }

    fn take_keyframe_wish(&self) -> bool {
        // Who is behind would lose the keyframe too.
        let takers = self.takers();
        let wishes = takers.iter().filter(|lane| lane.has_room());
        // One keyframe is for all who wished for it.
        wishes.fold(false, |any, lane| lane.take_keyframe_wish() | any)
    }

    fn keyframe_interval(&self) -> Duration {
        KEYFRAME_INTERVAL
    }

    fn take(&self, frame: Encoded) {
        for lane in self.takers() {
            // Skipped to the next keyframe.
            if lane.has_room() {
                lane.send(frame.clone());
            } else {
                lane.lost();
            }
        }
    }
}
