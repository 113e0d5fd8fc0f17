//! A model's outputs into candidates: which layout they have, and how that is read.
//!
//! Pure: tensors and numbers in, candidates in pixels of the model's input out. Tensors that
//! do not fit are an error, never a panic; scores and boxes that are not finite do not count. Of equal
//! scores the one that comes first in the tensor comes first.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::input::Fit;
use super::tensor::{Element, Tensor};
use crate::logic::detections::{self, Candidate, Corners, Thresholds};

/// Classes a classification reports at most.
const TOP_CLASSES: usize = 5;

/// How the outputs are laid out. N is the number of boxes, C that of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decoder {
    /// [1, 4+C, N]: centre, size and the score of each class. YOLOv8, YOLO11 and their like.
    YoloV8,
    /// [1, N, 5+C]: centre, size, how sure it is of an object, and the score of each class.
    YoloV5,
    /// [1, N, 6]: corners, score, class. The model has merged overlapping boxes itself.
    End2End,
    /// Boxes [1, N, 4], classes [1, N], scores [1, N] and perhaps how many of them are meant; a box is top, left, bottom,
    /// right. TensorFlow's object detection; overlapping boxes are merged already.
    Ssd,
    /// The same with boxes of left, top, right, bottom, or [N, 4], [N] and [N] of one frame alone. torchvision's detectors.
    Torchvision,
    /// Logits [1, N, C+1], the last for no object, and boxes [1, N, 4] of centre and size: a softmax over the classes.
    Detr,
    /// Logits [1, N, C] and boxes [1, N, 4] of centre and size: each class on its own. Or both in one, [1, N, 4+C], with
    /// scores for logits, as Ultralytics exports it.
    RtDetr,
    /// [1, C]: probabilities, or what a softmax makes probabilities of.
    Classification,
    /// Any: the tensors are handed on as they are.
    Raw,
}

/// What one output says of one frame.
#[derive(Debug, Clone)]
pub struct Output<'a> {
    /// What it is called in the file, or what stands beside the file for it.
    pub name: &'a str,
    /// The first is 1, of this frame, where frames share an output.
    pub shape: Vec<usize>,
    /// Of which kind the numbers are in the tensor.
    pub element: Element,
    /// As many as the product of `shape`.
    pub numbers: Cow<'a, [f32]>,
}

impl<'a> Output<'a> {
    /// Of the frame at `index` in an inference of so many `frames`; `None` where the output has not a share for each.
    pub fn of(tensor: &'a Tensor, index: usize, frames: usize) -> Option<Output<'a>> {
        let (shape, share) = tensor.share_of(index, frames)?;
        let numbers = match tensor.numbers::<f32>() {
            Some(numbers) => {
                let size = tensor.element.size();
                Cow::Borrowed(&numbers[share.start / size..share.end / size])
            }
            None => {
                let share = Tensor::of_bytes(&shape, tensor.element, &tensor.bytes[share]);
                Cow::Owned(share.floats().into_owned())
            }
        };
        Some(Output {
            name: "",
            shape,
            element: tensor.element,
            numbers,
        })
    }

    pub fn named(self, name: &'a str) -> Self {
        Output { name, ..self }
    }

    fn is_called(&self, words: &[&str]) -> bool {
        let name = self.name.to_ascii_lowercase();
        words.iter().any(|word| name.contains(word))
    }
}

impl fmt::Display for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" {:?} of {}", self.name, self.shape, self.element)
    }
}

/// A decoder the user named, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DecoderChoice {
    /// Told by names and shapes of the outputs, the number of labels and the task in the metadata.
    #[default]
    Auto,
    Fixed(Decoder),
}

/// Outputs that a decoder cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("decoder={decoder} reads {}, and its outputs are {outputs}", decoder.layout())]
    Misfit { decoder: Decoder, outputs: String },
    #[error(
        "decoder=auto could not tell the layout of its outputs {outputs}{}; set decoder to {}",
        with_labels(*.labels),
        listed(.fitting)
    )]
    Unknown {
        outputs: String,
        labels: Option<usize>,
        /// More than one that would do, or none.
        fitting: Vec<Decoder>,
    },
}

const NICKS: [(&str, DecoderChoice); 10] = [
    ("auto", DecoderChoice::Auto),
    ("yolov8", DecoderChoice::Fixed(Decoder::YoloV8)),
    ("yolov5", DecoderChoice::Fixed(Decoder::YoloV5)),
    ("end2end", DecoderChoice::Fixed(Decoder::End2End)),
    ("ssd", DecoderChoice::Fixed(Decoder::Ssd)),
    ("torchvision", DecoderChoice::Fixed(Decoder::Torchvision)),
    ("detr", DecoderChoice::Fixed(Decoder::Detr)),
    ("rtdetr", DecoderChoice::Fixed(Decoder::RtDetr)),
    (
        "classification",
        DecoderChoice::Fixed(Decoder::Classification),
    ),
    ("raw", DecoderChoice::Fixed(Decoder::Raw)),
];

/// Boxes that RT-DETR gives, in every size in which it was published.
const RTDETR_QUERIES: usize = 300;

/// Boxes that DETR gives.
const DETR_QUERIES: usize = 100;

impl DecoderChoice {
    /// The decoder for outputs of these names and shapes. `labels` is the number of classes that have names,
    /// `task` what Ultralytics' exporter says the model does.
    ///
    /// A shape alone cannot tell one class of YOLOv5 from end-to-end boxes; a task in the metadata
    /// does, as YOLOv5's own exporter writes none.
    pub fn resolve(
        self,
        outputs: &[Output<'_>],
        labels: Option<usize>,
        task: Option<&str>,
    ) -> Result<Decoder, LayoutError> {
        if let DecoderChoice::Fixed(decoder) = self {
            decoder.classes(outputs)?;
            return Ok(decoder);
        }
        let fitting = match (Queries::named(outputs), Listed::named(outputs)) {
            (Some(queries), _) => queries.decoders(labels),
            (None, Some(listed)) => listed.decoders(),
            (None, None) => alone(outputs, labels, task),
        };
        match fitting[..] {
            [decoder] => Ok(decoder),
            _ => Err(LayoutError::Unknown {
                outputs: told(outputs),
                labels,
                fitting,
            }),
        }
    }
}

/// Decoders that read all from the first output and can.
fn alone(outputs: &[Output<'_>], labels: Option<usize>, task: Option<&str>) -> Vec<Decoder> {
    let all = [
        Decoder::YoloV8,
        Decoder::YoloV5,
        Decoder::End2End,
        Decoder::RtDetr,
        Decoder::Classification,
    ];
    let Some(first) = outputs.get(..1) else {
        return Vec::new();
    };
    let fits = |decoder: &Decoder| match decoder.classes(first) {
        Err(_) => false,
        Ok(None) => true,
        Ok(classes) => labels.is_none() || classes == labels,
    };
    let likely = |decoder: &Decoder| {
        let (rows, columns) = match first[0].shape[..] {
            [_, rows, columns] => (rows, columns),
            _ => (0, 0),
        };
        match decoder {
            Decoder::YoloV8 => rows < columns,
            // It has three boxes for each cell of three grids: never 300.
            Decoder::YoloV5 => rows > columns && task.is_none() && rows != RTDETR_QUERIES,
            Decoder::RtDetr => {
                let detects = task.is_some() || rows == RTDETR_QUERIES;
                rows > columns && columns != 6 && detects
            }
            _ => true,
        }
    };
    let fitting = all
        .into_iter()
        .filter(|decoder| fits(decoder) && likely(decoder));
    fitting.collect()
}

/// Outputs of a transformer: what each of its queries found, if anything.
struct Queries<'o> {
    /// [1, N, 4]
    boxes: &'o Output<'o>,
    /// [1, N, anything]
    logits: &'o Output<'o>,
}

impl<'o> Queries<'o> {
    /// Those that are called so.
    fn named(outputs: &'o [Output<'o>]) -> Option<Self> {
        let words = ["logit", "label"];
        Queries::of(outputs, |output| output.is_called(&words))
    }

    /// Those that may be meant, whatever they are called.
    fn found(outputs: &'o [Output<'o>]) -> Option<Self> {
        Queries::named(outputs).or_else(|| Queries::of(outputs, |_| true))
    }

    fn of(outputs: &'o [Output<'o>], is_meant: impl Fn(&Output<'_>) -> bool) -> Option<Self> {
        let boxes = boxes_of(outputs).filter(|boxes| boxes.shape.len() == 3)?;
        let logits = outputs.iter().find(|output| {
            let fits = matches!(output.shape[..], [1, rows, _] if rows == boxes.shape[1]);
            fits && is_meant(output) && !std::ptr::eq(*output, boxes)
        })?;
        Some(Queries { boxes, logits })
    }

    fn decoders(&self, labels: Option<usize>) -> Vec<Decoder> {
        let (rows, columns) = (self.logits.shape[1], self.logits.shape[2]);
        match labels {
            Some(labels) if columns == labels => vec![Decoder::RtDetr],
            Some(labels) if columns == labels + 1 => vec![Decoder::Detr],
            None if rows == DETR_QUERIES => vec![Decoder::Detr],
            None if rows == RTDETR_QUERIES => vec![Decoder::RtDetr],
            _ => vec![Decoder::Detr, Decoder::RtDetr],
        }
    }
}

/// Outputs that list what was found, each under its own name.
struct Listed<'o> {
    /// [1, N, 4], or [N, 4]
    boxes: &'o Output<'o>,
    /// [1, N], or [N], both of them
    scores: &'o Output<'o>,
    classes: &'o Output<'o>,
    /// How many of the N are meant.
    count: Option<usize>,
    /// Whether names tell which is which, or their order does.
    is_named: bool,
}

impl<'o> Listed<'o> {
    fn named(outputs: &'o [Output<'o>]) -> Option<Self> {
        Listed::found(outputs).filter(|listed| listed.is_named)
    }

    fn found(outputs: &'o [Output<'o>]) -> Option<Self> {
        let boxes = boxes_of(outputs)?;
        let (_, row) = boxes.shape.split_last()?;
        let rows = || outputs.iter().filter(move |output| output.shape == *row);
        let called = |words: &[&str]| rows().find(|output| output.is_called(words));
        let by_name = called(&["score", "conf"]).zip(called(&["class", "label"]));
        // In the order of both TensorFlow and torchvision.
        let in_order = || rows().nth(1).zip(rows().next());
        let (scores, classes) = by_name.or_else(in_order)?;
        let count = outputs
            .iter()
            .find(|output| output.numbers.len() == 1 && output.is_called(&["num", "count", ":3"]));
        Some(Listed {
            boxes,
            scores,
            classes,
            count: count.map(|output| output.numbers[0].max(0.0) as usize),
            is_named: by_name.is_some(),
        })
    }

    fn decoders(&self) -> Vec<Decoder> {
        if self.boxes.is_called(&["detection", "ssd-mobilenet"]) {
            vec![Decoder::Ssd]
        } else if self.boxes.shape.len() == 2
            || self.boxes.is_called(&["det_"])
            || self.classes.is_called(&["label"])
        {
            vec![Decoder::Torchvision]
        } else {
            vec![Decoder::Ssd, Decoder::Torchvision]
        }
    }
}

/// The output that is called so, else the first that has the shape of boxes; none that still is to be decoded.
fn boxes_of<'o>(outputs: &'o [Output<'o>]) -> Option<&'o Output<'o>> {
    let shaped = || {
        let shaped = |output: &&Output<'_>| matches!(output.shape[..], [1, _, 4] | [_, 4]);
        let outputs = outputs.iter().filter(shaped);
        outputs.filter(|output| !output.is_called(&["raw", "logit", "label"]))
    };
    let called = shaped().find(|output| output.is_called(&["box"]));
    called.or_else(|| shaped().next())
}

impl Decoder {
    /// The number of classes outputs of these shapes have; None where the shapes do not say.
    pub fn classes(self, outputs: &[Output<'_>]) -> Result<Option<usize>, LayoutError> {
        let misfit = || LayoutError::Misfit {
            decoder: self,
            outputs: told(outputs),
        };
        let first = outputs.first().map_or(&[][..], |output| &output.shape);
        match (self, first) {
            (Decoder::YoloV8, &[1, rows, _]) if rows > 4 => Ok(Some(rows - 4)),
            (Decoder::YoloV5, &[1, _, columns]) if columns > 5 => Ok(Some(columns - 5)),
            (Decoder::End2End, [1, _, 6]) => Ok(None),
            (Decoder::Classification, &[1, classes]) if classes > 0 => Ok(Some(classes)),
            (Decoder::Ssd | Decoder::Torchvision, _) => {
                Listed::found(outputs).ok_or_else(misfit)?;
                Ok(None)
            }
            (Decoder::Detr, _) => match Queries::found(outputs) {
                Some(queries) if queries.logits.shape[2] > 1 => {
                    Ok(Some(queries.logits.shape[2] - 1))
                }
                _ => Err(misfit()),
            },
            (Decoder::RtDetr, first) => match (Queries::found(outputs), first) {
                (Some(queries), _) if queries.logits.shape[2] > 0 => {
                    Ok(Some(queries.logits.shape[2]))
                }
                (None, &[1, _, columns]) if columns > 4 => Ok(Some(columns - 4)),
                _ => Err(misfit()),
            },
            (Decoder::Raw, _) => Ok(None),
            _ => Err(misfit()),
        }
    }

    /// What models of this kind were trained on.
    pub fn fit(self) -> Fit {
        match self {
            Decoder::Ssd | Decoder::RtDetr => Fit::Stretch,
            _ => Fit::Letterbox,
        }
    }

    /// Whether these outputs can tell several frames of one inference apart.
    pub fn takes_several(self, outputs: &[Output<'_>]) -> bool {
        let listed = || Listed::found(outputs);
        self != Decoder::Torchvision || listed().is_some_and(|found| found.boxes.shape.len() == 3)
    }

    /// Reads the candidates into `found`, best first. Those of a classification cover the whole
    /// `input` (width, height); raw tensors have none.
    pub fn decode(
        self,
        outputs: &[Output<'_>],
        input: (u32, u32),
        thresholds: Thresholds,
        found: &mut Vec<Candidate>,
    ) -> Result<(), LayoutError> {
        found.clear();
        self.classes(outputs)?;
        let Some(first) = outputs.first() else {
            return Ok(());
        };
        let least = thresholds.confidence;
        match self {
            Decoder::YoloV8 => columns(first, least, found),
            Decoder::YoloV5 => rows(first, least, found),
            Decoder::End2End => merged(first, least, found),
            Decoder::Ssd | Decoder::Torchvision => {
                if let Some(listed) = Listed::found(outputs) {
                    let order = match self {
                        Decoder::Ssd => [1, 0, 3, 2],
                        _ => [0, 1, 2, 3],
                    };
                    list(&listed, order, input, least, found);
                }
            }
            Decoder::Detr => {
                if let Some(queries) = Queries::found(outputs) {
                    exclusive(&queries, input, least, found);
                }
            }
            Decoder::RtDetr => match Queries::found(outputs) {
                Some(queries) => independent(&queries, input, least, found),
                None => scored(first, input, least, found),
            },
            Decoder::Classification => {
                let corners = Corners {
                    x0: 0.0,
                    y0: 0.0,
                    x1: input.0 as f32,
                    y1: input.1 as f32,
                };
                classes(first, corners, least, found);
            }
            Decoder::Raw => {}
        }
        match self {
            Decoder::YoloV8 | Decoder::YoloV5 => detections::suppress(found, thresholds.iou),
            Decoder::Classification => detections::rank(found, TOP_CLASSES),
            _ => detections::rank(found, detections::MAX_DETECTIONS),
        }
        Ok(())
    }

    fn layout(self) -> &'static str {
        match self {
            Decoder::YoloV8 => "an output of [1, 4+C, N]",
            Decoder::YoloV5 => "an output of [1, N, 5+C]",
            Decoder::End2End => "an output of [1, N, 6]",
            Decoder::Ssd => "boxes [1, N, 4], classes [1, N] and scores [1, N]",
            Decoder::Torchvision => {
                "boxes [1, N, 4], classes [1, N] and scores [1, N], or all without the 1"
            }
            Decoder::Detr => "logits [1, N, C+1] and boxes [1, N, 4]",
            Decoder::RtDetr => "logits [1, N, C] and boxes [1, N, 4], or one output of [1, N, 4+C]",
            Decoder::Classification => "an output of [1, C]",
            Decoder::Raw => "any output",
        }
    }
}

/// All outputs as an error names them.
fn told(outputs: &[Output<'_>]) -> String {
    let outputs = outputs.iter().map(Output::to_string);
    outputs.collect::<Vec<_>>().join(", ")
}

/// Adds a candidate that is one; a score a little above 1 is rounding.
fn propose(corners: Corners, score: f32, class_id: usize, least: f32, found: &mut Vec<Candidate>) {
    if score.is_finite() && score >= least && corners.is_box() {
        found.push(Candidate {
            corners,
            score: score.clamp(0.0, 1.0),
            class_id: class_id as u32,
        });
    }
}

/// The greatest finite score and its class.
fn best(scores: impl Iterator<Item = f32>) -> Option<(usize, f32)> {
    let finite = scores.enumerate().filter(|(_, score)| score.is_finite());
    finite.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

/// A box of centre and size, each a share of the input.
fn share_of_input(share: &[f32; 4], input: (u32, u32)) -> Corners {
    let (width, height) = (input.0 as f32, input.1 as f32);
    let [x, y, w, h] = *share;
    Corners::around(x * width, y * height, w * width, h * height)
}

fn columns(output: &Output<'_>, least: f32, found: &mut Vec<Candidate>) {
    /// Columns looked at together: their best so far stay in the nearest cache while the rows, as they lie in memory, pass.
    const BLOCK: usize = 512;
    let count = output.shape[2];
    if count == 0 {
        return;
    }
    let (boxes, scores) = output.numbers.split_at(4 * count);
    for start in (0..count).step_by(BLOCK) {
        let length = BLOCK.min(count - start);
        let (mut tops, mut classes) = ([f32::NEG_INFINITY; BLOCK], [0_u32; BLOCK]);
        let (tops, classes) = (&mut tops[..length], &mut classes[..length]);
        for (class, row) in (0..).zip(scores.chunks_exact(count)) {
            let row = &row[start..start + length];
            for ((top, best), &score) in tops.iter_mut().zip(&mut *classes).zip(row) {
                let is_better = score > *top && score < f32::INFINITY;
                *top = if is_better { score } else { *top };
                *best = if is_better { class } else { *best };
            }
        }
        for (i, (&score, &class)) in (start..).zip(tops.iter().zip(&*classes)) {
            if score >= least {
                let [x, y, w, h] = [0, 1, 2, 3].map(|row| boxes[row * count + i]);
                let corners = Corners::around(x, y, w, h);
                propose(corners, score, class as usize, least, found);
            }
        }
    }
}

fn rows(output: &Output<'_>, least: f32, found: &mut Vec<Candidate>) {
    for row in output.numbers.chunks_exact(output.shape[2]) {
        let [x, y, w, h, object] = [row[0], row[1], row[2], row[3], row[4]];
        // No class makes it surer of a thing than it is of there being one; a score a little above 1 is rounding.
        if object * 1.01 < least {
            continue;
        }
        if let Some((class, score)) = best(row[5..].iter().copied()) {
            let corners = Corners::around(x, y, w, h);
            propose(corners, object * score, class, least, found);
        }
    }
}

fn merged(output: &Output<'_>, least: f32, found: &mut Vec<Candidate>) {
    let (rows, _) = output.numbers.as_chunks::<6>();
    for &[x0, y0, x1, y1, score, class] in rows {
        // Unused rows are filled with 0 or with -1.
        if class >= 0.0 {
            let corners = Corners { x0, y0, x1, y1 };
            propose(corners, score, class as usize, least, found);
        }
    }
}

/// `order` says where in a box left, top, right and bottom are.
fn list(
    listed: &Listed<'_>,
    order: [usize; 4],
    input: (u32, u32),
    least: f32,
    found: &mut Vec<Candidate>,
) {
    /// The furthest that anybody writes a share of the input; pixels of all boxes of a picture are beyond.
    const SHARE: f32 = 2.0;
    let (boxes, _) = listed.boxes.numbers.as_chunks::<4>();
    let boxes = &boxes[..listed.count.unwrap_or(usize::MAX).min(boxes.len())];
    let mut finite = boxes.as_flattened().iter().filter(|side| side.is_finite());
    let is_share = finite.all(|side| *side <= SHARE);
    let (width, height) = match is_share {
        true => (input.0 as f32, input.1 as f32),
        false => (1.0, 1.0),
    };
    let scores = listed.scores.numbers.iter();
    let found_each = boxes.iter().zip(scores).zip(&*listed.classes.numbers);
    for ((sides, &score), &class) in found_each {
        let [x0, y0, x1, y1] = order.map(|at| sides[at]);
        let corners = Corners {
            x0: x0 * width,
            y0: y0 * height,
            x1: x1 * width,
            y1: y1 * height,
        };
        if class >= 0.0 {
            propose(corners, score, class as usize, least, found);
        }
    }
}

/// The likeliest class of each query, where nothing at all is a class too, the last.
fn exclusive(queries: &Queries<'_>, input: (u32, u32), least: f32, found: &mut Vec<Candidate>) {
    let (boxes, _) = queries.boxes.numbers.as_chunks::<4>();
    let columns = queries.logits.shape[2];
    for (share, logits) in boxes
        .iter()
        .zip(queries.logits.numbers.chunks_exact(columns))
    {
        let finite = logits.iter().copied().filter(|logit| logit.is_finite());
        let highest = finite.clone().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = finite.map(|logit| (logit - highest).exp()).sum();
        if let Some((class, logit)) = best(logits[..columns - 1].iter().copied()) {
            let score = (logit - highest).exp() / sum;
            propose(share_of_input(share, input), score, class, least, found);
        }
    }
}

/// Every class of every query that is likely enough, as RT-DETR itself counts them.
fn independent(queries: &Queries<'_>, input: (u32, u32), least: f32, found: &mut Vec<Candidate>) {
    let (boxes, _) = queries.boxes.numbers.as_chunks::<4>();
    let columns = queries.logits.shape[2];
    // A little below what the least likely has, so that rounding loses none.
    let least_logit = (least / (1.0 - least)).ln().min(15.0) - 1e-3;
    for (share, logits) in boxes
        .iter()
        .zip(queries.logits.numbers.chunks_exact(columns))
    {
        for (class, &logit) in logits.iter().enumerate() {
            if logit.is_finite() && logit >= least_logit {
                let score = 1.0 / (1.0 + (-logit).exp());
                propose(share_of_input(share, input), score, class, least, found);
            }
        }
    }
}

fn scored(output: &Output<'_>, input: (u32, u32), least: f32, found: &mut Vec<Candidate>) {
    for row in output.numbers.chunks_exact(output.shape[2]) {
        if let (Some(share), Some((class, score))) =
            (row.first_chunk::<4>(), best(row.iter().skip(4).copied()))
        {
            propose(share_of_input(share, input), score, class, least, found);
        }
    }
}

/// Values that all lie from 0 to 1 are taken for probabilities, others for logits.
fn classes(output: &Output<'_>, corners: Corners, least: f32, found: &mut Vec<Candidate>) {
    let finite = || {
        output
            .numbers
            .iter()
            .copied()
            .filter(|value| value.is_finite())
    };
    let is_probability = finite().all(|value| (0.0..=1.0).contains(&value));
    let highest = finite().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = finite().map(|value| (value - highest).exp()).sum();
    for (class, &value) in output.numbers.iter().enumerate() {
        let score = if is_probability {
            value
        } else {
            (value - highest).exp() / sum
        };
        if value.is_finite() {
            propose(corners, score, class, least, found);
        }
    }
}

fn with_labels(labels: Option<usize>) -> String {
    match labels {
        Some(1) => " with 1 label".into(),
        Some(count) => format!(" with {count} labels"),
        None => " without labels".into(),
    }
}

fn listed(fitting: &[Decoder]) -> String {
    if fitting.is_empty() {
        let nicks = NICKS.iter().skip(1).map(|(nick, _)| *nick);
        return nicks.collect::<Vec<_>>().join(", ");
    }
    let nicks = fitting.iter().map(Decoder::to_string);
    nicks.collect::<Vec<_>>().join(" or ")
}

impl FromStr for DecoderChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NICKS.iter().find(|(nick, _)| *nick == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let nicks = NICKS.map(|(nick, _)| nick).join(", ");
            format!("no decoder is called \"{text}\"; there are {nicks}")
        })
    }
}

impl fmt::Display for DecoderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NICKS.iter().find(|(_, choice)| choice == self);
        f.write_str(found.map_or("", |(nick, _)| nick))
    }
}

impl fmt::Display for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        DecoderChoice::Fixed(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests;
