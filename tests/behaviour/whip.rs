//! What an application has to do with a WHIP client: it lets it in and names its ICE servers.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use str0m::Rtc;
use str0m::media::{Direction, MediaKind};

use crate::server::{Server, text};

fn offer() -> String {
    let mut rtc = Rtc::builder()
        .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
        .build(std::time::Instant::now());
    let mut change = rtc.sdp_api();
    change.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
    change.apply().unwrap().0.to_sdp_string()
}

pub fn post(server: &Server, token: &str) -> minreq::Response {
    minreq::post(format!("{}/whip", server.url()))
        .with_header("Content-Type", "application/sdp")
        .with_header("Authorization", token)
        .with_body(offer())
        .send()
        .unwrap()
}

#[test]
fn an_application_sees_the_token_and_only_who_is_let_in_is_told_ice_servers() {
    let server = Server::playing(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 video-chain=fakesink setup-timeout=60000",
    );
    let source = server.pipeline.by_name("s").unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    source.connect("authorize", false, {
        let asked = asked.clone();
        move |args| {
            let visitor: gst::Structure = args[1].get().unwrap();
            let allowed = text(&visitor, "authorization") == "Bearer right";
            asked.lock().unwrap().push(text(&visitor, "door"));
            Some(allowed.to_value())
        }
    });
    source.connect("request-ice-servers", false, |_| {
        let servers = r#"[{"urls":["turn:192.0.2.1"],"username":"u","credential":"c"}]"#;
        Some(servers.to_value())
    });

    let refused = post(&server, "Bearer wrong");
    assert_eq!(refused.status_code, 403);
    assert!(
        !refused.headers.contains_key("link"),
        "{:?}",
        refused.headers
    );
    let rejected = &server.wait("rtc-connection-rejected", 1)[0];
    assert_eq!(text(rejected, "door"), "whip");

    let answered = post(&server, "Bearer right");
    assert_eq!(answered.status_code, 201);
    assert_eq!(
        answered.headers["link"],
        r#"<turn:192.0.2.1>; rel="ice-server"; username="u"; credential="c"; credential-type="password""#
    );
    let created = &server.wait("rtc-connection-created", 1)[0];
    let id = text(created, "connection-id");
    assert_eq!(answered.headers["location"], format!("/whip/{id}"));
    assert_eq!(*asked.lock().unwrap(), ["whip", "whip"]);

    let gone = minreq::delete(format!("{}/whip/{id}", server.url()));
    assert_eq!(gone.send().unwrap().status_code, 200);
    let ended = &server.wait("rtc-connection-ended", 1)[0];
    assert_eq!(text(ended, "reason"), "client-closed");
    server.stop();
}
