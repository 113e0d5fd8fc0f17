//! Keeps what goes out continuous, whatever comes in: [video] at its rate, [audio] by media time.
//!
//! The caller's thread asks [`tick`](audio::AudioContinuity::tick) with the time it is, does what it is told and
//! asks again, until it is told to wait. A push or a clear ends the wait. Times are running time throughout, less
//! the pipeline's latency where there is one: a frame is due at its own time.
//!
//! | rule | kept by | how |
//! |---|---|---|
//! | A1 silence until the first data | [audio] | |
//! | A2, A3 a gap within the tolerance, and beyond it | [audio] | |
//! | A4 the rest of a period is padded | [audio] | once it cannot be completed in time any more |
//! | A5 data resumes at once | [audio] | after nothing: at once; after silence: when the period of silence that went out is over |
//! | A6 paced by media time | [audio] | |
//! | A7 length of the tolerance | [audio] | a term, 100 ms by default |
//! | V1–V4 black, fresh, repeated, black | [video] | at once is: an eighth of a period after a filler at the soonest; a new source that is early for its places is held a little longer until they have moved |
//! | V5 the configured rate | [video] | fps ± 2 in any second, for a caller that is on time |
//! | V6 another size or format | [formats] | converted where that can be; frames are opaque to [video] |
//! | B1 stats | both | queued duration, and what became of all that was pushed |
//! | B2 clear, interrupt | both | one and the same: what waits goes, what follows is a gap |
//! | B3–B5 drained | [`Drain`] | see there |
//! | B6 of the publishing side only | both | nothing here receives |
//! | B7 capacity | both | audio: what does not fit is refused; video: the newest frame wins |
//! | F1, F2, F6, F7, F9–F11 formats | [formats] | the least that is accepted as it is; the rest is converted if it can be |
//! | F8 buffer sizes | [formats] | of audio (F3, F4) a buffer tells no number of frames besides its bytes |
//!
//! Only an element's business: P2 and P5–P9 (states and events of a publication, DTX, coded channels), F5 (which
//! caps belong to this publication), F12 (how long a buffer lives).

pub mod audio;
pub mod formats;
pub mod video;

use std::time::Duration;

/// What the caller does now. All but [`Wait`](Tick::Wait) means: do it, then ask again.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tick<O> {
    /// Send this, stamped `at`.
    Send { at: Duration, out: O },
    /// Tell the application that production fell behind.
    Drained,
    /// Nothing before this time, which is later than now (but for the end of time), unless something is pushed.
    Wait(Duration),
}

/// When the application is told that its queue ran empty.
///
/// It is told early, when the next piece is due and not there, if there was a stock that is used up: then it may
/// still be in time. Who has no stock (a microphone whose next piece is always only just there) is told no sooner
/// than when a gap has come of it. Either way once: only new data brings it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    /// Nothing was ever pushed.
    Unfed,
    /// There was a stock; the first data counts as one.
    Armed,
    /// It was told, and nothing was pushed since.
    Told,
    /// Something was pushed since, but no stock.
    Owed,
}

impl Drain {
    fn fed(&mut self, stock: bool) {
        *self = match *self {
            Self::Unfed => Self::Armed,
            _ if stock => Self::Armed,
            Self::Told => Self::Owed,
            same => same,
        };
    }

    /// What was cleared was not consumed: there is nothing to tell.
    fn cleared(&mut self) {
        if *self != Self::Unfed {
            *self = Self::Told;
        }
    }
}

/// From here on nothing is sent: no sum of times that are passed on may overflow.
const END: Duration = Duration::from_secs(u64::MAX / 2);

/// Duration of so many nanoseconds, as far as there is one.
fn nanos(n: u128) -> Duration {
    match u64::try_from(n / 1_000_000_000) {
        Ok(secs) => Duration::new(secs, (n % 1_000_000_000) as u32),
        Err(_) => Duration::MAX,
    }
}

/// Any time at all, the very last ones too.
#[cfg(test)]
fn any_time() -> impl proptest::strategy::Strategy<Value = Duration> {
    use proptest::prelude::*;
    let secs = prop_oneof![any::<u64>(), Just(0), Just(u64::MAX)];
    (secs, prop_oneof![0u32..1_000_000_000, Just(999_999_999)])
        .prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}
