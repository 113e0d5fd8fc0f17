//! A file that a server is sent that we have called: read and sent piece by piece, as fast as the server takes it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Connection, lock};
use crate::logic::wire::dialect::Payload;
use crate::logic::wire::upload::{CHUNK, piece, pieces};
use crate::peer::outbox::{Message, Waits};

/// Between two words about how far it has come.
const PROGRESS: Duration = Duration::from_millis(500);
/// A server that takes no piece for that long takes no file.
const STUCK: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

impl Connection {
    /// The channel of that label is there to be sent the file on.
    pub(super) fn upload(&self, label: &str) {
        let Some(path) = lock(&self.uploading).take() else {
            return;
        };
        let (me, label) = (self.me.clone(), label.to_owned());
        let send = move || {
            if let Err(why) = send(&me, &label, &path)
                && let Some(me) = me.upgrade()
            {
                me.fail(format!("{} cannot be sent: {why}", path.display()));
            }
        };
        let thread = std::thread::Builder::new().name("rtc-upload".into());
        if let Err(error) = thread.spawn(send) {
            self.fail(format!("no thread to send the file from: {error}"));
        }
    }

    fn say_progress(&self, sent: u64, total: u64) {
        self.stage.post(
            gst::Structure::builder("rtc-upload-progress")
                .field("connection-id", self.id.as_str())
                .field("bytes", sent)
                .field("total", total)
                .build(),
        );
    }
}

fn send(connection: &Weak<Connection>, label: &str, path: &Path) -> Result<(), String> {
    let unreadable = |error: std::io::Error| error.to_string();
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let total = pieces(length).map_err(|error| error.to_string())?;
    let (mut sent, mut told) = (0, None::<Instant>);
    for index in 0..total {
        let mut bytes = Vec::with_capacity(CHUNK);
        let mut part = (&mut file).take(CHUNK as u64);
        part.read_to_end(&mut bytes).map_err(unreadable)?;
        let expected = (length - sent).min(CHUNK as u64);
        if bytes.len() as u64 != expected {
            return Err("it has become shorter meanwhile".into());
        }
        let message = || Message {
            channel: Some(label.to_owned()),
            pieces: vec![Payload::Bytes(piece(index, total, &bytes))],
            tell: false,
            waits: Waits::ForRoom,
        };
        let since = Instant::now();
        loop {
            let Some(me) = connection.upgrade() else {
                return Ok(());
            };
            let over = || me.end.get().is_some() || since.elapsed() >= STUCK;
            me.outbox.wait_for_room(over);
            if me.end.get().is_some() {
                return Ok(());
            }
            if me.transport.send_message(&me.id, message(), &me.outbox) {
                break;
            }
            if since.elapsed() >= STUCK {
                return Err("the server takes no more of it".into());
            }
            drop(me);
            std::thread::sleep(LOOK);
        }
        sent += expected;
        let is_last = index + 1 == total;
        if is_last || told.is_none_or(|told| told.elapsed() >= PROGRESS) {
            told = Some(Instant::now());
            with(connection, |me| {
                me.say_progress(sent, length);
                me.on_heard(Instant::now());
            });
        }
    }
    Ok(())
}

fn with(connection: &Weak<Connection>, what: impl FnOnce(&Arc<Connection>)) {
    if let Some(connection) = connection.upgrade() {
        what(&connection);
    }
}
