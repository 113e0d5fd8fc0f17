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
    let frame = admission.take().expect("one waits");
    let conclusion = admission.conclude();
    admission.finish(conclusion, Outcome::Inferred);
    match conclusion {
        Conclusion::Publish { dropped } => (frame, dropped),
        Conclusion::Discard => panic!("{frame} was abandoned"),
    }
}

fn balanced(counts: Counts) -> bool {
    counts.received == counts.inferred + counts.failed + counts.dropped.total() + counts.pending
        && counts.pending <= 2
}

#[test]
fn the_newest_frame_waits_and_older_ones_are_dropped_as_busy() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Latest);
    assert_eq!(admission.take(), Some(1));
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
    let conclusion = admission.conclude();
    admission.finish(conclusion, Outcome::Inferred);
    assert_eq!(work(&mut admission).0, 5);
    assert!(admission.is_idle());
}

#[test]
fn a_frame_that_must_wait_finds_room_after_the_one_before() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Wait);
    assert_eq!(enter(&mut admission, 2, WhenBusy::Wait), Entry::Full(2));
    assert_eq!(admission.counts().received, 1);
    assert_eq!(admission.take(), Some(1));
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
    admission.take();
    enter(&mut admission, 2, WhenBusy::Latest);
    admission.flush();
    assert_eq!(admission.conclude(), Conclusion::Discard);
    admission.finish(Conclusion::Discard, Outcome::Inferred);
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
    admission.take();
    let conclusion = admission.conclude();
    admission.flush();
    admission.finish(conclusion, Outcome::Inferred);
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
    for (stream, frame) in [("a", 1), ("b", 2), ("b", 3), ("a", 4)] {
        admission.approach(stream, 1);
        admission.enter(stream, frame, WhenBusy::Latest);
    }
    assert_eq!(work(&mut admission), (4, 1));
    admission.approach("b", 1);
    admission.enter("b", 5, WhenBusy::Latest);
    assert_eq!(work(&mut admission), (5, 2));
    admission.approach("b", 1);
    admission.enter("b", 6, WhenBusy::Latest);
    assert_eq!(work(&mut admission), (6, 0));
}

#[test]
fn a_failure_is_counted_as_such() {
    let mut admission = Frames::default();
    enter(&mut admission, 1, WhenBusy::Latest);
    admission.take();
    let conclusion = admission.conclude();
    admission.finish(conclusion, Outcome::Failed);
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
        let mut conclusion = None;
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
                Step::Take => {
                    if admission.take().is_some() {
                        conclusion = None;
                    }
                }
                Step::Conclude if conclusion.is_none() => conclusion = Some(admission.conclude()),
                Step::Conclude => {}
                Step::Finish(outcome) => {
                    if let Some(conclusion) = conclusion.take() {
                        admission.finish(conclusion, outcome);
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
        if let Some(conclusion) = conclusion {
            admission.finish(conclusion, Outcome::Inferred);
        }
        let conclusion = admission.conclude();
        admission.finish(conclusion, Outcome::Inferred);
        admission.settle(DropReason::Closed);
        prop_assert!(balanced(admission.counts()));
        prop_assert_eq!(admission.counts().pending, 0);
    }
}
