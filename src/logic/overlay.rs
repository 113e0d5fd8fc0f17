//! What is drawn over a frame and where: boxes, a label at each, a line about the frame in a corner.
//!
//! Knows neither pixels nor fonts: it is told how wide a character is, and gives rectangles and texts.

use super::{
    detections::{Corners, Detection, MAX_DETECTIONS},
    frame_facts::FrameFacts,
    palette::{BLACK, Rgb, colour_of, ink_on},
};

/// What is drawn, and how large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Pixels; 0 goes by the size of the frame.
    pub line_width: u32,
    /// Pixels from the highest to the lowest part of any letter; 0 goes by the size of the frame.
    pub text_height: u32,
    /// Whether the name of the class stands at each box.
    pub labels: bool,
    /// Whether the confidence stands at each box.
    pub confidence: bool,
    /// Whether a corner tells about the frame itself.
    pub trail: bool,
}

impl Default for Style {
    fn default() -> Self {
        Style {
            line_width: 0,
            text_height: 0,
            labels: true,
            confidence: true,
            trail: false,
        }
    }
}

/// What there is to draw: first the outlines, then the labels, each in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Scene {
    pub outlines: Vec<Outline>,
    pub labels: Vec<Label>,
    /// Pixels, of all texts.
    pub text_height: u32,
}

/// A line around a box, lying in it.
#[derive(Debug, PartialEq)]
pub struct Outline {
    /// May reach out of the frame.
    pub outer: Rect,
    /// What the line leaves free; empty where the box is all line.
    pub inner: Rect,
    pub colour: Rgb,
}

/// A text on a ground of one colour.
#[derive(Debug, PartialEq)]
pub struct Label {
    /// Lies in the frame, its corners on even pixels or the frame's edge, so that halved chroma shows it sharp.
    pub area: Rect,
    /// Where the line of text begins: its left and upper end.
    pub start: (i32, i32),
    pub text: String,
    pub colour: Rgb,
    pub ink: Rgb,
}

/// In pixels; what is at `right` and `bottom` is outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rect {
    pub left: i32,
    pub top: i32,
    pub right: i32,
    pub bottom: i32,
}

impl Rect {
    pub fn is_empty(&self) -> bool {
        self.left >= self.right || self.top >= self.bottom
    }

    /// What lies in both; may be empty.
    pub fn intersection(&self, other: &Rect) -> Rect {
        Rect {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
    }
}

/// Lays out what is known about a frame of `size`, width and height. `now` is unix time in nanoseconds. `advance` tells
/// how far a character takes the next one to the right, in pixels, in a text of the given height.
pub fn lay_out(
    facts: &FrameFacts,
    size: (u32, u32),
    style: &Style,
    now: u64,
    advance: impl Fn(char, u32) -> f32,
) -> Scene {
    let found = facts.results.as_deref().unwrap_or_default();
    let found = &found[..found.len().min(MAX_DETECTIONS)];
    let trail = style.trail.then(|| trail(facts, now)).flatten();
    let mut scene = Scene::default();
    if found.is_empty() && trail.is_none() {
        return scene;
    }
    let sheet = Sheet::new(size, style);
    scene.text_height = sheet.text_height;
    let advance = |character| advance(character, sheet.text_height);
    let scale = scale(facts, size);
    // The most confident come first, and are drawn last, over the others.
    for detection in found.iter().rev() {
        let Some(outer) = rect(detection, scale) else {
            continue;
        };
        if outer.intersection(&sheet.frame).is_empty() {
            continue;
        }
        let number;
        let class = if detection.class.is_empty() {
            number = detection.class_id.to_string();
            number.as_str()
        } else {
            &detection.class
        };
        let colour = colour_of(class);
        scene.outlines.push(Outline {
            outer,
            inner: inside(outer, sheet.line_width),
            colour,
        });
        let name = if style.labels { class } else { "" };
        let percent = if style.confidence {
            percent(detection.confidence)
        } else {
            String::new()
        };
        let tail = match name.is_empty() || percent.is_empty() {
            true => percent,
            false => format!(" {percent}"),
        };
        let limit = sheet.longest_label(outer);
        if let Some((text, width)) = fit(name, &tail, limit, &advance) {
            let area = sheet.beside(outer, width);
            scene.labels.push(sheet.label(area, text, colour));
        }
    }
    if let Some(trail) = trail
        && let Some((text, width)) = fit(&trail, "", sheet.longest_trail(), &advance)
    {
        let area = sheet.corner(width);
        scene.labels.push(sheet.label(area, text, BLACK));
    }
    scene
}

/// Farther out nothing is told apart; sums of such numbers still are numbers.
const FAR: f32 = (1 << 24) as f32;

/// The nearest whole pixels, at least one each way. None for what is no box.
fn rect(detection: &Detection, (across, down): (f32, f32)) -> Option<Rect> {
    let Corners { x0, y0, x1, y1 } = Corners::around(
        detection.x * across,
        detection.y * down,
        detection.width * across,
        detection.height * down,
    );
    // Sides without an end are fine, numbers that are none are not: they compare with nothing.
    if !(x0 < x1 && y0 < y1) {
        return None;
    }
    let whole = |v: f32| v.round().clamp(-FAR, FAR) as i32;
    let (left, top) = (whole(x0), whole(y0));
    Some(Rect {
        left,
        top,
        right: whole(x1).max(left + 1),
        bottom: whole(y1).max(top + 1),
    })
}

/// What is left of `outer` within a line of this width.
fn inside(outer: Rect, line_width: i32) -> Rect {
    Rect {
        left: outer.left + line_width,
        top: outer.top + line_width,
        right: outer.right - line_width,
        bottom: outer.bottom - line_width,
    }
}

/// From the pixels results are told in to those of this frame, across and down.
fn scale(facts: &FrameFacts, size: (u32, u32)) -> (f32, f32) {
    let axis = |now: u32, then: Option<i32>| match then {
        Some(then) if then > 0 => now as f32 / then as f32,
        _ => 1.0,
    };
    (axis(size.0, facts.width), axis(size.1, facts.height))
}

/// Empty for a number that is no confidence.
fn percent(confidence: f32) -> String {
    if (0.0..=1.0).contains(&confidence) {
        format!("{:.0}%", confidence * 100.0)
    } else {
        String::new()
    }
}

/// None where nothing is known. Two spaces between facts.
fn trail(facts: &FrameFacts, now: u64) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(id) = facts.frame_id {
        parts.push(format!("frame {id}"));
    }
    // A clock that was set back in between tells nothing.
    if let Some(taken) = facts.arrival_time.and_then(|then| now.checked_sub(then)) {
        parts.push(format!("{} ms", taken / 1_000_000));
    }
    if let Some(id) = facts.result_frame_id
        && facts.results.is_some()
        && facts.frame_id != Some(id)
    {
        parts.push(format!("results of {id}"));
    }
    (!parts.is_empty()).then(|| parts.join("  "))
}

/// Names longer than this are cut without being measured.
const MAX_CHARACTERS: usize = 256;

const ELLIPSIS: char = '…';

/// `name` and `tail` with their width; as much of the name as fits into `limit`, then an ellipsis where that is not all.
/// None where there is nothing to say or no room to say it.
fn fit(
    name: &str,
    tail: &str,
    limit: f32,
    advance: &impl Fn(char) -> f32,
) -> Option<(String, f32)> {
    let tail_width: f32 = tail.chars().map(advance).sum();
    let room = limit - tail_width;
    let mut text = String::new();
    let mut width = 0.0;
    // How much of the text, and how wide, leaves room for the ellipsis.
    let mut cut = None;
    let mut characters = name.chars();
    for character in characters.by_ref().take(MAX_CHARACTERS) {
        if width + advance(ELLIPSIS) <= room {
            cut = Some((text.len(), width));
        }
        let character = if character.is_whitespace() {
            ' '
        } else {
            character
        };
        text.push(character);
        width += advance(character);
        if width > room {
            break;
        }
    }
    if width > room || characters.next().is_some() {
        (text, width) = match cut {
            Some((length, width)) => {
                text.truncate(length);
                text.push(ELLIPSIS);
                (text, width + advance(ELLIPSIS))
            }
            None => Default::default(),
        };
    }
    // Without its name a tail begins with the space between them.
    let tail = if text.is_empty() { tail.trim() } else { tail };
    text.push_str(tail);
    let width = width + tail.chars().map(advance).sum::<f32>();
    (!text.is_empty() && width <= limit).then_some((text, width))
}

/// The frame as paper: its size, and the sizes of what is put on it.
struct Sheet {
    frame: Rect,
    line_width: i32,
    text_height: u32,
    /// Pixels free at the left and right of a text, and above and below it.
    padding: (i32, i32),
}

impl Sheet {
    fn new((width, height): (u32, u32), style: &Style) -> Sheet {
        let whole = |side: u32| i32::try_from(side).unwrap_or(i32::MAX).min(FAR as i32);
        // A phone held upright shows the same things as large as one that lies.
        let short = width.min(height);
        let line_width = match style.line_width {
            0 => (short + 120) / 240,
            set => set,
        };
        let text_height = match style.text_height {
            0 => (short / 30).max(SMALLEST_TEXT),
            set => set,
        };
        let text_height = text_height.min(height * 3 / 4);
        Sheet {
            frame: Rect {
                left: 0,
                top: 0,
                right: whole(width),
                bottom: whole(height),
            },
            line_width: whole(line_width.max(1)),
            text_height,
            padding: (
                (whole(text_height) / 4).max(1),
                (whole(text_height) / 12).max(1),
            ),
        }
    }

    fn width(&self) -> i32 {
        self.frame.right
    }

    /// Half the frame is enough for a label, but for small frames and large boxes.
    fn longest_label(&self, outer: Rect) -> f32 {
        let text = i32::try_from(self.text_height).unwrap_or(0);
        let most = (self.width() / 2)
            .max(outer.right - outer.left)
            .max(text.saturating_mul(10))
            .min(self.width());
        (most - 2 * self.padding.0) as f32
    }

    fn longest_trail(&self) -> f32 {
        (self.width() - 2 * self.padding.0) as f32
    }

    /// Width and height of the ground under a text.
    fn ground(&self, text_width: f32) -> (i32, i32) {
        let text = i32::try_from(self.text_height).unwrap_or(0);
        let even = |length: i32| (length + 1) & !1;
        (
            even(text_width.ceil() as i32 + 2 * self.padding.0),
            even(text + 2 * self.padding.1),
        )
    }

    /// On top of a box, or where there is no room above it, in its upper end.
    fn beside(&self, outer: Rect, text_width: f32) -> Rect {
        let (width, height) = self.ground(text_width);
        // On an odd row it takes one of the line's, so that nothing shows between them.
        let above = outer.top + (outer.top & 1) - height;
        let top = if above >= 0 { above } else { outer.top };
        self.moved_inside(outer.left, top, width, height)
    }

    fn corner(&self, text_width: f32) -> Rect {
        let (width, height) = self.ground(text_width);
        self.moved_inside(0, self.frame.bottom - height, width, height)
    }

    fn moved_inside(&self, left: i32, top: i32, width: i32, height: i32) -> Rect {
        let begin = |wanted: i32, length: i32, end: i32| wanted.min(end - length).max(0) & !1;
        let left = begin(left, width, self.frame.right);
        let top = begin(top, height, self.frame.bottom);
        Rect {
            left,
            top,
            right: left + width,
            bottom: top + height,
        }
        .intersection(&self.frame)
    }

    fn label(&self, area: Rect, text: String, colour: Rgb) -> Label {
        Label {
            area,
            start: (area.left + self.padding.0, area.top + self.padding.1),
            text,
            colour,
            ink: ink_on(colour),
        }
    }
}

/// Pixels; smaller letters are not told apart.
const SMALLEST_TEXT: u32 = 12;
