//! Visitors who come and go leave nothing behind.

use std::fs;

use crate::server::Server;
use crate::visitor::Manner;

/// Every so many visitors one vanishes.
const VANISHING: usize = 10;

#[test]
fn a_hundred_visitors_leave_threads_and_descriptors_as_they_were() {
    let server = Server::playing(
        "rtcsessionsrc listen=http://127.0.0.1:0 disconnect-timeout=500 video-chain=\"identity ! fakesink\"",
    );
    let mut level = None;
    for number in 0..100 {
        let manner = match number % VANISHING {
            1 => Manner::Vanishing,
            _ => Manner::Polite,
        };
        let visitor = server.visitor(manner);
        server.wait("rtc-stream-started", number + 1);
        visitor.leave();
        server.wait("rtc-connection-ended", number + 1);
        // What is made once has been made by then.
        if number == 5 {
            level = Some(counts());
        }
    }
    let (threads, descriptors) = level.unwrap();
    let after = server.wait_for("rest", || {
        let after = counts();
        (after.0 <= threads + 3 && after.1 <= descriptors + 3).then_some(after)
    });
    assert!(after.0.abs_diff(threads) <= 3 && after.1.abs_diff(descriptors) <= 3);
    let vanished = server
        .named("rtc-connection-ended")
        .iter()
        .filter(|ended| ended.get::<&str>("reason") == Ok("peer-lost"))
        .count();
    assert_eq!(vanished, 100 / VANISHING);
    server.stop();
}

/// Threads and file descriptors of this process, which is this test's own under nextest.
fn counts() -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    (count("task"), count("fd"))
}
