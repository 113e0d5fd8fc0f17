//! A file that comes in pieces over a data channel: index of the piece and number of all (u32, little endian), then its bytes.

/// The least a piece says of itself.
const HEADER: usize = 8;
/// Bytes of the file in each piece that is sent, but the last.
pub const CHUNK: usize = 48 * 1024;
/// Pieces are counted in 32 bits.
const LONGEST: u64 = u32::MAX as u64 * CHUNK as u64;

/// Follows one file; the channel keeps the order, so a piece that is ahead of its turn is a mistake.
#[derive(Debug)]
pub struct Upload {
    /// Bytes that are taken at most.
    limit: u64,
    next: u32,
    total: Option<u32>,
    bytes: u64,
}

/// What a message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A sign of life, which is answered by itself.
    Ping,
    /// It was there before.
    Repeated,
    Bytes {
        bytes: &'a [u8],
        /// The file is whole now.
        last: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    #[error("a piece of {0} bytes; {HEADER} bytes of header and some of the file are right")]
    Short(usize),
    #[error("piece {index} of {total}; indices from 0 below the total are right")]
    Index { index: u32, total: u32 },
    #[error("piece {index} came where {next} was to come")]
    Gap { index: u32, next: u32 },
    #[error("{now} pieces, and {before} before; the number stays the same")]
    Total { before: u32, now: u32 },
    #[error("a file of {bytes} bytes or more; at most {limit} are taken")]
    TooLong { bytes: u64, limit: u64 },
}

impl Upload {
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            next: 0,
            total: None,
            bytes: 0,
        }
    }

    pub fn take<'a>(&mut self, message: &'a [u8]) -> Result<Piece<'a>, UploadError> {
        if message.len() <= 1 {
            return Ok(Piece::Ping);
        }
        let (header, bytes) = message
            .split_first_chunk::<HEADER>()
            .filter(|(_, bytes)| !bytes.is_empty())
            .ok_or(UploadError::Short(message.len()))?;
        let [i0, i1, i2, i3, t0, t1, t2, t3] = *header;
        let index = u32::from_le_bytes([i0, i1, i2, i3]);
        let total = u32::from_le_bytes([t0, t1, t2, t3]);
        if index >= total {
            return Err(UploadError::Index { index, total });
        }
        match self.total {
            Some(before) if before != total => {
                return Err(UploadError::Total { before, now: total });
            }
            Some(_) => {}
            // All but the last piece are as long as the first.
            None => self.bound(u64::from(total - 1).saturating_mul(bytes.len() as u64))?,
        }
        if index < self.next {
            return Ok(Piece::Repeated);
        }
        if index > self.next {
            let next = self.next;
            return Err(UploadError::Gap { index, next });
        }
        self.bound(self.bytes + bytes.len() as u64)?;
        self.total = Some(total);
        self.bytes += bytes.len() as u64;
        self.next += 1;
        Ok(Piece::Bytes {
            bytes,
            last: self.next == total,
        })
    }

    fn bound(&self, bytes: u64) -> Result<(), UploadError> {
        let limit = self.limit;
        match bytes > limit {
            true => Err(UploadError::TooLong { bytes, limit }),
            false => Ok(()),
        }
    }
}

/// A file that has more pieces than can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a file of {0} bytes; at most {LONGEST} can be sent")]
pub struct TooLong(pub u64);

/// How many pieces a file of that many bytes is sent in; an empty one has none, and cannot be sent.
pub fn pieces(total_len: u64) -> Result<u32, TooLong> {
    u32::try_from(total_len.div_ceil(CHUNK as u64)).map_err(|_| TooLong(total_len))
}

/// The message that carries one piece: [`CHUNK`] bytes of the file, or fewer at its end.
pub fn piece(index: u32, total: u32, bytes: &[u8]) -> Vec<u8> {
    [&index.to_le_bytes()[..], &total.to_le_bytes(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8], last: bool) -> Result<Piece<'_>, UploadError> {
        Ok(Piece::Bytes { bytes, last })
    }

    #[test]
    fn pieces_make_a_file_and_repeated_ones_do_no_harm() {
        let mut upload = Upload::new(100);
        assert_eq!(upload.take(b""), Ok(Piece::Ping));
        assert_eq!(upload.take(b"x"), Ok(Piece::Ping));
        assert_eq!(upload.take(&piece(0, 2, b"ab")), whole(b"ab", false));
        assert_eq!(upload.take(&piece(0, 2, b"ab")), Ok(Piece::Repeated));
        assert_eq!(upload.take(&piece(1, 2, b"c")), whole(b"c", true));
        assert_eq!(upload.take(&piece(1, 2, b"c")), Ok(Piece::Repeated));
        assert_eq!(upload.take(&piece(0, 2, b"ab")), Ok(Piece::Repeated));
    }

    #[test]
    fn what_cannot_be_a_file_is_named() {
        let taken = |message: &[u8]| Upload::new(1_000).take(message).unwrap_err();
        assert_eq!(taken(b"ab"), UploadError::Short(2));
        assert_eq!(taken(&piece(0, 1, b"")), UploadError::Short(8));
        assert_eq!(
            taken(&piece(0, 0, b"a")),
            UploadError::Index { index: 0, total: 0 }
        );
        assert_eq!(
            taken(&piece(7, 7, b"a")),
            UploadError::Index { index: 7, total: 7 }
        );
        assert_eq!(
            taken(&piece(1, 7, b"a")),
            UploadError::Gap { index: 1, next: 0 }
        );
        let mut upload = Upload::new(1_000);
        assert_eq!(upload.take(&piece(0, 3, b"a")), whole(b"a", false));
        assert_eq!(
            upload.take(&piece(1, 4, b"a")),
            Err(UploadError::Total { before: 3, now: 4 })
        );
    }

    #[test]
    fn a_file_that_would_be_too_long_is_refused_before_it_comes() {
        let bomb = Upload::new(1 << 30)
            .take(&piece(0, u32::MAX, &[0; 48 * 1024]))
            .map(|_| ());
        assert!(matches!(bomb, Err(UploadError::TooLong { .. })), "{bomb:?}");
        let mut upload = Upload::new(10);
        assert_eq!(upload.take(&piece(0, 2, b"a")), whole(b"a", false));
        let last = piece(1, 2, &[0; 10]);
        let longer = upload.take(&last);
        assert_eq!(
            longer,
            Err(UploadError::TooLong {
                bytes: 11,
                limit: 10
            })
        );
    }

    #[test]
    fn what_is_sent_is_what_is_received() {
        for len in [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            let file: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let total = pieces(len as u64).unwrap();
            let mut upload = Upload::new(1 << 20);
            let mut received = Vec::new();
            for (index, bytes) in (0..).zip(file.chunks(CHUNK)) {
                let message = piece(index, total, bytes);
                let Ok(Piece::Bytes { bytes, last }) = upload.take(&message) else {
                    panic!("piece {index} of {total}");
                };
                received.extend_from_slice(bytes);
                assert_eq!(last, index + 1 == total);
            }
            assert_eq!(received, file);
        }
    }

    #[test]
    fn a_file_of_more_pieces_than_can_be_counted_is_not_sent() {
        assert_eq!(pieces(0), Ok(0));
        assert_eq!(pieces(LONGEST), Ok(u32::MAX));
        assert_eq!(pieces(LONGEST + 1), Err(TooLong(LONGEST + 1)));
        assert_eq!(pieces(u64::MAX), Err(TooLong(u64::MAX)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(messages: Vec<Vec<u8>>) {
            let mut upload = Upload::new(1_000);
            for message in &messages {
                let _ = upload.take(message);
            }
            proptest::prop_assert!(upload.bytes <= 1_000);
        }
    }
}
