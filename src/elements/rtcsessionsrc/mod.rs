/**
 * SECTION:element-rtcsessionsrc
 *
 * Hosts a session: answers WebRTC offers over HTTP and gives every visitor's video and audio, decoded, to pads
 * or to a chain of elements made for that visitor. What inference elements say about a frame goes back to the
 * visitor it came from, on the data channel the visitor opened.
 *
 * ## Pads: one visitor that the launch line knows
 *
 * |[
 * gst-launch-1.0 rtcsessionsrc name=s  s.video_0 ! queue ! framemeta ! inferencesink model=models/shapes.onnx
 * ]|
 * A pad appears with the first frame of a track. Pad names take the lowest free number; pads that nobody links
 * do no harm. When the visitor leaves, EOS goes down its branches and the pads go. gst-launch links a pad once,
 * and a sink takes nothing after EOS, so such a line serves one visitor; an application builds a new branch on
 * `pad-added`. The pipeline's EOS comes after everything was said about the visitor; a branch that never got
 * its pad keeps a pipeline from EOS.
 *
 * ## Chains: a server
 *
 * |[
 * gst-launch-1.0 rtcsessionsrc video-chain="framemeta ! inferencesink model=models/shapes.onnx"
 * ]|
 * Every stream of every visitor gets a bin of its own. A chain that is slower than its stream gets the newest
 * frame next: at most two wait. A chain that fails ends its own connection, and nothing else.
 *
 * A visitor's slot is free as soon as the visitor is on the way out, even while the chain is still at a frame.
 *
 * An element of a chain ends its connection with an upstream custom event `rtc-close`; its field `message` (a
 * string) becomes the detail. Where branches meet (a funnel behind pads) the event needs a field `connection-id`.
 *
 * One more bin of each chain stands by in READY: it shows at once whether the chain works, and what it loads
 * stays loaded. A sink that opens a device, a file or a port in READY and shares it with nobody therefore does not fit
 * in a chain; nor does an element that is linked only once it knows its input, as decodebin is.
 *
 * ## What goes back
 *
 * |[
 * gst-launch-1.0 rtcsessionsrc video-chain="framemeta ! inferencefilter model=models/shapes.onnx ! framemetaoverlay"
 * ]|
 * What leaves a chain's src pad is sent back to the visitor: on the m-line of the stream that entered, or on the
 * first free one where it is another kind (audio in, video out) or its own line only sends. Its kind is what the
 * pad's caps allow, else the input's; two chains that give one kind are refused. It is encoded as VP8, H.264 or Opus, by what
 * was negotiated, at the rate the network carries between min-bitrate and max-bitrate; what is encoded already and
 * fits is sent untouched. Frames that come back carry the RTP timestamp of the frame they were made of. Frames are skipped,
 * never queued, when the encoder or the network is behind. The answer gives each line the direction of what
 * is sent on it. A visitor that cannot be sent what leaves a chain is named once, in a `rtc-connection-error` that is
 * not fatal. Media from elsewhere in the pipeline, or for several visitors, is sent by `rtcsessionsink`.
 *
 * An upstream custom event `rtc-interrupt` from an element of a chain, or the action of that name, drops what is on its way
 * to the visitor.
 *
 * A chain whose sink pad takes nothing but encoded frames, such as `capsfilter caps=video/x-vp8`, is given them as they
 * come, undecoded, and only codecs that fit are negotiated.
 *
 * ## Doors
 *
 * Each door speaks to the clients of one kind in their words; all share the listener, the limit and the list of
 * connections. FastRTC's clients bring their id, may trickle, and hear of results as `fetch_output`. Roboflow's
 * `inference_sdk` chooses a chain by its workflow's id (property workflows) and gets results in its own framing; it may ask
 * for every frame instead of the newest (`realtime_processing=False`), which then wait for the chain, whose source
 * is not live; for a video file that it sends (max-upload); and for a camera that we pull from (allow-pull).
 *
 * ## The connections
 *
 * The property `connections` and the actions `get-connection`, `end-connection`, `send-data` and `set-args` reach
 * every visitor by id, whatever the door; so do these, on the listener:
 *
 * | route | what |
 * |---|---|
 * | `GET /connections` | the list as JSON; from this machine only |
 * | `DELETE /connections/{id}` | ends one as `closed-by-application`; 404 if there is none; from this machine only |
 * | `GET /outputs?webrtc_id=ID` | the results of one as server-sent events: `output` (a result's JSON), `dropped` (`{"dropped":n}`, of a reader more than 64 behind), `end` |
 * | `GET /metrics` | figures as OpenMetrics text; from this machine only |
 * | `GET /healthz` | 200 while the listener serves |
 * | `GET /rtc-config` | `{"iceServers","iceTransportPolicy"}` for a client's RTCPeerConnection, with what `request-ice-servers` says, else stun-server and turn-servers |
 * | `GET /desired-playing-state` | `true`, `false` or `null` as server-sent events, for the page |
 *
 * With `auth-token` all of these but `/healthz` need `Authorization: Bearer TOKEN`, as the doors do; without the header they
 * answer 401. Beyond this machine it listens with an `auth-token` only, or with insecure=true. `listen=https://…` needs
 * `tls-certificate` and `tls-private-key`; pages of other origins need to be named in `allowed-origins`.
 *
 * The figures of inference count what `inferencesink` and `inferencefilter` say in `inference-stats` messages inside
 * chains: with stats-interval=0 they say nothing, and nothing is counted.
 *
 * A connection that we end is told why, as the last text on its data channel:
 * `{"errors":[…],"processing_complete":true,"termination_reason":"time-limit","detail":…}`.
 *
 * ## Relays
 *
 * Each of `turn-servers` lends us one address, which is a candidate of every connection; clients are told of the same
 * servers by `/rtc-config`, which the built-in page asks. With `ice-transport-policy=relay` there are no other candidates, and
 * an offer that comes while no TURN server relays is refused with 503, as `no-relay`. An offer waits for a server's first
 * answer until two seconds after READY, and never for one that failed. What fails or is lost is tried again, with pauses
 * of 1 to 60 s, and is one warning on the bus for each time that it stops working. Our side speaks plain UDP to the servers
 * and is lent IPv4 addresses.
 *
 * ## Broadcasting programs
 *
 * The door `whip` is WHIP (RFC 9725): `POST /whip` with an offer as `application/sdp`, then `PATCH` (more candidates,
 * or an ICE restart) and `DELETE` at the answer's `Location`, `/whip/{id}`. Nothing is sent back to such a client,
 * whatever its chains make. The servers that `/rtc-config` names are in the answer's `Link` headers, and its
 * `Authorization` is in what `authorize` is asked.
 *
 * ## A webrtcbin of one's own
 *
 * |[
 * gst-launch-1.0 rtcsessionsrc webrtcbin=w video-codecs=vp8  webrtcbin name=w bundle-policy=max-bundle  w. ! application/x-rtp,media=video,encoding-name=VP8 ! rtpvp8depay ! vp8dec ! framemeta ! inferencesink model=models/shapes.onnx
 * ]|
 * With webrtcbin=NAME the webrtcbin of that name in the same pipeline answers what comes in by the doors, instead of this
 * element's own transport. Media stays on its own pads, with the RTP facts of every packet; results that come up them,
 * data channels, messages, ends and EOS are as ever. A session description is checked and rewritten before the webrtcbin sees
 * it. What is linked to its sink pads is held back until somebody is there, and sent with the payload type that they
 * gave its codec. A pad that nobody links does no harm, and an error inside the webrtcbin ends the connection and not the pipeline.
 *
 * It serves one visitor: the pipeline ends with it, or with eos-policy=never an application puts a new webrtcbin of that name
 * in its place when `rtc-connection-ended` comes, or `rtc-connection-rejected` with the error `webrtcbin`. There are no chains, no files and no cameras, and ICE is not restarted.
 * A visitor that goes without a word is lost after disconnect-timeout, but not before 8 seconds. With offer=true
 * `POST /offer` with `{"type":"request"}` gets the webrtcbin's offer, and `{"type":"answer","sdp","pc_id"}` answers it.
 *
 * ## Calling a server
 *
 * |[
 * gst-launch-1.0 rtcsessionsrc name=s uri=roboflow+http://127.0.0.1:9001 \
 *     options="roboflow,workflow-file=flow.json,stream-output=image,data-output=predictions,upload-location=in.mp4" \
 *     s.video_0 ! queue ! framemeta ! videoconvert ! autovideosink
 * gst-launch-1.0 v4l2src ! videoconvert ! rtcsessionsink uri=fastrtc+http://127.0.0.1:7860 session=a \
 *     rtcsessionsrc name=s session=a  s.video_0 ! queue ! videoconvert ! autovideosink
 * ]|
 * With `uri`, here or on the `rtcsessionsink` or `inferencesink` of the same `session`, nobody is waited for: a server is
 * called, and what it sends comes out of the pads, or goes through the chains, of the `rtcsessionsrc` of that session. Elements that share a
 * session have the same name in `session`, and one of them has the `uri`; the call is made when the pipeline goes to PLAYING.
 *
 * | uri | server | options of its own |
 * |---|---|---|
 * | `roboflow+http(s)://HOST:PORT` | Roboflow's inference server | `workflow-file`, or `workspace` and `workflow-id` (`workflow-version`); `image-input-name`, `workflow-parameters`, `stream-output`, `data-output`, `realtime-processing`, `declared-fps`, `processing-timeout`, `requested-plan`, `requested-region`, `api-key` (else the variable ROBOFLOW_API_KEY), `api-key-in` (body, header, both), `rtsp-url`, `mjpeg-url`, `upload-location`, `upload-frames` (channel, track), `turn-server` |
 * | `fastrtc+http(s)://HOST:PORT` | FastRTC | `webrtc-id`, `input-hook`, `receive` |
 * | `offer+http(s)://HOST:PORT/PATH` | aiortc's examples, Pipecat | `data`, `channel`, `receive` |
 * | `whip+http(s)://…` | WHIP (RFC 9725): is sent to | |
 * | `whep+http(s)://…` | WHEP: sends | `receive` |
 *
 * All take `token` (a bearer token), `ca-file` (whom to trust with https) and `answer-timeout` (seconds, 90). `receive` is `video`, `audio` or both with a comma.
 *
 * What Roboflow's server says of a frame is posted as `inference-result`, and is on the frame it belongs to when that comes back:
 * `frame-id`, `results` and `json` of its RtcFrameMeta. A frame of which nothing was said in time (200 ms) has none of these.
 * Pictures that come on the data channel come out as frames of the stream `CONNECTION-ID/inference`. With
 * `realtime-processing=false`, the default with `upload-location`, each frame is acknowledged when whoever is behind the pad
 * has taken it, so nothing is lost however slow that is. Errors of a frame are warnings. FastRTC's messages are `rtc-data`, and `set-args` reaches its `input-hook`.
 *
 * When the server has processed everything, EOS follows. A session that does not come about or is lost is one error, which names
 * the URL, the status and the cause; with `reconnect=on-loss` it is a warning, and the server is called again. When all that
 * is sent has ended, the session ends as soon as nothing has come back for two seconds.
 *
 * ## Messages
 *
 * Element messages, posted from threads of the plugin's own that serve every visitor, unless said otherwise: a
 * synchronous bus handler must not block. All carry `connection-id`
 * where there is one. Times are nanoseconds.
 *
 * | message | other fields | when |
 * |---|---|---|
 * | `rtc-listening` | uri, doors | the listener is up (from the thread that changes state) |
 * | `rtc-connection-created` | external-id, door, remote-address, created-at, data | an answer is handed out |
 * | `rtc-connection-state` | old, new, signalling, playing | each change: signalling, connecting, playing, ending, ended |
 * | `rtc-stream-started` | stream-id, media, codec, pad | the first frame of a track |
 * | `rtc-stream-ended` | stream-id, media, reason, buffers, dropped, duration | EOS has left the chain, or was pushed to the pad |
 * | `rtc-connection-ended` | external-id, door, reason, detail, termination-reason, duration, had-media | the last word; everything of it is freed |
 * | `rtc-connection-rejected` | door, external-id, error, limit | refused; nothing else follows |
 * | `rtc-connection-error` | error, fatal | something failed inside one connection |
 * | `rtc-data` | channel, text or bytes | a message of the visitor's, at most 500 a second |
 * | `rtc-upload-progress` | bytes, total | twice a second while a server is sent a file, and when that is done |
 * | `inference-result` | stream-id, frame-id, json | a server that was called says something of a frame |
 *
 * Every `rtc-stream-started` has exactly one `rtc-stream-ended`, every `rtc-connection-created` exactly one
 * `rtc-connection-ended`, after all its stream ends. Reasons: `client-closed`, `peer-lost`,
 * `time-limit`, `closed-by-application`, `source-ended`, `setup-timeout`, `setup-failed`, `handler-error`,
 * `server-shutdown`; with a server that was called also `server-closed` and `stalled`.
 *
 * Setting the pipeline to NULL is abrupt: what was posted then reaches a sync handler, or a bus whose
 * auto-flush is off. Send EOS first to have files finalised: it ends every visitor, then posts our EOS.
 *
 * Since: 0.1
 */
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use crate::peer::codecs::Media;

mod actions;
mod imp;
mod kept_pads;
mod properties;
mod settings;
mod stage;

pub use settings::{EosPolicy, IceTransportPolicy, PlayingState};

glib::wrapper! {
    pub struct RtcSessionSrc(ObjectSubclass<imp::RtcSessionSrc>)
        @extends gst::Element, gst::Object;
}

impl RtcSessionSrc {
    fn pad_template(media: Media) -> gst::PadTemplate {
        let name = match media {
            Media::Video => "video_%u",
            Media::Audio => "audio_%u",
        };
        imp::RtcSessionSrc::pad_templates()
            .iter()
            .find(|template| template.name_template() == name)
            .expect("the element has one for each kind")
            .clone()
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    for kind in [
        EosPolicy::static_type(),
        IceTransportPolicy::static_type(),
        PlayingState::static_type(),
    ] {
        kind.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(
        Some(plugin),
        "rtcsessionsrc",
        gst::Rank::NONE,
        RtcSessionSrc::static_type(),
    )
}
