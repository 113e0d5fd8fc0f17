//! A model's output into candidates: which layout it has, and how that is read.
//!
//! Pure: a tensor and numbers in, candidates in pixels of the model's input out. A tensor that
//! does not fit is an error, never a panic; scores and boxes that are not finite do not count.

use std::fmt;
use std::str::FromStr;

use super::Tensor;
use crate::logic::detections::{self, Candidate, Corners, Thresholds};

/// Classes a classification reports at most.
const TOP_CLASSES: usize = 5;

/// How an output is laid out. N is the number of boxes, C that of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decoder {
    /// [1, 4+C, N]: centre, size and the score of each class. YOLOv8, YOLO11 and their like.
    YoloV8,
    /// [1, N, 5+C]: centre, size, how sure it is of an object, and the score of each class.
    YoloV5,
    /// [1, N, 6]: corners, score, class. The model has merged overlapping boxes itself.
    End2End,
    /// [1, C]: probabilities, or what a softmax makes probabilities of.
    Classification,
    /// Any: the tensors are handed on as they are.
    Raw,
}

/// A decoder the user named, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DecoderChoice {
    /// Told by the shape of the output, the number of labels and the task in the metadata.
    #[default]
    Auto,
    Fixed(Decoder),
}

/// An output that a decoder cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("decoder={decoder} reads an output of {}, this one is {shape:?}", decoder.layout())]
    Misfit { decoder: Decoder, shape: Vec<usize> },
    #[error(
        "decoder=auto could not tell the layout of output {shape:?}{}; set decoder to {}",
        with_labels(*.labels),
        listed(.fitting)
    )]
    Unknown {
        shape: Vec<usize>,
        labels: Option<usize>,
        /// More than one that would do, or none.
        fitting: Vec<Decoder>,
    },
}

const NICKS: [(&str, DecoderChoice); 6] = [
    ("auto", DecoderChoice::Auto),
    ("yolov8", DecoderChoice::Fixed(Decoder::YoloV8)),
    ("yolov5", DecoderChoice::Fixed(Decoder::YoloV5)),
    ("end2end", DecoderChoice::Fixed(Decoder::End2End)),
    (
        "classification",
        DecoderChoice::Fixed(Decoder::Classification),
    ),
    ("raw", DecoderChoice::Fixed(Decoder::Raw)),
];

impl DecoderChoice {
    /// The decoder for an output of this shape. `labels` is the number of classes that have names,
    /// `task` what Ultralytics' exporter says the model does.
    ///
    /// A shape alone cannot tell one class of YOLOv5 from end-to-end boxes; a task in the metadata
    /// does, as YOLOv5's own exporter writes none.
    pub fn resolve(
        self,
        shape: &[usize],
        labels: Option<usize>,
        task: Option<&str>,
    ) -> Result<Decoder, LayoutError> {
        if let DecoderChoice::Fixed(decoder) = self {
            decoder.classes(shape)?;
            return Ok(decoder);
        }
        let unambiguous = [
            Decoder::YoloV8,
            Decoder::YoloV5,
            Decoder::End2End,
            Decoder::Classification,
        ];
        let fitting: Vec<Decoder> = unambiguous
            .into_iter()
            .filter(|&decoder| match decoder.classes(shape) {
                Err(_) => false,
                Ok(None) => true,
                Ok(classes) => labels.is_none() || classes == labels,
            })
            .filter(|&decoder| {
                let (rows, columns) = (shape[1], shape.get(2).copied().unwrap_or(0));
                match decoder {
                    Decoder::YoloV8 => rows < columns,
                    Decoder::YoloV5 => rows > columns && task.is_none(),
                    _ => true,
                }
            })
            .collect();
        match fitting[..] {
            [decoder] => Ok(decoder),
            _ => Err(LayoutError::Unknown {
                shape: shape.to_vec(),
                labels,
                fitting,
            }),
        }
    }
}

impl Decoder {
    /// The number of classes an output of this shape has; None where the shape does not say.
    pub fn classes(self, shape: &[usize]) -> Result<Option<usize>, LayoutError> {
        match (self, shape) {
            (Decoder::YoloV8, &[1, rows, _]) if rows > 4 => Ok(Some(rows - 4)),
            (Decoder::YoloV5, &[1, _, columns]) if columns > 5 => Ok(Some(columns - 5)),
            (Decoder::End2End, [1, _, 6]) => Ok(None),
            (Decoder::Classification, &[1, classes]) if classes > 0 => Ok(Some(classes)),
            (Decoder::Raw, _) => Ok(None),
            _ => Err(LayoutError::Misfit {
                decoder: self,
                shape: shape.to_vec(),
            }),
        }
    }

    /// Reads the candidates into `found`, best first. Those of a classification cover the whole
    /// `input` (width, height); raw tensors have none.
    pub fn decode(
        self,
        output: &Tensor,
        input: (u32, u32),
        thresholds: Thresholds,
        found: &mut Vec<Candidate>,
    ) -> Result<(), LayoutError> {
        found.clear();
        self.classes(&output.shape)?;
        if output.data.len() != output.shape.iter().product::<usize>() {
            let shape = output.shape.clone();
            return Err(LayoutError::Misfit {
                decoder: self,
                shape,
            });
        }
        let least = thresholds.confidence;
        match self {
            Decoder::YoloV8 => columns(output, least, found),
            Decoder::YoloV5 => rows(output, least, found),
            Decoder::End2End => merged(output, least, found),
            Decoder::Classification => {
                let corners = Corners {
                    x0: 0.0,
                    y0: 0.0,
                    x1: input.0 as f32,
                    y1: input.1 as f32,
                };
                classes(output, corners, least, found);
            }
            Decoder::Raw => {}
        }
        match self {
            Decoder::YoloV8 | Decoder::YoloV5 => detections::suppress(found, thresholds.iou),
            Decoder::End2End => detections::rank(found, detections::MAX_DETECTIONS),
            Decoder::Classification => detections::rank(found, TOP_CLASSES),
            Decoder::Raw => {}
        }
        Ok(())
    }

    fn layout(self) -> &'static str {
        match self {
            Decoder::YoloV8 => "[1, 4+C, N]",
            Decoder::YoloV5 => "[1, N, 5+C]",
            Decoder::End2End => "[1, N, 6]",
            Decoder::Classification => "[1, C]",
            Decoder::Raw => "any shape",
        }
    }
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

fn columns(output: &Tensor, least: f32, found: &mut Vec<Candidate>) {
    let count = output.shape[2];
    if count == 0 {
        return;
    }
    // Row by row, as they lie in memory: a pass over one column at a time misses the cache.
    let (boxes, scores) = output.data.split_at(4 * count);
    let mut tops = vec![(0, f32::NEG_INFINITY); count];
    for (class, row) in scores.chunks_exact(count).enumerate() {
        for (top, &score) in tops.iter_mut().zip(row) {
            if score > top.1 && score.is_finite() {
                *top = (class, score);
            }
        }
    }
    for (i, (class, score)) in tops.into_iter().enumerate() {
        let [x, y, w, h] = [0, 1, 2, 3].map(|row| boxes[row * count + i]);
        propose(Corners::around(x, y, w, h), score, class, least, found);
    }
}

fn rows(output: &Tensor, least: f32, found: &mut Vec<Candidate>) {
    for row in output.data.chunks_exact(output.shape[2]) {
        let [x, y, w, h, object] = [row[0], row[1], row[2], row[3], row[4]];
        if let Some((class, score)) = best(row[5..].iter().copied()) {
            propose(
                Corners::around(x, y, w, h),
                object * score,
                class,
                least,
                found,
            );
        }
    }
}

fn merged(output: &Tensor, least: f32, found: &mut Vec<Candidate>) {
    let (rows, _) = output.data.as_chunks::<6>();
    for &[x0, y0, x1, y1, score, class] in rows {
        // Unused rows are filled with 0 or with -1.
        if class >= 0.0 {
            propose(
                Corners { x0, y0, x1, y1 },
                score,
                class as usize,
                least,
                found,
            );
        }
    }
}

/// Values that all lie from 0 to 1 are taken for probabilities, others for logits.
fn classes(output: &Tensor, corners: Corners, least: f32, found: &mut Vec<Candidate>) {
    let finite = || {
        output
            .data
            .iter()
            .copied()
            .filter(|value| value.is_finite())
    };
    let is_probability = finite().all(|value| (0.0..=1.0).contains(&value));
    let highest = finite().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = finite().map(|value| (value - highest).exp()).sum();
    for (class, &value) in output.data.iter().enumerate() {
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
