//! Which STUN and TURN servers clients are told of, and who is told of their accounts.

use gst::prelude::*;

use crate::server::Server;
use crate::whip;

const SERVERS: &str = "stun-server=\"stun://127.0.0.1:9,stun:127.0.0.1\" \
    turn-servers=\"turn://ann:s3cr%2Ct@127.0.0.1:9?transport=tcp, turns://ann:s3cr%2Ct@relay.example\"";
const SECRETS: [&str; 2] = ["s3cr,t", "s3cr%2Ct"];

fn server(properties: &str) -> Server {
    Server::playing(&format!(
        "rtcsessionsrc name=s listen=http://127.0.0.1:0 video-chain=fakesink {properties}"
    ))
}

fn get(server: &Server, path: &str) -> String {
    let answer = minreq::get(format!("{}{path}", server.url()));
    answer.send().unwrap().as_str().unwrap().to_owned()
}

/// Everything that is on the bus.
fn said(server: &Server) -> Vec<String> {
    let said = server.said.lock().unwrap();
    let messages = said.messages.iter().map(|(_, message)| message.view());
    messages
        .map(|message| match message {
            gst::MessageView::Error(error) => format!("{} {:?}", error.error(), error.debug()),
            gst::MessageView::Warning(said) => format!("{} {:?}", said.error(), said.debug()),
            other => format!("{other:?}"),
        })
        .collect()
}

fn servers_told(server: &Server) -> serde_json::Value {
    let config: serde_json::Value = serde_json::from_str(&get(server, "/rtc-config")).unwrap();
    config["iceServers"].clone()
}

#[test]
fn clients_are_told_of_the_servers_unless_the_application_says_otherwise() {
    let server = server(SERVERS);
    let account =
        |urls| serde_json::json!({"urls": urls, "username": "ann", "credential": "s3cr,t"});
    assert_eq!(
        servers_told(&server),
        serde_json::json!([
            {"urls": "stun:127.0.0.1:9"},
            {"urls": "stun:127.0.0.1:3478"},
            account("turn:127.0.0.1:9?transport=tcp"),
            account("turns:relay.example:5349"),
        ])
    );
    let answered = whip::post(&server, "");
    assert_eq!(answered.status_code, 201);
    let links = &answered.headers["link"];
    assert!(
        links.contains(
            r#"<turns:relay.example:5349>; rel="ice-server"; username="ann"; credential="s3cr,t""#
        ),
        "{links}"
    );

    let source = server.pipeline.by_name("s").unwrap();
    source.connect("request-ice-servers", false, |_| Some("[]".to_value()));
    assert_eq!(servers_told(&server), serde_json::json!([]));
    server.stop();
}

#[test]
fn nobody_else_is_told_of_an_account() {
    let server = server(SERVERS);
    let answered = whip::post(&server, "");
    assert_eq!(answered.status_code, 201);
    let mut told = vec![answered.as_str().unwrap().to_owned()];
    for path in ["/info", "/connections", "/metrics"] {
        told.push(get(&server, path));
    }
    server.pipeline.set_state(gst::State::Null).unwrap();
    told.extend(said(&server));
    for said in &told {
        assert!(!SECRETS.iter().any(|s| said.contains(s)), "{said}");
    }
    server.stop();
}

#[test]
fn what_is_no_server_is_refused_without_its_password() {
    let many = |server: &str| [server; 9].join(",");
    for (setting, named) in [
        ("turn-servers=http://ann:s3cr%2Ct@a.example".into(), "turn:"),
        (
            "turn-servers=turn://ann:s3cr%2Ct@a.example:x".into(),
            "host or port",
        ),
        (
            "turn-servers=turn://ann@a.example".into(),
            "turn://…@a.example: there is no password",
        ),
        ("turn-servers=turn:ann:s3cr%2Ct".into(), "account"),
        (
            "turn-servers=turn://ann:s3cr%2Ct@a.example?transport=sctp".into(),
            "turn://…@a.example",
        ),
        (
            format!("turn-servers={}", many("turn://ann:s3cr%2Ct@a")),
            "at most 8",
        ),
        (
            format!("stun-server={}", many("stun://127.0.0.1")),
            "at most 8",
        ),
        ("stun-server=stun://127.0.0.1,turn:a".into(), "turn:a"),
        ("ice-transport-policy=relay".into(), "turn-servers"),
        (
            "ice-transport-policy=relay turn-servers=turns://ann:s3cr%2Ct@a".into(),
            "plain UDP",
        ),
    ] {
        let server = Server::new(&format!(
            "rtcsessionsrc listen=http://127.0.0.1:0 {setting}"
        ));
        let refused = server.pipeline.set_state(gst::State::Ready);
        assert!(refused.is_err(), "{setting}");
        let said = said(&server).join("\n");
        assert!(said.contains(named), "{setting}: {said}");
        assert!(!SECRETS.iter().any(|s| said.contains(s)), "{said}");
        server.pipeline.set_state(gst::State::Null).unwrap();
    }
}
