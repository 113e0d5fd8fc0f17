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
    let axis = |now: u32, then: Option<i32>| match then.unwrap_or(0) {
        then if then > 0 => now as f32 / then as f32,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VGA: (u32, u32) = (640, 480);

    fn found(x: f32, y: f32, width: f32, height: f32) -> Detection {
        Detection {
            x,
            y,
            width,
            height,
            confidence: 0.91,
            class_id: 7,
            class: "circle".into(),
        }
    }

    fn facts(results: Vec<Detection>) -> FrameFacts {
        FrameFacts {
            results: Some(results),
            ..FrameFacts::default()
        }
    }

    /// Every letter is half as wide as the text is high.
    fn lay(facts: &FrameFacts, size: (u32, u32), style: &Style) -> Scene {
        lay_out(facts, size, style, 0, |_, height| height as f32 / 2.0)
    }

    fn lay_one(detection: Detection) -> Scene {
        lay(&facts(vec![detection]), VGA, &Style::default())
    }

    fn text(detection: Detection, style: &Style) -> Option<String> {
        let scene = lay(&facts(vec![detection]), VGA, style);
        scene.labels.into_iter().next().map(|label| label.text)
    }

    fn rect(left: i32, top: i32, right: i32, bottom: i32) -> Rect {
        Rect {
            left,
            top,
            right,
            bottom,
        }
    }

    #[test]
    fn a_line_lies_in_its_box() {
        let scene = lay_one(found(320.0, 240.0, 101.0, 50.0));
        // From 269.5 to 370.5: halves are rounded up.
        assert_eq!(scene.outlines[0].outer, rect(270, 215, 371, 265));
        assert_eq!(scene.outlines[0].inner, rect(272, 217, 369, 263));
        assert_eq!(scene.outlines[0].colour, colour_of("circle"));
    }

    #[test]
    fn the_smallest_box_is_a_pixel() {
        let scene = lay_one(found(100.2, 100.2, 0.1, 0.1));
        assert_eq!(scene.outlines[0].outer, rect(100, 100, 101, 101));
        assert!(scene.outlines[0].inner.is_empty());
    }

    #[test]
    fn boxes_of_a_frame_of_another_size_are_scaled() {
        let facts = FrameFacts {
            width: Some(320),
            height: Some(120),
            ..facts(vec![found(100.0, 50.0, 20.0, 10.0)])
        };
        let scene = lay(&facts, VGA, &Style::default());
        assert_eq!(scene.outlines[0].outer, rect(180, 180, 220, 220));
        let nonsense = FrameFacts {
            width: Some(0),
            height: Some(-5),
            ..facts
        };
        let scene = lay(&nonsense, VGA, &Style::default());
        assert_eq!(scene.outlines[0].outer, rect(90, 45, 110, 55));
    }

    #[test]
    fn lines_and_letters_grow_with_the_frame_unless_they_are_set() {
        let sizes = |size: (u32, u32), style: &Style| {
            let (x, y) = (size.0 as f32 / 2.0, size.1 as f32 / 2.0);
            let scene = lay(&facts(vec![found(x, y, x, y)]), size, style);
            let outline = &scene.outlines[0];
            (outline.inner.left - outline.outer.left, scene.text_height)
        };
        let auto = Style::default();
        assert_eq!(sizes((96, 96), &auto), (1, 12));
        assert_eq!(sizes(VGA, &auto), (2, 16));
        assert_eq!(sizes((480, 640), &auto), (2, 16));
        assert_eq!(sizes((1920, 1080), &auto), (5, 36));
        assert_eq!(sizes((3840, 2160), &auto), (9, 72));
        let set = Style {
            line_width: 7,
            text_height: 20,
            ..auto
        };
        assert_eq!(sizes(VGA, &set), (7, 20));
        let large = Style {
            text_height: 256,
            ..set
        };
        assert_eq!(sizes((96, 96), &large), (7, 72));
    }

    #[test]
    fn a_label_stands_on_top_of_its_box() {
        let scene = lay_one(found(320.0, 240.0, 100.0, 100.0));
        let label = &scene.labels[0];
        assert_eq!(label.text, "circle 91%");
        // Ten letters of 8 pixels, 4 pixels free at each side; 16 pixels of text and 1 above and below.
        assert_eq!(label.area, rect(270, 172, 358, 190));
        assert_eq!(label.start, (274, 173));
        assert_eq!((label.colour, label.ink), (colour_of("circle"), BLACK));
    }

    #[test]
    fn a_label_leaves_no_gap_to_a_box_on_odd_pixels() {
        let scene = lay_one(found(321.0, 241.0, 100.0, 100.0));
        assert_eq!(scene.outlines[0].outer, rect(271, 191, 371, 291));
        assert_eq!(scene.labels[0].area, rect(270, 174, 358, 192));
    }

    #[test]
    fn a_label_stays_within_the_frame() {
        let at = |x: f32, y: f32| lay_one(found(x, y, 60.0, 60.0)).labels[0].area;
        assert_eq!(at(30.0, 30.0), rect(0, 0, 88, 18));
        assert_eq!(at(0.0, 240.0), rect(0, 192, 88, 210));
        assert_eq!(at(610.0, 240.0), rect(552, 192, 640, 210));
        assert_eq!(at(320.0, 505.0), rect(290, 458, 378, 476));
        assert_eq!(at(320.0, 509.4), rect(290, 462, 378, 480));
    }

    #[test]
    fn a_label_says_what_is_asked_for() {
        let style = |labels, confidence| Style {
            labels,
            confidence,
            ..Style::default()
        };
        let one = || found(320.0, 240.0, 100.0, 100.0);
        assert_eq!(text(one(), &style(true, true)).unwrap(), "circle 91%");
        assert_eq!(text(one(), &style(true, false)).unwrap(), "circle");
        assert_eq!(text(one(), &style(false, true)).unwrap(), "91%");
        assert_eq!(text(one(), &style(false, false)), None);
        let nameless = Detection {
            class: "".into(),
            ..one()
        };
        assert_eq!(text(nameless, &Style::default()).unwrap(), "7 91%");
        for confidence in [f32::NAN, f32::INFINITY, -0.1, 1.1] {
            let odd = Detection {
                confidence,
                ..one()
            };
            assert_eq!(text(odd, &Style::default()).unwrap(), "circle");
        }
    }

    #[test]
    fn a_long_name_is_cut_and_the_confidence_stays() {
        let long = |class: String| Detection {
            class: class.into(),
            ..found(320.0, 240.0, 100.0, 100.0)
        };
        // Half of the frame has room for 39 letters and the margins.
        let exact = "x".repeat(35);
        assert_eq!(
            text(long(exact.clone()), &Style::default()).unwrap(),
            format!("{exact} 91%")
        );
        assert_eq!(
            text(long("x".repeat(36)), &Style::default()).unwrap(),
            format!("{}… 91%", "x".repeat(34))
        );
        assert_eq!(
            text(long("ab\nc\td".into()), &Style::default()).unwrap(),
            "ab c d 91%"
        );
    }

    #[test]
    fn a_name_of_letters_without_width_has_an_end() {
        let (text, width) = fit(&"\u{301}".repeat(1_000_000), " 91%", 50.0, &|_| 0.0).unwrap();
        assert_eq!((text.chars().count(), width), (256 + 4, 0.0));
        assert!(text.contains(ELLIPSIS));
    }

    #[test]
    fn without_room_there_is_no_label() {
        assert_eq!(
            fit("circle", " 91%", 70.0, &|_| 8.0),
            Some(("cir… 91%".into(), 64.0))
        );
        assert_eq!(
            fit("circle", " 91%", 40.0, &|_| 8.0),
            Some(("… 91%".into(), 40.0))
        );
        assert_eq!(
            fit("circle", " 91%", 39.0, &|_| 8.0),
            Some(("91%".into(), 24.0))
        );
        assert_eq!(fit("circle", " 91%", 23.0, &|_| 8.0), None);
        assert_eq!(fit("circle", "", 7.0, &|_| 8.0), None);
        assert_eq!(fit("", "", 100.0, &|_| 8.0), None);
    }

    #[test]
    fn what_has_no_part_in_the_frame_is_not_drawn() {
        let nothing = [
            found(-100.0, 240.0, 100.0, 100.0),
            found(320.0, 600.0, 100.0, 100.0),
            found(f32::NAN, 240.0, 100.0, 100.0),
            found(f32::INFINITY, 240.0, 100.0, 100.0),
            found(320.0, 240.0, 100.0, f32::NAN),
            found(320.0, 240.0, -100.0, 100.0),
            found(320.0, 240.0, 0.0, 100.0),
        ];
        assert_eq!(
            lay(&facts(nothing.into()), VGA, &Style::default()).outlines,
            []
        );
    }

    #[test]
    fn a_box_without_end_shows_the_sides_it_has() {
        let scene = lay_one(found(320.0, 240.0, f32::INFINITY, 100.0));
        let outer = scene.outlines[0].outer;
        assert_eq!((outer.top, outer.bottom), (190, 290));
        assert!(outer.left < -10_000 && outer.right > 10_000);
        assert_eq!(scene.labels[0].area.left, 0);
    }

    #[test]
    fn the_first_results_are_on_top_and_the_300th_is_the_last() {
        let many = (0..400)
            .map(|x| found(x as f32, 100.0, 10.0, 10.0))
            .collect();
        let scene = lay(&facts(many), VGA, &Style::default());
        assert_eq!(scene.outlines.len(), 300);
        assert_eq!(scene.outlines[299].outer.left, -5);
        assert_eq!(scene.outlines[0].outer.left, 294);
    }

    #[test]
    fn the_trail_tells_what_is_known() {
        let all = FrameFacts {
            frame_id: Some(812),
            arrival_time: Some(1_000_000_000),
            result_frame_id: Some(809),
            ..facts(vec![])
        };
        let told = |facts: &FrameFacts| trail(facts, 1_034_999_999);
        assert_eq!(told(&all).unwrap(), "frame 812  34 ms  results of 809");
        let own = FrameFacts {
            result_frame_id: Some(812),
            ..all.clone()
        };
        assert_eq!(told(&own).unwrap(), "frame 812  34 ms");
        let no_results = FrameFacts {
            results: None,
            ..all.clone()
        };
        assert_eq!(told(&no_results).unwrap(), "frame 812  34 ms");
        let from_tomorrow = FrameFacts {
            arrival_time: Some(2_000_000_000),
            ..own
        };
        assert_eq!(told(&from_tomorrow).unwrap(), "frame 812");
        assert_eq!(told(&FrameFacts::default()), None);
    }

    #[test]
    fn the_trail_is_in_the_lower_left_corner_and_only_where_asked_for() {
        let facts = FrameFacts {
            frame_id: Some(812),
            ..FrameFacts::default()
        };
        assert_eq!(lay(&facts, VGA, &Style::default()), Scene::default());
        let style = Style {
            trail: true,
            ..Style::default()
        };
        let scene = lay(&facts, VGA, &style);
        assert_eq!(scene.labels[0].text, "frame 812");
        assert_eq!(scene.labels[0].area, rect(0, 462, 80, 480));
    }

    fn any_number() -> impl Strategy<Value = f32> {
        prop_oneof![
            any::<f32>(),
            prop::num::f32::ANY,
            -100f32..5000.0,
            Just(f32::NAN),
            Just(f32::INFINITY),
            Just(f32::NEG_INFINITY),
            Just(f32::MAX),
        ]
    }

    proptest! {
        #[test]
        fn whatever_the_results_labels_lie_in_the_frame_and_boxes_touch_it(
            boxes in prop::collection::vec(
                ((any_number(), any_number()), (any_number(), any_number()), any_number(), any::<u32>(), ".{0,40}"), 0..8),
            then in (any::<Option<i32>>(), any::<Option<i32>>()),
            size in (1u32..5000, 1u32..5000),
            style in (0u32..257, 0u32..257, any::<bool>(), any::<bool>(), any::<bool>()),
        ) {
            let results = boxes.into_iter()
                .map(|((x, y), (width, height), confidence, class_id, class)| Detection {
                    x, y, width, height, confidence, class_id, class: class.into(),
                })
                .collect();
            let facts = FrameFacts { width: then.0, height: then.1, frame_id: Some(u64::MAX), ..facts(results) };
            let style = Style {
                line_width: style.0,
                text_height: style.1,
                labels: style.2,
                confidence: style.3,
                trail: style.4,
            };
            let scene = lay(&facts, size, &style);
            let frame = rect(0, 0, size.0 as i32, size.1 as i32);
            for label in &scene.labels {
                prop_assert_eq!(label.area.intersection(&frame), label.area);
                prop_assert!(!label.area.is_empty() && !label.text.is_empty());
            }
            for outline in &scene.outlines {
                prop_assert!(!outline.outer.intersection(&frame).is_empty());
            }
        }
    }
}
