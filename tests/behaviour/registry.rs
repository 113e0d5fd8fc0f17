//! Whatever happens in whatever order, the registry, the peers and the limit agree, and nothing is left.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtcinference::logic::registry::{
    Candidate, EARLY_CANDIDATES, EARLY_FOR, EARLY_OF_ADDRESS, EARLY_OF_ID, MAX_LEAVING, Place,
    Refused, Registry,
};
use proptest::prelude::*;

use crate::server::{Server, text};
use crate::visitor::Manner;

const LIMIT: u32 = 3;
const MAX_PENDING: u32 = 2;

#[derive(Debug, Clone)]
enum Step {
    Reserve(Option<u8>, u8),
    Commit(usize),
    Connect(usize),
    Leave(usize),
    Drop(usize),
    Candidates(u8, u8, usize),
    Take(u8),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (proptest::option::of(0..4u8), 0..2u8).prop_map(|(id, from)| Step::Reserve(id, from)),
        3 => (0..8usize).prop_map(Step::Commit),
        2 => (0..8usize).prop_map(Step::Connect),
        2 => (0..8usize).prop_map(Step::Leave),
        3 => (0..8usize).prop_map(Step::Drop),
        4 => (0..16u8, 0..6u8, 0..40usize).prop_map(|(id, from, count)| Step::Candidates(id, from, count)),
        1 => (0..16u8).prop_map(Step::Take),
        1 => (0..4000u16).prop_map(Step::Wait),
    ]
}

/// What the registry should hold, kept the plainest way.
struct Held {
    place: Place<u32>,
    external_id: Option<String>,
    from: IpAddr,
    pending: bool,
    handle: Option<u32>,
    leaving: bool,
}

proptest! {
    #[test]
    fn registry_equals_live_peers_equals_limit_accounting(steps in prop::collection::vec(step(), 0..200)) {
        let registry = Registry::<u32>::new(LIMIT, MAX_PENDING);
        let mut held: Vec<Held> = Vec::new();
        let mut early: Vec<(String, IpAddr, Instant)> = Vec::new();
        let mut now = Instant::now();
        let mut handles = 0;
        let name = |id: u8| format!("visitor {id}");
        for step in steps {
            early.retain(|(_, _, came)| now - *came < EARLY_FOR);
            let at = |i: usize| (!held.is_empty()).then(|| i % held.len());
            match step {
                Step::Reserve(id, from) => {
                    let external_id = id.map(name);
                    let from = IpAddr::from([192, 0, 2, from]);
                    let present = || held.iter().filter(|h| !h.leaving);
                    let twin = external_id.is_some() && present().any(|h| h.external_id == external_id);
                    let full = present().count() as u32 >= LIMIT;
                    let leaving = held.iter().filter(|h| h.leaving).count();
                    let pending = present().filter(|h| h.pending && h.from == from).count() as u32 >= MAX_PENDING;
                    match registry.reserve(external_id.as_deref(), from) {
                        Ok(place) => {
                            prop_assert!(!twin && !full && !pending && leaving < MAX_LEAVING);
                            held.push(Held { place, external_id, from, pending: true, handle: None, leaving: false });
                        }
                        Err(Refused::Duplicate(_)) => prop_assert!(twin),
                        Err(Refused::Full(limit)) => prop_assert!(full && !twin && limit == LIMIT),
                        Err(Refused::Leaving(count)) => {
                            prop_assert!(!full && !twin && count == leaving && leaving >= MAX_LEAVING);
                        }
                        Err(Refused::Pending(count)) => {
                            prop_assert!(pending && !full && !twin && leaving < MAX_LEAVING && count == MAX_PENDING);
                        }
                        Err(Refused::Closed) => prop_assert!(false, "nobody closed it"),
                    }
                }
                Step::Commit(i) => if let Some(i) = at(i) {
                    handles += 1;
                    prop_assert_eq!(held[i].place.commit(handles), Ok(()));
                    held[i].handle = Some(handles);
                },
                Step::Connect(i) => if let Some(i) = at(i) {
                    held[i].place.connected();
                    held[i].pending = false;
                },
                Step::Leave(i) => if let Some(i) = at(i) {
                    held[i].place.leave();
                    held[i].leaving = true;
                },
                Step::Drop(i) => if let Some(i) = at(i) {
                    held.swap_remove(i);
                },
                Step::Candidates(id, from, count) => for _ in 0..count {
                    let from = IpAddr::from([192, 0, 2, from]);
                    let stands = held.iter().any(|h| !h.leaving && h.handle.is_some() && h.external_id == Some(name(id)));
                    let of_id = early.iter().filter(|(owner, ..)| *owner == name(id)).count();
                    let of_address = early.iter().filter(|(_, remote, _)| *remote == from).count();
                    let room = early.len() < EARLY_CANDIDATES && of_id < EARLY_OF_ID && of_address < EARLY_OF_ADDRESS;
                    match registry.candidate(&name(id), "one", from, now) {
                        Candidate::For(_) => prop_assert!(stands),
                        Candidate::Kept => {
                            prop_assert!(!stands && room);
                            early.push((name(id), from, now));
                        }
                        Candidate::NoRoom => prop_assert!(!stands && !room),
                    }
                },
                Step::Take(id) => {
                    let its = early.iter().filter(|(owner, ..)| *owner == name(id)).count();
                    prop_assert_eq!(registry.take_candidates(&name(id), now).len(), its);
                    early.retain(|(owner, ..)| *owner != name(id));
                }
                Step::Wait(ms) => now += Duration::from_millis(ms.into()),
            }
            prop_assert_eq!(registry.len(), held.iter().filter(|h| !h.leaving).count());
            let mut all = registry.all();
            let mut expected: Vec<u32> = held.iter().filter_map(|h| h.handle).collect();
            all.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(all, expected);
            for one in &held {
                let found = registry.find(one.place.id().as_str());
                prop_assert_eq!(found, one.handle.filter(|_| !one.leaving));
            }
        }
        held.clear();
        prop_assert!(registry.is_empty() && registry.all().is_empty());
    }
}

#[derive(Debug, Clone)]
enum Event {
    Visit(Manner),
    Garbage(&'static str, &'static str),
    Leave(usize),
    End(usize),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let manner = prop_oneof![
        Just(Manner::Polite),
        Just(Manner::Vanishing),
        Just(Manner::Silent),
        Just(Manner::Mute),
    ];
    let garbage = prop_oneof![
        Just(("/offer", "no JSON")),
        Just(("/api/offer", r#"{"type":"offer","sdp":"hello"}"#)),
        Just((
            "/offer",
            r#"{"type":"offer","sdp":"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"}"#
        )),
        Just((
            "/offer",
            r#"{"type":"offer","pc_id":"nobody","sdp":"v=0\r\n"}"#
        )),
    ];
    prop_oneof![
        5 => manner.prop_map(Event::Visit),
        2 => garbage.prop_map(|(route, body)| Event::Garbage(route, body)),
        2 => (0..8usize).prop_map(Event::Leave),
        2 => (0..8usize).prop_map(Event::End),
        2 => (0..300u64).prop_map(Event::Wait),
    ]
}

proptest! {
    // Each case is a server, and visitors over real sockets.
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 0, ..ProptestConfig::default() })]
    #[test]
    fn each_created_connection_ends_once_and_nothing_is_left(events in prop::collection::vec(event(), 4..16)) {
        let server = Server::playing(&format!(
            "rtcsessionsrc name=s listen=http://127.0.0.1:0 max-connections={LIMIT} setup-timeout=500 \
             disconnect-timeout=500 connection-timeout=1200 drain-timeout=300 \
             video-chain=\"identity sleep-time=20000 ! fakesink\""
        ));
        let source = server.pipeline.by_name("s").unwrap();
        let mut visitors = Vec::new();
        let mut visits = Vec::new();
        for event in events {
            match event {
                Event::Visit(manner) => visitors.push(server.visitor(manner)),
                Event::Garbage(route, body) => {
                    let response = minreq::post(format!("{}{route}", server.url())).with_body(body).send().unwrap();
                    prop_assert!((400..500).contains(&response.status_code));
                }
                Event::Leave(i) => if !visitors.is_empty() {
                    let visitor = visitors.swap_remove(i % visitors.len());
                    visits.push(visitor.leave());
                },
                Event::End(i) => {
                    let connections = server.connections();
                    if !connections.is_empty() {
                        let id = text(&connections[i % connections.len()], "connection-id");
                        source.emit_by_name::<bool>("end-connection", &[&id, &None::<String>]);
                    }
                }
                Event::Wait(ms) => std::thread::sleep(Duration::from_millis(ms)),
            }
            let standing = server.connections();
            let standing = standing.iter().filter(|c| text(c, "state") != "ending").count();
            prop_assert!(standing <= LIMIT as usize);
        }
        visits.extend(visitors.into_iter().map(|visitor| visitor.leave()));
        server.wait_for("the end of all", || {
            let (created, ended) = (server.named("rtc-connection-created"), server.named("rtc-connection-ended"));
            (created.len() == ended.len() && server.connections().is_empty()).then_some(())
        });
        let refused = visits.iter().filter(|visit| visit.refused.is_some()).count();
        prop_assert_eq!(server.named("rtc-connection-created").len(), visits.len() - refused);
        prop_assert!(server.named("rtc-connection-rejected").len() >= refused);
        let figures = minreq::get(format!("{}/metrics", server.url())).send().unwrap();
        for line in figures.as_str().unwrap().lines() {
            if line.starts_with("rtcinference_connections{") {
                prop_assert!(line.ends_with(" 0"), "{line}");
            }
        }
        server.stop();
    }
}
