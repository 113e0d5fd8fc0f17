//! The file beside a model by which GStreamer's own inference elements know what its tensors mean: `.modelinfo`, since
//! GStreamer 1.28. Read here are `dims` and `ranges` of the input, `id` of the outputs and `group-id`.
//!
//! Format: gstreamer.freedesktop.org/documentation/analytics/GstAnalyticsModelInfo.html; ids: the tensor id register,
//! github.com/collabora/tensor-id-registry. Pure: text in, facts out; what is read is not trusted.

use std::path::{Path, PathBuf};

use super::decoders::Decoder;

/// Longest file that is read, bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SideCar {
    /// What all outputs together are.
    pub group_id: Option<String>,
    tensors: Vec<Section>,
}

/// What the file says of one tensor.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Section {
    /// As the model has it.
    pub name: String,
    pub direction: Option<Direction>,
    pub id: Option<String>,
    /// None where any will do.
    pub dims: Option<Vec<Option<usize>>>,
    /// What black and white become: of red, green and blue.
    pub ranges: Option<[(f32, f32); 3]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Input,
    Output,
}

/// What an id says of the outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    Decoded(Decoder),
    /// Known, and no decoder reads it.
    Undecoded(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SideCarError {
    #[error("line {line} is \"{text}\", neither [SECTION] nor KEY=VALUE in a section")]
    Line { line: usize, text: String },
    #[error("its version is \"{0}\"; 1.0 is read")]
    Version(String),
    #[error("section [{section}] has {key}={value}; {right}")]
    Value {
        section: String,
        key: &'static str,
        value: String,
        right: &'static str,
    },
}

/// Where the file beside `model` may be, in the order in which GStreamer looks.
pub fn places(model: &Path) -> [PathBuf; 2] {
    let mut whole = model.as_os_str().to_owned();
    whole.push(".modelinfo");
    [whole.into(), model.with_extension("modelinfo")]
}

impl SideCar {
    pub fn parse(text: &str) -> Result<Self, SideCarError> {
        let mut side_car = SideCar::default();
        let mut version = None;
        let mut section: Option<Section> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                side_car.tensors.extend(section.take());
                section = Some(Section {
                    name: name.to_owned(),
                    ..Section::default()
                });
                continue;
            }
            let (Some(section), Some((key, value))) = (&mut section, line.split_once('=')) else {
                let (line, text) = (number, line.to_owned());
                return Err(SideCarError::Line { line, text });
            };
            let (key, value) = (key.trim(), value.trim());
            match key {
                "version" if section.name == GENERAL => version = Some(value.to_owned()),
                "group-id" if section.name == GENERAL => {
                    side_car.group_id = Some(value.to_owned());
                }
                _ => section.set(key, value)?,
            }
        }
        side_car.tensors.extend(section);
        side_car.tensors.retain(|section| section.name != GENERAL);
        match version {
            Some(version) if version.split('.').next() == Some("1") => Ok(side_car),
            other => Err(SideCarError::Version(other.unwrap_or_default())),
        }
    }

    /// What it says of the input called `name`, or of the only input that it knows.
    pub fn input(&self, name: &str) -> Option<&Section> {
        let mut inputs = self
            .tensors
            .iter()
            .filter(|section| section.direction == Some(Direction::Input));
        let named = self
            .tensors
            .iter()
            .find(|section| section.name == name && section.direction != Some(Direction::Output));
        named.or_else(|| inputs.next().filter(|_| inputs.next().is_none()))
    }

    /// What the output called `name` is.
    pub fn output_id(&self, name: &str) -> Option<&str> {
        let mut outputs = self
            .tensors
            .iter()
            .filter(|section| section.direction != Some(Direction::Input));
        outputs.find(|section| section.name == name)?.id.as_deref()
    }
}

/// The section that is of no tensor.
const GENERAL: &str = "modelinfo";

impl Section {
    fn set(&mut self, key: &str, value: &str) -> Result<(), SideCarError> {
        let wrong = |key, right| SideCarError::Value {
            section: self.name.clone(),
            key,
            value: value.to_owned(),
            right,
        };
        match key {
            "id" => self.id = Some(value.to_owned()),
            "dir" => {
                self.direction = Some(match value {
                    "input" => Direction::Input,
                    "output" => Direction::Output,
                    _ => return Err(wrong("dir", "there are input and output")),
                });
            }
            "dims" => {
                let sides = value.trim_end_matches(',').split(',').map(|side| {
                    let side = side.trim().parse::<i64>().ok()?;
                    Some(usize::try_from(side).ok())
                });
                let sides = sides.collect::<Option<Vec<_>>>();
                let right = "numbers with commas between are needed, -1 for any";
                self.dims = Some(sides.ok_or_else(|| wrong("dims", right))?);
            }
            "ranges" => {
                let right = "MIN,MAX is needed, or three of them with semicolons between";
                self.ranges = Some(ranges(value).ok_or_else(|| wrong("ranges", right))?);
            }
            // Others are of no use here, and later versions may have more.
            _ => {}
        }
        Ok(())
    }
}

fn ranges(text: &str) -> Option<[(f32, f32); 3]> {
    let range = |text: &str| {
        let (least, most) = text.split_once(',')?;
        let number = |text: &str| text.trim().parse::<f32>().ok().filter(|n| n.is_finite());
        Some((number(least)?, number(most)?))
    };
    let ranges = text.trim_end_matches(';').split(';').map(range);
    match ranges.collect::<Option<Vec<_>>>()?[..] {
        [all] => Some([all; 3]),
        [red, green, blue] => Some([red, green, blue]),
        _ => None,
    }
}

impl Meaning {
    /// What a tensor or a group of that id is; None where it says nothing of the layout.
    pub fn of(id: &str) -> Option<Meaning> {
        let decoder = match id {
            "yolo-v8-out" => Decoder::YoloV8,
            "yolox-out" => Decoder::YoloV5,
            "yolo-26-end2end-out" => Decoder::End2End,
            "ssd-mobilenet-v1-variant-1-out" => Decoder::Ssd,
            "classification-generic-out" | "classification-generic-softmaxed-out" => {
                Decoder::Classification
            }
            // Poses, masks, turned boxes, and boxes of another scale.
            _ if id.starts_with("yolo-") && id.contains("-out") => {
                return Some(Meaning::Undecoded(id.to_owned()));
            }
            _ => return None,
        };
        Some(Meaning::Decoded(decoder))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As GStreamer's own documentation has it, for the COCO SSD of TensorFlow.
    const SSD: &str = "\
# made by hand
[modelinfo]
version=1.0
group-id=ssd-mobilenet-v1-variant-1-out

[image_tensor:0]
id=image_tensor_0
type=uint8
dims=-1,-1,-1,3
dir=input
ranges=0.0,255.0;0.0,255.0;0.0,255.0

[detection_boxes:0]
id=ssd-mobilenet-v1-variant-1-out-boxes
type=float32
dims=-1,-1,4
dir=output
";

    #[test]
    fn ids_dims_and_ranges_are_read() {
        let side_car = SideCar::parse(SSD).unwrap();
        assert_eq!(
            side_car.group_id.as_deref(),
            Some("ssd-mobilenet-v1-variant-1-out")
        );
        let input = side_car.input("image_tensor:0").unwrap();
        assert_eq!(input.dims, Some(vec![None, None, None, Some(3)]));
        assert_eq!(input.ranges, Some([(0.0, 255.0); 3]));
        assert_eq!(side_car.input("called otherwise"), Some(input));
        assert_eq!(
            side_car.output_id("detection_boxes:0"),
            Some("ssd-mobilenet-v1-variant-1-out-boxes")
        );
        assert_eq!(side_car.output_id("image_tensor:0"), None);
    }

    #[test]
    fn one_range_is_for_all_colours() {
        assert_eq!(ranges("-1.0, 1.0"), Some([(-1.0, 1.0); 3]));
        let three = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)];
        assert_eq!(ranges("0,1;-1,1;0,255;"), Some(three));
        for nonsense in ["", "1", "0,1;0,1", "0,nan", "0,1,2"] {
            assert_eq!(ranges(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_refused_with_what_is_wrong() {
        let refused = |text: &str| SideCar::parse(text).unwrap_err().to_string();
        let version = refused("[modelinfo]\nversion=2.0\n");
        assert_eq!(version, "its version is \"2.0\"; 1.0 is read");
        assert!(refused("[images]\ndir=input\n").contains("version is \"\""));
        let line = refused("[modelinfo]\nversion=1.0\nwhat\n");
        assert!(line.starts_with("line 3 is \"what\""), "{line}");
        let dims = refused("[modelinfo]\nversion=1.0\n[images]\ndims=1,x\n");
        assert!(dims.starts_with("section [images] has dims=1,x;"), "{dims}");
        assert!(refused("version=1.0").starts_with("line 1 is"));
    }

    #[test]
    fn ids_of_what_is_not_decoded_are_told_from_those_that_say_nothing() {
        let decoded = Some(Meaning::Decoded(Decoder::YoloV8));
        assert_eq!(Meaning::of("yolo-v8-out"), decoded);
        let pose = Some(Meaning::Undecoded("yolo-v8-pose-out".into()));
        assert_eq!(Meaning::of("yolo-v8-pose-out"), pose);
        assert_eq!(Meaning::of("generic-variant-1-out-count"), None);
    }

    #[test]
    fn the_file_is_looked_for_where_gstreamer_does() {
        let [whole, stem] = places(Path::new("/a/b.v2.onnx"));
        assert_eq!(whole, Path::new("/a/b.v2.onnx.modelinfo"));
        assert_eq!(stem, Path::new("/a/b.v2.modelinfo"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\[[a-z]{0,3}\\]?\n|(dims|ranges|version|id|dir)?=?[-0-9.,;naif]{0,9}\n){0,9}") {
            let _ = SideCar::parse(&text);
        }
    }
}
