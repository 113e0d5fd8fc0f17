use std::io::Write;

use serde_json::json;

use super::*;
use crate::dial::options::Value as Given;
use crate::dial::tests::{Caller, Server, say};
use crate::dial::{KINDS, protocol};

const KEY: &str = "rf_k3y-that-is-secret";

fn text(text: &str) -> Given {
    Given::Text(text.into())
}

fn options(values: &[(&str, Given)]) -> Options {
    let values = values.iter();
    values
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

fn named(more: &[(&str, Given)]) -> Options {
    let ids = [("workspace", text("ours")), ("workflow-id", text("shapes"))];
    options(&[&ids, more].concat())
}

fn address(url: &str) -> Address {
    format!("roboflow+{url}").parse().unwrap()
}

fn made(more: &[(&str, Given)]) -> Result<Roboflow, OptionError> {
    let options = named(more);
    options.check(&KINDS[0])?;
    Roboflow::new(&address("http://h:9001"), &options, None)
}

fn refused(more: &[(&str, Given)]) -> String {
    made(more).err().unwrap().to_string()
}

fn wanted(roboflow: &Roboflow, sends_video: u32, receives: bool) -> Result<Wanted, OptionError> {
    roboflow.wanted(&Party {
        sends_video,
        sends_audio: 0,
        receives,
    })
}

/// A file that may be uploaded.
fn video() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"frames").unwrap();
    file
}

#[test]
fn lines_are_as_the_servers_own_client_has_them() {
    let file = video();
    let path = text(file.path().to_str().unwrap());
    let output = ("stream-output", text("boxes"));
    let rtsp = ("rtsp-url", text("rtsp://u:p@camera/1"));
    let mjpeg = ("mjpeg-url", text("http://camera/1"));
    let upload = ("upload-location", path);
    let track = ("upload-frames", text("track"));
    use Direction::{RecvOnly, SendOnly, SendRecv};
    for (more, sends, receives, direction, video_back, channels) in [
        (vec![output.clone()], 1, true, Some(SendRecv), true, 1),
        (vec![output.clone()], 1, false, Some(SendOnly), false, 1),
        (vec![], 1, true, Some(SendOnly), false, 1),
        (vec![rtsp, output.clone()], 0, true, Some(RecvOnly), true, 1),
        (
            vec![mjpeg, output.clone()],
            0,
            true,
            Some(RecvOnly),
            true,
            1,
        ),
        (
            vec![upload.clone(), output.clone()],
            0,
            true,
            None,
            false,
            2,
        ),
        (
            vec![upload, track, output],
            0,
            true,
            Some(RecvOnly),
            true,
            2,
        ),
    ] {
        let roboflow = made(&more).unwrap();
        let wanted = wanted(&roboflow, sends, receives).unwrap();
        let line = direction.map(|direction| Line {
            video: true,
            direction,
        });
        assert_eq!(wanted.lines, Vec::from_iter(line));
        assert_eq!(wanted.channels, ["inference", "video_upload"][..channels]);
        let body = roboflow.request().body("v=0");
        let outputs = if video_back {
            json!(["boxes"])
        } else {
            json!([])
        };
        assert_eq!(body["stream_output"], outputs);
        assert_eq!(body.get("video_file_upload").is_some(), channels == 2);
        assert_eq!(body["webrtc_realtime_processing"], channels == 1);
        assert_eq!(roboflow.upload().is_some(), channels == 2);
        if roboflow.pictures_in_channel() {
            assert_eq!(body["data_output"], json!(["boxes"]));
            assert_eq!(roboflow.stream_output, ["boxes"]);
        }
    }
}

#[test]
fn a_party_that_the_server_has_no_use_for_is_refused() {
    let file = video();
    let path = file.path().to_str().unwrap();
    for (more, sends, told) in [
        (None, 0, "rtsp-url, mjpeg-url and upload-location"),
        (None, 2, "takes one"),
        (Some(("rtsp-url", "rtsp://a")), 1, "rtsp-url names another"),
        (
            Some(("mjpeg-url", "http://a")),
            1,
            "mjpeg-url names another",
        ),
        (
            Some(("upload-location", path)),
            1,
            "upload-location names another",
        ),
    ] {
        let more: Vec<_> = more
            .into_iter()
            .map(|(key, value)| (key, text(value)))
            .collect();
        let error = wanted(&made(&more).unwrap(), sends, true).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
    let sends_audio = Party {
        sends_video: 1,
        sends_audio: 1,
        receives: true,
    };
    assert!(made(&[]).unwrap().wanted(&sends_audio).is_err());
}

#[test]
fn options_that_do_not_go_together_are_named() {
    let file = video();
    let path = file.path().to_str().unwrap();
    for (more, told) in [
        (
            vec![("rtsp-url", "rtsp://a"), ("mjpeg-url", "http://a")],
            "options rtsp-url and mjpeg-url exclude each other",
        ),
        (
            vec![("mjpeg-url", "http://a"), ("upload-location", path)],
            "options mjpeg-url and upload-location exclude each other",
        ),
        (
            vec![("workflow-file", "/a.json")],
            "options workflow-file and workspace exclude each other",
        ),
        (
            vec![("token", "t"), ("api-key-in", "header")],
            "options token and api-key-in exclude each other",
        ),
        (
            vec![("api-key-in", "s3cret")],
            "option api-key-in: body, header or both is right",
        ),
        (
            vec![("upload-frames", "track")],
            "option upload-frames: there is no upload-location",
        ),
        (
            vec![("upload-location", path), ("upload-frames", "x")],
            "channel or track",
        ),
        (
            vec![("upload-location", "/nowhere")],
            "/nowhere: No such file",
        ),
        (vec![("upload-location", "/")], "/: it is no file"),
        (
            vec![("rtsp-url", "http://u:s3cret@a")],
            "option rtsp-url: no URL that begins with rtsp://",
        ),
        (
            vec![("turn-server", "s3cret")],
            "option turn-server: it is no JSON",
        ),
        (
            vec![("turn-server", r#"{"urls":"s3cret"}"#)],
            "without username",
        ),
        (
            vec![("api-key", "s3cret\u{e9}"), ("api-key-in", "both")],
            "option api-key: ",
        ),
        (
            vec![
                ("upload-location", path),
                ("stream-output", "a"),
                ("data-output", "*"),
            ],
            "option data-output: ",
        ),
    ] {
        let more: Vec<_> = more
            .into_iter()
            .map(|(key, value)| (key, text(value)))
            .collect();
        let error = refused(&more);
        assert!(error.contains(told), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    for fps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(&[("declared-fps", Given::Number(fps))]).contains("declared-fps"));
    }
}

#[test]
fn a_workflow_is_a_file_or_has_a_name() {
    let of = |values: &[(&str, &str)]| {
        let values: Vec<_> = values
            .iter()
            .map(|(key, value)| (*key, text(value)))
            .collect();
        let made = Roboflow::new(&address("http://h"), &options(&values), None);
        made.map(|roboflow| roboflow.request().body("")["workflow_configuration"].clone())
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(br#"{"version":"1.0"}"#).unwrap();
    let path = file.path().to_str().unwrap();
    let configuration = of(&[("workflow-file", path)]).unwrap();
    assert_eq!(configuration["workflow_specification"]["version"], "1.0");
    let configuration = of(&[
        ("workspace", "w"),
        ("workflow-id", "i"),
        ("workflow-version", "3"),
    ]);
    assert_eq!(configuration.unwrap()["workflow_version_id"], "3");
    for values in [
        &[][..],
        &[("workspace", "w")],
        &[("workflow-id", "i")],
        &[("workflow-version", "3")],
    ] {
        assert!(matches!(of(values), Err(OptionError::Missing { .. })));
    }
    file.as_file().write_all(b"}").unwrap();
    for path in [path, "/nowhere", "/dev/zero"] {
        let error = of(&[("workflow-file", path)]).unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn the_key_of_the_options_comes_before_that_of_the_environment() {
    let key = |given: &[(&str, Given)], environment: Option<&str>| {
        let environment = environment.map(str::to_owned);
        let made = Roboflow::new(&address("http://h"), &named(given), environment);
        made.unwrap().request().body("").get("api_key").cloned()
    };
    assert_eq!(key(&[("api-key", text("a"))], Some("b")), Some(json!("a")));
    assert_eq!(key(&[], Some("b")), Some(json!("b")));
    assert_eq!(key(&[], Some("")), None);
    assert_eq!(key(&[("api-key-in", text("header"))], Some("b")), None);
    assert_eq!(
        key(&[("api-key-in", text("both"))], Some("b")),
        Some(json!("b"))
    );
}

#[tokio::test]
async fn the_key_goes_where_it_is_wanted() {
    for (place, in_body, in_header) in [
        ("body", true, false),
        ("header", false, true),
        ("both", true, true),
    ] {
        let server = Server::new(|_| say("200 OK", r#"{"sdp":"v=0","type":"answer"}"#)).await;
        let given = [("api-key", text(KEY)), ("api-key-in", text(place))];
        Caller::new("roboflow", &server.url, &given)
            .call()
            .await
            .unwrap();
        let request = server.request(0);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.contains(KEY), in_body);
        assert_eq!(head.contains(&format!("Bearer {KEY}")), in_header);
    }
}

#[tokio::test]
async fn a_key_that_servers_repeat_is_told_by_nothing() {
    for status in [
        "200 OK",
        "400 Bad Request",
        "404 Not Found",
        "422 Bad",
        "500 No",
    ] {
        let repeat = |request: &str| {
            let message = json!({ "message": request, "sdp": request, "type": "answer" });
            message.to_string()
        };
        let server = Server::new(move |request| say(status, repeat(request))).await;
        let given = [("api-key", text(KEY)), ("api-key-in", text("both"))];
        let caller = Caller::new("roboflow", &format!("{}/?k={KEY}", server.url), &given);
        let error = caller.call().await.unwrap_err();
        let told = format!("{error} {error:?} {:?}", options(&given));
        assert!(!told.contains(KEY), "{told}");
    }
}

#[test]
fn servers_of_roboflows_own_have_turn_servers_and_no_others_are_asked() {
    let config = |url: &str| turn_config(&url.parse().unwrap()).map(String::from);
    for (url, api) in [
        (
            "https://serverless.roboflow.com",
            "https://api.roboflow.com/webrtc_turn_config",
        ),
        (
            "https://serverless.roboflow.eu/x",
            "https://api.roboflow.eu/webrtc_turn_config",
        ),
        (
            "https://detect.roboflow.com",
            "https://api.roboflow.com/webrtc_turn_config",
        ),
    ] {
        assert_eq!(config(url).as_deref(), Some(api));
    }
    for url in [
        "http://serverless.roboflow.com",
        "https://roboflow.com",
        "https://serverless.roboflow.com.example",
        "https://app.roboflow.com",
        "https://127.0.0.1",
        "http://localhost:9001",
    ] {
        assert_eq!(config(url), None, "{url}");
    }
}

#[tokio::test]
async fn turn_servers_are_fetched_and_passed_on() {
    let config = json!({ "urls": "turn:t", "username": "u", "credential": "c", "more": 1 });
    let list = json!([{ "urls": ["turn:t"], "username": "u", "credential": "c" }]);
    let server = Server::new(move |_| say("200 OK", config.to_string())).await;
    let (mut roboflow, http) = hosted(&server.url);
    let found = roboflow.ice_servers(&http).await;
    assert_eq!(
        (found.list.as_ref(), found.warning.as_ref()),
        (Some(&list), None)
    );
    let request = server.request(0);
    assert!(
        request.starts_with(&format!("GET /webrtc_turn_config?api_key={KEY} ")),
        "{request}"
    );
    assert!(!request.contains("t0ken"), "{request}");
    assert_eq!(
        roboflow.request().body("")["webrtc_config"],
        json!({ "iceServers": list })
    );
    assert!(!format!("{found:?}").contains("turn:t"));
    // Those of the options are asked of nobody.
    let own = ice_servers(&json!([{ "urls": "turn:o" }]), true).unwrap();
    roboflow.turn = Some(own.clone());
    assert_eq!(roboflow.ice_servers(&http).await.list, Some(own));
    assert_eq!(server.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn turn_servers_that_cannot_be_had_are_a_warning_without_the_key() {
    for (status, body) in [
        ("403 Forbidden", KEY),
        ("200 OK", "{}"),
        ("200 OK", "no"),
        ("302 Found", ""),
    ] {
        let server = Server::new(move |_| say(status, body)).await;
        let (roboflow, http) = hosted(&server.url);
        let found = roboflow.ice_servers(&http).await;
        let warning = found.warning.unwrap();
        assert!(
            found.list.is_none() && warning.contains(&server.url),
            "{warning}"
        );
        assert!(!warning.contains(KEY), "{warning}");
        assert_eq!(roboflow.request().body("").get("webrtc_config"), None);
    }
    let (roboflow, http) = hosted("http://127.0.0.1:1");
    let warning = roboflow.ice_servers(&http).await.warning.unwrap();
    assert!(
        warning.contains("no connection") && !warning.contains(KEY),
        "{warning}"
    );
}

/// One of Roboflow's own, as if its API were there.
fn hosted(api: &str) -> (Roboflow, Http) {
    let given = named(&[("api-key", text(KEY)), ("token", text("t0ken"))]);
    let address = address("https://serverless.roboflow.com");
    let mut roboflow = Roboflow::new(&address, &given, None).unwrap();
    roboflow.turn_config = Some(format!("{api}/webrtc_turn_config").parse().unwrap());
    (roboflow, Http::new(&address, &given).unwrap())
}

#[test]
fn turn_servers_are_written_in_three_ways() {
    let server = json!({ "urls": "turn:a", "username": "u", "credential": "c" });
    let list = json!([{ "urls": ["turn:a"], "username": "u", "credential": "c" }]);
    for value in [
        server.clone(),
        json!([server]),
        json!({ "iceServers": [server] }),
    ] {
        assert_eq!(ice_servers(&value, true), Ok(list.clone()));
    }
    assert_eq!(
        ice_servers(&json!({ "iceServers": [] }), true),
        Ok(json!([]))
    );
    let stun = json!([{ "urls": "stun:a", "username": null }]);
    assert_eq!(
        ice_servers(&stun, true),
        Ok(json!([{ "urls": ["stun:a"] }]))
    );
    for wrong in [
        json!(7),
        json!("turn:a"),
        json!({}),
        json!({ "iceServers": {} }),
        json!([{ "urls": 7 }]),
        json!([{ "urls": [] }]),
        json!([{ "urls": [7] }]),
        json!([7]),
        json!([{ "urls": "turn:a", "username": 7 }]),
        json!(vec![json!({ "urls": "turn:a" }); 17]),
    ] {
        assert!(ice_servers(&wrong, true).is_err(), "{wrong}");
    }
}

#[test]
fn the_protocol_tells_what_only_it_has() {
    let more = [
        ("declared-fps", Given::Number(12.5)),
        ("processing-timeout", Given::Integer(60)),
        ("realtime-processing", Given::Flag(false)),
        ("data-output", text("*")),
    ];
    let protocol = protocol(&address("http://h"), &named(&more)).unwrap();
    let roboflow = protocol.roboflow().unwrap();
    assert_eq!(roboflow.request.declared_fps, Some(12.5));
    assert_eq!(roboflow.request.processing_timeout, Some(60));
    assert!(!roboflow.realtime());
    assert_eq!(roboflow.request.data_output, ["*"]);
}
