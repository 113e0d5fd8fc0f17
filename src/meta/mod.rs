//! Carries [`FrameFacts`] on buffers: the custom meta `RtcFrameMeta`, readable by name from any language.
//!
//! The meta has no tags, so that conversion, scaling, coding and RTP payloading all keep it, and its transform
//! function gives a buffer at most one: a payloader would otherwise add a copy for each packet.

use std::sync::{Arc, Once};

use gst::{
    glib::{self, gstr},
    meta::CustomMeta,
    prelude::*,
};

use crate::logic::{
    detections::Detection,
    frame_facts::{FrameFacts, TimeBase},
};

pub mod rtp;

/// What `gst_buffer_get_custom_meta` finds it by.
pub const NAME: &str = "RtcFrameMeta";

impl FrameFacts {
    /// What the buffer carries; nothing known where it carries no meta.
    pub fn read(buffer: &gst::BufferRef) -> FrameFacts {
        register();
        CustomMeta::from_buffer(buffer, NAME)
            .map(|meta| from_structure(meta.structure()))
            .unwrap_or_default()
    }

    /// Sets every known field on the buffer. Fields unknown here, ours or somebody else's, stay as they are.
    pub fn write(&self, buffer: &mut gst::BufferRef) {
        register();
        if CustomMeta::from_buffer(buffer, NAME).is_err() {
            CustomMeta::add(buffer, NAME).expect("the meta is registered");
        }
        let mut meta = CustomMeta::from_mut_buffer(buffer, NAME).expect("it is there or was added");
        to_structure(self, meta.mut_structure());
    }

    /// Takes off the buffer what a result said of it, so that no part of that stays beside another.
    pub fn forget_result(buffer: &mut gst::BufferRef) {
        register();
        if let Ok(mut meta) = CustomMeta::from_mut_buffer(buffer, NAME) {
            meta.mut_structure().remove_fields([
                gstr!("result-frame-id"),
                gstr!("results"),
                gstr!("json"),
            ]);
        }
    }

    /// Changes what the buffer carries, beginning with nothing known where it carries no meta.
    pub fn update<R>(buffer: &mut gst::BufferRef, change: impl FnOnce(&mut FrameFacts) -> R) -> R {
        let mut facts = FrameFacts::read(buffer);
        let result = change(&mut facts);
        facts.write(buffer);
        result
    }
}

/// The fields as they are on the buffer, those of others too, under another name: what a message is made of.
pub fn export(buffer: &gst::BufferRef, name: &str) -> Option<gst::Structure> {
    register();
    let meta = CustomMeta::from_buffer(buffer, NAME).ok()?;
    let mut structure = meta.structure().to_owned();
    structure.set_name(name);
    Some(structure)
}

/// Registers the meta with GStreamer, once in a process. Reading and writing do so by themselves.
pub fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        if !CustomMeta::is_registered(NAME) {
            CustomMeta::register_with_transform(NAME, &[], |to, meta, _from, _kind| {
                copy_unless_there(to, meta)
            });
        }
    });
}

fn copy_unless_there(to: &mut gst::BufferRef, meta: &CustomMeta) -> bool {
    if CustomMeta::from_buffer(to, NAME).is_ok() {
        return true;
    }
    let Ok(mut copy) = CustomMeta::add(to, NAME) else {
        return false;
    };
    let structure = copy.mut_structure();
    for (name, value) in meta.structure().iter() {
        structure.set_value(name, value.clone());
    }
    true
}

fn from_structure(s: &gst::StructureRef) -> FrameFacts {
    FrameFacts {
        connection_id: s.get(gstr!("connection-id")).ok(),
        stream_id: s.get(gstr!("stream-id")).ok(),
        mid: s.get(gstr!("mid")).ok(),
        ssrc: s.get(gstr!("ssrc")).ok(),
        rtp_timestamp: s.get(gstr!("rtp-timestamp")).ok(),
        arrival_time: s.get(gstr!("arrival-time")).ok(),
        frame_id: s.get(gstr!("frame-id")).ok(),
        pts: s.get(gstr!("pts")).ok(),
        time_base: s
            .get(gstr!("time-base-num"))
            .ok()
            .zip(s.get(gstr!("time-base-den")).ok())
            .map(|(num, den)| TimeBase { num, den }),
        declared_fps: s.get(gstr!("declared-fps")).ok(),
        measured_fps: s.get(gstr!("measured-fps")).ok(),
        width: s.get(gstr!("width")).ok(),
        height: s.get(gstr!("height")).ok(),
        result_frame_id: s.get(gstr!("result-frame-id")).ok(),
        results: s.get::<gst::Array>(gstr!("results")).ok().map(|boxes| {
            boxes
                .iter()
                .filter_map(|value| value.get::<gst::Structure>().ok())
                .filter_map(|structure| detection(&structure))
                .collect()
        }),
        json: s.get(gstr!("json")).ok(),
    }
}

fn to_structure(facts: &FrameFacts, s: &mut gst::StructureRef) {
    let mut set = |name: &'static glib::GStr, value: Option<glib::SendValue>| {
        if let Some(value) = value {
            s.set_value_with_static(name, value);
        }
    };
    set(gstr!("connection-id"), send(&facts.connection_id));
    set(gstr!("stream-id"), send(&facts.stream_id));
    set(gstr!("mid"), send(&facts.mid));
    set(gstr!("ssrc"), send(&facts.ssrc));
    set(gstr!("rtp-timestamp"), send(&facts.rtp_timestamp));
    set(gstr!("arrival-time"), send(&facts.arrival_time));
    set(gstr!("frame-id"), send(&facts.frame_id));
    set(gstr!("pts"), send(&facts.pts));
    set(
        gstr!("time-base-num"),
        send(&facts.time_base.map(|base| base.num)),
    );
    set(
        gstr!("time-base-den"),
        send(&facts.time_base.map(|base| base.den)),
    );
    set(gstr!("declared-fps"), send(&facts.declared_fps));
    set(gstr!("measured-fps"), send(&facts.measured_fps));
    set(gstr!("width"), send(&facts.width));
    set(gstr!("height"), send(&facts.height));
    set(gstr!("result-frame-id"), send(&facts.result_frame_id));
    set(
        gstr!("results"),
        facts
            .results
            .as_ref()
            .map(|boxes| gst::Array::new(boxes.iter().map(box_structure)).to_send_value()),
    );
    set(gstr!("json"), send(&facts.json));
}

fn send<T: ToSendValue>(value: &Option<T>) -> Option<glib::SendValue> {
    value.as_ref().map(ToSendValue::to_send_value)
}

fn box_structure(found: &Detection) -> gst::Structure {
    gst::Structure::builder("detection")
        .field("class", &*found.class)
        .field("class-id", found.class_id as i32)
        .field("confidence", f64::from(found.confidence))
        .field("x", f64::from(found.x))
        .field("y", f64::from(found.y))
        .field("width", f64::from(found.width))
        .field("height", f64::from(found.height))
        .build()
}

/// `None` for a structure that is no detection: anybody may write to the meta.
fn detection(s: &gst::StructureRef) -> Option<Detection> {
    let number = |name: &'static glib::GStr| s.get::<f64>(name).ok().map(|value| value as f32);
    Some(Detection {
        x: number(gstr!("x"))?,
        y: number(gstr!("y"))?,
        width: number(gstr!("width"))?,
        height: number(gstr!("height"))?,
        confidence: number(gstr!("confidence"))?,
        class_id: u32::try_from(s.get::<i32>(gstr!("class-id")).ok()?).ok()?,
        class: Arc::from(s.get::<&str>(gstr!("class")).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> FrameFacts {
        FrameFacts {
            connection_id: Some("c".into()),
            stream_id: Some("c/0".into()),
            mid: Some("0".into()),
            ssrc: Some(u32::MAX),
            rtp_timestamp: Some(3_120_457_712),
            arrival_time: Some(1_763_690_000_000_000_000),
            frame_id: Some(812),
            pts: Some(2_435_967),
            time_base: TimeBase::of_clock_rate(90_000),
            declared_fps: Some(30.0),
            measured_fps: Some(29.5),
            width: Some(640),
            height: Some(480),
            result_frame_id: Some(811),
            results: Some(vec![Detection {
                x: 1.0,
                y: 2.0,
                width: 3.0,
                height: 4.0,
                confidence: 0.5,
                class_id: 7,
                class: "crescent".into(),
            }]),
            json: Some("{}".into()),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        everything().write(buffer.get_mut().unwrap());
        assert_eq!(FrameFacts::read(&buffer), everything());
    }

    #[test]
    fn a_buffer_without_meta_tells_nothing() {
        gst::init().unwrap();
        assert_eq!(FrameFacts::read(&gst::Buffer::new()), FrameFacts::default());
    }

    #[test]
    fn fields_have_the_documented_types() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        everything().write(buffer.get_mut().unwrap());
        let structure = export(&buffer, "frame-meta").unwrap();
        assert_eq!(structure.name(), "frame-meta");
        let expected = [
            ("connection-id", glib::Type::STRING),
            ("stream-id", glib::Type::STRING),
            ("mid", glib::Type::STRING),
            ("ssrc", glib::Type::U32),
            ("rtp-timestamp", glib::Type::U32),
            ("arrival-time", glib::Type::U64),
            ("frame-id", glib::Type::U64),
            ("pts", glib::Type::I64),
            ("time-base-num", glib::Type::I32),
            ("time-base-den", glib::Type::I32),
            ("declared-fps", glib::Type::F64),
            ("measured-fps", glib::Type::F64),
            ("width", glib::Type::I32),
            ("height", glib::Type::I32),
            ("result-frame-id", glib::Type::U64),
            ("results", gst::Array::static_type()),
            ("json", glib::Type::STRING),
        ];
        assert_eq!(structure.n_fields(), expected.len());
        for (name, kind) in expected {
            assert_eq!(structure.value(name).unwrap().type_(), kind, "{name}");
        }
    }

    #[test]
    fn fields_of_others_are_kept() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        everything().write(buffer.get_mut().unwrap());
        CustomMeta::from_mut_buffer(buffer.get_mut().unwrap(), NAME)
            .unwrap()
            .mut_structure()
            .set("theirs", 5u32);
        FrameFacts::update(buffer.get_mut().unwrap(), |facts| facts.frame_id = Some(1));
        let copy = buffer.copy();
        let structure = export(&copy, "x").unwrap();
        assert_eq!(structure.get::<u32>("theirs"), Ok(5));
        assert_eq!(structure.get::<u64>("frame-id"), Ok(1));
        assert_eq!(structure.get::<&str>("connection-id"), Ok("c"));
    }

    #[test]
    fn a_result_is_forgotten_and_nothing_else() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        FrameFacts::forget_result(buffer.get_mut().unwrap());
        assert_eq!(buffer.iter_meta::<gst::Meta>().count(), 0);
        everything().write(buffer.get_mut().unwrap());
        FrameFacts::forget_result(buffer.get_mut().unwrap());
        let rest = FrameFacts {
            result_frame_id: None,
            results: None,
            json: None,
            ..everything()
        };
        assert_eq!(FrameFacts::read(&buffer), rest);
    }

    #[test]
    fn a_buffer_that_has_facts_takes_no_second_set() {
        gst::init().unwrap();
        let mut from = gst::Buffer::new();
        everything().write(from.get_mut().unwrap());
        let mut to = gst::Buffer::new();
        FrameFacts {
            frame_id: Some(1),
            ..FrameFacts::default()
        }
        .write(to.get_mut().unwrap());
        from.copy_into(to.get_mut().unwrap(), gst::BufferCopyFlags::META, ..)
            .unwrap();
        assert_eq!(to.iter_meta::<gst::Meta>().count(), 1);
        assert_eq!(FrameFacts::read(&to).frame_id, Some(1));
    }
}
