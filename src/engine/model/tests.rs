use super::super::preprocess::{Colours, Matrix, PixelFormat, Plane, Range};
use super::*;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");

const THRESHOLDS: Thresholds = Thresholds {
    confidence: 0.5,
    iou: 0.5,
};

fn options(file: &str) -> ModelOptions {
    ModelOptions {
        path: Path::new(DATA).join(file),
        ..ModelOptions::default()
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
        input: (64, 32),
        labels: ["red", "green light", "blue"].into_iter().collect(),
        decoder: Decoder::YoloV8,
        outputs: vec!["output0".into()],
    };
    assert_eq!(*model.info(), expected);
}

#[test]
fn a_model_without_metadata_numbers_its_classes() {
    let model = Model::load(&options("colours_unnamed.onnx")).unwrap();
    assert_eq!(model.info().labels, Labels::numbered(3));
    assert_eq!(model.info().input, (64, 32));
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
fn one_model_serves_several_threads_at_once() {
    let model = Model::load(&options("colours.onnx")).unwrap();
    std::thread::scope(|scope| {
        for column in 0..8 {
            let model = &model;
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
        (model.info().decoder, model.info().input),
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
    assert_eq!(inference.tensors, [Tensor::zeros(&[1, 13, 21])]);
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
        ..ModelOptions::default()
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
        ..ModelOptions::default()
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
    let err = refusal(&ModelOptions {
        path,
        ..ModelOptions::default()
    });
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
        let cut = Rten::load(&file.0, whole[..length].to_vec());
        if let Ok(engine) = cut {
            let _ = engine.run(&Tensor::zeros(&[1, 3, 32, 64]));
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
    for (file, found) in [
        ("rank3.onnx", "\"images\" is [3, 32, 64];"),
        ("bytes.onnx", "\"images\" is [1, 3, 32, 64] of tensor(u8);"),
        ("batch4.onnx", "\"images\" is [4, 3, 32, 64];"),
    ] {
        let err = refusal(&options(file));
        assert!(
            err.contains(found) && err.contains("[N, 3, H, W] of floats is needed"),
            "{err}"
        );
    }
}

#[test]
fn an_output_of_unknown_layout_is_refused() {
    let err = refusal(&options("ambiguous.onnx"));
    assert_eq!(
        err,
        "FILE cannot be used: decoder=auto could not tell the layout of output [1, 13, 21] with 8 \
         labels; set decoder to yolov8, yolov5, end2end, classification, raw"
    );
    let err = refusal(&with_decoder("colours.onnx", Decoder::End2End));
    assert!(
        err.ends_with("reads an output of [1, N, 6], this one is [1, 7, 32]"),
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
