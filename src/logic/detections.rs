//! Boxes a model found, and what is done to them before anyone sees them: the best of those that
//! overlap is kept, and what is kept is brought back to the pixels of the frame.
//!
//! Knows nothing of tensors: what reads them is in `engine::decoders`.

use std::sync::Arc;

/// One object found in a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Centre of the box, pixels of the frame as received.
    pub x: f32,
    pub y: f32,
    /// Size of the box, pixels of the frame as received.
    pub width: f32,
    pub height: f32,
    /// 0 to 1.
    pub confidence: f32,
    pub class_id: u32,
    pub class: Arc<str>,
}

/// What must be true of a box for it to be reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Least confidence, 0 to 1.
    pub confidence: f32,
    /// Two boxes of one class whose intersection over union is above this are one object, 0 to 1.
    pub iou: f32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            confidence: 0.25,
            iou: 0.45,
        }
    }
}

/// A box by its corners; `x0 <= x1`, `y0 <= y1` for those worth keeping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Corners {
    pub x0: f32,
    pub y0: f32,
    pub x1: f32,
    pub y1: f32,
}

impl Corners {
    pub fn around(x: f32, y: f32, width: f32, height: f32) -> Self {
        Corners {
            x0: x - width / 2.0,
            y0: y - height / 2.0,
            x1: x + width / 2.0,
            y1: y + height / 2.0,
        }
    }

    /// Whether it is finite and covers anything.
    pub fn is_box(&self) -> bool {
        let finite = [self.x0, self.y0, self.x1, self.y1]
            .iter()
            .all(|v| v.is_finite());
        finite && self.x0 < self.x1 && self.y0 < self.y1
    }

    pub fn area(&self) -> f32 {
        (self.x1 - self.x0).max(0.0) * (self.y1 - self.y0).max(0.0)
    }

    /// Intersection over union, 0 to 1.
    pub fn iou(&self, other: &Corners) -> f32 {
        let shared = Corners {
            x0: self.x0.max(other.x0),
            y0: self.y0.max(other.y0),
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
        }
        .area();
        if shared > 0.0 {
            shared / (self.area() + other.area() - shared)
        } else {
            0.0
        }
    }
}

/// A box a model proposed, in pixels of its input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub corners: Corners,
    /// 0 to 1.
    pub score: f32,
    pub class_id: u32,
}

/// Most candidates that are compared with each other, which takes the square of their number.
pub const MAX_CANDIDATES: usize = 1000;

/// Most detections of one frame.
pub const MAX_DETECTIONS: usize = 300;

/// Best first; of equals, the one the model named first. Keeps `limit` of them.
pub fn rank(candidates: &mut Vec<Candidate>, limit: usize) {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(limit);
}

/// Keeps the best of the boxes of one class that overlap by more than `iou`, best first.
pub fn suppress(candidates: &mut Vec<Candidate>, iou: f32) {
    rank(candidates, MAX_CANDIDATES);
    let mut kept = 0;
    for i in 0..candidates.len() {
        if kept == MAX_DETECTIONS {
            break;
        }
        let candidate = candidates[i];
        let is_new = candidates[..kept].iter().all(|better| {
            better.class_id != candidate.class_id || better.corners.iou(&candidate.corners) <= iou
        });
        if is_new {
            candidates[kept] = candidate;
            kept += 1;
        }
    }
    candidates.truncate(kept);
}

/// How a frame lies in a model's input: scaled alike in both directions, centred and padded, or stretched over all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letterbox {
    /// Width and height of the frame.
    pub frame: (u32, u32),
    /// Width and height of the model's input.
    pub input: (u32, u32),
    /// Width and height the frame has in the input.
    pub fit: (u32, u32),
    /// Where the frame begins in the input.
    pub left: u32,
    pub top: u32,
}

impl Letterbox {
    /// All sizes are at least 1.
    pub fn new(frame: (u32, u32), input: (u32, u32)) -> Self {
        let scale = f64::min(
            f64::from(input.0) / f64::from(frame.0),
            f64::from(input.1) / f64::from(frame.1),
        );
        let fit = |side: u32, most: u32| ((f64::from(side) * scale).round() as u32).clamp(1, most);
        let fit = (fit(frame.0, input.0), fit(frame.1, input.1));
        Letterbox {
            frame,
            input,
            fit,
            left: (input.0 - fit.0) / 2,
            top: (input.1 - fit.1) / 2,
        }
    }

    /// Width and height scaled each on its own, so that nothing is padded.
    pub fn stretched(frame: (u32, u32), input: (u32, u32)) -> Self {
        Letterbox {
            frame,
            input,
            fit: input,
            left: 0,
            top: 0,
        }
    }

    /// From pixels of the input to pixels of the frame, cut off at its edges. None where nothing
    /// of the box lies in the frame.
    pub fn to_frame(&self, corners: &Corners) -> Option<Corners> {
        let axis = |v: f32, start: u32, fit: u32, frame: u32| {
            ((v - start as f32) * frame as f32 / fit as f32).clamp(0.0, frame as f32)
        };
        let x = |v| axis(v, self.left, self.fit.0, self.frame.0);
        let y = |v| axis(v, self.top, self.fit.1, self.frame.1);
        let clipped = Corners {
            x0: x(corners.x0),
            y0: y(corners.y0),
            x1: x(corners.x1),
            y1: y(corners.y1),
        };
        clipped.is_box().then_some(clipped)
    }

    /// From pixels of the frame to pixels of the input.
    pub fn to_input(&self, corners: &Corners) -> Corners {
        let axis =
            |v: f32, start: u32, fit: u32, frame: u32| v * fit as f32 / frame as f32 + start as f32;
        let x = |v| axis(v, self.left, self.fit.0, self.frame.0);
        let y = |v| axis(v, self.top, self.fit.1, self.frame.1);
        Corners {
            x0: x(corners.x0),
            y0: y(corners.y0),
            x1: x(corners.x1),
            y1: y(corners.y1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(x0: f32, y0: f32, x1: f32, y1: f32, score: f32, class_id: u32) -> Candidate {
        Candidate {
            corners: Corners { x0, y0, x1, y1 },
            score,
            class_id,
        }
    }

    #[test]
    fn overlapping_boxes_of_one_class_are_merged_and_of_two_are_kept() {
        let weak = candidate(1.0, 1.0, 11.0, 11.0, 0.7, 0);
        let strong = candidate(0.0, 0.0, 10.0, 10.0, 0.9, 0);
        let other = candidate(1.0, 1.0, 11.0, 11.0, 0.6, 1);
        let mut boxes = vec![weak, strong, other];
        suppress(&mut boxes, 0.5);
        assert_eq!(boxes, [strong, other]);
    }

    #[test]
    fn boxes_that_overlap_less_than_the_threshold_are_both_kept() {
        let a = candidate(0.0, 0.0, 10.0, 10.0, 0.9, 0);
        let b = candidate(5.0, 0.0, 15.0, 10.0, 0.8, 0);
        assert_eq!(a.corners.iou(&b.corners), 1.0 / 3.0);
        let mut boxes = vec![a, b];
        suppress(&mut boxes, 0.34);
        assert_eq!(boxes.len(), 2);
        suppress(&mut boxes, 0.33);
        assert_eq!(boxes, [a]);
    }

    #[test]
    fn a_suppressed_box_suppresses_nothing_itself() {
        let first = candidate(0.0, 0.0, 10.0, 10.0, 0.9, 0);
        let second = candidate(4.0, 0.0, 14.0, 10.0, 0.8, 0);
        let third = candidate(8.0, 0.0, 18.0, 10.0, 0.7, 0);
        let mut boxes = vec![third, second, first];
        suppress(&mut boxes, 0.4);
        assert_eq!(boxes, [first, third]);
    }

    #[test]
    fn of_equal_scores_the_first_comes_first() {
        let mut boxes: Vec<_> = (0..20)
            .map(|i| candidate(i as f32 * 10.0, 0.0, i as f32 * 10.0 + 5.0, 5.0, 0.5, i))
            .collect();
        let before = boxes.clone();
        suppress(&mut boxes, 0.5);
        assert_eq!(boxes, before);
    }

    #[test]
    fn no_more_than_the_best_300_are_kept() {
        let mut boxes: Vec<_> = (0..5000)
            .map(|i| candidate(i as f32, 0.0, i as f32 + 1.0, 1.0, i as f32 / 5000.0, 0))
            .collect();
        suppress(&mut boxes, 0.5);
        assert_eq!(boxes.len(), MAX_DETECTIONS);
        assert_eq!(boxes[0].score, 4999.0 / 5000.0);
        assert_eq!(boxes[299].score, 4700.0 / 5000.0);
    }

    #[test]
    fn a_wide_frame_gets_bars_above_and_below() {
        let fit = Letterbox::new((640, 480), (384, 384));
        assert_eq!((fit.fit, fit.left, fit.top), ((384, 288), 0, 48));
        let whole = Corners {
            x0: 0.0,
            y0: 48.0,
            x1: 384.0,
            y1: 336.0,
        };
        let frame = Corners {
            x0: 0.0,
            y0: 0.0,
            x1: 640.0,
            y1: 480.0,
        };
        assert_eq!(fit.to_frame(&whole), Some(frame));
    }

    #[test]
    fn a_stretched_frame_is_brought_back_by_each_side_alone() {
        let fit = Letterbox::stretched((640, 480), (320, 320));
        let corners = |x0, y0, x1, y1| Corners { x0, y0, x1, y1 };
        let found = fit.to_frame(&corners(80.0, 80.0, 160.0, 160.0));
        assert_eq!(found, Some(corners(160.0, 120.0, 320.0, 240.0)));
    }

    #[test]
    fn a_box_is_cut_off_at_the_edges_of_the_frame() {
        let fit = Letterbox::new((640, 480), (384, 384));
        let beyond = Corners {
            x0: -50.0,
            y0: 0.0,
            x1: 192.0,
            y1: 500.0,
        };
        let cut = Corners {
            x0: 0.0,
            y0: 0.0,
            x1: 320.0,
            y1: 480.0,
        };
        assert_eq!(fit.to_frame(&beyond), Some(cut));
    }

    #[test]
    fn a_box_in_the_bars_is_no_detection() {
        let fit = Letterbox::new((640, 480), (384, 384));
        let bar = Corners {
            x0: 10.0,
            y0: 2.0,
            x1: 100.0,
            y1: 47.0,
        };
        assert_eq!(fit.to_frame(&bar), None);
    }

    #[test]
    fn a_frame_much_longer_than_wide_still_has_a_pixel_in_the_input() {
        let fit = Letterbox::new((1, 8192), (384, 288));
        assert_eq!((fit.fit, fit.left), ((1, 288), 191));
        assert_eq!(Letterbox::new((8192, 1), (384, 288)).fit, (384, 1));
    }

    proptest! {
        #[test]
        fn kept_boxes_of_a_class_do_not_overlap_and_every_other_box_had_a_better_one(
            raw in prop::collection::vec(
                (0f32..100.0, 0f32..100.0, 1f32..50.0, 1f32..50.0, 0f32..1.0, 0u32..3), 0..80),
            iou in 0f32..1.0,
        ) {
            let all: Vec<_> = raw.iter()
                .map(|&(x, y, w, h, score, class)| candidate(x, y, x + w, y + h, score, class))
                .collect();
            let mut kept = all.clone();
            suppress(&mut kept, iou);
            prop_assert!(kept.is_sorted_by(|a, b| a.score >= b.score));
            let clash = |a: &Candidate, b: &Candidate| {
                a.class_id == b.class_id && a.corners.iou(&b.corners) > iou
            };
            for (i, a) in kept.iter().enumerate() {
                prop_assert!(kept[..i].iter().all(|b| !clash(a, b)));
            }
            for lost in all.iter().filter(|c| !kept.contains(c)) {
                prop_assert!(kept.iter().any(|k| k.score >= lost.score && clash(k, lost)));
            }
        }

        #[test]
        fn a_box_in_the_frame_comes_back_from_the_input_where_it_was(
            frame in (1u32..8000, 1u32..8000), input in (1u32..1300, 1u32..1300),
            at in (0f32..0.9, 0f32..0.9), size in (0.05f32..1.0, 0.05f32..1.0),
        ) {
            let (w, h) = (frame.0 as f32, frame.1 as f32);
            let corners = Corners {
                x0: at.0 * w,
                y0: at.1 * h,
                x1: (at.0 + size.0).min(1.0) * w,
                y1: (at.1 + size.1).min(1.0) * h,
            };
            let fit = Letterbox::new(frame, input);
            prop_assert!(fit.left + fit.fit.0 <= input.0 && fit.top + fit.fit.1 <= input.1);
            let back = fit.to_frame(&fit.to_input(&corners)).expect("lies in the frame");
            // An f32 has 24 bits for a position in the input, whose bars may dwarf the frame.
            let slack = |frame: u32, fit: u32, input: u32| {
                frame as f32 / fit as f32 * input as f32 * 1e-6 + frame as f32 * 1e-6
            };
            let dx = slack(frame.0, fit.fit.0, input.0);
            let dy = slack(frame.1, fit.fit.1, input.1);
            prop_assert!((back.x0 - corners.x0).abs() <= dx && (back.x1 - corners.x1).abs() <= dx);
            prop_assert!((back.y0 - corners.y0).abs() <= dy && (back.y1 - corners.y1).abs() <= dy);
        }
    }
}
