//! Visitors in a process of their own, who stay until they are told to go.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clip::Frame;
use crate::server::Server;
use crate::visitor::{self, Manner};

pub struct Crowd(Child);

impl Crowd {
    /// Returns when all are there.
    pub fn come(server: &Server, count: usize) -> Self {
        let mut child = server
            .visitors(count)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let out = child.stdout.take().expect("it is piped");
        let read = BufReader::new(out).read_line(&mut String::new());
        assert!(read.expect("it is read") > 0, "the visitors did not come");
        Self(child)
    }

    pub fn go(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("it ends").success());
    }
}

/// The visitors' process: says when all are there, and stays until its standard input ends.
pub fn be(url: &str, count: usize, frames: Vec<Frame>, apart: Duration) {
    let frames = Arc::new(frames);
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            std::thread::sleep(apart);
            let (url, frames, stop) = (url.to_owned(), frames.clone(), stop.clone());
            std::thread::spawn(move || visitor::visit(&url, &frames, Manner::Polite, &stop))
        })
        .collect();
    println!("there");
    let _ = std::io::stdin().read_line(&mut String::new());
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let visit = thread.join().expect("nobody panics");
        assert!(visit.refused.is_none(), "{:?}", visit.refused);
    }
}
