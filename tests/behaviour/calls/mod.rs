//! Calls in invented time over an invented network: what a visitor's network may do to us, and what we make of it.

use std::time::Duration;

use gstrtcinference::logic::connection::EndReason;
use gstrtcinference::logic::wire::dialect::Payload;
use gstrtcinference::peer::call::Sent;

use bench::Bench;
use network::Conditions;

mod bench;
mod network;
mod sync;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_good_network_brings_every_frame_once_and_in_order() {
    let mut bench = Bench::connected(1);
    bench.run(5 * SECOND);
    let numbers: Vec<u32> = bench.got.iter().map(|g| g.number).collect();
    let expected: Vec<u32> = (0..numbers.len() as u32).collect();
    assert_eq!(numbers, expected);
    assert!(bench.sent() - (numbers.len() as u32) <= 2);
    assert_eq!(bench.keyframe_requests, 0);
    for got in &bench.got {
        assert_eq!(got.rtp_timestamp, got.number * 3_000 + 1_000);
    }
}

#[test]
fn loss_is_repaired_and_no_broken_picture_comes_out() {
    for seed in 0..5 {
        let mut bench = Bench::connected(seed);
        bench.network.conditions = Conditions {
            loss: 0.05,
            delay: Duration::from_millis(15),
            jitter: Duration::from_millis(10),
            ..Conditions::default()
        };
        let (sent, got) = (bench.sent(), bench.got.len());
        bench.run(20 * SECOND);
        bench.assert_whole_pictures();
        let share = (bench.got.len() - got) as f64 / f64::from(bench.sent() - sent);
        assert!(share > 0.8, "seed {seed}: {share:.2} of the frames came");
    }
}

#[test]
fn reordering_and_duplication_change_nothing() {
    let mut bench = Bench::connected(2);
    bench.network.conditions = Conditions {
        duplication: 0.2,
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(30),
        ..Conditions::default()
    };
    bench.run(10 * SECOND);
    let numbers: Vec<u32> = bench.got.iter().map(|g| g.number).collect();
    let expected: Vec<u32> = (0..numbers.len() as u32).collect();
    assert_eq!(numbers, expected);
    assert!(bench.sent() - (numbers.len() as u32) <= 4);
}

#[test]
fn a_short_blackout_is_recovered_from_with_a_keyframe() {
    let mut bench = Bench::connected(3);
    let dark = bench.elapsed() + SECOND..bench.elapsed() + 3 * SECOND;
    let light = dark.end;
    bench.network.conditions.blackout = Some(dark);
    bench.run(6 * SECOND);
    assert_eq!(bench.ended, None);
    bench.assert_whole_pictures();
    let back = bench
        .got
        .iter()
        .find(|g| g.at >= light)
        .expect("frames come again");
    assert!(back.keyframe);
    assert!(back.at - light < SECOND, "back after {:?}", back.at - light);
    assert!(bench.keyframe_requests >= 1);
}

#[test]
fn a_peer_that_vanishes_is_lost_after_disconnect_timeout() {
    let mut bench = Bench::connected(4);
    bench.vanished = true;
    let gone = bench.elapsed();
    bench.run(60 * SECOND);
    let (reason, at) = bench.ended.expect("it ends");
    assert_eq!(reason, EndReason::PeerLost);
    let waited = at - gone;
    assert!(waited > 4 * SECOND && waited <= 6 * SECOND, "{waited:?}");
}

#[test]
fn a_peer_without_media_is_not_lost() {
    let mut bench = Bench::connected(5);
    bench.sending = false;
    bench.run(300 * SECOND);
    assert_eq!(bench.ended, None);
}

#[test]
fn a_peer_that_closes_has_closed() {
    let mut bench = Bench::connected(6);
    bench.far.close().unwrap();
    let closed = bench.elapsed();
    bench.run(10 * SECOND);
    let (reason, at) = bench.ended.expect("it ends");
    assert_eq!(reason, EndReason::ClientClosed);
    assert!(at - closed < Duration::from_millis(50), "{:?}", at - closed);
}

#[test]
fn an_answer_that_nobody_takes_up_times_out() {
    let mut bench = Bench::new(7);
    bench.vanished = true;
    bench.run(60 * SECOND);
    let (reason, at) = bench.ended.expect("it ends");
    assert_eq!(reason, EndReason::SetupTimeout);
    assert!(at >= 10 * SECOND && at < 11 * SECOND, "{at:?}");
}

#[test]
fn texts_arrive_in_order_over_a_bad_network() {
    let mut bench = Bench::connected(8);
    assert!(bench.far_channel.is_some());
    bench.network.conditions.loss = 0.05;
    let texts: Vec<String> = (0..40).map(|n| format!("text {n}")).collect();
    for text in &texts {
        let now = bench.now();
        let text = [Payload::Text(text.clone())];
        assert_eq!(bench.ours.send(None, &text, now), Sent::Yes);
        bench.run(Duration::from_millis(50));
    }
    bench.run(20 * SECOND);
    assert_eq!(bench.far_texts, texts);
}

#[test]
fn a_message_in_many_pieces_goes_out_whole_or_not_at_all() {
    let mut bench = Bench::connected(8);
    let pieces: Vec<_> = (0..20)
        .map(|n| Payload::Text(char::from(b'a' + n).to_string().repeat(48 * 1024)))
        .collect();
    let now = bench.now();
    assert_eq!(bench.ours.send(None, &pieces, now), Sent::Yes);
    assert_eq!(bench.ours.send(None, &pieces, now), Sent::Full);
    bench.run(20 * SECOND);
    let came = bench.far_texts.iter().map(String::as_bytes);
    assert!(came.eq(pieces.iter().map(Payload::as_bytes)));
    let longer = [pieces.as_slice(), &pieces].concat();
    assert_eq!(bench.ours.send(None, &longer, bench.now()), Sent::TooLong);
}

#[test]
fn a_channel_that_nobody_reads_is_bounded() {
    let mut bench = Bench::connected(9);
    bench.vanished = true;
    let text = [Payload::Text("x".repeat(10_000))];
    let now = bench.now();
    let taken = (0..1_000).take_while(|_| bench.ours.send(None, &text, now) == Sent::Yes);
    let taken = taken.count();
    assert!(
        (10..=40).contains(&taken),
        "{taken} texts of 10 kB were taken"
    );
}

#[test]
fn frames_lost_behind_the_call_bring_a_keyframe() {
    let mut bench = Bench::connected(10);
    let now = bench.now();
    let mid = bench.mid();
    bench.ours.need_keyframe(mid, now);
    let before = bench.got.len();
    bench.run(SECOND);
    assert!(bench.got[before].keyframe);
    assert!(bench.got.len() > before + 20);
}

#[test]
fn a_restart_of_ice_goes_on_where_media_was() {
    let mut bench = Bench::connected(11);
    for _ in 0..3 {
        bench.restart_ice();
        bench.run(2 * SECOND);
    }
    assert_eq!(bench.ended, None);
    let numbers: Vec<u32> = bench.got.iter().map(|got| got.number).collect();
    let expected: Vec<u32> = (0..bench.sent() - 2).collect();
    assert!(numbers.len() >= expected.len(), "{} came", numbers.len());
    assert_eq!(numbers[..expected.len()], expected);
}

fn bad(loss: f64) -> Conditions {
    Conditions {
        loss,
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(60),
        ..Conditions::default()
    }
}

#[test]
fn what_is_sent_back_keeps_flowing_through_loss_and_recovers_from_it() {
    for seed in 20..30 {
        let mut bench = Bench::connected(seed);
        bench.returning = true;
        bench.run(5 * SECOND);
        let good = bench.returned_fps(bench.elapsed() - 2 * SECOND, bench.elapsed());
        assert!(good > 28.0, "seed {seed}: {good} fps over a good network");
        bench.network.conditions = bad(0.05);
        bench.run(10 * SECOND);
        let adapted = bench.elapsed();
        bench.run(20 * SECOND);
        let fps = bench.returned_fps(adapted, bench.elapsed());
        assert!(fps >= 20.0, "seed {seed}: {fps:.1} fps through loss");
        bench.network.conditions = bad(0.0);
        bench.run(3 * SECOND);
        let recovered = bench.elapsed();
        bench.run(3 * SECOND);
        let fps = bench.returned_fps(recovered, bench.elapsed());
        assert!(fps >= 28.0, "seed {seed}: {fps:.1} fps after it");
    }
}

#[test]
fn a_narrow_network_gets_less_and_nothing_queues_up() {
    for seed in 40..45 {
        let mut bench = Bench::connected(seed);
        bench.returning = true;
        bench.network.conditions = Conditions {
            rate: Some(500_000),
            delay: Duration::from_millis(20),
            ..Conditions::default()
        };
        bench.sending = false;
        bench.run(10 * SECOND);
        let adapted = bench.elapsed();
        bench.run(20 * SECOND);
        let fps = bench.returned_fps(adapted, bench.elapsed());
        let late = bench.returned.iter().filter(|r| r.at >= adapted);
        let mut took: Vec<Duration> = late.map(|r| r.took).collect();
        took.sort();
        // Looking for more bandwidth than there is fills the network's own queue for a moment.
        let (p50, p95) = (took[took.len() / 2], took[took.len() * 95 / 100]);
        assert!(fps >= 20.0, "seed {seed}: {fps:.1} fps");
        assert!(
            p50 < Duration::from_millis(100),
            "seed {seed}: {p50:?} in the middle"
        );
        assert!(
            p95 < Duration::from_millis(600),
            "seed {seed}: {p95:?} at 95 %"
        );
        assert!(bench.bandwidth.target() < 600_000, "seed {seed}");
    }
}
