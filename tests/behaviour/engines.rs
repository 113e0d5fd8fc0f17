//! What runs the model, as users ask for it and are told of it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use gst::prelude::*;
use gstrtcinference::engine::onnxruntime::library;
use serde_json::Value;

use crate::{
    Overheard,
    inferring::{MODEL, json, named, pipeline, until_eos},
    init,
};

const ELEMENTS: [&str; 2] = ["inferencesink", "inferencefilter"];
const MISSING: &str = "/nowhere/libonnxruntime.so";

/// ONNX Runtime as the Python clients have it.
fn library() -> String {
    let python = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.venv"));
    let library = library::of_python(python).expect("scripts/setup has installed onnxruntime");
    library.to_str().unwrap().to_owned()
}

fn element(name: &str, properties: &str) -> gst::Element {
    init();
    gst::parse::launch(&format!("{name} model={MODEL} {properties}")).unwrap()
}

/// What `element` says of itself on its way to READY.
fn ready(element: &gst::Element) -> (bool, Vec<gst::Message>) {
    let bus = Overheard::of(element);
    let is_ready = element.set_state(gst::State::Ready).is_ok();
    (is_ready, bus.iter().collect())
}

fn of_type(messages: &[gst::Message], kind: gst::MessageType) -> Vec<String> {
    let those = messages.iter().filter(|message| message.type_() == kind);
    those
        .map(|message| match message.view() {
            gst::MessageView::Error(said) => said.error().to_string(),
            gst::MessageView::Warning(said) => said.error().to_string(),
            gst::MessageView::Info(said) => said.error().to_string(),
            _ => unreachable!(),
        })
        .collect()
}

fn text(element: &gst::Element, property: &str) -> Option<String> {
    element.property(property)
}

/// The results for a ball that bounces, and the last statistics.
fn run(properties: &str) -> (Vec<Value>, gst::Structure) {
    let pipeline = pipeline(&format!(
        "videotestsrc pattern=ball num-buffers=20 ! video/x-raw,format=I420,width=640,height=480,framerate=30/1 \
         ! inferencesink model={MODEL} {properties}"
    ));
    pipeline.set_state(gst::State::Playing).unwrap();
    let messages = until_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    let results = named(&messages, "inference-result").into_iter();
    let stats = named(&messages, "inference-stats").pop().unwrap();
    (results.map(json).collect(), stats.to_owned())
}

#[test]
fn both_engines_find_the_same_boxes() {
    let (embedded, _) = run("engine=rten");
    let (other, stats) = run(&format!("engine=onnxruntime runtime-library={}", library()));
    assert_eq!(stats.get::<&str>("engine"), Ok("onnxruntime"));
    assert_eq!(stats.get::<&str>("device"), Ok("cpu"));
    assert_eq!(other.len(), 20);
    let boxes = |result: &Value| {
        let output = &result["serialized_output_data"]["predictions"];
        output["predictions"].as_array().unwrap().clone()
    };
    for (one, two) in embedded.iter().zip(&other) {
        assert_eq!(one["model"]["engine"], "rten");
        assert_eq!(two["model"]["engine"], "onnxruntime");
        assert_eq!(two["model"]["device"], "cpu");
        assert_eq!(one["model"]["hash"], two["model"]["hash"]);
        let (one, two) = (boxes(one), boxes(two));
        assert_eq!(one.len(), two.len());
        assert!(!one.is_empty());
        for (one, two) in one.iter().zip(&two) {
            assert_eq!(one["class"], two["class"]);
            let differ =
                |name: &str| (one[name].as_f64().unwrap() - two[name].as_f64().unwrap()).abs();
            assert!(differ("confidence") < 1e-3, "{one} {two}");
            // Pixels of a frame that is 2.5 times as wide as the model's input.
            for side in ["x", "y", "width", "height"] {
                assert!(differ(side) < 0.01, "{one} {two}");
            }
        }
    }
}

#[test]
fn what_runs_the_model_is_told_while_one_is_loaded() {
    for name in ELEMENTS {
        for (engine, library) in [("rten", String::new()), ("onnxruntime", library())] {
            let element = element(
                name,
                &format!("engine={engine} runtime-library=\"{library}\""),
            );
            let notified = Arc::new(Mutex::new(Vec::new()));
            element.connect_notify(None, {
                let notified = notified.clone();
                move |_, property| notified.lock().unwrap().push(property.name().to_owned())
            });
            let properties = ["engine-active", "device-active", "model-hash"];
            assert_eq!(
                properties.map(|name| text(&element, name)),
                [None, None, None]
            );
            element.set_state(gst::State::Ready).unwrap();
            assert_eq!(*notified.lock().unwrap(), properties);
            assert_eq!(text(&element, "engine-active").as_deref(), Some(engine));
            assert_eq!(text(&element, "device-active").as_deref(), Some("cpu"));
            let hash = text(&element, "model-hash").unwrap();
            assert!(hash.starts_with("sha256:") && hash.len() == 71, "{hash}");
            element.set_state(gst::State::Null).unwrap();
            assert_eq!(
                properties.map(|name| text(&element, name)),
                [None, None, None]
            );
            assert_eq!(notified.lock().unwrap().len(), 6);
        }
    }
}

#[test]
fn without_the_library_one_warning_says_why_and_what_it_costs() {
    let mut warnings = Vec::new();
    for name in ELEMENTS {
        let element = element(name, &format!("runtime-library={MISSING}"));
        let (is_ready, messages) = ready(&element);
        assert!(is_ready);
        assert_eq!(text(&element, "engine-active").as_deref(), Some("rten"));
        warnings.extend(of_type(&messages, gst::MessageType::Warning));
        element.set_state(gst::State::Null).unwrap();
    }
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.contains(MISSING) && warning.contains("No such file"),
        "{warning}"
    );
    assert!(warning.contains("takes about twice as long"), "{warning}");
}

#[test]
fn the_library_that_is_found_is_told_once_and_without_a_warning() {
    let mut said = Vec::new();
    for name in ELEMENTS {
        let element = element(name, &format!("runtime-library={}", library()));
        let (is_ready, messages) = ready(&element);
        assert!(is_ready);
        assert_eq!(
            text(&element, "engine-active").as_deref(),
            Some("onnxruntime")
        );
        assert_eq!(of_type(&messages, gst::MessageType::Warning), [""; 0]);
        said.extend(of_type(&messages, gst::MessageType::Info));
        element.set_state(gst::State::Null).unwrap();
    }
    let [said] = &said[..] else {
        panic!("{said:?}");
    };
    assert!(said.starts_with("Models run in ONNX Runtime 1."), "{said}");
}

/// Holds that each element refuses these properties, and names these parts.
#[track_caller]
fn assert_refused(properties: &str, expected: &[&str]) {
    for name in ELEMENTS {
        let element = element(name, properties);
        let (is_ready, messages) = ready(&element);
        assert!(!is_ready, "{properties}");
        let errors = of_type(&messages, gst::MessageType::Error);
        let [error] = &errors[..] else {
            panic!("{properties}: {errors:?}");
        };
        for part in expected {
            assert!(error.contains(part), "{properties}: {error}");
        }
        assert_eq!(text(&element, "engine-active"), None);
        element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn an_engine_that_was_asked_for_and_cannot_be_had_is_an_error_that_says_why() {
    let asked = |library: &str| format!("engine=onnxruntime runtime-library={library}");
    assert_refused(&asked(MISSING), &[MISSING, "No such file"]);
    assert_refused(&asked(MODEL), &[MODEL, "is not a shared library"]);
}

#[test]
fn a_device_that_cannot_be_had_is_an_error_that_names_those_there_are() {
    assert_refused("device=npu", &["\"device\"", "\"npu\"", "cuda:N"]);
    let embedded = ["device cuda:0", "engine rten runs on cpu only"];
    assert_refused("engine=rten device=cuda:0", &embedded);
    // With no ONNX Runtime there is nothing that could have it.
    assert_refused(
        &format!("device=tensorrt:3 runtime-library={MISSING}"),
        &[MISSING],
    );
    let there = format!("device=cuda:0 runtime-library={}", library());
    assert_refused(&there, &["device cuda:0", "it offers cpu"]);
}

#[test]
fn the_number_of_threads_is_the_users_in_both_engines() {
    for engine in ["rten", "onnxruntime"] {
        let (results, _) = run(&format!(
            "engine={engine} runtime-library={} threads=2",
            library()
        ));
        assert!(
            results
                .iter()
                .all(|result| result["errors"] == Value::Array(vec![]))
        );
        assert_eq!(results.len(), 20);
    }
}
