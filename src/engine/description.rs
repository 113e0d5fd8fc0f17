//! What a model file and the side-car beside it say, together with what the user says: how the input
//! is made of a frame, the names of its classes, the layout of its outputs. Where they disagree, the user is right, then
//! the side-car, then the model; where that cannot be, the reason is told.
//!
//! Keys of the metadata are those that Ultralytics' exporter writes: `names`, `imgsz`, `stride`,
//! `task`.

use super::decoders::{Decoder, DecoderChoice, Output};
use super::input::{Channels, Fit, InputSpec, Layout, PerColour};
use super::labels::Labels;
use super::side_car::{Meaning, SideCar};
use super::tensor::Element;
use super::{Engine, InputInfo};

/// Longest side of an input, pixels.
const MAX_SIDE: usize = 4096;

/// Most bytes of the input of one inference.
const MAX_BYTES: usize = 1 << 30;

/// Why a model cannot be used as it is asked to be; each says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// This program cannot use the model, whatever the user sets.
    #[error("{0}")]
    Model(String),
    /// `input-size` is needed, or must change.
    #[error("{0}")]
    InputSize(String),
    /// `mean` or `std` must change.
    #[error("{0}")]
    Normalisation(String),
    /// What is written beside the model must change.
    #[error("{0}")]
    SideCar(String),
    /// `labels` must change.
    #[error("{0}")]
    Labels(String),
    /// `decoder` must be set, or must change.
    #[error("{0}")]
    Decoder(String),
    /// `max-batch` must change.
    #[error(
        "max-batch is {asked} and a frame of its input takes {bytes} bytes; at most {most} fit"
    )]
    MaxBatch {
        asked: usize,
        bytes: usize,
        most: usize,
    },
}

/// Most frames that may share an input.
pub fn most_frames(input: &InputSpec) -> usize {
    (MAX_BYTES / input.bytes().max(1)).max(1)
}

/// What is said of a model elsewhere than in its file; what is None is left to the file.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub labels: Option<Labels>,
    /// Width and height.
    pub input_size: Option<(u32, u32)>,
    pub mean: Option<PerColour>,
    pub std: Option<PerColour>,
    pub channels: Option<Channels>,
    pub fit: Option<Fit>,
    pub side_car: Option<SideCar>,
}

/// What is known of a model before it first runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    pub input: InputSpec,
    /// Frames of one inference, where the file fixes them.
    pub frames: Option<usize>,
    pub labels: Option<Labels>,
    /// Whether `labels` are the user's own, and so what is wrong when they do not fit.
    pub labels_given: bool,
    pub task: Option<String>,
    /// What the user said of the shape of frames; else the decoder knows.
    pub fit: Option<Fit>,
    /// What each output is called by who decodes it: its id in the side-car, else its name.
    pub output_names: Vec<String>,
    /// How the outputs are laid out, where the side-car says so.
    pub meaning: Option<Meaning>,
    /// The input, as errors name it.
    told: String,
}

impl Description {
    pub fn new(engine: &dyn Engine, given: &Given) -> Result<Self, Objection> {
        let [input] = engine.inputs() else {
            let inputs: Vec<_> = engine.inputs().iter().map(told).collect();
            let what = format!(
                "it has {} inputs: {}; one is needed",
                inputs.len(),
                inputs.join(", ")
            );
            return Err(Objection::Model(what));
        };
        let side_car = given.side_car.as_ref();
        let beside = side_car.and_then(|side_car| side_car.input(&input.name));
        let picture = Picture::of(input, beside.and_then(|beside| beside.dims.as_deref()))?;
        let written = engine.metadata("imgsz").and_then(parse_size);
        let stride = engine
            .metadata("stride")
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1);
        let (mean, std) = match beside.and_then(|beside| beside.ranges) {
            Some(ranges) => normalisation(ranges, &input.name)?,
            None => ([0.0; 3], [1.0; 3]),
        };
        let spec = InputSpec {
            size: choose_size(picture.sides, given.input_size, written, stride)?,
            element: picture.element,
            layout: picture.layout,
            channels: given.channels.unwrap_or_default(),
            mean: given.mean.map_or(mean, PerColour::values),
            std: given.std.map_or(std, PerColour::values),
            fit: given.fit.unwrap_or_default(),
        };
        check_normalisation(&spec, given, side_car.is_some())?;
        let frames = picture.frames.unwrap_or(1);
        if spec.bytes().saturating_mul(frames) > MAX_BYTES {
            let what = format!(
                "its input would have {frames} frames of {} bytes",
                spec.bytes()
            );
            return Err(Objection::Model(what));
        }
        let output_names = engine.outputs().iter().map(|name| {
            let id = side_car.and_then(|side_car| side_car.output_id(name));
            id.or_else(|| engine.metadata(name))
                .unwrap_or(name)
                .to_owned()
        });
        let output_names: Vec<_> = output_names.collect();
        let group = side_car.and_then(|side_car| side_car.group_id.as_deref());
        let ids = group
            .into_iter()
            .chain(output_names.iter().map(String::as_str));
        let labels = given.labels.clone();
        Ok(Description {
            input: spec,
            frames: picture.frames,
            labels_given: labels.is_some(),
            labels: labels.or_else(|| engine.metadata("names").and_then(Labels::from_literal)),
            task: engine.metadata("task").map(str::to_owned),
            fit: given.fit,
            meaning: ids.into_iter().find_map(Meaning::of),
            output_names,
            told: told(input),
        })
    }

    /// The decoder for these outputs, and a name for each of its classes.
    pub fn decoder(
        &self,
        choice: DecoderChoice,
        outputs: &[Output<'_>],
    ) -> Result<(Decoder, Labels), Objection> {
        let choice = match (choice, &self.meaning) {
            (DecoderChoice::Auto, Some(Meaning::Decoded(decoder))) => {
                DecoderChoice::Fixed(*decoder)
            }
            (DecoderChoice::Auto, Some(Meaning::Undecoded(id))) => {
                let what = format!(
                    "what is written beside it says that its outputs are \"{id}\", which are not \
                     decoded; set decoder to raw, or to what else they are"
                );
                return Err(Objection::Decoder(what));
            }
            _ => choice,
        };
        let raw = choice == DecoderChoice::Fixed(Decoder::Raw);
        if let Some(task @ ("segment" | "pose" | "obb")) = self.task.as_deref()
            && !raw
        {
            let what = format!(
                "its task is \"{task}\"; those decoded are detect and classify, \
                 others give their tensors with decoder=raw"
            );
            return Err(Objection::Decoder(what));
        }
        // The user's labels are no evidence of the layout: they may be those of another model.
        let evidence = self.labels.as_ref().map(Labels::len);
        let evidence = evidence.filter(|_| !self.labels_given);
        let task = self.task.as_deref();
        let object = |err| Objection::Decoder(format!("{err}; its input is {}", self.told));
        let decoder = choice
            .resolve(outputs, evidence, task)
            .or_else(|err| {
                let given = self.labels.as_ref().map(Labels::len);
                choice.resolve(outputs, given, task).map_err(|_| err)
            })
            .map_err(object)?;
        let classes = decoder.classes(outputs).map_err(object)?;
        match (&self.labels, classes) {
            (None, _) => Ok((decoder, Labels::numbered(classes.unwrap_or(0)))),
            (Some(labels), Some(classes)) if labels.len() != classes => {
                let whose = if self.labels_given {
                    "the labels file has"
                } else {
                    "the model's metadata has"
                };
                let outputs: Vec<_> = outputs.iter().map(Output::to_string).collect();
                let what = format!(
                    "{whose} {} labels and its outputs {} (decoder={decoder}) have {classes} \
                     classes; one label a class is needed",
                    labels.len(),
                    outputs.join(", ")
                );
                Err(Objection::Labels(what))
            }
            (Some(labels), _) => Ok((decoder, labels.clone())),
        }
    }
}

/// An input that is a picture, or several.
#[derive(Debug, Clone, PartialEq)]
struct Picture {
    element: Element,
    layout: Layout,
    /// Height and width, where they are fixed.
    sides: [Option<usize>; 2],
    frames: Option<usize>,
}

impl Picture {
    /// `beside` are the dimensions that the side-car gives: they say what the file leaves open.
    fn of(input: &InputInfo, beside: Option<&[Option<usize>]>) -> Result<Self, Objection> {
        let refuse = || {
            let what = format!(
                "its input is {}; [N, 3, H, W] or [N, H, W, 3] of FP32, FP16 or UINT8 is needed",
                told(input)
            );
            Err(Objection::Model(what))
        };
        let element = match input.element {
            Ok(element @ (Element::F32 | Element::F16 | Element::U8)) => element,
            _ => return refuse(),
        };
        let mut shape = match input.shape.as_deref() {
            Some(&[frames, one, two, three]) => [frames, one, two, three],
            // Nobody says how many frames it takes: one always goes.
            None => [Some(1), None, None, None],
            _ => return refuse(),
        };
        if let Some(beside) = beside {
            let agree = |a: Option<usize>, b: Option<usize>| a.is_none() || b.is_none() || a == b;
            let fits = beside.len() == 4 && shape.iter().zip(beside).all(|(a, b)| agree(*a, *b));
            if !fits {
                let what = format!(
                    "what is written beside it says that its input has dims {}, and it is {}",
                    listed(beside),
                    told(input)
                );
                return Err(Objection::SideCar(what));
            }
            // Not how many frames: what takes any number takes that too.
            for (side, beside) in shape.iter_mut().zip(beside).skip(1) {
                *side = side.or(*beside);
            }
        }
        let (layout, channels, sides) = match shape {
            [_, height, width, Some(3)] if shape[1] != Some(3) => {
                (Layout::Nhwc, Some(3), [height, width])
            }
            [_, channels, height, width] => (Layout::Nchw, channels, [height, width]),
        };
        let has_frames = shape[0].is_none_or(|frames| frames > 0);
        if channels.is_some_and(|channels| channels != 3) || !has_frames {
            return refuse();
        }
        Ok(Picture {
            element,
            layout,
            sides,
            frames: shape[0],
        })
    }
}

/// Name, shape and kind of an input.
fn told(input: &InputInfo) -> String {
    let shape = match &input.shape {
        Some(shape) => listed(shape),
        None => "unknown shape".into(),
    };
    let (name, element) = (&input.name, &input.element);
    match element {
        Ok(element) => format!("\"{name}\" {shape} of {element}"),
        Err(element) => format!("\"{name}\" {shape} of {element}"),
    }
}

fn listed(shape: &[Option<usize>]) -> String {
    let dims = shape.iter().map(|dim| match dim {
        Some(size) => size.to_string(),
        None => "?".into(),
    });
    format!("[{}]", dims.collect::<Vec<_>>().join(", "))
}

/// What takes 0 to 1 to these ranges, as mean and std.
fn normalisation(ranges: [(f32, f32); 3], input: &str) -> Result<([f32; 3], [f32; 3]), Objection> {
    let std = ranges.map(|(least, most)| 1.0 / (most - least));
    let mean = ranges.map(|(least, most)| -least / (most - least));
    if mean.iter().chain(&std).all(|number| number.is_finite()) {
        return Ok((mean, std));
    }
    let what = format!(
        "what is written beside it has ranges for input \"{input}\" of which one is empty or endless"
    );
    Err(Objection::SideCar(what))
}

fn check_normalisation(
    spec: &InputSpec,
    given: &Given,
    has_side_car: bool,
) -> Result<(), Objection> {
    if spec.std.contains(&0.0) {
        let what = "std has a 0, by which nothing can be divided; 1 changes nothing";
        return Err(Objection::Normalisation(what.into()));
    }
    if spec.element != Element::U8 {
        return Ok(());
    }
    if given.mean.is_some() || given.std.is_some() {
        let what = "its input is of UINT8 and takes 0 to 255 as it is in the picture; mean and std \
                    must be empty";
        return Err(Objection::Normalisation(what.into()));
    }
    let bytes = (spec.mean, spec.std.map(|std| (1.0 / std).round()));
    if has_side_car && bytes != ([0.0; 3], [255.0; 3]) && bytes != ([0.0; 3], [1.0; 3]) {
        let what = "what is written beside it has other ranges than 0,255 for an input of UINT8";
        return Err(Objection::SideCar(what.into()));
    }
    Ok(())
}

/// Width and height: fixed by the model, else the user's, else what the exporter wrote.
fn choose_size(
    [height, width]: [Option<usize>; 2],
    given: Option<(u32, u32)>,
    written: Option<(u32, u32)>,
    stride: u32,
) -> Result<(u32, u32), Objection> {
    let Some((w, h)) = given.or(written).or_else(|| {
        let sides = (width?.try_into().ok()?, height?.try_into().ok()?);
        Some(sides)
    }) else {
        let what = "its input has any size and its metadata names none; set input-size";
        return Err(Objection::InputSize(what.into()));
    };
    let size = match (width, height) {
        // What an exporter wrote beside a fixed shape adds nothing.
        (Some(width), Some(height)) if given.is_none() => (width, height),
        _ => (w as usize, h as usize),
    };
    let conflict = |fixed: Option<usize>, side: usize| fixed.is_some_and(|fixed| fixed != side);
    if conflict(width, size.0) || conflict(height, size.1) {
        let side = |fixed: Option<usize>| fixed.map_or("any".into(), |fixed| fixed.to_string());
        let what = format!(
            "input-size is {}x{} (width x height) and its input is fixed to {}x{}",
            size.0,
            size.1,
            side(width),
            side(height)
        );
        return Err(Objection::InputSize(what));
    }
    if !(1..=MAX_SIDE).contains(&size.0) || !(1..=MAX_SIDE).contains(&size.1) {
        let what = format!(
            "its input would be {}x{} pixels; both sides must be 1 to {MAX_SIDE}",
            size.0, size.1
        );
        return Err(Objection::InputSize(what));
    }
    let size = (size.0 as u32, size.1 as u32);
    if stride > 0 && (!size.0.is_multiple_of(stride) || !size.1.is_multiple_of(stride)) {
        let up = |side: u32| side.next_multiple_of(stride);
        let what = format!(
            "input-size is {}x{} and both sides must be multiples of the model's stride, {stride}: \
             {}x{} would do",
            size.0,
            size.1,
            up(size.0),
            up(size.1)
        );
        return Err(Objection::InputSize(what));
    }
    Ok(size)
}

/// `[height, width]` or one number for both, as width and height.
fn parse_size(text: &str) -> Option<(u32, u32)> {
    if let Ok([height, width]) = serde_json::from_str::<[u32; 2]>(text) {
        return Some((width, height));
    }
    let side = serde_json::from_str(text).ok()?;
    Some((side, side))
}

#[cfg(test)]
mod tests {
    use super::super::tensor::Tensor;
    use super::*;

    const FIXED: [Option<usize>; 2] = [Some(288), Some(384)];
    const ANY: [Option<usize>; 2] = [None, None];

    fn described(labels: Option<&[&str]>, given: bool, task: Option<&str>) -> Description {
        Description {
            input: InputSpec::new((64, 32)),
            frames: None,
            labels: labels.map(|names| names.iter().copied().collect()),
            labels_given: given,
            task: task.map(str::to_owned),
            fit: None,
            output_names: vec!["output0".into()],
            meaning: None,
            told: "\"images\" [1, 3, 32, 64] of FP32".into(),
        }
    }

    fn decoder(
        description: &Description,
        choice: DecoderChoice,
        shape: &[usize],
    ) -> Result<(Decoder, Labels), Objection> {
        let output = Tensor::zeros(shape, Element::F32);
        let output = Output::of(&output, 0, 1).unwrap().named("output0");
        description.decoder(choice, &[output])
    }

    fn input(shape: &[Option<usize>]) -> InputInfo {
        InputInfo {
            name: "images".into(),
            shape: Some(shape.to_vec()),
            element: Ok(Element::F32),
        }
    }

    #[test]
    fn sizes_in_metadata_are_height_then_width() {
        assert_eq!(parse_size("[288, 384]"), Some((384, 288)));
        assert_eq!(parse_size("640"), Some((640, 640)));
        assert_eq!(parse_size("[1, 2, 3]"), None);
    }

    #[test]
    fn the_user_decides_the_size_of_an_input_of_any_size() {
        assert_eq!(
            choose_size(ANY, Some((640, 480)), Some((384, 288)), 32),
            Ok((640, 480))
        );
        assert_eq!(choose_size(ANY, None, Some((384, 288)), 32), Ok((384, 288)));
        assert_eq!(
            choose_size(FIXED, None, Some((640, 640)), 32),
            Ok((384, 288))
        );
        let err = choose_size(ANY, None, None, 1).unwrap_err().to_string();
        assert!(err.contains("set input-size"), "{err}");
    }

    #[test]
    fn a_size_that_conflicts_with_the_model_is_refused() {
        let err = choose_size(FIXED, Some((288, 384)), None, 32).unwrap_err();
        assert_eq!(
            err.to_string(),
            "input-size is 288x384 (width x height) and its input is fixed to 384x288"
        );
        let half = choose_size([None, Some(384)], Some((320, 320)), None, 32).unwrap_err();
        assert!(half.to_string().contains("fixed to 384xany"), "{half}");
    }

    #[test]
    fn a_size_that_is_no_multiple_of_the_stride_is_refused_with_one_that_is() {
        let err = choose_size(ANY, Some((650, 480)), None, 32).unwrap_err();
        assert!(err.to_string().ends_with("32: 672x480 would do"), "{err}");
    }

    #[test]
    fn a_size_of_nothing_or_of_too_much_is_refused() {
        for size in [(0, 480), (640, 0), (4097, 32), (u32::MAX, u32::MAX)] {
            assert!(choose_size(ANY, Some(size), None, 1).is_err(), "{size:?}");
        }
    }

    #[test]
    fn an_input_that_is_no_picture_is_refused_by_name_shape_and_kind() {
        let err = Picture::of(&input(&[Some(3), Some(32), None]), None).unwrap_err();
        assert_eq!(
            err.to_string(),
            "its input is \"images\" [3, 32, ?] of FP32; [N, 3, H, W] or [N, H, W, 3] of FP32, FP16 \
             or UINT8 is needed"
        );
        assert!(Picture::of(&input(&[Some(1), Some(1), None, None]), None).is_err());
        assert!(Picture::of(&input(&[Some(0), Some(3), None, None]), None).is_err());
        let doubles = InputInfo {
            element: Ok(Element::F64),
            ..input(&[None, Some(3), None, None])
        };
        let err = Picture::of(&doubles, None).unwrap_err();
        assert!(err.to_string().contains("of FP64"), "{err}");
    }

    #[test]
    fn layouts_are_told_by_where_the_three_channels_are() {
        let of = |shape: &[Option<usize>], beside: Option<&[Option<usize>]>| {
            let picture = Picture::of(&input(shape), beside).unwrap();
            (picture.layout, picture.sides, picture.frames)
        };
        let (planes, pixels) = (Layout::Nchw, Layout::Nhwc);
        assert_eq!(
            of(&[None, Some(3), None, Some(9)], None),
            (planes, [None, Some(9)], None)
        );
        assert_eq!(
            of(&[Some(4), Some(8), None, Some(3)], None),
            (pixels, [Some(8), None], Some(4))
        );
        assert_eq!(of(&[None; 4], None), (planes, ANY, None));
        let beside = [Some(1), None, Some(6), Some(3)];
        assert_eq!(
            of(&[None; 4], Some(&beside)),
            (pixels, [None, Some(6)], None)
        );
        let err = Picture::of(
            &input(&[None, Some(3), None, None]),
            Some(&[Some(1), Some(8)]),
        );
        assert!(matches!(err, Err(Objection::SideCar(_))), "{err:?}");
    }

    #[test]
    fn ranges_are_what_black_and_white_become() {
        let (mean, std) = normalisation([(-1.0, 1.0), (0.0, 255.0), (0.0, 1.0)], "x").unwrap();
        for (colour, white) in [(0, 1.0), (1, 255.0), (2, 1.0)] {
            let value = |v: f32| (v - mean[colour]) / std[colour];
            assert!((value(1.0) - white).abs() < 1e-4, "{}", value(1.0));
            assert_eq!(value(0.0), [-1.0, 0.0, 0.0][colour]);
        }
        assert!(normalisation([(1.0, 1.0); 3], "x").is_err());
    }

    #[test]
    fn bytes_are_not_normalised() {
        let bytes = InputSpec {
            element: Element::U8,
            ..InputSpec::new((8, 8))
        };
        let mean = Given {
            mean: Some([0.5; 3].into()),
            ..Given::default()
        };
        assert!(check_normalisation(&bytes, &Given::default(), true).is_ok());
        let err = check_normalisation(&bytes, &mean, false).unwrap_err();
        assert!(
            err.to_string().contains("mean and std must be empty"),
            "{err}"
        );
        let other = InputSpec {
            mean: [0.5; 3],
            ..bytes
        };
        let err = check_normalisation(&other, &Given::default(), true);
        assert!(matches!(err, Err(Objection::SideCar(_))), "{err:?}");
        let nothing = InputSpec {
            std: [1.0, 0.0, 1.0],
            ..InputSpec::new((8, 8))
        };
        let err = check_normalisation(&nothing, &Given::default(), false).unwrap_err();
        assert!(err.to_string().contains("std has a 0"), "{err}");
    }

    #[test]
    fn labels_of_the_user_that_do_not_fit_are_what_is_wrong() {
        let two = described(Some(&["a", "b"]), true, None);
        let err = decoder(&two, DecoderChoice::Auto, &[1, 7, 32]).unwrap_err();
        assert_eq!(
            err,
            Objection::Labels(
                "the labels file has 2 labels and its outputs \"output0\" [1, 7, 32] of FP32 \
                 (decoder=yolov8) have 3 classes; one label a class is needed"
                    .into()
            )
        );
    }

    #[test]
    fn labels_of_the_user_settle_a_layout_that_the_shape_leaves_open() {
        let three = described(Some(&["a", "b", "c"]), true, None);
        let (decoder, _) = decoder(&three, DecoderChoice::Auto, &[1, 300, 6]).unwrap();
        assert_eq!(decoder, Decoder::End2End);
    }

    #[test]
    fn labels_of_the_model_that_do_not_fit_leave_the_layout_unknown() {
        let two = described(Some(&["a", "b"]), false, None);
        let err = decoder(&two, DecoderChoice::Auto, &[1, 7, 32]).unwrap_err();
        assert!(matches!(err, Objection::Decoder(_)), "{err}");
    }

    #[test]
    fn classes_without_labels_are_numbered() {
        let none = described(None, false, None);
        let (_, labels) = decoder(&none, DecoderChoice::Auto, &[1, 7, 32]).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), ["0", "1", "2"]);
    }

    #[test]
    fn a_task_that_is_not_decoded_is_refused_unless_raw() {
        let pose = described(None, false, Some("pose"));
        let err = decoder(&pose, DecoderChoice::Auto, &[1, 56, 8400]).unwrap_err();
        assert!(err.to_string().contains("\"pose\""), "{err}");
        let raw = DecoderChoice::Fixed(Decoder::Raw);
        assert!(decoder(&pose, raw, &[1, 56, 8400]).is_ok());
    }
}
