//! A little state for each stream that passes, bounded: who was silent longest is forgotten first.

/// Streams remembered at a time; a funnel rarely joins more.
pub const MOST: usize = 64;

/// Values by stream-id, the most recently used last.
#[derive(Debug)]
pub struct PerStream<T> {
    streams: Vec<(String, T)>,
}

impl<T> Default for PerStream<T> {
    fn default() -> Self {
        PerStream {
            streams: Vec::new(),
        }
    }
}

impl<T: Default> PerStream<T> {
    /// The value of a stream, a fresh one for a stream not known.
    pub fn of(&mut self, stream_id: &str) -> &mut T {
        // From the back: almost always the last one again.
        match self.streams.iter().rposition(|(id, _)| id == stream_id) {
            Some(at) if at + 1 == self.streams.len() => {}
            Some(at) => self.streams[at..].rotate_left(1),
            None => {
                if self.streams.len() == MOST {
                    self.streams.remove(0);
                }
                self.streams.push((stream_id.to_owned(), T::default()));
            }
        }
        let (_, value) = self.streams.last_mut().expect("one was found or pushed");
        value
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.streams.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_do_not_share_their_values() {
        let mut counts = PerStream::<u32>::default();
        *counts.of("a") += 1;
        *counts.of("b") += 10;
        *counts.of("a") += 1;
        assert_eq!((*counts.of("a"), *counts.of("b")), (2, 10));
    }

    #[test]
    fn the_stream_silent_longest_is_forgotten_first() {
        let mut counts = PerStream::<u32>::default();
        for stream in 0..MOST {
            *counts.of(&stream.to_string()) = 1;
        }
        counts.of("0");
        counts.of("one more");
        assert_eq!(*counts.of("0"), 1);
        assert_eq!(*counts.of("1"), 0);
        assert_eq!(counts.streams.len(), MOST);
    }
}
