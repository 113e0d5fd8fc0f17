//! Who infers next, and with whom: the earliest deadline first, and frames of one model together.
//!
//! Told of everything by who runs things; times are since one common start.

use std::time::Duration;

/// Names one that waits or infers.
pub type Ticket = u64;

/// What one that waits asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Those of one group may infer together: the same model, the same kind of input.
    pub group: u64,
    /// Most that may infer together with this one, itself included; at least 1.
    pub most: usize,
    /// How long it would wait for company.
    pub patience: Duration,
    /// When its result is of no use any more.
    pub deadline: Duration,
    /// How long an inference is expected to take.
    pub takes: Duration,
    /// How much of the room an inference takes; at least 1.
    pub weight: usize,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// These infer together, the first one with the earliest deadline.
    Start(Vec<Ticket>),
    /// Nothing, until one comes or leaves, or this time: then a batch is full enough.
    Until(Duration),
    /// Nothing, until one comes or room is made.
    Nothing,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    terms: Terms,
    asked: Duration,
}

/// Those who wait, and the room that is left.
#[derive(Debug)]
pub struct Batching {
    room: usize,
    free: usize,
    /// By deadline, the earliest first; of equals, who asked first. No longer than there are threads that infer.
    waiting: Vec<Waiting>,
    /// The oldest first; of runs that ended a moment ago or since the latest one asked, so no more than fit into that.
    returning: Vec<Returning>,
    issued: Ticket,
}

/// Some of a group have shared a run, and are likely to ask again at once: to begin without them would leave them a run of their
/// own each time.
#[derive(Debug)]
struct Returning {
    group: u64,
    frames: usize,
    until: Duration,
}

impl Batching {
    /// With room for so many inferences of weight 1.
    pub fn new(room: usize) -> Self {
        Batching {
            room,
            free: room,
            waiting: Vec::new(),
            returning: Vec::new(),
            issued: 0,
        }
    }

    /// One more waits.
    pub fn ask(&mut self, terms: Terms, now: Duration) -> Ticket {
        self.issued += 1;
        let ticket = self.issued;
        self.returning.retain(|expected| expected.until > now);
        let mut returning = self.returning.iter_mut();
        if let Some(expected) = returning.find(|expected| expected.group == terms.group) {
            expected.frames -= 1;
        }
        self.returning.retain(|expected| expected.frames > 0);
        let later = |other: &Waiting| other.terms.deadline <= terms.deadline;
        let at = self.waiting.partition_point(later);
        let waiting = Waiting {
            ticket,
            terms,
            asked: now,
        };
        self.waiting.insert(at, waiting);
        ticket
    }

    /// One does not wait any more.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|waiting| waiting.ticket != ticket);
    }

    /// What to do now; who is to start waits no more, and has the room that it asked for.
    pub fn next(&mut self, now: Duration) -> Next {
        let mut open: Option<Duration> = None;
        let mut seen = Vec::new();
        for first in &self.waiting {
            let group = first.terms.group;
            if seen.contains(&group) {
                continue;
            }
            seen.push(group);
            // Who is first is not passed by a lighter one, else it might wait for ever.
            let weight = first.terms.weight.min(self.room);
            if weight > self.free {
                break;
            }
            let (members, closes) = self.company(group, weight);
            if closes > now {
                open = Some(open.map_or(closes, |open| open.min(closes)));
                continue;
            }
            self.free -= weight;
            self.waiting
                .retain(|waiting| !members.contains(&waiting.ticket));
            return Next::Start(members);
        }
        open.map_or(Next::Nothing, Next::Until)
    }

    /// An inference of that weight has ended.
    pub fn finish(&mut self, weight: usize) {
        self.free += weight.min(self.room);
    }

    /// So many of the group inferred together, and are likely to ask again by then, unless one alone did.
    pub fn expect(&mut self, group: u64, frames: usize, until: Duration) {
        if frames > 1 {
            self.returning.push(Returning {
                group,
                frames,
                until,
            });
        }
    }

    /// Who of the group would infer together, and from when on they no longer wait for more. Those who return are waited for
    /// where there is no room for a run of theirs.
    fn company(&self, group: u64, weight: usize) -> (Vec<Ticket>, Duration) {
        let mut members = Vec::new();
        let mut most = usize::MAX;
        let mut late = Duration::MAX;
        let mut patience = Duration::MAX;
        let of_group = self.waiting.iter().filter(|one| one.terms.group == group);
        for one in of_group {
            if members.len() >= most.min(one.terms.most) {
                break;
            }
            members.push(one.ticket);
            most = most.min(one.terms.most);
            let slack = one.terms.deadline.saturating_sub(one.terms.takes);
            late = late.min(slack);
            patience = patience.min(one.asked + one.terms.patience);
        }
        if members.len() >= most {
            return (members, Duration::ZERO);
        }
        let takes_last_room = self.free - weight < weight;
        let returning = self.returning.iter();
        let expected = returning
            .filter(|expected| takes_last_room && expected.group == group)
            .map(|expected| expected.until)
            .max();
        let expected = expected.unwrap_or_default();
        (members, late.min(patience.max(expected)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn terms(group: u64, deadline: u64) -> Terms {
        Terms {
            group,
            most: 1,
            patience: Duration::ZERO,
            deadline: at(deadline),
            takes: at(5),
            weight: 1,
        }
    }

    #[test]
    fn the_earliest_deadline_comes_first_and_of_equals_who_asked_first() {
        let mut batching = Batching::new(1);
        let [late, early, equal] =
            [30, 10, 10].map(|deadline| batching.ask(terms(1, deadline), at(0)));
        for expected in [early, equal, late] {
            assert_eq!(batching.next(at(0)), Next::Start(vec![expected]));
            assert_eq!(batching.next(at(0)), Next::Nothing);
            batching.finish(1);
        }
        assert_eq!(batching.next(at(0)), Next::Nothing);
    }

    #[test]
    fn who_left_is_not_called() {
        let mut batching = Batching::new(1);
        let gone = batching.ask(terms(1, 10), at(0));
        let here = batching.ask(terms(1, 20), at(0));
        batching.leave(gone);
        assert_eq!(batching.next(at(0)), Next::Start(vec![here]));
    }

    #[test]
    fn as_many_infer_at_once_as_there_is_room_for() {
        let mut batching = Batching::new(3);
        for _ in 0..4 {
            batching.ask(terms(1, 10), at(0));
        }
        let heavy = Terms {
            weight: 9,
            ..terms(2, 5)
        };
        let heavy = batching.ask(heavy, at(0));
        // It takes all of it, and comes first.
        assert_eq!(batching.next(at(0)), Next::Start(vec![heavy]));
        assert_eq!(batching.next(at(0)), Next::Nothing);
        batching.finish(9);
        for _ in 0..3 {
            assert!(matches!(batching.next(at(0)), Next::Start(_)));
        }
        assert_eq!(batching.next(at(0)), Next::Nothing);
    }

    #[test]
    fn a_heavy_one_is_not_passed_by_lighter_ones() {
        let mut batching = Batching::new(2);
        batching.ask(terms(1, 1), at(0));
        assert!(matches!(batching.next(at(0)), Next::Start(_)));
        let heavy = Terms {
            weight: 2,
            ..terms(2, 10)
        };
        let heavy = batching.ask(heavy, at(0));
        batching.ask(terms(1, 20), at(0));
        assert_eq!(batching.next(at(0)), Next::Nothing);
        batching.finish(1);
        assert_eq!(batching.next(at(0)), Next::Start(vec![heavy]));
    }

    #[test]
    fn those_of_a_model_that_wait_infer_together_up_to_what_each_bears() {
        let mut batching = Batching::new(1);
        let of = |group, most| Terms {
            most,
            ..terms(group, 10)
        };
        let [first, _other, second, third] = [(1, 3), (2, 3), (1, 2), (1, 3)]
            .map(|(group, most)| batching.ask(of(group, most), at(0)));
        assert_eq!(batching.next(at(0)), Next::Start(vec![first, second]));
        batching.finish(1);
        assert!(matches!(batching.next(at(0)), Next::Start(_)));
        batching.finish(1);
        assert_eq!(batching.next(at(0)), Next::Start(vec![third]));
    }

    #[test]
    fn a_batch_closes_when_it_is_full_or_its_oldest_has_waited_enough_or_would_be_late() {
        let patient = |deadline, patience| Terms {
            most: 2,
            patience: at(patience),
            ..terms(1, deadline)
        };
        let mut batching = Batching::new(1);
        let first = batching.ask(patient(100, 8), at(1));
        assert_eq!(batching.next(at(1)), Next::Until(at(9)));
        assert_eq!(batching.next(at(9)), Next::Start(vec![first]));
        batching.finish(1);

        let first = batching.ask(patient(100, 8), at(10));
        let second = batching.ask(patient(100, 8), at(11));
        assert_eq!(batching.next(at(11)), Next::Start(vec![first, second]));
        batching.finish(1);

        // Five take the inference.
        let hurried = batching.ask(patient(26, 8), at(20));
        assert_eq!(batching.next(at(20)), Next::Until(at(21)));
        assert_eq!(batching.next(at(21)), Next::Start(vec![hurried]));
    }

    #[test]
    fn those_who_shared_a_run_are_waited_for_a_moment() {
        let eager = Terms {
            most: 3,
            ..terms(1, 100)
        };
        let mut batching = Batching::new(1);
        batching.expect(1, 3, at(4));
        let first = batching.ask(eager, at(1));
        assert_eq!(batching.next(at(1)), Next::Until(at(4)));
        let second = batching.ask(eager, at(2));
        assert_eq!(batching.next(at(2)), Next::Until(at(4)));
        // Full before that.
        let third = batching.ask(eager, at(3));
        assert_eq!(
            batching.next(at(3)),
            Next::Start(vec![first, second, third])
        );
        batching.finish(1);

        // All who are expected are there, though there is room for more.
        batching.expect(1, 2, at(14));
        let first = batching.ask(eager, at(11));
        let second = batching.ask(eager, at(12));
        assert_eq!(batching.next(at(12)), Next::Start(vec![first, second]));
        batching.finish(1);

        // One does not come.
        batching.expect(1, 2, at(24));
        let alone = batching.ask(eager, at(21));
        assert_eq!(batching.next(at(23)), Next::Until(at(24)));
        assert_eq!(batching.next(at(24)), Next::Start(vec![alone]));
        batching.finish(1);

        // Nor is anybody waited for who would make a result late; five take the inference.
        batching.expect(1, 2, at(99));
        let hurried = batching.ask(eager, at(91));
        assert_eq!(batching.next(at(91)), Next::Until(at(95)));
        assert_eq!(batching.next(at(95)), Next::Start(vec![hurried]));
        batching.finish(1);

        // Who did not come after one run is not waited for after the next one.
        let later = Terms {
            deadline: at(200),
            ..eager
        };
        batching.expect(1, 2, at(114));
        batching.expect(1, 2, at(118));
        let both = [116, 116].map(|now| batching.ask(later, at(now)));
        assert_eq!(batching.next(at(116)), Next::Start(both.into()));
        batching.finish(1);

        // Who inferred alone is not waited for, and other models do not wait.
        batching.expect(1, 1, at(124));
        batching.expect(2, 2, at(124));
        let alone = batching.ask(later, at(121));
        assert_eq!(batching.next(at(121)), Next::Start(vec![alone]));
    }

    #[test]
    fn nobody_is_waited_for_who_would_find_room() {
        let eager = Terms {
            most: 3,
            ..terms(1, 100)
        };
        let mut batching = Batching::new(2);
        batching.expect(1, 3, at(4));
        let first = batching.ask(eager, at(1));
        assert_eq!(batching.next(at(1)), Next::Start(vec![first]));
        batching.ask(eager, at(2));
        assert_eq!(batching.next(at(2)), Next::Until(at(4)));
    }

    #[test]
    fn a_batch_that_waits_for_company_holds_up_no_other_model() {
        let mut batching = Batching::new(1);
        let patient = Terms {
            most: 2,
            patience: at(8),
            ..terms(1, 50)
        };
        batching.ask(patient, at(0));
        let other = batching.ask(terms(2, 90), at(0));
        assert_eq!(batching.next(at(0)), Next::Start(vec![other]));
        assert_eq!(batching.next(at(8)), Next::Nothing);
    }

    #[test]
    fn equal_streams_get_equal_shares_when_there_are_too_many() {
        let mut batching = Batching::new(2);
        let mut served = [0_u32; 7];
        let mut now = 0;
        let mut owners = std::collections::HashMap::new();
        for stream in 0..served.len() {
            owners.insert(batching.ask(terms(1, 1000 + now), at(now)), stream);
        }
        for _ in 0..700 {
            now += 3;
            let Next::Start(tickets) = batching.next(at(now)) else {
                panic!("everybody waits");
            };
            let stream = owners.remove(&tickets[0]).unwrap();
            served[stream] += 1;
            owners.insert(batching.ask(terms(1, 1000 + now), at(now)), stream);
            batching.finish(1);
        }
        assert_eq!(served, [100; 7]);
    }
}
