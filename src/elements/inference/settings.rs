//! The properties that all have: what they are, and what they mean to the engine.

use std::{io, sync::Arc, time::Duration};

use gst::{glib, prelude::*};

use crate::{
    engine::{
        choice::{Device, EngineChoice},
        decoders::DecoderChoice,
        input::{self, PerColour},
        kserve::{
            ConnectError,
            servers::{ServerUri, Servers},
        },
        model::{Model, ModelError, ModelOptions},
        onnxruntime::library::LibraryError,
    },
    logic::detections::Thresholds,
};

const MOST_THREADS: u32 = 256;
const MOST_BATCH: u32 = 256;
const MOST_BATCH_LATENCY: u32 = 1000;
const MOST_DEADLINE: u32 = 60_000;

/// Properties that another model goes with: changed while one runs, they have it loaded anew.
pub const OF_MODEL: [&str; 9] = [
    "model",
    "labels",
    "input-size",
    "mean",
    "std",
    "channel-order",
    "resize",
    "decoder",
    "max-batch",
];

/// What runs the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstInferenceEngine")]
pub enum Engine {
    #[default]
    #[enum_value(
        name = "ONNX Runtime where it is found and takes the model, else rten",
        nick = "auto"
    )]
    Auto,
    #[enum_value(name = "The embedded engine, on the CPU", nick = "rten")]
    Rten,
    #[enum_value(
        name = "ONNX Runtime, from a library on this machine",
        nick = "onnxruntime"
    )]
    OnnxRuntime,
    #[enum_value(
        name = "Servers that speak the KServe protocol, such as Triton",
        nick = "kserve"
    )]
    Kserve,
}

/// How raw outputs are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstInferenceTensorFormat")]
pub enum TensorFormat {
    #[default]
    #[enum_value(name = "Numbers in the JSON", nick = "json")]
    Json,
    #[enum_value(
        name = "Bytes in the field tensors of message and event; the JSON has their names, shapes and datatypes",
        nick = "bytes"
    )]
    Bytes,
}

/// Which colour comes first in the model's input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstInferenceChannelOrder")]
pub enum ChannelOrder {
    #[default]
    #[enum_value(name = "Red first, as nearly all models take it", nick = "auto")]
    Auto,
    #[enum_value(name = "Red, green, blue", nick = "rgb")]
    Rgb,
    #[enum_value(name = "Blue, green, red", nick = "bgr")]
    Bgr,
}

/// What is done to a frame whose shape is not that of the model's input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstInferenceResize")]
pub enum Resize {
    #[default]
    #[enum_value(
        name = "Stretch for ssd and rtdetr, else letterbox: as such models are trained",
        nick = "auto"
    )]
    Auto,
    #[enum_value(name = "Keep the aspect, centre, pad with grey", nick = "letterbox")]
    Letterbox,
    #[enum_value(name = "Scale width and height each on its own", nick = "stretch")]
    Stretch,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub model: Option<String>,
    pub labels: Option<String>,
    pub thresholds: Thresholds,
    /// `WxH`, empty for the model's own.
    pub input_size: String,
    /// `R,G,B` or one number, empty for what is known of the model.
    pub mean: String,
    pub std: String,
    pub channel_order: ChannelOrder,
    pub resize: Resize,
    pub decoder: String,
    pub engine: Engine,
    pub device: String,
    pub runtime_library: Option<String>,
    /// Of one inference, 0 for the engine's own choice.
    pub threads: u32,
    /// Frames, 0 for the engine's own choice.
    pub max_batch: u32,
    /// Milliseconds.
    pub batch_latency: u32,
    /// Milliseconds, 0 for none.
    pub deadline: u32,
    pub server_uris: String,
    pub server_token: Option<Secret>,
    pub server_ca_file: Option<String>,
    pub output_name: String,
    pub tensor_format: TensorFormat,
    pub post_messages: bool,
    /// Milliseconds, 0 for none.
    pub stats_interval: u32,
}

/// A text that is in no log.
#[derive(Clone)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            model: None,
            labels: None,
            thresholds: Thresholds::default(),
            input_size: String::new(),
            mean: String::new(),
            std: String::new(),
            channel_order: ChannelOrder::default(),
            resize: Resize::default(),
            decoder: "auto".into(),
            engine: Engine::default(),
            device: "cpu".into(),
            runtime_library: None,
            threads: 0,
            max_batch: 0,
            batch_latency: 0,
            deadline: 1000,
            server_uris: "http://127.0.0.1:8000".into(),
            server_token: None,
            server_ca_file: None,
            output_name: "predictions".into(),
            tensor_format: TensorFormat::default(),
            post_messages: true,
            stats_interval: 1000,
        }
    }
}

/// Why the properties give no model.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub kind: gst::ResourceError,
    /// Names the property or the file, the value and what would be right.
    pub text: String,
}

impl Refusal {
    fn new(kind: gst::ResourceError, text: String) -> Self {
        Refusal { kind, text }
    }
}

impl Settings {
    /// The model that the properties name, or the error to post about one of them.
    pub fn load(&self) -> Result<Arc<Model>, Refusal> {
        Model::load(&self.model_options()?).map_err(|error| model_error(&error))
    }

    pub fn model_options(&self) -> Result<ModelOptions, Refusal> {
        let Some(model) = self.model.as_deref().filter(|path| !path.is_empty()) else {
            return Err(Refusal::new(
                gst::ResourceError::Settings,
                "Property \"model\" names none; it must be the path of an ONNX file, or with engine=kserve NAME or NAME/VERSION".into(),
            ));
        };
        let input_size = input_size(&self.input_size).ok_or_else(|| {
            Refusal::new(gst::ResourceError::Settings, format!("Property \"input-size\" is \"{}\"; it must be empty or WIDTHxHEIGHT, such as 640x480",
                    self.input_size))
        })?;
        let decoder = self.decoder.parse::<DecoderChoice>().map_err(|error| {
            Refusal::new(
                gst::ResourceError::Settings,
                format!("Property \"decoder\": {error}"),
            )
        })?;
        let device = self.device.parse::<Device>().map_err(|error| {
            Refusal::new(
                gst::ResourceError::Settings,
                format!("Property \"device\": {error}"),
            )
        })?;
        let file = |path: &Option<String>| {
            let path = path.as_ref().filter(|path| !path.is_empty());
            path.map(Into::into)
        };
        Ok(ModelOptions {
            path: model.into(),
            labels: file(&self.labels),
            decoder,
            input_size,
            mean: per_colour("mean", &self.mean)?,
            std: per_colour("std", &self.std)?,
            channels: match self.channel_order {
                ChannelOrder::Auto => None,
                ChannelOrder::Rgb => Some(input::Channels::Rgb),
                ChannelOrder::Bgr => Some(input::Channels::Bgr),
            },
            fit: match self.resize {
                Resize::Auto => None,
                Resize::Letterbox => Some(input::Fit::Letterbox),
                Resize::Stretch => Some(input::Fit::Stretch),
            },
            engine: match self.engine {
                Engine::Auto => EngineChoice::Auto,
                Engine::Rten => EngineChoice::Rten,
                Engine::OnnxRuntime => EngineChoice::OnnxRuntime,
                Engine::Kserve => EngineChoice::Kserve,
            },
            device,
            runtime_library: file(&self.runtime_library),
            threads: self.threads as usize,
            max_batch: self.max_batch as usize,
            servers: match self.engine {
                Engine::Kserve => self.servers()?,
                // Two elements that set them differently have the same model.
                _ => Servers::default(),
            },
        })
    }

    fn servers(&self) -> Result<Servers, Refusal> {
        let uris = ServerUri::list(&self.server_uris).map_err(|error| {
            Refusal::new(
                gst::ResourceError::Settings,
                format!("Property \"server-uris\": {error}"),
            )
        })?;
        let token = self.server_token.as_ref().map(|Secret(text)| text.parse());
        // It may be almost right, so it is not told.
        let token = token.transpose().map_err(|error| {
            Refusal::new(
                gst::ResourceError::Settings,
                format!("Property \"server-token\": {error}"),
            )
        })?;
        let ca_file = self.server_ca_file.as_ref();
        Ok(Servers {
            uris,
            token,
            ca_file: ca_file.filter(|path| !path.is_empty()).map(Into::into),
        })
    }

    pub fn stats_interval(&self) -> Option<Duration> {
        (self.stats_interval > 0).then(|| Duration::from_millis(self.stats_interval.into()))
    }

    pub fn batch_latency(&self) -> Duration {
        Duration::from_millis(self.batch_latency.into())
    }

    pub fn deadline(&self) -> Option<Duration> {
        (self.deadline > 0).then(|| Duration::from_millis(self.deadline.into()))
    }

    /// `value` is what GObject checked against the property's own spec.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        const CHECKED: &str = "GObject checked the type";
        match name {
            "model" => self.model = value.get().expect(CHECKED),
            "labels" => self.labels = value.get().expect(CHECKED),
            "threshold" => self.thresholds.confidence = value.get().expect(CHECKED),
            "iou-threshold" => self.thresholds.iou = value.get().expect(CHECKED),
            "input-size" => {
                let size: Option<String> = value.get().expect(CHECKED);
                self.input_size = size.unwrap_or_default();
            }
            "mean" | "std" => {
                let numbers: Option<String> = value.get().expect(CHECKED);
                let setting = match name {
                    "mean" => &mut self.mean,
                    _ => &mut self.std,
                };
                *setting = numbers.unwrap_or_default();
            }
            "channel-order" => self.channel_order = value.get().expect(CHECKED),
            "resize" => self.resize = value.get().expect(CHECKED),
            "decoder" => {
                let decoder: Option<String> = value.get().expect(CHECKED);
                self.decoder = decoder.unwrap_or(Settings::default().decoder);
            }
            "engine" => self.engine = value.get().expect(CHECKED),
            "device" => {
                let device: Option<String> = value.get().expect(CHECKED);
                self.device = device.unwrap_or(Settings::default().device);
            }
            "runtime-library" => self.runtime_library = value.get().expect(CHECKED),
            "threads" => self.threads = value.get().expect(CHECKED),
            "max-batch" => self.max_batch = value.get().expect(CHECKED),
            "batch-latency" => self.batch_latency = value.get().expect(CHECKED),
            "deadline" => self.deadline = value.get().expect(CHECKED),
            "server-uris" => {
                let uris: Option<String> = value.get().expect(CHECKED);
                self.server_uris = uris.unwrap_or(Settings::default().server_uris);
            }
            "server-token" => {
                let token: Option<String> = value.get().expect(CHECKED);
                self.server_token = token.filter(|token| !token.is_empty()).map(Secret);
            }
            "server-ca-file" => self.server_ca_file = value.get().expect(CHECKED),
            "output-name" => {
                let name: Option<String> = value.get().expect(CHECKED);
                self.output_name = name.unwrap_or(Settings::default().output_name);
            }
            "tensor-format" => self.tensor_format = value.get().expect(CHECKED),
            "post-messages" => self.post_messages = value.get().expect(CHECKED),
            "stats-interval" => self.stats_interval = value.get().expect(CHECKED),
            _ => unreachable!("{name} is no property of these"),
        }
    }

    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "model" => self.model.to_value(),
            "labels" => self.labels.to_value(),
            "threshold" => self.thresholds.confidence.to_value(),
            "iou-threshold" => self.thresholds.iou.to_value(),
            "input-size" => self.input_size.to_value(),
            "mean" => self.mean.to_value(),
            "std" => self.std.to_value(),
            "channel-order" => self.channel_order.to_value(),
            "resize" => self.resize.to_value(),
            "decoder" => self.decoder.to_value(),
            "engine" => self.engine.to_value(),
            "device" => self.device.to_value(),
            "runtime-library" => self.runtime_library.to_value(),
            "threads" => self.threads.to_value(),
            "max-batch" => self.max_batch.to_value(),
            "batch-latency" => self.batch_latency.to_value(),
            "deadline" => self.deadline.to_value(),
            "server-uris" => self.server_uris.to_value(),
            "server-token" => {
                let token = self.server_token.as_ref().map(|Secret(text)| text);
                token.to_value()
            }
            "server-ca-file" => self.server_ca_file.to_value(),
            "output-name" => self.output_name.to_value(),
            "tensor-format" => self.tensor_format.to_value(),
            "post-messages" => self.post_messages.to_value(),
            "stats-interval" => self.stats_interval.to_value(),
            _ => unreachable!("{name} is no property of these"),
        }
    }

    /// Their specs; the element adds its own.
    pub fn param_specs() -> Vec<glib::ParamSpec> {
        let default = Settings::default();
        vec![
            // GstInferenceSink:model:, GstInferenceFilter:model: Loaded in NULL→READY; set while one runs, the new one
            // is loaded beside it, and takes over when it has shown that it works. Since: 0.1
            glib::ParamSpecString::builder("model")
                .nick("Model")
                .blurb("The ONNX file to run, or with engine=kserve the NAME or NAME/VERSION of a model on the server; must be set. While playing, the new one takes over without a gap when it is loaded, and one that is bad leaves the old one running, with a WARNING message")
                .mutable_playing()
                .build(),
            // GstInferenceSink:labels:, GstInferenceFilter:labels: Since: 0.1
            glib::ParamSpecString::builder("labels")
                .nick("Labels")
                .blurb("File with the name of one class a line; unset takes the names from the model's own metadata, which servers seldom have")
                .mutable_playing()
                .build(),
            // GstInferenceSink:threshold:, GstInferenceFilter:threshold: Holds from the next frame on. Since: 0.1
            glib::ParamSpecFloat::builder("threshold")
                .nick("Threshold")
                .blurb("The least confidence a detection is told with")
                .minimum(0.0)
                .maximum(1.0)
                .default_value(default.thresholds.confidence)
                .mutable_playing()
                .build(),
            // GstInferenceSink:iou-threshold:, GstInferenceFilter:iou-threshold: Holds from the next frame on. Since: 0.1
            glib::ParamSpecFloat::builder("iou-threshold")
                .nick("Overlap threshold")
                .blurb("Of two boxes of one class whose intersection over union is greater than this, only the more confident is told")
                .minimum(0.0)
                .maximum(1.0)
                .default_value(default.thresholds.iou)
                .mutable_playing()
                .build(),
            // GstInferenceSink:input-size:, GstInferenceFilter:input-size: Since: 0.1
            glib::ParamSpecString::builder("input-size")
                .nick("Input size")
                .blurb("Size of the model's input in pixels as WIDTHxHEIGHT, for models that take several; empty is the model's own")
                .default_value(Some(default.input_size.as_str()))
                .mutable_playing()
                .build(),
            // GstInferenceSink:mean:, GstInferenceFilter:mean: Since: 0.1
            glib::ParamSpecString::builder("mean")
                .nick("Mean")
                .blurb("What is subtracted from red, green and blue, which are 0 to 1, as R,G,B or as one number for all; empty is what ranges in the .modelinfo beside the model say, else 0")
                .default_value(Some(default.mean.as_str()))
                .mutable_playing()
                .build(),
            // GstInferenceSink:std:, GstInferenceFilter:std: Since: 0.1
            glib::ParamSpecString::builder("std")
                .nick("Standard deviation")
                .blurb("What red, green and blue, which are 0 to 1, are divided by after mean was subtracted, as R,G,B or as one number for all; 0.00392157 makes them 0 to 255; empty is what ranges in the .modelinfo beside the model say, else 1")
                .default_value(Some(default.std.as_str()))
                .mutable_playing()
                .build(),
            // GstInferenceSink:channel-order:, GstInferenceFilter:channel-order: Since: 0.1
            glib::ParamSpecEnum::builder_with_default("channel-order", default.channel_order)
                .nick("Channel order")
                .blurb("Which colour comes first in the model's input; auto is red")
                .mutable_playing()
                .build(),
            // GstInferenceSink:resize:, GstInferenceFilter:resize: Since: 0.1
            glib::ParamSpecEnum::builder_with_default("resize", default.resize)
                .nick("Resize")
                .blurb("How a frame becomes the size of the model's input; auto stretches it with the decoders ssd and rtdetr, and keeps its aspect with the others")
                .mutable_playing()
                .build(),
            // GstInferenceSink:decoder:, GstInferenceFilter:decoder: Since: 0.1
            glib::ParamSpecString::builder("decoder")
                .nick("Decoder")
                .blurb("How the model's outputs are read: yolov8 (YOLO11 too), yolov5, end2end, ssd, torchvision, detr, rtdetr, classification, or raw for none; auto tells by the .modelinfo beside the model, by the model's own metadata and by names and shapes of its outputs")
                .default_value(Some(default.decoder.as_str()))
                .mutable_playing()
                .build(),
            // GstInferenceSink:engine:, GstInferenceFilter:engine: Since: 0.1
            glib::ParamSpecEnum::builder_with_default("engine", default.engine)
                .nick("Engine")
                .blurb("What runs the model; with auto, a WARNING message says once in a process why it is not ONNX Runtime; engine-active is the one that does")
                .mutable_ready()
                .build(),
            // GstInferenceSink:device:, GstInferenceFilter:device: Since: 0.1
            glib::ParamSpecString::builder("device")
                .nick("Device")
                .blurb("What the model runs on: cpu, or with ONNX Runtime cuda:N or tensorrt:N, N the number of the GPU from 0; one that cannot be had is an error that names those there are")
                .default_value(Some(default.device.as_str()))
                .mutable_ready()
                .build(),
            // GstInferenceSink:runtime-library:, GstInferenceFilter:runtime-library: One for the whole process, which keeps it. Since: 0.1
            glib::ParamSpecString::builder("runtime-library")
                .nick("Runtime library")
                .blurb("Path of libonnxruntime.so, 1.17 or newer, and of no other; unset takes the one that ORT_DYLIB_PATH names, else looks in the library path and in Python installations")
                .mutable_ready()
                .build(),
            // GstInferenceSink:threads:, GstInferenceFilter:threads: Since: 0.1
            glib::ParamSpecUInt::builder("threads")
                .nick("Threads")
                .blurb("Threads of one inference; so many inferences of a model run at once that their threads are as many as the cores; 0 is the engine's own choice, which is 1")
                .maximum(MOST_THREADS)
                .default_value(default.threads)
                .mutable_ready()
                .build(),
            // GstInferenceSink:max-batch:, GstInferenceFilter:max-batch: Since: 0.1
            glib::ParamSpecUInt::builder("max-batch")
                .nick("Most frames of a run")
                .blurb("Frames that may share one run of the model, of all elements that have the same model and settings; for models whose first dimension is free. 0 is 1 on the cores of this machine, where sharing gains something for large dense layers only, and 8 elsewhere")
                .maximum(MOST_BATCH)
                .default_value(default.max_batch)
                .mutable_playing()
                .build(),
            // GstInferenceSink:batch-latency:, GstInferenceFilter:batch-latency: Holds from the next frame on. Since: 0.1
            glib::ParamSpecUInt::builder("batch-latency")
                .nick("Batch latency")
                .blurb("Milliseconds that a frame whose turn it is may wait for others to share its run; 0 shares with those that wait already. When the room for runs is nearly used up, those that shared a run are waited for besides, for a quarter of its time at most")
                .maximum(MOST_BATCH_LATENCY)
                .default_value(default.batch_latency)
                .mutable_playing()
                .build(),
            // GstInferenceSink:deadline:, GstInferenceFilter:deadline: Holds from the next frame on. Since: 0.1
            glib::ParamSpecUInt::builder("deadline")
                .nick("Deadline")
                .blurb("Milliseconds from a frame's arrival after which its result is of no use; whose is earliest is inferred first. Frames of a live source are dropped as late when it has passed before their turn, others are given so long from their turn on; a remote engine gives up then. 0 is none")
                .maximum(MOST_DEADLINE)
                .default_value(default.deadline)
                .mutable_playing()
                .build(),
            // GstInferenceSink:server-uris:, GstInferenceFilter:server-uris: Since: 0.1
            glib::ParamSpecString::builder("server-uris")
                .nick("Server URIs")
                .blurb("With engine=kserve, the servers that have the model: http://HOST:PORT or https://HOST:PORT, several with commas or spaces between them; those that work share the frames")
                .default_value(Some(default.server_uris.as_str()))
                .mutable_ready()
                .build(),
            // GstInferenceSink:server-token:, GstInferenceFilter:server-token: In no log and no message. Since: 0.1
            glib::ParamSpecString::builder("server-token")
                .nick("Server token")
                .blurb("With engine=kserve, the bearer token that each server is shown; unset or empty shows none")
                .mutable_ready()
                .build(),
            // GstInferenceSink:server-ca-file:, GstInferenceFilter:server-ca-file: Since: 0.1
            glib::ParamSpecString::builder("server-ca-file")
                .nick("Server CA file")
                .blurb("With engine=kserve and https, PEM file with the certificates of whom to trust and of no others; unset or empty trusts those that the system does")
                .mutable_ready()
                .build(),
            // GstInferenceSink:output-name:, GstInferenceFilter:output-name: Since: 0.1
            glib::ParamSpecString::builder("output-name")
                .nick("Output name")
                .blurb("The key under which the JSON of a result holds the boxes")
                .default_value(Some(default.output_name.as_str()))
                .mutable_ready()
                .build(),
            // GstInferenceSink:tensor-format:, GstInferenceFilter:tensor-format: Since: 0.1
            glib::ParamSpecEnum::builder_with_default("tensor-format", default.tensor_format)
                .nick("Tensor format")
                .blurb("How the model's outputs are told with decoder=raw")
                .mutable_ready()
                .build(),
            // GstInferenceSink:post-messages:, GstInferenceFilter:post-messages: The event upstream is sent either way. Since: 0.1
            glib::ParamSpecBoolean::builder("post-messages")
                .nick("Post messages")
                .blurb("Whether each result is posted as element message \"inference-result\"")
                .default_value(default.post_messages)
                .mutable_ready()
                .build(),
            // GstInferenceSink:stats-interval:, GstInferenceFilter:stats-interval: Since: 0.1
            glib::ParamSpecUInt::builder("stats-interval")
                .nick("Statistics interval")
                .blurb("Milliseconds between element messages \"inference-stats\"; 0 posts none")
                .default_value(default.stats_interval)
                .mutable_ready()
                .build(),
        ]
    }
}

/// The value of a property that is a number for each colour, None where it is empty.
fn per_colour(name: &str, value: &str) -> Result<Option<PerColour>, Refusal> {
    if value.trim().is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|error| {
        Refusal::new(gst::ResourceError::Settings, format!("Property \"{name}\" is \"{value}\", {error}; it must be empty, R,G,B such as 0.485,0.456,0.406, or one number"))
    })
}

fn model_error(error: &ModelError) -> Refusal {
    let kind = match error {
        ModelError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            gst::ResourceError::NotFound
        }
        ModelError::Library(LibraryError::NotFound { .. }) => gst::ResourceError::NotFound,
        ModelError::Read { .. }
        | ModelError::NotAModel { .. }
        | ModelError::SideCar { .. }
        | ModelError::Engine { .. }
        | ModelError::Library(_) => gst::ResourceError::OpenRead,
        ModelError::Servers(error) => match error {
            ConnectError::Unreachable(_) | ConnectError::Unusable(_) => {
                gst::ResourceError::OpenRead
            }
            ConnectError::NotAllowed(_) => gst::ResourceError::NotAuthorized,
            ConnectError::NoModel(_) => gst::ResourceError::NotFound,
            ConnectError::Name(_) | ConnectError::CaFile { .. } | ConnectError::Trust(_) => {
                gst::ResourceError::Settings
            }
        },
        ModelError::Device { .. } | ModelError::Unfit { .. } => gst::ResourceError::Settings,
    };
    Refusal::new(kind, error.to_string())
}

/// The outer `None` is no size at all, the inner one is none asked for.
fn input_size(text: &str) -> Option<Option<(u32, u32)>> {
    if text.is_empty() {
        return Some(None);
    }
    let (width, height) = text.split_once('x')?;
    let side = |text: &str| text.parse().ok().filter(|side| (1..=8192).contains(side));
    Some(Some((side(width)?, side(height)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_nonsense_is_not() {
        assert_eq!(input_size(""), Some(None));
        assert_eq!(input_size("640x480"), Some(Some((640, 480))));
        for nonsense in [
            "640",
            "0x480",
            "640x-1",
            "640x480x3",
            "x",
            "a lot",
            "99999x1",
        ] {
            assert_eq!(input_size(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused_with_the_property_and_what_would_be_right() {
        let settings = Settings {
            model: Some("m.onnx".into()),
            std: "1;2;3".into(),
            ..Settings::default()
        };
        let refused = settings.model_options().unwrap_err().text;
        let refused = refused.replace("\\\"", "\"");
        let expected = "Property \"std\" is \"1;2;3\", neither one number nor three with commas between; it must be empty, R,G,B such as 0.485,0.456,0.406, or one number";
        assert!(refused.contains(expected), "{refused}");
    }

    #[test]
    fn every_property_gives_back_what_it_was_given() {
        for spec in Settings::param_specs() {
            let mut settings = Settings::default();
            let before = settings.get(spec.name());
            settings.set(spec.name(), &before);
            assert_eq!(spec.value_type(), before.type_(), "{}", spec.name());
        }
    }
}
