//! The properties that all have: what they are, and what they mean to the engine.

use std::{io, sync::Arc, time::Duration};

use gst::{glib, prelude::*};

use crate::{
    engine::{
        decoders::DecoderChoice,
        model::{Model, ModelError, ModelOptions},
    },
    logic::detections::Thresholds,
};

#[derive(Debug, Clone)]
pub struct Settings {
    pub model: Option<String>,
    pub labels: Option<String>,
    pub thresholds: Thresholds,
    /// `WxH`, empty for the model's own.
    pub input_size: String,
    pub decoder: String,
    pub output_name: String,
    pub post_messages: bool,
    /// Milliseconds, 0 for none.
    pub stats_interval: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            model: None,
            labels: None,
            thresholds: Thresholds::default(),
            input_size: String::new(),
            decoder: "auto".into(),
            output_name: "predictions".into(),
            post_messages: true,
            stats_interval: 1000,
        }
    }
}

impl Settings {
    /// The model that the properties name, or the error to post about one of them.
    pub fn load(&self) -> Result<Arc<Model>, gst::ErrorMessage> {
        Model::load(&self.model_options()?).map_err(|error| model_error(&error))
    }

    fn model_options(&self) -> Result<ModelOptions, gst::ErrorMessage> {
        let Some(model) = self.model.as_deref().filter(|path| !path.is_empty()) else {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                ("Property \"model\" names no file")
            ));
        };
        let input_size = input_size(&self.input_size).ok_or_else(|| {
            gst::error_msg!(
                gst::ResourceError::Settings,
                (
                    "Property \"input-size\" is \"{}\"; it must be empty or WIDTHxHEIGHT, such as 640x480",
                    self.input_size
                )
            )
        })?;
        let decoder = self.decoder.parse::<DecoderChoice>().map_err(|error| {
            gst::error_msg!(
                gst::ResourceError::Settings,
                ("Property \"decoder\": {error}")
            )
        })?;
        Ok(ModelOptions {
            path: model.into(),
            labels: self
                .labels
                .as_ref()
                .filter(|path| !path.is_empty())
                .map(Into::into),
            decoder,
            input_size,
        })
    }

    pub fn stats_interval(&self) -> Option<Duration> {
        (self.stats_interval > 0).then(|| Duration::from_millis(self.stats_interval.into()))
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
            "decoder" => {
                let decoder: Option<String> = value.get().expect(CHECKED);
                self.decoder = decoder.unwrap_or(Settings::default().decoder);
            }
            "output-name" => {
                let name: Option<String> = value.get().expect(CHECKED);
                self.output_name = name.unwrap_or(Settings::default().output_name);
            }
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
            "decoder" => self.decoder.to_value(),
            "output-name" => self.output_name.to_value(),
            "post-messages" => self.post_messages.to_value(),
            "stats-interval" => self.stats_interval.to_value(),
            _ => unreachable!("{name} is no property of these"),
        }
    }

    /// Their specs; the element adds its own.
    pub fn param_specs() -> Vec<glib::ParamSpec> {
        let default = Settings::default();
        vec![
            // GstInferenceSink:model:, GstInferenceFilter:model: Loaded in NULL→READY. Since: 0.1
            glib::ParamSpecString::builder("model")
                .nick("Model")
                .blurb("The ONNX file to run; must be set")
                .mutable_ready()
                .build(),
            // GstInferenceSink:labels:, GstInferenceFilter:labels: Since: 0.1
            glib::ParamSpecString::builder("labels")
                .nick("Labels")
                .blurb("File with the name of one class a line; unset takes the names from the model's own metadata")
                .mutable_ready()
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
                .mutable_ready()
                .build(),
            // GstInferenceSink:decoder:, GstInferenceFilter:decoder: Since: 0.1
            glib::ParamSpecString::builder("decoder")
                .nick("Decoder")
                .blurb("How the model's output is read as boxes; \"auto\" tells by the model's own metadata and the shape of its output")
                .default_value(Some(default.decoder.as_str()))
                .mutable_ready()
                .build(),
            // GstInferenceSink:output-name:, GstInferenceFilter:output-name: Since: 0.1
            glib::ParamSpecString::builder("output-name")
                .nick("Output name")
                .blurb("The key under which the JSON of a result holds the boxes")
                .default_value(Some(default.output_name.as_str()))
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

fn model_error(error: &ModelError) -> gst::ErrorMessage {
    let kind = match error {
        ModelError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            gst::ResourceError::NotFound
        }
        ModelError::Read { .. } | ModelError::NotAModel { .. } | ModelError::Engine { .. } => {
            gst::ResourceError::OpenRead
        }
        ModelError::Unfit { .. } => gst::ResourceError::Settings,
    };
    gst::error_msg!(kind, ("{error}"))
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
    fn every_property_gives_back_what_it_was_given() {
        for spec in Settings::param_specs() {
            let mut settings = Settings::default();
            let before = settings.get(spec.name());
            settings.set(spec.name(), &before);
            assert_eq!(spec.value_type(), before.type_(), "{}", spec.name());
        }
    }
}
