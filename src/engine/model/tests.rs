use std::path::Path;

use sha2::{Digest, Sha256};

use super::*;
use crate::engine::InputInfo;
use crate::engine::onnxruntime::{OnnxRuntime, library};
use crate::engine::preprocess::{Colours, Matrix, PixelFormat, Plane, Range};
use crate::engine::rten::Rten;
use crate::engine::tensor::Element;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");

const THRESHOLDS: Thresholds = Thresholds {
    confidence: 0.5,
    iou: 0.5,
};

fn options(file: &str) -> ModelOptions {
    ModelOptions {
        path: Path::new(DATA).join(file),
        ..embedded()
    }
}

/// Whatever else is on the machine.
fn embedded() -> ModelOptions {
    ModelOptions {
        engine: EngineChoice::Rten,
        ..ModelOptions::default()
    }
}

/// As `options`, in ONNX Runtime of the tests' own Python environment.
fn in_onnxruntime(options: ModelOptions) -> ModelOptions {
    ModelOptions {
        engine: EngineChoice::OnnxRuntime,
        ..auto(options)
    }
}

/// As `options`, in ONNX Runtime of the tests' own Python environment where that does.
fn auto(options: ModelOptions) -> ModelOptions {
    let python = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.venv"));
    let library = library::of_python(python).expect("scripts/setup has installed onnxruntime");
    ModelOptions {
        engine: EngineChoice::Auto,
        runtime_library: Some(library),
        ..options
    }
}

fn with_decoder(file: &str, decoder: Decoder) -> ModelOptions {
    ModelOptions {
        decoder: DecoderChoice::Fixed(decoder),
        ..options(file)
    }
}

/// What loading says, after the file it must name.
#[track_caller]
fn refusal(options: &ModelOptions) -> String {
    let Err(err) = Model::load(options) else {
        panic!("{} was loaded", options.path.display());
    };
    let text = err.to_string();
    let file = options.path.display().to_string();
    assert!(text.contains(&file), "{text}");
    text.replace(&file, "FILE")
}

/// A file of the test's own, gone with it.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let name = format!("{}-{name}", uuid::Uuid::new_v4());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        TempFile(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Black, with one rectangle of a colour.
fn picture(width: usize, height: usize, at: [usize; 4], colour: [u8; 3]) -> Vec<u8> {
    let [x0, y0, x1, y1] = at;
    (0..width * height)
        .flat_map(|i| {
            let (x, y) = (i % width, i / width);
            let inside = (x0..x1).contains(&x) && (y0..y1).contains(&y);
            if inside { colour } else { [0; 3] }
        })
        .collect()
}

fn rgb(data: &[u8], width: u32, height: u32) -> Frame<'_> {
    let stride = width as usize * 3;
    Frame {
        format: PixelFormat::Rgb,
        width,
        height,
        planes: [Plane { data, stride }, Plane::default(), Plane::default()],
        colours: Colours {
            matrix: Matrix::Bt601,
            range: Range::Limited,
        },
    }
}

fn infer(model: &Model, frame: &Frame<'_>) -> Inference {
    model
        .infer(frame, THRESHOLDS, &mut Scratch::default())
        .unwrap()
}

#[test]
fn a_model_is_described_by_its_own_metadata() {
    let model = Model::load(&options("colours.onnx")).unwrap();
    let bytes = std::fs::read(Path::new(DATA).join("colours.onnx")).unwrap();
    let hash: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let expected = ModelInfo {
        name: "colours".into(),
        hash: format!("sha256:{hash}"),
        engine: "rten",
        device: "cpu".into(),
        input: InputSpec::new((64, 32)),
        labels: ["red", "green light", "blue"].into_iter().collect(),
        decoder: Decoder::YoloV8,
        outputs: vec!["output0".into()],
        preference: None,
    };
    assert_eq!(*model.info(), expected);
    let model = Model::load(&in_onnxruntime(options("colours.onnx"))).unwrap();
    let expected = ModelInfo {
        engine: "onnxruntime",
        ..expected
    };
    assert_eq!(*model.info(), expected);
}

#[test]
fn a_model_without_metadata_numbers_its_classes() {
    let model = Model::load(&options("colours_unnamed.onnx")).unwrap();
    assert_eq!(model.info().labels, Labels::numbered(3));
    assert_eq!(model.info().input.size, (64, 32));
    assert_eq!(model.info().decoder, Decoder::YoloV8);
}

#[test]
fn labels_of_a_file_win_over_those_of_the_model() {
    let labels = TempFile::new("labels.txt", b"rot\ngr\xc3\xbcn\nblau\n");
    let model = Model::load(&ModelOptions {
        labels: Some(labels.0.clone()),
        ..options("colours.onnx")
    });
    let names: Labels = ["rot", "grün", "blau"].into_iter().collect();
    assert_eq!(model.unwrap().info().labels, names);
}

#[test]
fn a_box_is_found_where_it_was_drawn_in_the_frame() {
    let model = Model::load(&options("colours.onnx")).unwrap();
    // 160x160 lies in the input of 64x32 as 32x32, with 16 columns of grey on either side: one of
    // its cells is 40x40 pixels of the frame.
    let data = picture(160, 160, [80, 40, 120, 80], [0, 255, 0]);
    let inference = infer(&model, &rgb(&data, 160, 160));
    let [found] = &inference.detections[..] else {
        panic!("{:?}", inference.detections);
    };
    assert_eq!(
        (found.x, found.y, found.width, found.height),
        (100.0, 60.0, 40.0, 40.0)
    );
    assert_eq!((found.class_id, &*found.class), (1, "green light"));
    assert!(found.confidence > 0.7, "{}", found.confidence);
    assert!(inference.tensors.is_empty());
    assert!(inference.inference > Duration::ZERO && inference.preprocess > Duration::ZERO);
}

#[test]
fn an_empty_frame_has_no_detections() {
    let model = Model::load(&options("colours.onnx")).unwrap();
    let data = picture(64, 32, [0; 4], [0; 3]);
    assert_eq!(infer(&model, &rgb(&data, 64, 32)).detections, []);
}

#[test]
fn more_frames_of_a_run_than_fit_are_refused_with_what_fits() {
    let options = ModelOptions {
        input_size: Some((4096, 4096)),
        max_batch: 256,
        ..options("channels.onnx")
    };
    assert_eq!(
        refusal(&options),
        "FILE cannot be used: max-batch is 256 and a frame of its input takes 201326592 bytes; at most 5 fit"
    );
}

#[test]
fn a_file_is_one_copy_whatever_it_is_used_for() {
    let plain = in_onnxruntime(options("colours.onnx"));
    let first = Model::load(&plain).unwrap();
    for other in [
        auto(options("colours.onnx")),
        ModelOptions {
            decoder: DecoderChoice::Fixed(Decoder::Raw),
            ..plain.clone()
        },
        ModelOptions {
            threads: 1,
            max_batch: 4,
            ..plain.clone()
        },
    ] {
        let other = Model::load(&other).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(Arc::ptr_eq(&first.instance, &other.instance));
    }
    let embedded = Model::load(&options("colours.onnx")).unwrap();
    assert!(!Arc::ptr_eq(&first.instance, &embedded.instance));
}

#[test]
fn one_model_serves_several_threads_at_once() {
    for threads in [0, 1, 2, 100] {
        let options = ModelOptions {
            threads,
            ..options("colours.onnx")
        };
        serves_several_threads_at_once(&Model::load(&options).unwrap());
        serves_several_threads_at_once(&Model::load(&in_onnxruntime(options)).unwrap());
    }
}

fn serves_several_threads_at_once(model: &Model) {
    std::thread::scope(|scope| {
        for column in 0..8 {
            scope.spawn(move || {
                let mut scratch = Scratch::default();
                let left = column * 8;
                let data = picture(64, 32, [left, 8, left + 8, 16], [0, 0, 255]);
                for _ in 0..50 {
                    let frame = rgb(&data, 64, 32);
                    let found = model.infer(&frame, THRESHOLDS, &mut scratch).unwrap();
                    let [found] = &found.detections[..] else {
                        panic!("{:?}", found.detections);
                    };
                    assert_eq!((found.x, &*found.class), (left as f32 + 4.0, "blue"));
                }
            });
        }
    });
}

#[test]
fn end_to_end_boxes_are_read_with_the_class_they_name() {
    let model = Model::load(&options("end2end.onnx")).unwrap();
    assert_eq!(model.info().decoder, Decoder::End2End);
    let data = picture(128, 64, [0; 4], [0; 3]);
    let found = infer(&model, &rgb(&data, 128, 64)).detections;
    assert_eq!(found.len(), 4);
    assert_eq!(
        (found[0].x, found[0].y, found[0].width, found[0].height),
        (32.0, 24.0, 32.0, 32.0)
    );
    assert_eq!(&*found[0].class, "green light");
}

#[test]
fn a_classification_covers_the_frame_with_its_classes() {
    let model = Model::load(&ModelOptions {
        input_size: Some((16, 16)),
        ..options("channels.onnx")
    })
    .unwrap();
    assert_eq!(
        (model.info().decoder, model.info().input.size),
        (Decoder::Classification, (16, 16))
    );
    let data = picture(100, 100, [0, 0, 100, 100], [0, 0, 255]);
    let found = infer(&model, &rgb(&data, 100, 100)).detections;
    let [found] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (found.x, found.y, found.width, found.height),
        (50.0, 50.0, 100.0, 100.0)
    );
    assert_eq!((&*found.class, found.confidence), ("blue", 1.0));
}

#[test]
fn raw_hands_the_tensors_on() {
    let model = Model::load(&with_decoder("ambiguous.onnx", Decoder::Raw)).unwrap();
    let data = picture(64, 32, [0; 4], [0; 3]);
    let inference = infer(&model, &rgb(&data, 64, 32));
    assert_eq!(
        inference.tensors,
        [Tensor::zeros(&[1, 13, 21], Element::F32)]
    );
    assert_eq!(inference.detections, []);
}

#[test]
fn a_frame_that_cannot_be_read_fails_alone() {
    let model = Model::load(&options("colours.onnx")).unwrap();
    let data = picture(64, 32, [0; 4], [0; 3]);
    let mut scratch = Scratch::default();
    let err = model.infer(&rgb(&data, 64, 33), THRESHOLDS, &mut scratch);
    assert!(matches!(err, Err(InferError::Frame(_))), "{err:?}");
    assert!(
        model
            .infer(&rgb(&data, 64, 32), THRESHOLDS, &mut scratch)
            .is_ok()
    );
}

#[test]
fn a_model_is_loaded_once_for_as_long_as_it_is_used() {
    let file = TempFile::new(
        "m.onnx",
        &std::fs::read(options("colours.onnx").path).unwrap(),
    );
    let options = ModelOptions {
        path: file.0.clone(),
        ..embedded()
    };
    let first = Model::load(&options).unwrap();
    let roundabout = file
        .0
        .parent()
        .unwrap()
        .join(".")
        .join(file.0.file_name().unwrap());
    let again = Model::load(&ModelOptions {
        path: roundabout,
        ..options.clone()
    })
    .unwrap();
    assert!(Arc::ptr_eq(&first, &again));

    let decoder = DecoderChoice::Fixed(Decoder::YoloV8);
    let other = Model::load(&ModelOptions {
        decoder,
        ..options.clone()
    })
    .unwrap();
    assert!(!Arc::ptr_eq(&first, &other));

    let weak = Arc::downgrade(&first);
    drop((first, again));
    assert!(weak.upgrade().is_none());
    assert!(Model::load(&options).is_ok());
}

#[test]
fn a_file_that_was_replaced_is_loaded_anew() {
    let file = TempFile::new(
        "m.onnx",
        &std::fs::read(options("colours.onnx").path).unwrap(),
    );
    let options = ModelOptions {
        path: file.0.clone(),
        ..embedded()
    };
    let before = Model::load(&options).unwrap();
    std::fs::copy(Path::new(DATA).join("colours_unnamed.onnx"), &file.0).unwrap();
    let after = Model::load(&options).unwrap();
    assert_ne!(before.info().hash, after.info().hash);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let err = refusal(&options("missing.onnx"));
    assert!(err.starts_with("cannot read FILE: No such file"), "{err}");
    let err = refusal(&options("../data"));
    assert!(err.contains("it is not a regular file"), "{err}");

    let labels = Path::new(DATA).join("missing.txt");
    let err = Model::load(&ModelOptions {
        labels: Some(labels.clone()),
        ..options("colours.onnx")
    });
    let err = err.err().unwrap().to_string();
    assert!(err.contains(&labels.display().to_string()), "{err}");
}

#[test]
fn what_is_no_onnx_is_refused() {
    let err = refusal(&options("garbage.onnx"));
    assert!(
        err.starts_with("FILE is not an ONNX model, or is damaged"),
        "{err}"
    );
    let err = refusal(&options("truncated.onnx"));
    assert!(
        err.starts_with("FILE is not an ONNX model, or is damaged"),
        "{err}"
    );
    let empty = TempFile::new("empty.onnx", b"");
    let path = empty.0.clone();
    let err = refusal(&ModelOptions { path, ..embedded() });
    assert!(
        err.starts_with("FILE is not an ONNX model, or is damaged"),
        "{err}"
    );
}

#[test]
fn a_file_cut_anywhere_never_panics() {
    let whole = std::fs::read(options("colours.onnx").path).unwrap();
    let file = TempFile::new("cut.onnx", b"");
    for length in (0..whole.len()).step_by(13) {
        let cut = Rten::load(&file.0, whole[..length].to_vec(), 0);
        if let Ok(engine) = cut {
            let _ = engine.run(&Tensor::zeros(&[1, 3, 32, 64], Element::F32), None);
        }
    }
}

#[test]
fn an_operator_that_the_engine_lacks_is_named() {
    let err = refusal(&options("unsupported_op.onnx"));
    assert!(err.starts_with("engine rten cannot run FILE"), "{err}");
    assert!(
        err.contains("Mystery") && err.contains("mystery_1"),
        "{err}"
    );
}

#[test]
fn an_input_that_is_no_picture_is_refused() {
    let err = refusal(&options("rank3.onnx"));
    let found = "its input is \"images\" [3, 32, 64] of FP32; [N, 3, H, W] or [N, H, W, 3] of";
    assert!(err.contains(found), "{err}");
}

#[test]
fn bytes_are_taken_as_they_are_in_the_picture() {
    let with = |options: ModelOptions| ModelOptions {
        decoder: DecoderChoice::Fixed(Decoder::Raw),
        fit: Some(Fit::Stretch),
        ..options
    };
    let data = picture(64, 32, [0, 0, 64, 32], [10, 20, 30]);
    for options in [
        with(options("bytes.onnx")),
        with(in_onnxruntime(options("bytes.onnx"))),
    ] {
        let model = Model::load(&options).unwrap();
        assert_eq!(model.info().input.element, Element::U8);
        let found = infer(&model, &rgb(&data, 64, 32)).tensors;
        assert_eq!(found, [Tensor::new(&[1, 3], &[10.0_f32, 20.0, 30.0])]);
    }
    let err = refusal(&ModelOptions {
        mean: Some([0.5; 3].into()),
        ..options("bytes.onnx")
    });
    assert!(err.contains("mean and std must be empty"), "{err}");
}

#[test]
fn a_frame_alone_is_inferred_by_a_model_of_four_at_once() {
    for options in [
        options("batch4.onnx"),
        in_onnxruntime(options("batch4.onnx")),
    ] {
        let model = Model::load(&options).unwrap();
        assert_eq!(model.info().decoder, Decoder::Classification);
        let data = picture(64, 32, [0, 0, 64, 32], [0, 255, 0]);
        let found = infer(&model, &rgb(&data, 64, 32)).detections;
        assert_eq!((found[0].class_id, found[0].confidence), (1, 1.0));
    }
}

#[test]
fn mean_std_and_the_order_of_channels_are_those_of_the_user() {
    let data = picture(64, 32, [0, 0, 64, 32], [51, 102, 255]);
    let model = Model::load(&ModelOptions {
        decoder: DecoderChoice::Fixed(Decoder::Raw),
        input_size: Some((64, 32)),
        mean: "0.2,0,0.5".parse().ok(),
        std: "1,0.5,0.25".parse().ok(),
        channels: Some(Channels::Bgr),
        ..options("channels.onnx")
    });
    let found = infer(&model.unwrap(), &rgb(&data, 64, 32)).tensors;
    for (found, expected) in found[0].floats().iter().zip([2.0, 0.8, 0.0]) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn what_is_written_beside_a_model_counts_until_the_user_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("channels.onnx");
    std::fs::copy(options("channels.onnx").path, &path).unwrap();
    let beside = folder.path().join("channels.modelinfo");
    let write = |text: &str| std::fs::write(&beside, text).unwrap();
    let plain = ModelOptions { path, ..embedded() };
    let known = "[modelinfo]\nversion=1.0\n[images]\ndir=input\ndims=-1,3,16,24\nranges=-1,1\n";
    write(known);
    let model = Model::load(&plain).unwrap();
    let input = &model.info().input;
    assert_eq!(
        (input.size, input.mean, input.std),
        ((24, 16), [0.5; 3], [0.5; 3])
    );
    let decided = ModelOptions {
        mean: Some([0.0; 3].into()),
        std: Some([1.0; 3].into()),
        ..plain.clone()
    };
    let input = &Model::load(&decided).unwrap().info().input.clone();
    assert_eq!(
        (input.size, input.mean, input.std),
        ((24, 16), [0.0; 3], [1.0; 3])
    );

    write(&format!(
        "{known}[output0]\ndir=output\nid=yolo-v8-pose-out\n"
    ));
    let err = refusal(&plain);
    assert!(
        err.contains("\"yolo-v8-pose-out\", which are not decoded"),
        "{err}"
    );
    write("[modelinfo]\nversion=3.0\n");
    let err = Model::load(&plain).err().unwrap().to_string();
    assert!(
        err.contains("channels.modelinfo cannot be used: its version is \"3.0\""),
        "{err}"
    );
}

#[test]
fn an_output_of_unknown_layout_is_refused() {
    let err = refusal(&options("ambiguous.onnx"));
    assert_eq!(
        err,
        "FILE cannot be used: decoder=auto could not tell the layout of its outputs \"output0\" \
         [1, 13, 21] of FP32 with 8 labels; set decoder to yolov8, yolov5, end2end, ssd, \
         torchvision, detr, rtdetr, classification, raw; its input is \"images\" [1, 3, 32, 64] of \
         FP32"
    );
    let err = refusal(&with_decoder("colours.onnx", Decoder::End2End));
    assert!(
        err.contains("reads an output of [1, N, 6], and its outputs are \"output0\" [1, 7, 32]"),
        "{err}"
    );
    let err = refusal(&options("poses.onnx"));
    assert!(err.contains("its task is \"pose\""), "{err}");
}

#[test]
fn labels_of_another_number_are_refused() {
    let err = refusal(&with_decoder("colours_misnamed.onnx", Decoder::YoloV8));
    assert!(err.contains("the model's metadata has 2 labels"), "{err}");
    let labels = TempFile::new("labels.txt", b"a\nb\nc\nd\n");
    let err = refusal(&ModelOptions {
        labels: Some(labels.0.clone()),
        ..options("colours.onnx")
    });
    assert!(
        err.contains("the labels file has 4 labels") && err.contains("3 classes"),
        "{err}"
    );
}

#[test]
fn an_input_size_that_does_not_fit_is_refused() {
    let err = refusal(&ModelOptions {
        input_size: Some((32, 64)),
        ..options("colours.onnx")
    });
    assert!(
        err.contains("input-size is 32x64") && err.contains("fixed to 64x32"),
        "{err}"
    );
    let err = refusal(&ModelOptions {
        input_size: Some((20, 16)),
        ..options("channels.onnx")
    });
    assert!(err.contains("24x16 would do"), "{err}");
    let err = refusal(&options("channels.onnx"));
    assert!(err.contains("set input-size"), "{err}");
}

fn shapes() -> ModelOptions {
    ModelOptions {
        path: concat!(env!("CARGO_MANIFEST_DIR"), "/models/shapes.onnx").into(),
        decoder: DecoderChoice::Fixed(Decoder::Raw),
        ..embedded()
    }
}

/// A model whose bytes were changed: `from` is `to` everywhere.
fn changed(options: ModelOptions, from: &[u8], to: &[u8]) -> (TempFile, ModelOptions) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(&options.path).unwrap();
    let mut changes = 0;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            changes += 1;
        }
    }
    assert_ne!(changes, 0);
    let file = TempFile::new("changed.onnx", &bytes);
    let path = file.0.clone();
    (file, ModelOptions { path, ..options })
}

#[test]
fn both_engines_find_the_same() {
    let embedded = Model::load(&shapes()).unwrap();
    let other = Model::load(&in_onnxruntime(shapes())).unwrap();
    assert_eq!(other.info().engine, "onnxruntime");
    let mut random = fastrand::Rng::with_seed(6);
    let (mut one, mut two) = (Scratch::default(), Scratch::default());
    for round in 0..10 {
        let (width, height) = (200 + 16 * round, 160);
        let size = width as usize * height as usize * 3;
        let data: Vec<u8> = match round {
            // Noise has no shapes in it; a rectangle is one.
            0..5 => (0..size).map(|_| random.u8(..)).collect(),
            _ => picture(width as usize, 160, [40, 30, 120, 110], [250, 40, 90]),
        };
        let frame = rgb(&data, width, height);
        let one = embedded.infer(&frame, THRESHOLDS, &mut one).unwrap();
        let two = other.infer(&frame, THRESHOLDS, &mut two).unwrap();
        assert_eq!(one.tensors.len(), two.tensors.len());
        for (one, two) in one.tensors.iter().zip(&two.tensors) {
            assert_eq!(one.shape, two.shape);
            for (one, two) in one.floats().iter().zip(&*two.floats()) {
                assert!((one - two).abs() < 1e-3, "{one} {two}");
            }
        }
    }
}

#[test]
fn with_auto_onnxruntime_is_preferred_and_named() {
    let options = auto(options("colours.onnx"));
    let model = Model::load(&options).unwrap();
    assert_eq!(model.info().engine, "onnxruntime");
    let Some(Preference::Met(text)) = &model.info().preference else {
        panic!("{:?}", model.info().preference);
    };
    let library = options.runtime_library.unwrap().canonicalize().unwrap();
    assert!(text.contains(&library.display().to_string()), "{text}");
}

#[test]
fn without_the_library_auto_is_the_embedded_engine_and_says_what_that_costs() {
    let options = ModelOptions {
        runtime_library: Some("/nowhere/libonnxruntime.so".into()),
        ..auto(options("colours.onnx"))
    };
    let model = Model::load(&options).unwrap();
    assert_eq!(model.info().engine, "rten");
    let Some(Preference::Unmet(text)) = &model.info().preference else {
        panic!("{:?}", model.info().preference);
    };
    assert!(
        text.contains("/nowhere/libonnxruntime.so cannot be read: No such file"),
        "{text}"
    );
    assert!(
        text.contains("rten runs it instead, and takes about twice as long"),
        "{text}"
    );

    let asked = ModelOptions {
        engine: EngineChoice::OnnxRuntime,
        ..options
    };
    let refused = Model::load(&asked).err().unwrap();
    assert!(matches!(refused, ModelError::Library(_)), "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("/nowhere/libonnxruntime.so cannot be read: No such file"),
        "{text}"
    );
}

#[test]
fn what_one_engine_does_not_take_the_other_does() {
    // ONNX Runtime refuses a file of a later version of the format.
    let (_file, later) = changed(
        options("colours.onnx"),
        b"\x08\x08:\xef\x08",
        b"\x08\x7f:\xef\x08",
    );
    let refused = refusal(&in_onnxruntime(later.clone()));
    assert!(
        refused.starts_with("engine onnxruntime cannot run FILE"),
        "{refused}"
    );
    let model = Model::load(&auto(later)).unwrap();
    assert_eq!(model.info().engine, "rten");
    let Some(Preference::Unmet(text)) = &model.info().preference else {
        panic!("{:?}", model.info().preference);
    };
    assert!(text.contains("engine onnxruntime cannot run"), "{text}");
    assert!(text.contains("IR version"), "{text}");

    // rten has no Selu.
    let (_file, selu) = changed(shapes(), b"\"\x04Relu", b"\"\x04Selu");
    let refused = refusal(&selu);
    assert!(refused.contains("Selu"), "{refused}");
    let model = Model::load(&auto(selu)).unwrap();
    assert_eq!(model.info().engine, "onnxruntime");
}

#[test]
fn what_no_engine_takes_is_told_of_both() {
    let refused = refusal(&auto(options("unsupported_op.onnx")));
    assert!(refused.contains("engine rten cannot run FILE"), "{refused}");
    assert!(
        refused.contains("engine onnxruntime cannot run FILE"),
        "{refused}"
    );
    let refused = refusal(&auto(options("garbage.onnx")));
    assert!(
        refused.starts_with("FILE is not an ONNX model, or is damaged"),
        "{refused}"
    );
    let without = ModelOptions {
        runtime_library: Some("/nowhere/libonnxruntime.so".into()),
        ..auto(options("unsupported_op.onnx"))
    };
    let refused = refusal(&without);
    assert!(
        refused.contains("Mystery") && refused.contains("/nowhere/libonnxruntime.so"),
        "{refused}"
    );
}

#[test]
fn a_device_that_cannot_be_had_is_refused_with_what_there_is() {
    let refused = |options: ModelOptions, device| {
        let options = ModelOptions { device, ..options };
        let refused = Model::load(&options).err().expect("no test machine has it");
        assert!(matches!(refused, ModelError::Device { .. }), "{refused}");
        refused.to_string()
    };
    let text = refused(options("colours.onnx"), Device::Cuda(0));
    assert_eq!(
        text,
        "device cuda:0 cannot be had: engine rten runs on cpu only"
    );
    for options in [
        auto(options("colours.onnx")),
        in_onnxruntime(options("colours.onnx")),
    ] {
        let text = refused(options.clone(), Device::Cuda(0));
        assert!(
            text.contains("built without cuda:0; it offers cpu"),
            "{text}"
        );
        let text = refused(options, Device::TensorRt(1));
        assert!(
            text.contains("built without tensorrt:1; it offers cpu"),
            "{text}"
        );
    }
}

#[test]
fn a_run_that_fails_in_onnxruntime_fails_alone() {
    let options = in_onnxruntime(options("colours.onnx"));
    let model = Model::load(&options).unwrap();
    let wrong = model.run(&Tensor::zeros(&[1, 3, 8, 8], Element::F32), None);
    assert!(matches!(wrong, Err(EngineError::Failed(_))), "{wrong:?}");
    let lying = Tensor {
        shape: vec![1, 3, 32, 64],
        ..Tensor::zeros(&[5], Element::F32)
    };
    let wrong = model.run(&lying, None);
    assert!(matches!(wrong, Err(EngineError::Failed(_))), "{wrong:?}");
    assert!(
        model
            .run(&Tensor::zeros(&[1, 3, 32, 64], Element::F32), None)
            .is_ok()
    );
}

#[test]
fn a_file_cut_anywhere_does_not_harm_onnxruntime() {
    let options = in_onnxruntime(options("colours.onnx"));
    let whole = std::fs::read(&options.path).unwrap();
    let runtime = library::runtime(options.runtime_library.as_deref()).unwrap();
    for length in (0..whole.len()).step_by(13) {
        let cut = &whole[..length];
        let cut = OnnxRuntime::load(runtime, &options.path, cut, Device::Cpu, 0);
        if let Ok(engine) = cut {
            let _ = engine.run(&Tensor::zeros(&[1, 3, 32, 64], Element::F32), None);
        }
    }
}

/// Takes so many frames at once, as a server that was told to, and gives a number for each.
struct Limited {
    frames: usize,
    room: Room,
}

impl Engine for Limited {
    fn name(&self) -> &'static str {
        "limited"
    }

    fn device(&self) -> &str {
        "a server"
    }

    fn inputs(&self) -> &[InputInfo] {
        &[]
    }

    fn outputs(&self) -> &[String] {
        &[]
    }

    fn metadata(&self, _: &str) -> Option<&str> {
        None
    }

    fn room(&self) -> Room {
        self.room
    }

    fn run(&self, input: &Tensor, _: Option<Instant>) -> Result<Vec<Tensor>, EngineError> {
        let frames = input.shape[0];
        if frames > self.frames {
            let what = format!("batch-size must be <= {}", self.frames);
            return Err(EngineError::Failed(what));
        }
        Ok(vec![Tensor::new(&[frames, 1], &vec![0.0_f32; frames])])
    }
}

#[test]
fn no_more_frames_share_a_run_than_a_server_takes() {
    let input = Model::load(&options("colours.onnx"))
        .unwrap()
        .info()
        .input
        .clone();
    let shared = |frames, room, asked| opening::sharing(&Limited { frames, room }, &input, asked);
    let server = Room::Own(8);
    for (takes, asked, expected) in [
        (1, 8, 1),
        (2, 8, 2),
        (3, 3, 3),
        (4, 8, 4),
        (5, 8, 4),
        (2, 3, 2),
        (8, 8, 8),
        (9, 8, 8),
        (8, 1, 1),
    ] {
        assert_eq!(shared(takes, server, asked), expected, "{takes} of {asked}");
    }
    // Who has no limit is not given more work than it takes to see that.
    assert_eq!(shared(2, Room::Cores { threads: 1 }, 8), 8);
}
