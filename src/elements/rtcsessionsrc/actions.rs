//! What an application asks of the element while it runs, and what the element asks of the application.

use std::ops::ControlFlow;

use gst::glib::{self, BoxedValue, subclass::Signal};
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::{RtcSessionSrc, imp};
use crate::logic::wire::dialect::Payload;
use crate::logic::wire::record::{ConnectionRecord, StreamRecord};
use crate::peer::session::Session;

const TYPED: &str = "the type was checked against the signal";

#[allow(
    unused_doc_comments,
    reason = "GStreamer's documentation tools read them"
)]
pub fn signals() -> Vec<Signal> {
    let text = String::static_type();
    let structure = gst::Structure::static_type();
    vec![
        /**
         * GstRtcSessionSrc::get-connection:
         * @id: a connection-id, or the external-id of a client
         *
         * Returns: (nullable): what is known of that connection: connection-id, external-id, door, state,
         * remote-address, created-at (nanoseconds since 1970), had-media, streams, data. Any thread.
         *
         * Since: 0.1
         */
        Signal::builder("get-connection")
            .action()
            .param_types([text])
            .return_type::<Option<gst::Structure>>()
            .class_handler(|args| {
                let (element, id) = target(args);
                let connection = element.session().and_then(|session| session.find(&id));
                Some(connection.map(|c| structure_of(&c.record())).to_value())
            })
            .build(),
        /**
         * GstRtcSessionSrc::end-connection:
         * @id: a connection-id, or the external-id of a client
         * @detail: (nullable): why; the visitor and the application are told
         *
         * Ends a connection as `closed-by-application`; its messages follow. Any thread; does not wait.
         *
         * Returns: whether there was such a connection that was not ending already.
         *
         * Since: 0.1
         */
        Signal::builder("end-connection")
            .action()
            .param_types([text, text])
            .return_type::<bool>()
            .class_handler(|args| {
                let (element, id) = target(args);
                let detail = args[2].get().expect(TYPED);
                let ended = element
                    .session()
                    .is_some_and(|session| session.end_connection(&id, detail));
                Some(ended.to_value())
            })
            .build(),
        /**
         * GstRtcSessionSrc::send-data:
         * @id: a connection-id, or the external-id of a client
         * @channel: (nullable): the label of a data channel; without one it is the oldest that is open
         * @data: a string or a #GBytes
         *
         * Sends a message to a visitor. What finds no such channel, or a full one, is told as a
         * `rtc-connection-error` that is not fatal. Any thread; does not wait.
         *
         * Returns: whether the message is on its way; not if there is no such connection, 32 messages to it
         * wait already, or @data is neither a string nor bytes.
         *
         * Since: 0.1
         */
        Signal::builder("send-data")
            .action()
            .param_types([text, text, BoxedValue::static_type()])
            .return_type::<bool>()
            .class_handler(|args| {
                let (element, id) = target(args);
                let channel = args[2].get().expect(TYPED);
                let sent = match payload(&args[3]) {
                    Some(payload) => element
                        .session()
                        .and_then(|session| session.find(&id))
                        .is_some_and(|connection| connection.send_data(channel, payload)),
                    None => {
                        gst::warning!(imp::CAT, imp = element, "send-data: a string or a GBytes is right");
                        false
                    }
                };
                Some(sent.to_value())
            })
            .build(),
        /**
         * GstRtcSessionSrc::set-args:
         * @id: a connection-id, or the external-id of a client
         * @args: a structure of any name
         *
         * A field `NAME.PROPERTY` sets that property of the element NAME in the connection's chains, converted as
         * gst-launch-1.0 does. The other fields go down every stream as a serialised event `rtc-args`, before
         * the next buffer. Streams that start later get what was set before them. All of it is taken or nothing;
         * why not is told as a `rtc-connection-error` that is not fatal. Any thread.
         *
         * Returns: whether the arguments were taken.
         *
         * Since: 0.1
         */
        Signal::builder("set-args")
            .action()
            .param_types([text, structure])
            .return_type::<bool>()
            .class_handler(|args| {
                let (element, id) = target(args);
                let given = args[2].get::<gst::Structure>();
                Some(given.is_ok_and(|given| set_args(&element, &id, &given)).to_value())
            })
            .build(),
        /**
         * GstRtcSessionSrc::rtc-interrupt:
         * @id: a connection-id, or the external-id of a client
         *
         * Drops what waits to be sent to a visitor: in chains that send something back, and in an `rtcsessionsink`.
         * Elements downstream say the same by an upstream custom event `rtc-interrupt`. Any thread; does not wait.
         *
         * Returns: whether there was such a connection.
         *
         * Since: 0.1
         */
        Signal::builder("rtc-interrupt")
            .action()
            .param_types([text])
            .return_type::<bool>()
            .class_handler(|args| {
                let (element, id) = target(args);
                let connection = element.session().and_then(|session| session.find(&id));
                if let Some(connection) = &connection {
                    connection.interrupt();
                }
                Some(connection.is_some().to_value())
            })
            .build(),
        /**
         * GstRtcSessionSrc::authorize:
         * @visitor: door, external-id, remote-address, data (the client's own, as JSON) and authorization (that
         * header of the request) of who wants to come in
         *
         * Emitted for each first offer that fits the limits, from a thread that may wait; the visitor waits with
         * it. The first handler that returns %FALSE refuses: the client gets status 403.
         *
         * Returns: whether the visitor may come in; without a handler everyone may.
         *
         * Since: 0.1
         */
        Signal::builder("authorize")
            .param_types([structure])
            .return_type::<bool>()
            .run_last()
            .class_handler(|_| Some(true.to_value()))
            .accumulator(|_, _, answer| match answer.get::<bool>() {
                Ok(true) => ControlFlow::Continue(answer.clone()),
                _ => ControlFlow::Break(answer.clone()),
            })
            .build(),
        /**
         * GstRtcSessionSrc::request-ice-servers:
         * @visitor: remote-address of who asks
         *
         * Emitted when a page asks for STUN and TURN servers (`GET /rtc-config`) or a WHIP client was let in, from a thread that may wait:
         * the place for credentials that live for a while only. The first handler that returns a text wins.
         *
         * Returns: (nullable): JSON as in RTCConfiguration.iceServers: a list of objects with `urls` and, where
         * needed, `username` and `credential`.
         *
         * Since: 0.1
         */
        Signal::builder("request-ice-servers")
            .param_types([structure])
            .return_type::<Option<String>>()
            .run_last()
            .accumulator(|_, _, answer| match answer.get::<Option<String>>() {
                Ok(Some(_)) => ControlFlow::Break(answer.clone()),
                _ => ControlFlow::Continue(answer.clone()),
            })
            .build(),
    ]
}

/// The element an action is asked of, and the id it is about.
fn target(args: &[glib::Value]) -> (glib::subclass::ObjectImplRef<imp::RtcSessionSrc>, String) {
    let element = args[0].get::<RtcSessionSrc>().expect(TYPED);
    let id = args[1].get::<Option<String>>().expect(TYPED);
    (element.imp().to_owned(), id.unwrap_or_default())
}

fn payload(value: &glib::Value) -> Option<Payload> {
    let value = value.get::<BoxedValue>().ok()?;
    if let Ok(Some(text)) = value.get::<Option<String>>() {
        return Some(Payload::Text(text));
    }
    let bytes = value.get::<Option<glib::Bytes>>().ok()??;
    Some(Payload::Bytes(bytes.to_vec()))
}

fn set_args(element: &imp::RtcSessionSrc, id: &str, args: &gst::StructureRef) -> bool {
    let connection = element.session().and_then(|session| session.find(id));
    let Some(connection) = connection else {
        gst::warning!(
            imp::CAT,
            imp = element,
            "set-args: there is no connection {id:?}"
        );
        return false;
    };
    if let Some(taken) = element.send_args(args) {
        return taken;
    }
    match connection.set_args(args) {
        Ok(()) => true,
        Err(error) => {
            connection.complain(&error.to_string());
            false
        }
    }
}

/// Whether every handler lets the visitor in.
pub fn authorize(element: &RtcSessionSrc, visitor: &gst::Structure) -> bool {
    element.emit_by_name("authorize", &[visitor])
}

/// What a handler says, if it is a list of ICE servers.
pub fn ice_servers(element: &RtcSessionSrc, visitor: &gst::Structure) -> Option<String> {
    let said: Option<String> = element.emit_by_name("request-ice-servers", &[visitor]);
    let said = said?;
    let servers: Option<Vec<serde_json::Value>> = serde_json::from_str(&said).ok();
    let is_server = |server: &serde_json::Value| {
        let urls = &server["urls"];
        let list = urls.as_array().filter(|urls| !urls.is_empty());
        urls.is_string() || list.is_some_and(|urls| urls.iter().all(serde_json::Value::is_string))
    };
    if servers.is_some_and(|servers| servers.iter().all(is_server)) {
        return Some(said);
    }
    // It may hold a password, so it is not shown.
    gst::warning!(
        imp::CAT,
        obj = element,
        "request-ice-servers: a handler's answer is no JSON list of objects with urls; nobody is given it"
    );
    None
}

/// The property `connections`.
pub fn connections(session: Option<&Session>) -> gst::Structure {
    let mut all = gst::Structure::new_empty("connections");
    for record in session.map(Session::connections).unwrap_or_default() {
        all.set(record.connection_id.as_str(), structure_of(&record));
    }
    all
}

fn structure_of(record: &ConnectionRecord) -> gst::Structure {
    let stream = |stream: &StreamRecord| {
        gst::Structure::builder("stream")
            .field("stream-id", &stream.stream_id)
            .field("media", stream.media)
            .field("codec", stream.codec)
            .build()
            .to_send_value()
    };
    gst::Structure::builder("connection")
        .field("connection-id", &record.connection_id)
        .field_if_some("external-id", record.external_id.as_deref())
        .field("door", record.door)
        .field("state", record.state)
        .field("remote-address", &record.remote_address)
        .field("created-at", record.created_at)
        .field("had-media", record.had_media)
        .field(
            "streams",
            gst::Array::from_values(record.streams.iter().map(stream)),
        )
        .field("data", &record.data)
        .build()
}
