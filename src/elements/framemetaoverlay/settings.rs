//! The properties, each a field of [`Style`].

use gst::{glib, prelude::*};

use crate::logic::overlay::Style;

const CHECKED: &str = "GObject checked the type";

/// `value` is what GObject checked against the property's own spec.
pub fn set(style: &mut Style, name: &str, value: &glib::Value) {
    match name {
        "line-width" => style.line_width = value.get().expect(CHECKED),
        "text-height" => style.text_height = value.get().expect(CHECKED),
        "labels" => style.labels = value.get().expect(CHECKED),
        "confidence" => style.confidence = value.get().expect(CHECKED),
        "trail" => style.trail = value.get().expect(CHECKED),
        _ => unreachable!("{name} is not in the list below"),
    }
}

pub fn get(style: &Style, name: &str) -> glib::Value {
    match name {
        "line-width" => style.line_width.to_value(),
        "text-height" => style.text_height.to_value(),
        "labels" => style.labels.to_value(),
        "confidence" => style.confidence.to_value(),
        "trail" => style.trail.to_value(),
        _ => unreachable!("{name} is not in the list below"),
    }
}

pub fn param_specs() -> Vec<glib::ParamSpec> {
    let default = Style::default();
    vec![
        // GstFrameMetaOverlay:line-width: Holds from the next frame on. Since: 0.1
        glib::ParamSpecUInt::builder("line-width")
            .nick("Line width")
            .blurb("Width in pixels of the lines around boxes; 0 is 1/240 of the frame's shorter side")
            .maximum(256)
            .default_value(default.line_width)
            .mutable_playing()
            .build(),
        // GstFrameMetaOverlay:text-height: No more than three quarters of the frame's height are used. Holds from the
        // next frame on. Since: 0.1
        glib::ParamSpecUInt::builder("text-height")
            .nick("Text height")
            .blurb("Height in pixels of a line of text; 0 is 1/30 of the frame's shorter side, at least 12")
            .maximum(256)
            .default_value(default.text_height)
            .mutable_playing()
            .build(),
        // GstFrameMetaOverlay:labels: Holds from the next frame on. Since: 0.1
        glib::ParamSpecBoolean::builder("labels")
            .nick("Labels")
            .blurb("Whether the name of its class stands at each box")
            .default_value(default.labels)
            .mutable_playing()
            .build(),
        // GstFrameMetaOverlay:confidence: Holds from the next frame on. Since: 0.1
        glib::ParamSpecBoolean::builder("confidence")
            .nick("Confidence")
            .blurb("Whether the confidence stands at each box, in percent")
            .default_value(default.confidence)
            .mutable_playing()
            .build(),
        // GstFrameMetaOverlay:trail: Holds from the next frame on. Since: 0.1
        glib::ParamSpecBoolean::builder("trail")
            .nick("Trail")
            .blurb("Whether the lower left corner tells the frame's id, the milliseconds since it arrived, and the id of the frame its boxes were found on when that is an earlier one")
            .default_value(default.trail)
            .mutable_playing()
            .build(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_begins_with_its_default_and_keeps_what_it_is_given() {
        let told = |value: &glib::Value| format!("{value:?}");
        for spec in param_specs() {
            let mut style = Style::default();
            let before = get(&style, spec.name());
            assert_eq!(told(&before), told(spec.default_value()), "{}", spec.name());
            let other = match before.get::<bool>() {
                Ok(on) => (!on).to_value(),
                Err(_) => 7u32.to_value(),
            };
            set(&mut style, spec.name(), &other);
            assert_eq!(told(&get(&style, spec.name())), told(&other));
            assert_ne!(style, Style::default(), "{}", spec.name());
        }
    }
}
