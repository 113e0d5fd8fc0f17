//! Which of several servers is asked next: those that work in turn, one that failed last for a while. Knows no socket and
//! no clock.

use std::time::{Duration, Instant};

/// How long a server that failed once is asked last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// However often it failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Before all servers are asked again.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How each server did. They are numbered as in the list of the user.
pub struct Roster {
    servers: Vec<Standing>,
    /// Whose turn it is.
    next: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Works,
    /// So many failures in a row; it is asked last until then.
    Failed {
        times: u32,
        until: Instant,
        /// One frame is finding out whether it is back.
        tried: bool,
    },
}

impl Roster {
    pub fn new(servers: usize) -> Roster {
        Roster {
            servers: vec![Standing::Works; servers],
            next: 0,
        }
    }

    /// All servers in the order in which they are to be asked for one frame.
    pub fn order(&mut self, now: Instant) -> Vec<usize> {
        let count = self.servers.len();
        let mut order: Vec<_> = (0..count).map(|at| (self.next + at) % count).collect();
        self.next = (self.next + 1) % count;
        // One frame finds out whether a server is back: the others do not go the same way before that is known.
        let due = order.iter().position(|&server| match self.servers[server] {
            Standing::Works => false,
            Standing::Failed { until, .. } => until <= now,
        });
        let due = due.map(|at| order.remove(at));
        order.sort_by_key(|&server| match self.servers[server] {
            Standing::Works => None,
            Standing::Failed { until, .. } => Some(until),
        });
        if let Some(server) = due {
            if let Standing::Failed {
                times,
                until,
                tried,
            } = &mut self.servers[server]
            {
                *until = now + pause(*times);
                *tried = true;
            }
            order.insert(0, server);
        }
        order
    }

    /// It answered.
    pub fn worked(&mut self, server: usize) {
        self.servers[server] = Standing::Works;
    }

    /// It did not answer, or has no time now. Tells whether it worked before.
    pub fn failed(&mut self, server: usize, now: Instant) -> bool {
        let (before, counted) = match self.servers[server] {
            Standing::Works => (0, false),
            // Many frames fail together; that counts once.
            Standing::Failed {
                times,
                until,
                tried,
            } => (times, until > now && !tried),
        };
        let times = if counted { before } else { before + 1 };
        self.servers[server] = Standing::Failed {
            times,
            until: now + pause(times),
            tried: false,
        };
        before == 0
    }
}

fn pause(times: u32) -> Duration {
    let doubled = 1_u32 << times.saturating_sub(1).min(16);
    (FIRST_PAUSE * doubled).min(LONGEST_PAUSE)
}

/// How long to wait after so many rounds in which no server answered; `jitter` from 0 to 1 keeps those apart who failed
/// together.
pub fn wait(rounds: u32, jitter: f64) -> Duration {
    let longest = (FIRST_WAIT * (1 << rounds.min(16))).min(LONGEST_WAIT);
    longest.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_work_are_asked_in_turn() {
        let (mut roster, now) = (Roster::new(3), Instant::now());
        assert_eq!(roster.order(now), [0, 1, 2]);
        assert_eq!(roster.order(now), [1, 2, 0]);
        assert_eq!(roster.order(now), [2, 0, 1]);
        assert_eq!(roster.order(now), [0, 1, 2]);
    }

    #[test]
    fn one_that_failed_is_asked_last_until_one_frame_tries_it_again() {
        let (mut roster, now) = (Roster::new(3), Instant::now());
        assert!(roster.failed(0, now));
        assert!(!roster.failed(0, now));
        for _ in 0..4 {
            assert_eq!(roster.order(now).last(), Some(&0));
        }
        let later = now + FIRST_PAUSE;
        assert_eq!(roster.order(later).first(), Some(&0));
        for _ in 0..4 {
            assert_eq!(roster.order(later).last(), Some(&0));
        }
        roster.worked(0);
        let firsts: Vec<_> = (0..3).map(|_| roster.order(later)[0]).collect();
        assert!(firsts.contains(&0), "{firsts:?}");
    }

    #[test]
    fn one_that_keeps_failing_is_tried_more_and_more_seldom() {
        let (mut roster, mut now) = (Roster::new(2), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            roster.failed(1, now);
            let Standing::Failed { until, .. } = roster.servers[1] else {
                unreachable!()
            };
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn the_frame_that_finds_it_still_broken_counts_as_well() {
        let (mut roster, mut now) = (Roster::new(2), Instant::now());
        roster.failed(1, now);
        let mut pauses = Vec::new();
        for _ in 0..3 {
            now += LONGEST_PAUSE;
            assert_eq!(roster.order(now)[0], 1);
            now += FIRST_PAUSE / 2;
            roster.failed(1, now);
            roster.failed(1, now);
            let Standing::Failed { until, .. } = roster.servers[1] else {
                unreachable!()
            };
            pauses.push((until - now).as_secs());
        }
        assert_eq!(pauses, [2, 4, 8]);
    }

    #[test]
    fn when_none_works_all_are_asked() {
        let (mut roster, now) = (Roster::new(2), Instant::now());
        roster.failed(0, now);
        roster.failed(1, now);
        let mut order = roster.order(now);
        order.sort();
        assert_eq!(order, [0, 1]);
    }

    #[test]
    fn waits_double_up_to_a_second_and_keep_apart() {
        let millis = |rounds, jitter| wait(rounds, jitter).as_millis();
        assert_eq!([0, 1, 2].map(|rounds| millis(rounds, 1.0)), [20, 40, 80]);
        assert_eq!(millis(1, 0.0), 20);
        assert_eq!(millis(u32::MAX, 1.0), 1000);
    }
}
