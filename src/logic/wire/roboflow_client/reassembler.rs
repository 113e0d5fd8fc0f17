//! Whole messages from the pieces a server sends: frame id, index of the piece and number of all (u32, little endian), then bytes.
//!
//! The server decides on every one of these numbers, so each has its bound here.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What a piece says of itself.
const HEADER: usize = 12;
/// Longest message, packed.
pub const MAX_MESSAGE: usize = 16 << 20;
/// What servers put in a piece.
const CHUNK: usize = 48 * 1024;
/// Pieces of a message beyond those that the longest one needs, for servers that cut them smaller.
const SLACK: u32 = 1024;
const MAX_PIECES: u32 = MAX_MESSAGE.div_ceil(CHUNK) as u32 + SLACK;
/// Messages that wait for pieces at a time.
const MAX_OPEN: usize = 16;
/// Bytes of all of them.
const MAX_BYTES: usize = 32 << 20;
/// From a message's first piece on. The channel is reliable: what is not whole by then never will be.
const PATIENCE: Duration = Duration::from_secs(10);

/// Messages in pieces, oldest first.
#[derive(Debug, Default)]
pub struct Reassembler {
    open: VecDeque<Open>,
    lost: Lost,
}

#[derive(Debug)]
struct Open {
    id: u32,
    total: u32,
    pieces: BTreeMap<u32, Vec<u8>>,
    /// Of all its pieces.
    bytes: usize,
    since: Instant,
}

/// Messages that never became whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Newer ones needed their place.
    pub crowded: u64,
    /// The rest did not come in time.
    pub late: u64,
    /// Their number of pieces changed, so another message was begun under their id.
    pub replaced: u64,
    /// They grew too long.
    pub too_long: u64,
}

/// A message that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole<'a> {
    /// `None` for one that came without a header.
    pub id: Option<u32>,
    pub bytes: Cow<'a, [u8]>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReassemblyError {
    #[error("piece {index} of {total} of message {id}; indices from 0 below the total are right")]
    Index { id: u32, index: u32, total: u32 },
    #[error("message {id} of {total} pieces; at most {MAX_PIECES} are taken")]
    TooManyPieces { id: u32, total: u32 },
    #[error("message {id} of {bytes} bytes or more; at most {MAX_MESSAGE} are taken")]
    TooLong { id: u32, bytes: usize },
}

impl Reassembler {
    /// The message that this one is, or makes whole. A text, and what is too short for a header, stands by itself.
    pub fn take<'a>(
        &mut self,
        message: &'a [u8],
        binary: bool,
        now: Instant,
    ) -> Result<Option<Whole<'a>>, ReassemblyError> {
        self.expire(now);
        let split = message.split_first_chunk::<HEADER>();
        let Some((header, bytes)) = split.filter(|_| binary) else {
            let bytes = Cow::Borrowed(message);
            return Ok(Some(Whole { id: None, bytes }));
        };
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *header;
        let [id, index, total] = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_le_bytes);
        if index >= total.max(1) {
            return Err(ReassemblyError::Index { id, index, total });
        }
        if total > MAX_PIECES {
            return Err(ReassemblyError::TooManyPieces { id, total });
        }
        self.add(id, index, total.max(1), bytes, now)
    }

    /// Gives up what waited too long.
    pub fn expire(&mut self, now: Instant) {
        let is_late = |open: &Open| now.saturating_duration_since(open.since) >= PATIENCE;
        while self.open.front().is_some_and(is_late) {
            self.open.pop_front();
            self.lost.late += 1;
        }
    }

    pub fn lost(&self) -> Lost {
        self.lost
    }

    fn add<'a>(
        &mut self,
        id: u32,
        index: u32,
        total: u32,
        bytes: &'a [u8],
        now: Instant,
    ) -> Result<Option<Whole<'a>>, ReassemblyError> {
        let at = self.open.iter().position(|open| open.id == id);
        let mut open = match at.and_then(|at| self.open.remove(at)) {
            Some(open) if open.total == total => open,
            other => {
                self.lost.replaced += u64::from(other.is_some());
                Open {
                    id,
                    total,
                    pieces: BTreeMap::new(),
                    bytes: 0,
                    since: now,
                }
            }
        };
        let is_new = !open.pieces.contains_key(&index);
        let length = open.bytes + if is_new { bytes.len() } else { 0 };
        if length > MAX_MESSAGE {
            self.lost.too_long += 1;
            return Err(ReassemblyError::TooLong { id, bytes: length });
        }
        if total == 1 {
            return Ok(Some(Whole {
                id: Some(id),
                bytes: Cow::Borrowed(bytes),
            }));
        }
        if is_new {
            open.pieces.insert(index, bytes.to_vec());
            open.bytes = length;
        }
        if open.pieces.len() as u64 == u64::from(total) {
            let mut whole = Vec::with_capacity(open.bytes);
            open.pieces
                .values()
                .for_each(|piece| whole.extend_from_slice(piece));
            return Ok(Some(Whole {
                id: Some(id),
                bytes: Cow::Owned(whole),
            }));
        }
        while self.open.len() >= MAX_OPEN || self.bytes() + open.bytes > MAX_BYTES {
            self.open.pop_front();
            self.lost.crowded += 1;
        }
        // Where it was in the row of ages.
        let newer = self
            .open
            .iter()
            .position(|other| other.since > open.since)
            .unwrap_or(self.open.len());
        self.open.insert(newer, open);
        Ok(None)
    }

    fn bytes(&self) -> usize {
        self.open.iter().map(|open| open.bytes).sum()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn piece(id: u32, index: u32, total: u32, bytes: &[u8]) -> Vec<u8> {
        let header = [id, index, total].map(u32::to_le_bytes);
        [header.as_flattened(), bytes].concat()
    }

    fn take(
        reassembler: &mut Reassembler,
        message: &[u8],
        now: Instant,
    ) -> Result<Option<Vec<u8>>, ReassemblyError> {
        let whole = reassembler.take(message, true, now)?;
        Ok(whole.map(|whole| whole.bytes.into_owned()))
    }

    #[test]
    fn pieces_in_any_order_make_the_message() {
        let (mut all, now) = (Reassembler::default(), Instant::now());
        assert_eq!(take(&mut all, &piece(7, 2, 3, b"c"), now), Ok(None));
        assert_eq!(take(&mut all, &piece(8, 0, 2, b"x"), now), Ok(None));
        assert_eq!(take(&mut all, &piece(7, 0, 3, b"a"), now), Ok(None));
        assert_eq!(take(&mut all, &piece(7, 0, 3, b"zz"), now), Ok(None));
        let last = piece(7, 1, 3, b"");
        let whole = all.take(&last, true, now).unwrap().unwrap();
        assert_eq!((whole.id, &*whole.bytes), (Some(7), &b"ac"[..]));
        let whole = take(&mut all, &piece(8, 1, 2, b"y"), now);
        assert_eq!(whole, Ok(Some(b"xy".to_vec())));
        assert!(all.open.is_empty());
        assert_eq!(all.lost(), Lost::default());
    }

    #[test]
    fn a_text_and_what_is_too_short_for_a_header_stand_by_themselves() {
        let (mut all, now) = (Reassembler::default(), Instant::now());
        let text = br#"{"errors":[],"x":0}"#;
        let whole = all.take(text, false, now).unwrap().unwrap();
        assert_eq!((whole.id, &*whole.bytes), (None, &text[..]));
        for length in 0..HEADER {
            let whole = take(&mut all, &text[..length], now);
            assert_eq!(whole, Ok(Some(text[..length].to_vec())));
        }
        let empty = take(&mut all, &piece(1, 0, 1, b""), now);
        assert_eq!(empty, Ok(Some(Vec::new())));
    }

    #[test]
    fn a_total_of_none_is_one() {
        let (mut all, now) = (Reassembler::default(), Instant::now());
        let whole = take(&mut all, &piece(1, 0, 0, b"a"), now);
        assert_eq!(whole, Ok(Some(b"a".to_vec())));
    }

    #[test]
    fn numbers_that_cannot_be_are_named_and_leave_nothing_behind() {
        let (mut all, now) = (Reassembler::default(), Instant::now());
        for (index, total) in [(1, 0), (1, 1), (9, 3), (u32::MAX, u32::MAX)] {
            let id = 5;
            assert_eq!(
                take(&mut all, &piece(id, index, total, b"a"), now),
                Err(ReassemblyError::Index { id, index, total })
            );
        }
        for total in [MAX_PIECES + 1, u32::MAX] {
            assert_eq!(
                take(&mut all, &piece(5, 0, total, b"a"), now),
                Err(ReassemblyError::TooManyPieces { id: 5, total })
            );
        }
        assert!(all.open.is_empty());
    }

    #[test]
    fn another_total_begins_another_message() {
        let (mut all, now) = (Reassembler::default(), Instant::now());
        assert_eq!(take(&mut all, &piece(1, 0, 3, b"old"), now), Ok(None));
        assert_eq!(take(&mut all, &piece(1, 0, 2, b"n"), now), Ok(None));
        let whole = take(&mut all, &piece(1, 1, 2, b"ew"), now);
        assert_eq!(whole, Ok(Some(b"new".to_vec())));
        assert_eq!(all.lost().replaced, 1);
    }

    #[test]
    fn what_is_not_whole_in_time_is_given_up() {
        let (mut all, now) = (Reassembler::default(), Instant::now());
        assert_eq!(take(&mut all, &piece(1, 0, 2, b"a"), now), Ok(None));
        let almost = now + PATIENCE - Duration::from_nanos(1);
        assert_eq!(take(&mut all, &piece(2, 0, 2, b"b"), almost), Ok(None));
        assert_eq!(all.lost().late, 0);
        let late = take(&mut all, &piece(1, 1, 2, b"c"), now + PATIENCE);
        assert_eq!((late, all.lost().late), (Ok(None), 1));
        all.expire(now + 3 * PATIENCE);
        assert_eq!((all.open.len(), all.lost().late), (0, 3));
    }

    #[test]
    fn the_oldest_makes_room_when_too_many_are_open() {
        let (mut all, now) = (Reassembler::default(), Instant::now());
        for id in 0..=MAX_OPEN as u32 {
            assert_eq!(take(&mut all, &piece(id, 0, 2, b"a"), now), Ok(None));
        }
        assert_eq!((all.open.len(), all.lost().crowded), (MAX_OPEN, 1));
        let whole = take(&mut all, &piece(1, 1, 2, b"b"), now);
        assert_eq!(whole, Ok(Some(b"ab".to_vec())));
        assert_eq!(take(&mut all, &piece(0, 1, 2, b"b"), now), Ok(None));
    }

    #[test]
    fn a_message_that_grows_too_long_is_dropped() {
        let (mut all, now) = (Reassembler::default(), Instant::now());
        let half = vec![0; MAX_MESSAGE / 2 + 1];
        assert_eq!(take(&mut all, &piece(1, 0, 3, &half), now), Ok(None));
        assert_eq!(take(&mut all, &piece(1, 0, 3, &half), now), Ok(None));
        let longer = take(&mut all, &piece(1, 1, 3, &half), now);
        let bytes = MAX_MESSAGE + 2;
        assert_eq!(longer, Err(ReassemblyError::TooLong { id: 1, bytes }));
        let alone = take(&mut all, &piece(2, 0, 1, &vec![0; MAX_MESSAGE + 1]), now);
        assert!(matches!(alone, Err(ReassemblyError::TooLong { .. })));
        assert_eq!((all.open.len(), all.lost().too_long), (0, 2));
    }

    #[test]
    fn all_together_stay_within_bounds() {
        let (mut all, now) = (Reassembler::default(), Instant::now());
        let long = vec![0; MAX_MESSAGE - 8];
        for id in 0..4 {
            assert_eq!(take(&mut all, &piece(id, 0, 2, &long), now), Ok(None));
            assert!(all.bytes() <= MAX_BYTES);
        }
        assert_eq!((all.open.len(), all.lost().crowded), (2, 2));
    }

    proptest::proptest! {
        #[test]
        fn a_message_cut_and_shuffled_anyhow_comes_whole(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..2_000), size in 2usize..300, seed: u64,
        ) {
            let pieces: Vec<_> = bytes.chunks(size).collect();
            let total = pieces.len() as u32;
            let mut order: Vec<u32> = (0..total).collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut order);
            let (mut all, now) = (Reassembler::default(), Instant::now());
            let mut wholes = Vec::new();
            for &index in &order {
                let message = piece(3, index, total, pieces[index as usize]);
                wholes.extend(take(&mut all, &message, now).unwrap());
            }
            proptest::prop_assert_eq!(wholes, vec![bytes]);
        }

        #[test]
        fn no_numbers_break_the_bounds(
            messages in proptest::collection::vec((0u32..40, 0u32..5, 0u32..5, 0usize..4, 0u64..4), 0..60),
        ) {
            let (mut all, mut now) = (Reassembler::default(), Instant::now());
            for (id, index, total, length, seconds) in messages {
                now += Duration::from_secs(seconds);
                let _ = take(&mut all, &piece(id, index, total, &vec![0; length << 20]), now);
                proptest::prop_assert!(all.open.len() <= MAX_OPEN && all.bytes() <= MAX_BYTES);
                proptest::prop_assert!(all.open.iter().all(|open| now - open.since < PATIENCE));
                proptest::prop_assert!(all.open.iter().map(|open| open.since).is_sorted());
            }
        }
    }
}
