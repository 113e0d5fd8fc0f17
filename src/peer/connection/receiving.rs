//! A file that the visitor sends: checked as it comes, written by a thread of its own.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use tempfile::NamedTempFile;

use super::{Connection, lock};
use crate::logic::wire::dialect::Payload;
use crate::logic::wire::upload::{Piece, Upload};
use crate::peer::outbox::{Message, Waits};

/// Pieces that wait for the disk: some 12 MB.
const WAITING: usize = 256;

pub(super) struct Receiving {
    upload: Upload,
    /// Absent before the first piece and after the last one.
    writer: Option<SyncSender<Part>>,
}

enum Part {
    Bytes(Vec<u8>),
    Last(Vec<u8>),
}

impl Receiving {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            upload: Upload::new(limit),
            writer: None,
        }
    }

    /// Says why not, if the piece is no piece of a file.
    fn take(
        &mut self,
        data: &[u8],
        connection: &Weak<Connection>,
    ) -> Result<Option<Payload>, String> {
        let piece = self.upload.take(data);
        match piece.map_err(|error| error.to_string())? {
            Piece::Ping => return Ok(Some(Payload::Bytes(data.to_vec()))),
            Piece::Repeated => {}
            Piece::Bytes { bytes, last } => {
                let writer = match self.writer.take() {
                    Some(writer) => writer,
                    None => start(connection.clone())?,
                };
                let bytes = bytes.to_vec();
                let part = match last {
                    true => Part::Last(bytes),
                    false => Part::Bytes(bytes),
                };
                let sent = writer.try_send(part);
                sent.map_err(|_| "it comes faster than it can be written".to_owned())?;
                self.writer = (!last).then_some(writer);
            }
        }
        Ok(None)
    }
}

impl Connection {
    /// A piece of the visitor's file.
    pub(super) fn on_piece(&self, label: String, data: &[u8]) {
        let taken = match lock(&self.receiving).as_mut() {
            Some(receiving) => receiving.take(data, &self.me),
            None => return,
        };
        match taken {
            Ok(None) => {}
            Ok(Some(answer)) => {
                let message = Message {
                    channel: Some(label),
                    pieces: vec![answer],
                    tell: false,
                    waits: Waits::Not,
                };
                self.transport.send_message(&self.id, message, &self.outbox);
            }
            Err(why) => {
                // What was written so far goes with it.
                lock(&self.receiving).take();
                self.fail(format!("the file that was sent: {why}"));
            }
        }
    }
}

fn start(connection: Weak<Connection>) -> Result<SyncSender<Part>, String> {
    let (writer, parts) = sync_channel(WAITING);
    let write = move || match write(&parts) {
        Ok(Some(file)) => with(&connection, |connection| connection.on_file(file)),
        Ok(None) => {}
        Err(error) => with(&connection, |connection| {
            connection.fail(format!("the file that was sent cannot be kept: {error}"));
        }),
    };
    std::thread::Builder::new()
        .name("rtc-upload".into())
        .spawn(write)
        .map(|_| writer)
        .map_err(|error| error.to_string())
}

fn with(connection: &Weak<Connection>, what: impl FnOnce(&Arc<Connection>)) {
    if let Some(connection) = connection.upgrade() {
        what(&connection);
    }
}

/// The whole file; nothing where its sender went before it was whole.
fn write(parts: &Receiver<Part>) -> std::io::Result<Option<NamedTempFile>> {
    let mut file = NamedTempFile::with_prefix("rtcinference-")?;
    for part in parts {
        match part {
            Part::Bytes(bytes) => file.write_all(&bytes)?,
            Part::Last(bytes) => {
                file.write_all(&bytes)?;
                file.flush()?;
                return Ok(Some(file));
            }
        }
    }
    Ok(None)
}
