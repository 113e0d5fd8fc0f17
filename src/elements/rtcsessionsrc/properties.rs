//! The properties: what they are called, how they are explained, and which setting each one is.

use gst::glib;
use gst::prelude::*;

use crate::elements::dialling::Dialling;

use super::settings::{EosPolicy, IceTransportPolicy, PlayingState, Settings};

const TYPED: &str = "the type was checked against the property";

pub fn all() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    let text = |name, nick, blurb, default: Option<&str>| {
        glib::ParamSpecString::builder(name)
            .nick(nick)
            .blurb(blurb)
            .default_value(default)
            .build()
    };
    let milliseconds = |name, nick, blurb, default| {
        glib::ParamSpecUInt::builder(name)
            .nick(nick)
            .blurb(blurb)
            .default_value(default)
            .build()
    };
    let mut all = vec![
        text(
            "listen",
            "Listen",
            "Where the doors are served, http://HOST:PORT, or https://HOST:PORT with tls-certificate and tls-private-key; port 0 takes any free one, and the rtc-listening message says which",
            Some(&default.listen),
        ),
        text(
            "doors",
            "Doors",
            "Signalling dialects that are served, separated by commas: page (the built-in page), offer (POST /offer and /api/offer, as aiortc's and Pipecat's servers), fastrtc (POST /webrtc/offer and /input_hook), roboflow (POST /initialise_webrtc_worker, for inference_sdk), whip (/whip, RFC 9725: what OBS and whipclientsink send to)",
            Some(&default.doors),
        ),
        text(
            "allowed-hosts",
            "Allowed hosts",
            "Host names, separated by commas, that requests may be made for besides IP addresses, localhost and the host of listen; others are refused, as a protection against DNS rebinding",
            Some(&default.allowed_hosts),
        ),
        text(
            "allowed-origins",
            "Allowed origins",
            "Origins such as https://example.org, separated by commas, whose pages may use the doors besides the built-in page; * is every one, for which auth-token is needed to keep anybody out. Pages of others are refused with HTTP status 403",
            Some(&default.allowed_origins),
        ),
        text(
            "auth-token",
            "Authorization token",
            "The secret that clients send as \"Authorization: Bearer TOKEN\", the built-in page takes from its address's #token=TOKEN, and Roboflow's SDK sends as api_key; everything but the page's own files and /healthz is refused without it, with HTTP status 401. Letters, digits and -._~+/ with = at the end. Unset lets everybody in",
            None,
        ),
        glib::ParamSpecBoolean::builder("insecure")
            .nick("Insecure")
            .blurb("Whether it listens without an auth-token where other machines reach it, for anybody there to use; else it does not start")
            .default_value(default.insecure)
            .build(),
        text(
            "tls-certificate",
            "TLS certificate",
            "Path of a PEM file with the certificate that https is served with, and after it those between it and its root. With listen=https://… and tls-private-key only",
            None,
        ),
        text(
            "tls-private-key",
            "TLS private key",
            "Path of a PEM file with the key of tls-certificate, without a passphrase",
            None,
        ),
        glib::ParamSpecUInt::builder("max-connections")
            .nick("Maximum connections")
            .blurb("Visitors served at a time, over all doors; more are refused with HTTP status 503. 0 refuses everyone")
            .default_value(default.max_connections)
            .build(),
        glib::ParamSpecUInt::builder("max-pending")
            .nick("Maximum pending")
            .blurb("Connections of one remote address, or IPv6 network of 64 bits, that may be on their way at a time, offered and not yet connected; more are refused with HTTP status 429. Behind a proxy all visitors have its address. 0 sets no bound")
            .default_value(default.max_pending)
            .build(),
        glib::ParamSpecUInt::builder("udp-port")
            .nick("UDP port")
            .blurb("The UDP port that the media of all connections use; 0 takes any free one")
            .maximum(u16::MAX.into())
            .default_value(default.udp_port)
            .build(),
        text(
            "ice-addresses",
            "ICE addresses",
            "Local IP addresses, separated by commas, that visitors are told; empty is every local address, loopback too",
            Some(&default.ice_addresses),
        ),
        text(
            "stun-server",
            "STUN server",
            "Servers that tell how we are seen from outside, stun://HOST:PORT, separated by commas; unset asks nobody. Clients are told of them by GET /rtc-config and WHIP's Link headers, unless request-ice-servers says something else",
            None,
        ),
        text(
            "turn-servers",
            "TURN servers",
            "Relays for visitors that we do not reach directly, turn://USER:PASSWORD@HOST:PORT?transport=udp, separated by commas or spaces, with %XX for characters that have a meaning in a URL; unset is none. Each lends us one address that all connections share. Clients are told of them, account and all, by GET /rtc-config and WHIP's Link headers, unless request-ice-servers says something else; those with transport=tcp or turns: are for clients only. One that does not work is warned of once and tried again",
            None,
        ),
        glib::ParamSpecEnum::builder::<IceTransportPolicy>("ice-transport-policy")
            .nick("ICE transport policy")
            .blurb("Whether visitors are reached directly where that can be, or through turn-servers only; clients are told by GET /rtc-config. With relay no local address is told or listened on for media, and while no TURN server relays, offers are refused with HTTP status 503")
            .default_value(default.ice_transport_policy)
            .build(),
        text(
            "video-codecs",
            "Video codecs",
            "Codecs that are taken, in order of preference, separated by commas: vp8, h264. Those without an installed decoder are left out",
            Some(&default.video_codecs),
        ),
        milliseconds(
            "latency",
            "Latency",
            "Milliseconds that a missing packet is waited for before the stream goes on without it; also what the LATENCY query says. 0 waits for nothing",
            default.latency,
        ),
        milliseconds(
            "setup-timeout",
            "Setup timeout",
            "Milliseconds from the answer until the connection must stand, else it ends as setup-timeout; 0 waits for ever",
            default.setup_timeout,
        ),
        milliseconds(
            "connection-timeout",
            "Connection timeout",
            "Milliseconds that a visit may last, from the moment the connection stands; then it ends as time-limit. 0 is for ever",
            default.connection_timeout,
        ),
        milliseconds(
            "disconnect-timeout",
            "Disconnect timeout",
            "Milliseconds without a packet after which a visitor has gone and the connection ends as peer-lost; 0 waits for ever",
            default.disconnect_timeout,
        ),
        milliseconds(
            "drain-timeout",
            "Drain timeout",
            "Milliseconds that EOS is given to leave the branches of a connection that ends; then they are flushed. 0 flushes at once",
            default.drain_timeout,
        ),
        milliseconds(
            "shutdown-timeout",
            "Shutdown timeout",
            "Milliseconds that stopping waits for every visitor to be ended; of these all but 1500 are left for draining, if drain-timeout is not shorter. 0 does not wait",
            default.shutdown_timeout,
        ),
        glib::ParamSpecEnum::builder_with_default("eos-policy", default.eos_policy)
            .nick("EOS policy")
            .blurb("Whether the pipeline ends when its visitor has left, or goes on until it is sent EOS")
            .build(),
        glib::ParamSpecEnum::builder_with_default(
            "desired-playing-state",
            default.desired_playing_state,
        )
        .nick("Desired playing state")
        .blurb("What visitors are asked to do: those connected are sent {\"desired_playing_state\":true or false} on their data channel, and the built-in page does it. Each change is sent once")
        .mutable_playing()
        .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("connections")
            .nick("Connections")
            .blurb("Every connection now: a structure with a field for each connection-id, whose value is a structure as get-connection gives it")
            .read_only()
            .build(),
        text(
            "session",
            "Session",
            "The name by which an rtcsessionsink of this process finds the visitors",
            Some(&default.session),
        ),
        text(
            "video-chain",
            "Video chain",
            "Description of the elements that every video stream is given to, as in gst-launch-1.0, with one unlinked sink pad and at most one unlinked src pad, of which what leaves it is sent back; @FILE reads it from a file. Unset gives pads instead",
            None,
        ),
        text(
            "audio-chain",
            "Audio chain",
            "Description of the elements that every audio stream is given to, as in gst-launch-1.0, with one unlinked sink pad and at most one unlinked src pad, of which what leaves it is sent back; @FILE reads it from a file. Unset gives pads instead",
            None,
        ),
        text(
            "workflows",
            "Workflows",
            "Folder with files ID.launch, each a video-chain for clients of the Roboflow door that ask for the workflow ID; read when the element gets READY. Unset gives all of them video-chain",
            None,
        ),
        text(
            "client-args",
            "Client arguments",
            "Properties of the chains' elements that clients of the FastRTC and Roboflow doors may set, as NAME.PROPERTY, separated by commas. Arguments without a dot always go down their streams, as the event rtc-args",
            Some(&default.client_args),
        ),
        text(
            "allow-pull",
            "Allow pull",
            "Hosts, separated by commas, that clients of the Roboflow door may have video pulled from (rtsp_url, mjpeg_url); * allows every host with a public address, but a private one only where it or its name is listed, and a name in an https or rtsps URL only where that is. Empty turns pulling off",
            Some(&default.allow_pull),
        ),
        glib::ParamSpecUInt64::builder("max-upload")
            .nick("Maximum upload")
            .blurb("Longest video file, in bytes, that a client of the Roboflow door may send; it is kept in the folder for temporary files while it is played")
            .maximum(1 << 40)
            .default_value(default.max_upload)
            .build(),
        text(
            "webrtcbin",
            "webrtcbin",
            "Name of a webrtcbin in the same pipeline that answers what comes in by the doors, one connection at a time, instead of this element's own transport. Media stays on its own pads; messages, data channels, results and ends are said here. Unset is none",
            None,
        ),
        glib::ParamSpecBoolean::builder("offer")
            .nick("Offer")
            .blurb("Whether the webrtcbin makes the offer: POST /offer with {\"type\":\"request\"} asks for it, and {\"type\":\"answer\",\"sdp\",\"pc_id\"} answers it; offers of clients are refused then")
            .default_value(default.offer)
            .build(),
        glib::ParamSpecUInt::builder("min-bitrate")
            .nick("Minimum bitrate")
            .blurb("The least bits a second that a stream of video is sent back with, whatever the network says")
            .minimum(10_000)
            .default_value(default.min_bitrate)
            .build(),
        glib::ParamSpecUInt::builder("max-bitrate")
            .nick("Maximum bitrate")
            .blurb("The most bits a second that a stream of video is sent back with, however much the network carries")
            .minimum(10_000)
            .default_value(default.max_bitrate)
            .build(),
        glib::ParamSpecBoolean::builder("stereo")
            .nick("Stereo")
            .blurb("Whether audio is sent back in two channels, whatever leaves the chain, or in one")
            .default_value(default.stereo)
            .build(),
        glib::ParamSpecBoolean::builder("dtx")
            .nick("Discontinuous transmission")
            .blurb("Whether nothing is sent while the audio is silent")
            .default_value(default.dtx)
            .build(),
        glib::ParamSpecUInt::builder("max-buffers")
            .nick("Maximum buffers")
            .blurb("Decoded frames of a server that is called (uri) which may wait for whoever takes them")
            .minimum(1)
            .maximum(300)
            .default_value(default.max_buffers)
            .build(),
        glib::ParamSpecBoolean::builder("drop")
            .nick("Drop")
            .blurb("Whether the oldest of these makes room when there are more, or the server is made to wait as far as its protocol can: with roboflow+http and realtime-processing=false no frame is lost, with others a second of video is kept before frames are")
            .default_value(default.drop)
            .build(),
    ];
    all.extend(Dialling::param_specs());
    all
}

/// Takes a value that was set.
pub fn set(settings: &mut Settings, value: &glib::Value, pspec: &glib::ParamSpec) {
    let text = || value.get::<Option<String>>().expect(TYPED);
    let number = || value.get::<u32>().expect(TYPED);
    match pspec.name() {
        "listen" => settings.listen = text().unwrap_or_default(),
        "doors" => settings.doors = text().unwrap_or_default(),
        "allowed-hosts" => settings.allowed_hosts = text().unwrap_or_default(),
        "allowed-origins" => settings.allowed_origins = text().unwrap_or_default(),
        "auth-token" => settings.auth_token = text(),
        "insecure" => settings.insecure = value.get().expect(TYPED),
        "tls-certificate" => settings.tls_certificate = text(),
        "tls-private-key" => settings.tls_private_key = text(),
        "max-connections" => settings.max_connections = number(),
        "max-pending" => settings.max_pending = number(),
        "udp-port" => settings.udp_port = number(),
        "ice-addresses" => settings.ice_addresses = text().unwrap_or_default(),
        "stun-server" => settings.stun_server = text().filter(|server| !server.is_empty()),
        "turn-servers" => settings.turn_servers = text(),
        "ice-transport-policy" => {
            settings.ice_transport_policy = value.get::<IceTransportPolicy>().expect(TYPED);
        }
        "video-codecs" => settings.video_codecs = text().unwrap_or_default(),
        "latency" => settings.latency = number(),
        "setup-timeout" => settings.setup_timeout = number(),
        "connection-timeout" => settings.connection_timeout = number(),
        "disconnect-timeout" => settings.disconnect_timeout = number(),
        "drain-timeout" => settings.drain_timeout = number(),
        "shutdown-timeout" => settings.shutdown_timeout = number(),
        "eos-policy" => settings.eos_policy = value.get::<EosPolicy>().expect(TYPED),
        "desired-playing-state" => {
            settings.desired_playing_state = value.get::<PlayingState>().expect(TYPED);
        }
        "video-chain" => settings.video_chain = text(),
        "audio-chain" => settings.audio_chain = text(),
        "workflows" => settings.workflows = text(),
        "client-args" => settings.client_args = text().unwrap_or_default(),
        "allow-pull" => settings.allow_pull = text().unwrap_or_default(),
        "max-upload" => settings.max_upload = value.get().expect(TYPED),
        "session" => settings.session = text().unwrap_or_default(),
        "webrtcbin" => settings.webrtcbin = value.get().expect(TYPED),
        "offer" => settings.offer = value.get().expect(TYPED),
        "min-bitrate" => settings.min_bitrate = number(),
        "max-bitrate" => settings.max_bitrate = number(),
        "stereo" => settings.stereo = value.get().expect(TYPED),
        "dtx" => settings.dtx = value.get().expect(TYPED),
        "max-buffers" => settings.max_buffers = number(),
        "drop" => settings.drop = value.get().expect(TYPED),
        name => unreachable!("{name} is no property of ours"),
    }
}

/// The value of a setting.
pub fn value(settings: &Settings, pspec: &glib::ParamSpec) -> glib::Value {
    match pspec.name() {
        "listen" => settings.listen.to_value(),
        "doors" => settings.doors.to_value(),
        "allowed-hosts" => settings.allowed_hosts.to_value(),
        "allowed-origins" => settings.allowed_origins.to_value(),
        "auth-token" => settings.auth_token.to_value(),
        "insecure" => settings.insecure.to_value(),
        "tls-certificate" => settings.tls_certificate.to_value(),
        "tls-private-key" => settings.tls_private_key.to_value(),
        "max-connections" => settings.max_connections.to_value(),
        "max-pending" => settings.max_pending.to_value(),
        "udp-port" => settings.udp_port.to_value(),
        "ice-addresses" => settings.ice_addresses.to_value(),
        "stun-server" => settings.stun_server.to_value(),
        "turn-servers" => settings.turn_servers.to_value(),
        "ice-transport-policy" => settings.ice_transport_policy.to_value(),
        "video-codecs" => settings.video_codecs.to_value(),
        "latency" => settings.latency.to_value(),
        "setup-timeout" => settings.setup_timeout.to_value(),
        "connection-timeout" => settings.connection_timeout.to_value(),
        "disconnect-timeout" => settings.disconnect_timeout.to_value(),
        "drain-timeout" => settings.drain_timeout.to_value(),
        "shutdown-timeout" => settings.shutdown_timeout.to_value(),
        "eos-policy" => settings.eos_policy.to_value(),
        "desired-playing-state" => settings.desired_playing_state.to_value(),
        "video-chain" => settings.video_chain.to_value(),
        "audio-chain" => settings.audio_chain.to_value(),
        "workflows" => settings.workflows.to_value(),
        "client-args" => settings.client_args.to_value(),
        "allow-pull" => settings.allow_pull.to_value(),
        "max-upload" => settings.max_upload.to_value(),
        "session" => settings.session.to_value(),
        "webrtcbin" => settings.webrtcbin.to_value(),
        "offer" => settings.offer.to_value(),
        "min-bitrate" => settings.min_bitrate.to_value(),
        "max-bitrate" => settings.max_bitrate.to_value(),
        "stereo" => settings.stereo.to_value(),
        "dtx" => settings.dtx.to_value(),
        "max-buffers" => settings.max_buffers.to_value(),
        "drop" => settings.drop.to_value(),
        name => unreachable!("{name} is no property of ours"),
    }
}
