use proptest::prelude::*;

use super::*;

type Frames = Admission<u32>;

const ADMITTED: Entry<u32> = Entry::Admitted { replaced: None };

fn enter(admission: &mut Frames, frame: u32, when_busy: WhenBusy) -> Entry<u32> {
    admission.approach("s", 1);
    admission.enter("s", frame, when_busy)
}

/// Works on the next frame and publishes its result; tells the frame and how many were dropped before it.
fn work(admission: &mut Frames) -> (u32, u64) {
    let (ticket, frame) = admission.take().expect("one waits");
    let conclusion = admission.conclude(ticket);
    admission.finish(ticket, conclusion, Outcome::Inferred);
    match conclusion {
        Conclusion::Publish { dropped } => (frame, dropped),
        Conclusion::Discard => panic!("{frame} was abandoned"),
    }
}

fn balanced(counts: Counts) -> bool {
    counts.received == counts.inferred + counts.failed + counts.dropped.total() + counts.pending
        && counts.pending <= 2 * 2
}

#[test]
fn the_newest_frame_waits_and_older_ones_are_dropped_as_busy() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Latest);
    let (ticket, _) = admission.take().unwrap();
    enter(&mut admission, 2, WhenBusy::Latest);
    for frame in 3..=5 {
        let replaced = Some(frame - 1);
        assert_eq!(
            enter(&mut admission, frame, WhenBusy::Latest),
            Entry::Admitted { replaced }
        );
    }
    assert_eq!(admission.counts().dropped.busy, 3);
    assert_eq!(admission.counts().pending, 2);
    let conclusion = admission.conclude(ticket);
    admission.finish(ticket, conclusion, Outcome::Inferred);
    assert_eq!(work(&mut admission).0, 5);
    assert!(admission.is_idle());
}

#[test]
fn a_frame_that_must_wait_finds_room_after_the_one_before() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Wait);
    assert_eq!(enter(&mut admission, 2, WhenBusy::Wait), Entry::Full(2));
    assert_eq!(admission.counts().received, 1);
    assert_eq!(admission.take().unwrap().1, 1);
    assert_eq!(admission.enter("s", 2, WhenBusy::Wait), ADMITTED);
    assert_eq!(admission.counts().dropped.total(), 0);
}

#[test]
fn a_frame_that_never_entered_was_late() {
    let mut admission = Frames::default();
    admission.approach("s", 1);
    admission.approach("s", 1);
    assert_eq!(admission.enter("s", 2, WhenBusy::Latest), ADMITTED);
    admission.settle(DropReason::Late);
    let counts = admission.counts();
    assert_eq!((counts.received, counts.dropped.late), (2, 1));
    assert_eq!(work(&mut admission), (2, 1));
}

#[test]
fn a_flush_drops_the_waiting_frame_and_the_one_in_work() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Latest);
    let (ticket, _) = admission.take().unwrap();
    enter(&mut admission, 2, WhenBusy::Latest);
    admission.flush();
    assert_eq!(admission.conclude(ticket), Conclusion::Discard);
    admission.finish(ticket, Conclusion::Discard, Outcome::Inferred);
    assert_eq!(
        enter(&mut admission, 3, WhenBusy::Latest),
        Entry::Refused(DropReason::Flush)
    );
    assert_eq!(admission.counts().dropped.flush, 3);
    admission.reopen();
    assert_eq!(enter(&mut admission, 4, WhenBusy::Latest), ADMITTED);
    assert_eq!(work(&mut admission), (4, 3));
}

#[test]
fn a_result_that_is_being_published_when_the_flush_comes_counts_as_inferred() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Latest);
    let (ticket, _) = admission.take().unwrap();
    let conclusion = admission.conclude(ticket);
    admission.flush();
    admission.finish(ticket, conclusion, Outcome::Inferred);
    assert_eq!(admission.counts().inferred, 1);
    assert_eq!(admission.counts().dropped.total(), 0);
}

#[test]
fn what_is_closed_stays_closed() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Latest);
    admission.close();
    admission.flush();
    admission.reopen();
    assert_eq!(
        enter(&mut admission, 2, WhenBusy::Latest),
        Entry::Refused(DropReason::Closed)
    );
    assert_eq!(admission.counts().dropped.closed, 2);
    assert!(admission.is_idle());
}

#[test]
fn a_result_tells_only_what_its_own_stream_lost() {
    let mut admission = Frames::default();
    for (stream, frame) in [("a", 1), ("b", 2), ("b", 3), ("b", 4), ("a", 5)] {
        admission.approach(stream, 1);
        admission.enter(stream, frame, WhenBusy::Latest);
    }
    assert_eq!(work(&mut admission), (5, 1));
    assert_eq!(work(&mut admission), (4, 2));
    admission.approach("b", 1);
    admission.enter("b", 6, WhenBusy::Latest);
    assert_eq!(work(&mut admission), (6, 0));
}

#[test]
fn each_stream_has_its_own_places_and_who_waits_longest_is_next() {
    let mut admission = Frames::default();
    for (stream, frame) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
        admission.enter(stream, frame, WhenBusy::Latest);
    }
    assert_eq!((admission.ready(), admission.counts().pending), (3, 3));
    assert_eq!(
        [0, 1, 2, 3].map(|at| admission.peek(at).copied()),
        [Some(3), Some(2), Some(4), None]
    );
    let (of_a, frame) = admission.take().unwrap();
    assert_eq!(frame, 3);
    assert_eq!(admission.enter("a", 5, WhenBusy::Wait), ADMITTED);
    assert_eq!(admission.enter("a", 6, WhenBusy::Wait), Entry::Full(6));
    // What waits for its own stream's frame in work is passed by the others.
    assert_eq!((admission.ready(), admission.in_work()), (2, 1));
    let (of_b, _) = admission.take().unwrap();
    let (of_c, frame) = admission.take().unwrap();
    assert_eq!((frame, admission.take()), (4, None));
    for ticket in [of_c, of_a, of_b] {
        let conclusion = admission.conclude(ticket);
        admission.finish(ticket, conclusion, Outcome::Inferred);
    }
    assert_eq!(work(&mut admission).0, 5);
    assert!(admission.is_idle());
}

#[test]
fn more_streams_than_there_are_places_drop_the_frame_that_waits_longest() {
    let mut admission = Frames::default();
    for stream in 0..=per_stream::MOST {
        let frame = stream as u32;
        let entry = admission.enter(&stream.to_string(), frame, WhenBusy::Latest);
        let replaced = (stream == per_stream::MOST).then_some(0);
        assert_eq!(entry, Entry::Admitted { replaced });
    }
    assert_eq!(admission.counts().dropped.busy, 1);
}

#[test]
fn a_frame_whose_time_has_passed_is_dropped_as_late() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Latest);
    let (ticket, _) = admission.take().unwrap();
    admission.abandon(ticket, DropReason::Late);
    admission.finish(ticket, Conclusion::Discard, Outcome::Failed);
    let counts = admission.counts();
    assert_eq!((counts.dropped.late, counts.failed), (1, 0));
}

#[test]
fn a_failure_is_counted_as_such() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Latest);
    let (ticket, _) = admission.take().unwrap();
    let conclusion = admission.conclude(ticket);
    admission.finish(ticket, conclusion, Outcome::Failed);
    assert_eq!(admission.counts().failed, 1);
    assert_eq!(admission.counts().inferred, 0);
}

#[derive(Debug, Clone)]
enum Step {
    Approach(bool, u64),
    Enter(bool, WhenBusy),
    GiveUp,
    Take,
    Conclude,
    Finish(Outcome),
    Late,
    Flush,
    Reopen,
    Settle,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 1..3u64).prop_map(|(stream, frames)| Step::Approach(stream, frames)),
        6 => (any::<bool>(), prop_oneof![Just(WhenBusy::Latest), Just(WhenBusy::Wait)])
            .prop_map(|(stream, when_busy)| Step::Enter(stream, when_busy)),
        1 => Just(Step::GiveUp),
        4 => Just(Step::Take),
        4 => Just(Step::Conclude),
        4 => prop_oneof![Just(Outcome::Inferred), Just(Outcome::Failed)].prop_map(Step::Finish),
        1 => Just(Step::Late),
        1 => Just(Step::Flush),
        2 => Just(Step::Reopen),
        1 => Just(Step::Settle),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #[test]
    fn every_frame_received_is_inferred_or_failed_or_dropped_or_pending(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut admission = Frames::default();
        let mut work = Vec::new();
        let mut asked = false;
        let name = |stream| if stream { "a" } else { "b" };
        for step in steps {
            match step {
                Step::Approach(stream, frames) => admission.approach(name(stream), frames),
                Step::Enter(stream, when_busy) => {
                    asked = matches!(admission.enter(name(stream), 0, when_busy), Entry::Full(_));
                }
                Step::GiveUp if asked => admission.give_up("a", DropReason::Flush),
                Step::GiveUp => {}
                Step::Take => work.extend(admission.take().map(|(ticket, _)| (ticket, None))),
                Step::Conclude => {
                    if let Some((ticket, conclusion @ None)) = work.first_mut() {
                        *conclusion = Some(admission.conclude(*ticket));
                    }
                }
                Step::Finish(outcome) => {
                    if let Some(&(ticket, Some(conclusion))) = work.first() {
                        admission.finish(ticket, conclusion, outcome);
                        work.remove(0);
                    }
                }
                Step::Late => {
                    if let Some((ticket, None)) = work.last() {
                        admission.abandon(*ticket, DropReason::Late);
                    }
                }
                Step::Flush => drop(admission.flush()),
                Step::Reopen => admission.reopen(),
                Step::Settle => admission.settle(DropReason::Late),
                Step::Close => drop(admission.close()),
            }
            prop_assert!(balanced(admission.counts()), "{:?}", admission.counts());
        }
        admission.close();
        for (ticket, conclusion) in work {
            let conclusion = conclusion.unwrap_or_else(|| admission.conclude(ticket));
            admission.finish(ticket, conclusion, Outcome::Inferred);
        }
        admission.settle(DropReason::Closed);
        prop_assert!(balanced(admission.counts()));
        prop_assert_eq!(admission.counts().pending, 0);
    }
}

/// What an engine may do to a run.
#[derive(Clone, Copy)]
enum Fate {
    Works,
    /// An error or a panic, which come to the same.
    Fails,
    Stalls,
}

/// Elements with one stream each that share an engine, in invented time: frames come at their own pace, runs take as long
/// as they do, and now and then somebody flushes, stops or begins anew.
#[test]
fn a_million_frames_through_an_engine_with_faults_leave_the_accounts_exact() {
    use crate::logic::batching::{Batching, Next, Terms};
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, HashMap};
    use std::time::Duration;

    const STREAMS: usize = 16;
    const FRAMES: u64 = 1_000_000;
    const ROOM: usize = 2;
    const MOMENT: Duration = Duration::from_millis(1);

    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Event {
        Frame(usize),
        /// A run ends, by its number.
        Ran(u64),
        Look,
    }
    struct Element {
        admission: Frames,
        claims: usize,
        flushing: bool,
        interval: u64,
    }
    let mut random = fastrand::Rng::with_seed(6);
    let mut elements: Vec<Element> = (0..STREAMS)
        .map(|stream| Element {
            admission: Frames::default(),
            claims: 0,
            flushing: false,
            interval: 8_000 + 2_000 * stream as u64,
        })
        .collect();
    let mut closed = Counts::default();
    let mut batching = Batching::new(ROOM);
    let mut owners = HashMap::new();
    let mut runs: HashMap<u64, (Vec<(usize, Ticket)>, Fate)> = HashMap::new();
    let mut events: BinaryHeap<Reverse<(u64, Event)>> = (0..STREAMS)
        .map(|stream| Reverse((stream as u64, Event::Frame(stream))))
        .collect();
    let (mut sent, mut started, mut faults) = (0, 0, 0);
    let add = |sum: &mut Counts, counts: Counts| {
        sum.received += counts.received;
        sum.inferred += counts.inferred;
        sum.failed += counts.failed;
        sum.pending += counts.pending;
        sum.dropped.busy += counts.dropped.busy;
        sum.dropped.late += counts.dropped.late;
        sum.dropped.flush += counts.dropped.flush;
        sum.dropped.closed += counts.dropped.closed;
    };
    while let Some(Reverse((micros, event))) = events.pop() {
        let now = Duration::from_micros(micros);
        match event {
            Event::Frame(stream) => {
                let element = &mut elements[stream];
                if sent < FRAMES {
                    sent += 1;
                    let next = micros + element.interval + random.u64(..element.interval / 4);
                    events.push(Reverse((next, Event::Frame(stream))));
                    enter(&mut element.admission, sent as u32, WhenBusy::Latest);
                }
                match random.u32(..1000) {
                    0 => {
                        element.admission.flush();
                        element.flushing = true;
                    }
                    1..20 if element.flushing => {
                        element.admission.reopen();
                        element.flushing = false;
                    }
                    20 if element.admission.in_work() == 0 && element.claims == 0 => {
                        element.admission.close();
                        add(&mut closed, element.admission.counts());
                        element.admission = Frames::default();
                        element.flushing = false;
                    }
                    _ => {}
                }
            }
            Event::Ran(run) => {
                let (members, fate) = runs.remove(&run).unwrap();
                let outcome = match fate {
                    Fate::Fails => Outcome::Failed,
                    Fate::Works | Fate::Stalls => Outcome::Inferred,
                };
                if let Some((stream, _)) = members.first() {
                    batching.expect(*stream as u64 % 3, members.len(), now + MOMENT);
                }
                for (stream, ticket) in members {
                    let admission = &mut elements[stream].admission;
                    let conclusion = admission.conclude(ticket);
                    admission.finish(ticket, conclusion, outcome);
                }
                batching.finish(1);
            }
            Event::Look => {}
        }
        for (stream, element) in elements.iter_mut().enumerate() {
            let counts = element.admission.counts();
            assert!(counts.pending <= 2, "{counts:?}");
            assert_eq!(
                counts.received,
                counts.inferred + counts.failed + counts.dropped.total() + counts.pending
            );
            if element.admission.ready() > element.claims {
                element.claims += 1;
                let terms = Terms {
                    group: stream as u64 % 3,
                    most: 1 + stream % 4,
                    patience: Duration::from_millis(2),
                    deadline: now + Duration::from_millis(50 + 10 * stream as u64),
                    takes: Duration::from_millis(4),
                    weight: 1,
                };
                owners.insert(batching.ask(terms, now), stream);
            }
        }
        loop {
            let members = match batching.next(now) {
                Next::Start(members) => members,
                Next::Until(at) => {
                    let at = at.as_micros() as u64;
                    events.push(Reverse((at.max(micros + 1), Event::Look)));
                    break;
                }
                Next::Nothing => break,
            };
            let mut taken = Vec::new();
            for member in members {
                let stream = owners.remove(&member).unwrap();
                let element = &mut elements[stream];
                element.claims -= 1;
                // What was claimed may have been flushed.
                let Some((ticket, _)) = element.admission.take() else {
                    continue;
                };
                if random.u32(..200) == 0 {
                    element.admission.abandon(ticket, DropReason::Late);
                    let conclusion = element.admission.conclude(ticket);
                    element
                        .admission
                        .finish(ticket, conclusion, Outcome::Failed);
                } else {
                    taken.push((stream, ticket));
                }
            }
            let fate = match random.u32(..1000) {
                0..30 => Fate::Fails,
                30..33 => Fate::Stalls,
                _ => Fate::Works,
            };
            faults += u32::from(!matches!(fate, Fate::Works));
            let takes = match fate {
                Fate::Stalls => 1_000_000,
                _ => 3_000 + random.u64(..2_000),
            };
            started += 1;
            runs.insert(started, (taken, fate));
            events.push(Reverse((micros + takes, Event::Ran(started))));
        }
    }
    let mut all = closed;
    for element in &mut elements {
        element.admission.close();
        add(&mut all, element.admission.counts());
    }
    assert_eq!((all.received, all.pending), (FRAMES, 0));
    assert_eq!(
        all.received,
        all.inferred + all.failed + all.dropped.total()
    );
    assert!(faults > 1000 && all.inferred > 100_000, "{faults} {all:?}");
    for reason in [
        all.dropped.busy,
        all.dropped.late,
        all.dropped.flush,
        all.dropped.closed,
        all.failed,
    ] {
        assert!(reason > 0, "{all:?}");
    }
}
