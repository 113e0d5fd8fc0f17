//! What a model file says of itself, together with what the user says of it: the size of its input,
//! the names of its classes, the layout of its output. Where the two disagree, the reason is told.
//!
//! Keys of the metadata are those that Ultralytics' exporter writes: `names`, `imgsz`, `stride`,
//! `task`.

use super::decoders::{Decoder, DecoderChoice};
use super::labels::Labels;
use super::{ElementType, Engine, InputInfo};

/// Longest side of an input, pixels.
const MAX_SIDE: usize = 4096;

/// Why a model cannot be used as it is asked to be; each says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// This program cannot use the model, whatever the user sets.
    #[error("{0}")]
    Model(String),
    /// `input-size` is needed, or must change.
    #[error("{0}")]
    InputSize(String),
    /// `labels` must change.
    #[error("{0}")]
    Labels(String),
    /// `decoder` must be set, or must change.
    #[error("{0}")]
    Decoder(String),
}

/// What is known of a model before it first runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Width and height.
    pub input: (u32, u32),
    pub labels: Option<Labels>,
    /// Whether `labels` are the user's own, and so what is wrong when they do not fit.
    pub labels_given: bool,
    pub task: Option<String>,
}

impl Description {
    /// `labels` and `input_size` (width, height) are the user's.
    pub fn new(
        engine: &dyn Engine,
        labels: Option<Labels>,
        input_size: Option<(u32, u32)>,
    ) -> Result<Self, Objection> {
        let [input] = engine.inputs() else {
            let names: Vec<_> = engine.inputs().iter().map(|i| i.name.as_str()).collect();
            let what = format!("it has {} inputs {names:?}; one is needed", names.len());
            return Err(Objection::Model(what));
        };
        let fixed = image_sides(input)?;
        let written = engine.metadata("imgsz").and_then(parse_size);
        let stride = engine
            .metadata("stride")
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1);
        let labels_given = labels.is_some();
        let labels = labels.or_else(|| engine.metadata("names").and_then(Labels::from_literal));
        Ok(Description {
            input: choose_size(fixed, input_size, written, stride)?,
            labels,
            labels_given,
            task: engine.metadata("task").map(str::to_owned),
        })
    }

    /// The decoder for an output of this shape, and a name for each of its classes.
    pub fn decoder(
        &self,
        choice: DecoderChoice,
        output: &[usize],
    ) -> Result<(Decoder, Labels), Objection> {
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
        let decoder = choice
            .resolve(output, evidence, self.task.as_deref())
            .or_else(|err| {
                let given = self.labels.as_ref().map(Labels::len);
                choice
                    .resolve(output, given, self.task.as_deref())
                    .map_err(|_| err)
            })
            .map_err(|err| Objection::Decoder(err.to_string()))?;
        let classes = decoder
            .classes(output)
            .map_err(|err| Objection::Decoder(err.to_string()))?;
        match (&self.labels, classes) {
            (None, _) => Ok((decoder, Labels::numbered(classes.unwrap_or(0)))),
            (Some(labels), Some(classes)) if labels.len() != classes => {
                let whose = if self.labels_given {
                    "the labels file has"
                } else {
                    "the model's metadata has"
                };
                let what = format!(
                    "{whose} {} labels and its output {output:?} (decoder={decoder}) has {classes} \
                     classes; one label a class is needed",
                    labels.len()
                );
                Err(Objection::Labels(what))
            }
            (Some(labels), _) => Ok((decoder, labels.clone())),
        }
    }
}

/// Height and width that an input is fixed to, where it is.
fn image_sides(input: &InputInfo) -> Result<[Option<usize>; 2], Objection> {
    let found = match &input.shape {
        Some(shape) => {
            let dims = shape.iter().map(|dim| match dim {
                Some(size) => size.to_string(),
                None => "?".into(),
            });
            format!("[{}]", dims.collect::<Vec<_>>().join(", "))
        }
        None => "unknown shape".into(),
    };
    let refuse = |found: String| {
        let what = format!(
            "its input \"{}\" is {found}; [N, 3, H, W] of floats is needed, N 1 or any",
            input.name
        );
        Err(Objection::Model(what))
    };
    if let ElementType::Other(element) = &input.element {
        return refuse(format!("{found} of {element}"));
    }
    match input.shape.as_deref() {
        Some(&[None | Some(1), None | Some(3), height, width]) => Ok([height, width]),
        None => Ok([None, None]),
        _ => refuse(found),
    }
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
    use super::*;

    const FIXED: [Option<usize>; 2] = [Some(288), Some(384)];
    const ANY: [Option<usize>; 2] = [None, None];

    fn described(labels: Option<&[&str]>, given: bool, task: Option<&str>) -> Description {
        Description {
            input: (64, 32),
            labels: labels.map(|names| names.iter().copied().collect()),
            labels_given: given,
            task: task.map(str::to_owned),
        }
    }

    fn input(shape: &[Option<usize>]) -> InputInfo {
        InputInfo {
            name: "images".into(),
            shape: Some(shape.to_vec()),
            element: ElementType::Float,
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
    fn an_input_that_is_no_picture_is_refused_by_name_and_shape() {
        let err = image_sides(&input(&[Some(3), Some(32), None])).unwrap_err();
        assert_eq!(
            err.to_string(),
            "its input \"images\" is [3, 32, ?]; [N, 3, H, W] of floats is needed, N 1 or any"
        );
        assert!(image_sides(&input(&[Some(4), Some(3), None, None])).is_err());
        assert!(image_sides(&input(&[Some(1), Some(1), None, None])).is_err());
        assert_eq!(
            image_sides(&input(&[None, Some(3), None, Some(9)])),
            Ok([None, Some(9)])
        );
    }

    #[test]
    fn labels_of_the_user_that_do_not_fit_are_what_is_wrong() {
        let two = described(Some(&["a", "b"]), true, None);
        let err = two.decoder(DecoderChoice::Auto, &[1, 7, 32]).unwrap_err();
        assert_eq!(
            err,
            Objection::Labels(
                "the labels file has 2 labels and its output [1, 7, 32] (decoder=yolov8) has 3 \
                 classes; one label a class is needed"
                    .into()
            )
        );
    }

    #[test]
    fn labels_of_the_user_settle_a_layout_that_the_shape_leaves_open() {
        let three = described(Some(&["a", "b", "c"]), true, None);
        let (decoder, _) = three.decoder(DecoderChoice::Auto, &[1, 300, 6]).unwrap();
        assert_eq!(decoder, Decoder::End2End);
    }

    #[test]
    fn labels_of_the_model_that_do_not_fit_leave_the_layout_unknown() {
        let two = described(Some(&["a", "b"]), false, None);
        let err = two.decoder(DecoderChoice::Auto, &[1, 7, 32]).unwrap_err();
        assert!(matches!(err, Objection::Decoder(_)), "{err}");
    }

    #[test]
    fn classes_without_labels_are_numbered() {
        let none = described(None, false, None);
        let (_, labels) = none.decoder(DecoderChoice::Auto, &[1, 7, 32]).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), ["0", "1", "2"]);
    }

    #[test]
    fn a_task_that_is_not_decoded_is_refused_unless_raw() {
        let pose = described(None, false, Some("pose"));
        let err = pose
            .decoder(DecoderChoice::Auto, &[1, 56, 8400])
            .unwrap_err();
        assert!(err.to_string().contains("\"pose\""), "{err}");
        let raw = DecoderChoice::Fixed(Decoder::Raw);
        assert!(pose.decoder(raw, &[1, 56, 8400]).is_ok());
    }
}
