//! Runs a model on raw video frames and tells what it found.
//!
//! Takes I420, NV12, RGB, BGR, RGBA and BGRA as they come. Of each stream one frame is in work and one waits; when more come,
//! `when-busy` decides: with `latest` the newest takes the waiting place and the streaming thread is never blocked, with `wait` upstream
//! is held and every frame is inferred. `auto` asks upstream: `latest` when it is live, else `wait`.
//!
//! Each result goes two ways: on the bus, and upstream as the custom event `inference-result` with the same fields, by which
//! an `rtcsessionsrc` upstream sends it to the peer the frame came from. Frames of several streams may come through a
//! `funnel`: each result names its own. A frame without `frame-id` (no `framemeta` before) gets one here.
//!
//! EOS waits for the frames that were taken in: their results, and the last statistics, come before it.
//!
//! The model is loaded in NULL→READY, and again in READY→PAUSED when a property was changed; what is wrong with it or with a
//! property is an element error that names it.
//!
//! # A model that changes
//!
//! `model` and what goes with it (`labels`, `decoder`, `input-size`, …) may be set while the element runs; what is set with
//! one call (`g_object_set`, `set_properties`) changes at once. The new model is loaded and tried beside the old one, and
//! takes over between two frames: none is lost, each result names the model that judged it, and `model-hash` is notified.
//! A new model that is bad leaves the old one running; a WARNING message says what is wrong, and the property keeps what was
//! set.
//!
//! # Many streams
//!
//! All elements of a process that have the same file, engine, device and number of threads share one copy of the model, and
//! take turns: as many infer at once as the cores have room for, the frame with the earliest `deadline` first. A frame is
//! taken when its turn comes, so it is the newest of its stream. With `max-batch` above 1, frames that wait for the same
//! model share a run; a run starts when it is full, when a frame of it has waited for `batch-latency`, or when it would be
//! late otherwise. The last run that there is room for also waits for those that have just shared one, for a quarter of that
//! one's time at most. An engine that fails or panics fails the frames of that run, and the next is served.
//!
//! # Engines
//!
//! | `engine` | what runs the model |
//! |---|---|
//! | `auto` | ONNX Runtime where its library is found and takes the model, else `rten` |
//! | `rten` | the embedded engine, on the CPU |
//! | `onnxruntime` | ONNX Runtime, or it is an error that names what was tried |
//! | `kserve` | servers that speak the KServe protocol, version 2, over HTTP: Triton, MLServer, OpenVINO Model Server |
//!
//! With `auto` an INFO message names the library that is used, or a WARNING says why there is none or why it does not take
//! the model, and what that costs: each once in a process, when a model is loaded. A `device` other than `cpu` is never
//! replaced by another one. The library is the one that `runtime-library` or else the variable `ORT_DYLIB_PATH` names;
//! where neither does, one in the folders of the dynamic linker or in a Python installation (`VIRTUAL_ENV`,
//! `CONDA_PREFIX`, that of a `python3` in `PATH`, `~/.local`). A process loads one and keeps it. What it logs is in the debug category `onnxruntime`.
//!
//! # Models
//!
//! | `decoder` | outputs it reads; N boxes, C classes | `resize=auto` |
//! |---|---|---|
//! | `yolov8` | [1, 4+C, N]: YOLOv8, YOLO11 | letterbox |
//! | `yolov5` | [1, N, 5+C] | letterbox |
//! | `end2end` | [1, N, 6]: left, top, right, bottom, score, class | letterbox |
//! | `ssd` | boxes [1, N, 4] of top, left, bottom, right, classes [1, N], scores [1, N], perhaps how many are meant: TensorFlow's object detection | stretch |
//! | `torchvision` | the same with left, top, right, bottom; without the 1 too | letterbox |
//! | `detr` | logits [1, N, C+1] and boxes [1, N, 4] | letterbox |
//! | `rtdetr` | logits [1, N, C] and boxes [1, N, 4], or [1, N, 4+C] | stretch |
//! | `classification` | [1, C], probabilities or logits | letterbox |
//! | `raw` | any | letterbox |
//!
//! Boxes of `ssd` and `torchvision` none of whose sides is beyond 2 are shares of the input, else pixels. The number of a
//! class is the one that the model gives; the first label is that of 0.
//!
//! The input is [N, 3, H, W] or [N, H, W, 3] of FP32, FP16 or UINT8, N any number of frames. Floats are 0 to 1 less `mean`,
//! divided by `std`; bytes are taken as they are.
//!
//! What no property says is told by GStreamer's `.modelinfo` beside the model (`dims` and `ranges` of the input, `id` of the
//! outputs, `group-id`), else by the metadata that Ultralytics' exporter writes (`names`, `imgsz`, `stride`, `task`), else by
//! names and shapes of the inputs and outputs.
//!
//! ## On servers
//!
//! ```text
//! gst-launch-1.0 v4l2src ! videoconvert ! framemeta \
//!     ! inferencesink engine=kserve model=shapes server-uris=http://gpu1:8000,http://gpu2:8000 labels=labels.txt
//! ```
//!
//! `model` is then the name of a model on the servers, or NAME/VERSION. It takes pictures as a local one does, `[N, 3, H, W]`
//! of FP32, and the size must be in its metadata or in `input-size`; the names of the classes come from `labels`, as servers
//! seldom tell them. The frame is scaled here and sent as it goes into the model: as bytes to a server that has the extension
//! `binary_tensor_data` or takes them, else as JSON, which is several times as long and slower.
//!
//! When the model is loaded, one of `server-uris` must be ready and have it; what the others lack is a warning in the
//! debug category `kserve`. Servers that work get the frames in turn. One that cannot be reached, breaks the connection or
//! answers 429, 502, 503 or 504 is asked last for a while, a second at first, and the frame is asked of the next one, then of
//! all again, for as long as it has time: five seconds where nothing else limits it. Any other status fails the frame in the
//! server's own words, and so does no answer in time, for which an element that is stopped waits. A frame that failed is counted as such, and the stream goes on.
//!
//! `server-token` is shown to each server and is in no message and no log. With https, `server-ca-file` names whom to trust.
//! Results name `kserve:NAME/VERSION` as the model's hash and `HOST:PORT` of each server as the device.
//!
//! # A session with a server
//!
//! ```text
//! gst-launch-1.0 v4l2src ! videoconvert ! inferencesink uri=roboflow+http://127.0.0.1:9001 \
//!     options="roboflow,workflow-file=flow.json,data-output=predictions"
//! ```
//!
//! With `uri`, or without a `model` in the `session` of another element that has one, frames go as video to a server that is
//! called instead of to a model: see `rtcsessionsrc`, which has the protocols, and gives the video that comes back. The newest
//! frame is sent; frames of a source that is not live are sent at their time, and wait until the server is there. Results are
//! posted by the `rtcsessionsrc` of the session, else by this element. The accounts are as for a model: a frame whose successor has
//! a result and that has none was skipped (busy), one without a result after `deadline` is late. The last frame before EOS may be
//! among those: servers know that a frame is whole when the next one comes.
//!
//! # Messages
//!
//! | element message | fields | when |
//! |---|---|---|
//! | `inference-result` | `connection-id` s and `stream-id` s where known, `frame-id` t, `queue`, `preprocess`, `inference`, `postprocess` and `latency` t in nanoseconds, `json` s, with `tensor-format=bytes` `tensors` | with `post-messages`, for each frame inferred or failed, from one of the sink's own threads |
//! | `inference-stats` | `received`, `inferred`, `failed`, `pending`, `dropped`, `dropped-busy`, `dropped-late`, `dropped-flush`, `dropped-closed` t; `queue-`, `preprocess-`, `inference-`, `postprocess-` and `latency-p50`, `-p95`, `-p99` t, nanoseconds, after the first result; `model`, `model-hash`, `engine`, `device` s | each `stats-interval`, before EOS and when stopping, from one of the sink's own threads or the streaming thread |
//!
//! All counts are since the element started; `received = inferred + failed + dropped + pending` in each. Dropped as busy: a
//! newer frame took the waiting place; late: missed its time with `sync=true`, outside the segment, or `deadline` passed before
//! its turn; flush: a flush came over it; closed: the element was stopped. Latency is from a frame's arrival in the sink to its
//! result; queue, preprocess, inference and postprocess are what it is made of.
//!
//! `json` is one line:
//!
//! ```json
//! {"video_metadata":{"frame_id":812,"received_at":"2026-11-20T10:00:00.123456+00:00","pts":2435967,
//!   "time_base":1.1111111111111112e-05,"declared_fps":30.0,"measured_fps":29.7,"width":640,"height":480,
//!   "rtp_timestamp":3120457712,"mid":"0"},
//!  "serialized_output_data":{"predictions":{"image":{"width":640,"height":480},
//!   "predictions":[{"x":320.5,"y":200.0,"width":80.0,"height":60.0,"confidence":0.91,"class":"circle","class_id":0,
//!   "detection_id":"6c0e9f6e-4f0f-4f8e-9d3b-0a6e2f1f7c11"}]}},
//!  "errors":[],"processing_complete":false,"termination_reason":null,
//!  "timing_us":{"queue":300,"preprocess":410,"inference":2900,"postprocess":60,"total":4600},
//!  "model":{"name":"shapes","hash":"sha256:…","engine":"rten","device":"cpu"},"dropped":2}
//! ```
//!
//! `x` and `y` are the centre of a box, in pixels of the frame. What is unknown is absent. `dropped` counts the frames of the
//! stream dropped since its previous result. Where inference failed, `errors` says why and `serialized_output_data` is null.
//!
//! With `decoder=raw` nothing is read into the model's outputs: beside `predictions`, which is empty, there is `tensors`, for
//! each output `{"name":"output0","shape":[1,84,8400],"datatype":"FP32","data":[…]}`, the numbers in rows. With
//! `tensor-format=bytes` there is no `data`, and message and event have a field `tensors`: an array of structures `tensor`
//! with `name` s, `datatype` s, `shape` (an array of t) and `data` (GBytes, in the machine's own byte order).

use gst::{glib, prelude::*};

use crate::elements::inference::settings::{ChannelOrder, Engine, Resize, TensorFormat};

mod imp;
mod remote;

glib::wrapper! {
    pub struct InferenceSink(ObjectSubclass<imp::InferenceSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

/// What happens to a frame that comes while another one waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstInferenceSinkWhenBusy")]
pub enum WhenBusy {
    #[default]
    #[enum_value(name = "Latest when upstream is live, else wait", nick = "auto")]
    Auto,
    #[enum_value(
        name = "The newest frame waits, the older one is dropped",
        nick = "latest"
    )]
    Latest,
    #[enum_value(name = "Upstream is held until there is room", nick = "wait")]
    Wait,
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    WhenBusy::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    for property in [
        Engine::static_type(),
        ChannelOrder::static_type(),
        Resize::static_type(),
        TensorFormat::static_type(),
    ] {
        property.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(
        Some(plugin),
        "inferencesink",
        gst::Rank::NONE,
        InferenceSink::static_type(),
    )
}
