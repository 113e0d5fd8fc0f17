use proptest::prelude::*;

use super::super::tensor::{Element, Tensor};
use super::*;

const BT601: Colours = Colours {
    matrix: Matrix::Bt601,
    range: Range::Limited,
};

const FORMATS: [PixelFormat; 6] = [
    PixelFormat::I420,
    PixelFormat::Nv12,
    PixelFormat::Rgb,
    PixelFormat::Bgr,
    PixelFormat::Rgba,
    PixelFormat::Bgra,
];

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// A picture that owns its planes, with rows padded by bytes that must not be seen.
struct Picture {
    format: PixelFormat,
    width: u32,
    height: u32,
    colours: Colours,
    planes: Vec<(Vec<u8>, usize)>,
}

impl Picture {
    /// `colour` gives the RGB of each pixel; YUV is what BT.601 makes of it, limited range.
    fn new(
        format: PixelFormat,
        (width, height): (u32, u32),
        padding: usize,
        colour: impl Fn(u32, u32) -> [u8; 3],
    ) -> Self {
        let half = |x: u32, y: u32| yuv(colour((x * 2).min(width - 1), (y * 2).min(height - 1)));
        let (wide, high) = (width.div_ceil(2), height.div_ceil(2));
        let luma = || plane(width, height, padding, |x, y| vec![yuv(colour(x, y))[0]]);
        let chroma = |i: usize| plane(wide, high, padding, |x, y| vec![half(x, y)[i]]);
        let packed = |order: &[usize]| {
            plane(width, height, padding, |x, y| {
                let [r, g, b] = colour(x, y);
                order.iter().map(|&i| [r, g, b, 7][i]).collect()
            })
        };
        let planes = match format {
            PixelFormat::I420 => vec![luma(), chroma(1), chroma(2)],
            PixelFormat::Nv12 => {
                let pairs = plane(wide, high, padding, |x, y| half(x, y)[1..].to_vec());
                vec![luma(), pairs]
            }
            PixelFormat::Rgb => vec![packed(&[0, 1, 2])],
            PixelFormat::Bgr => vec![packed(&[2, 1, 0])],
            PixelFormat::Rgba => vec![packed(&[0, 1, 2, 3])],
            PixelFormat::Bgra => vec![packed(&[2, 1, 0, 3])],
        };
        Picture {
            format,
            width,
            height,
            colours: BT601,
            planes,
        }
    }

    fn frame(&self) -> Frame<'_> {
        let mut planes = [Plane::default(); 3];
        for (plane, (data, stride)) in planes.iter_mut().zip(&self.planes) {
            (plane.data, plane.stride) = (data, *stride);
        }
        Frame {
            format: self.format,
            width: self.width,
            height: self.height,
            planes,
            colours: self.colours,
        }
    }

    fn run(&self, input: (u32, u32)) -> Tensor {
        self.run_as(&spec(input))
    }

    fn run_as(&self, spec: &InputSpec) -> Tensor {
        self.run_in(Preprocessor::default(), spec)
    }

    fn run_in(&self, mut preprocessor: Preprocessor, spec: &InputSpec) -> Tensor {
        let mut row = Slot::row(spec, 1);
        preprocessor.run(&self.frame(), spec, &mut row[0]).unwrap();
        Slot::join(spec, &mut row)
    }

    fn refusal(&self) -> FrameError {
        let spec = spec((8, 8));
        let mut row = Slot::row(&spec, 1);
        Preprocessor::default()
            .run(&self.frame(), &spec, &mut row[0])
            .unwrap_err()
    }
}

fn spec(size: (u32, u32)) -> InputSpec {
    InputSpec::new(size)
}

fn plane(
    width: u32,
    height: u32,
    padding: usize,
    pixel: impl Fn(u32, u32) -> Vec<u8>,
) -> (Vec<u8>, usize) {
    let mut data = Vec::new();
    for y in 0..height {
        data.extend((0..width).flat_map(|x| pixel(x, y)));
        data.extend(std::iter::repeat_n(0xA5, padding));
    }
    let stride = data.len() / height as usize;
    (data, stride)
}

fn yuv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = [r, g, b].map(|v| f32::from(v) / 255.0);
    let y = 0.299 * r + 0.587 * g + 0.114 * b;
    let (u, v) = ((b - y) / 1.772, (r - y) / 1.402);
    [16.0 + 219.0 * y, 128.0 + 224.0 * u, 128.0 + 224.0 * v].map(|v| v.round() as u8)
}

fn pixel(tensor: &Tensor, x: usize, y: usize) -> [f32; 3] {
    let (height, width) = (tensor.shape[2], tensor.shape[3]);
    [0, 1, 2].map(|channel| tensor.floats()[(channel * height + y) * width + x])
}

#[track_caller]
fn assert_colour(found: [f32; 3], expected: [u8; 3]) {
    for (found, expected) in found.iter().zip(expected) {
        let expected = f32::from(expected) / 255.0;
        assert!((found - expected).abs() < 3.5 / 255.0, "{found} {expected}");
    }
}

#[test]
fn each_format_gives_the_colours_where_they_are() {
    for format in FORMATS {
        let quarters = |x, y| match (x < 32, y < 24) {
            (true, true) => RED,
            (false, true) => GREEN,
            (true, false) => BLUE,
            (false, false) => [255, 255, 255],
        };
        let tensor = Picture::new(format, (64, 48), 0, quarters).run((32, 32));
        assert_eq!(tensor.shape, [1, 3, 32, 32]);
        assert_colour(pixel(&tensor, 5, 8), RED);
        assert_colour(pixel(&tensor, 27, 8), GREEN);
        assert_colour(pixel(&tensor, 5, 24), BLUE);
        assert_colour(pixel(&tensor, 27, 24), [255, 255, 255]);
    }
}

#[test]
fn what_surrounds_the_frame_is_grey() {
    let tensor = Picture::new(PixelFormat::Rgb, (64, 48), 0, |_, _| RED).run((32, 32));
    for y in [0, 3, 28, 31] {
        let grey = pixel(&tensor, 16, y).map(|value| (value * 255.0 - 114.0).abs());
        assert!(grey.iter().all(|off| *off < 1e-4), "row {y}: {grey:?}");
    }
    for y in [4, 27] {
        assert_eq!(pixel(&tensor, 0, y), [1.0, 0.0, 0.0], "row {y}");
        assert_eq!(pixel(&tensor, 31, y), [1.0, 0.0, 0.0], "row {y}");
    }
}

/// The values of one pixel in the order of the tensor.
fn channels(tensor: &Tensor, spec: &InputSpec, x: usize, y: usize) -> [f32; 3] {
    let (width, height) = (spec.size.0 as usize, spec.size.1 as usize);
    let values = tensor.floats();
    [0, 1, 2].map(|channel| match spec.layout {
        Layout::Nchw => values[(channel * height + y) * width + x],
        Layout::Nhwc => values[(y * width + x) * 3 + channel],
    })
}

#[test]
fn every_kind_of_input_has_the_same_picture_in_it() {
    let colour = |x: u32, _: u32| [(x * 5) as u8, 200, (x / 2) as u8];
    let (mean, std) = ([0.5, 0.25, 0.0], [0.25, 0.5, 2.0]);
    for format in FORMATS {
        for size in [(32, 32), (48, 36)] {
            let picture = Picture::new(format, (48, 36), 4, colour);
            let plain = spec(size);
            let known = picture.run_as(&plain);
            for element in [Element::F32, Element::F16, Element::U8] {
                for layout in [Layout::Nchw, Layout::Nhwc] {
                    for order in [Channels::Rgb, Channels::Bgr] {
                        let floats = element != Element::U8;
                        let spec = InputSpec {
                            element,
                            layout,
                            channels: order,
                            mean: if floats { mean } else { [0.0; 3] },
                            std: if floats { std } else { [1.0 / 255.0; 3] },
                            ..plain.clone()
                        };
                        let found = picture.run_as(&spec);
                        for (x, y) in [(0, 0), (20, 17), (31, 31)] {
                            let rgb = channels(&known, &plain, x, y);
                            let mut expected =
                                [0, 1, 2].map(|i| (rgb[i] - spec.mean[i]) / spec.std[i]);
                            if order == Channels::Bgr {
                                expected.reverse();
                            }
                            let found = channels(&found, &spec, x, y);
                            for (found, expected) in found.iter().zip(expected) {
                                let slack = if element == Element::F16 { 2e-3 } else { 1e-4 };
                                assert!(
                                    (found - expected).abs() <= slack,
                                    "{spec:?} {found} {expected}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_stretched_frame_fills_the_input() {
    let stretched = InputSpec {
        fit: Fit::Stretch,
        ..spec((32, 32))
    };
    let halves = |_, y| if y < 24 { RED } else { BLUE };
    let tensor = Picture::new(PixelFormat::I420, (64, 48), 0, halves).run_as(&stretched);
    assert_colour(pixel(&tensor, 0, 0), RED);
    assert_colour(pixel(&tensor, 31, 14), RED);
    assert_colour(pixel(&tensor, 31, 31), BLUE);
}

#[test]
fn matrix_and_range_are_those_of_the_frame() {
    let (limited, full) = (Range::Limited, Range::Full);
    // What the equations of the two standards make of pure red.
    let cases = [
        (Matrix::Bt601, limited, [81, 90, 240]),
        (Matrix::Bt709, limited, [63, 102, 240]),
        (Matrix::Bt601, full, [76, 85, 255]),
        (Matrix::Bt709, full, [54, 99, 255]),
    ];
    for (matrix, range, [y, u, v]) in cases {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            let mut picture = Picture::new(format, (16, 16), 0, |_, _| RED);
            picture.colours = Colours { matrix, range };
            picture.planes[0].0.fill(y);
            if format == PixelFormat::I420 {
                picture.planes[1].0.fill(u);
                picture.planes[2].0.fill(v);
            } else {
                picture.planes[1].0 = [u, v].repeat(64);
            }
            assert_colour(pixel(&picture.run((16, 16)), 8, 8), RED);
        }
    }
}

#[test]
fn shrinking_averages_instead_of_picking() {
    let stripes = |x, _| if x % 2 == 0 { [255; 3] } else { [0; 3] };
    for format in FORMATS {
        let tensor = Picture::new(format, (256, 256), 0, stripes).run((32, 32));
        assert_colour(pixel(&tensor, 16, 16), [127; 3]);
    }
}

#[test]
fn padding_goes_with_the_frame_that_needed_it() {
    let mut preprocessor = Preprocessor::default();
    let spec = spec((32, 32));
    let mut row = Slot::row(&spec, 1);
    for size in [(48, 64), (64, 48), (64, 64), (48, 64)] {
        let picture = Picture::new(PixelFormat::I420, size, 0, |_, _| GREEN);
        preprocessor
            .run(&picture.frame(), &spec, &mut row[0])
            .unwrap();
        let tensor = Slot::join(&spec, &mut row);
        assert_eq!(tensor, picture.run((32, 32)));
        Slot::part(&spec, tensor, &mut row);
    }
}

/// Colours of which no two neighbours are alike.
fn noise(x: u32, y: u32) -> [u8; 3] {
    let mut rng = fastrand::Rng::with_seed(u64::from(y) << 32 | u64::from(x));
    [rng.u8(..), rng.u8(..), rng.u8(..)]
}

#[test]
fn bands_leave_no_trace() {
    // Shrunk, grown, of the input's own size, and with rows that become less than one; odd and even.
    let sizes = [
        (1280, 961),
        (1280, 720),
        (200, 151),
        (320, 240),
        (640, 481),
        (2500, 1902),
    ];
    let inputs = sizes.map(|frame| (frame, (640, 481)));
    // The last: nothing is resized, and bands begin on odd rows.
    let inputs = inputs.into_iter().chain([((1280, 721), (1280, 721))]);
    for ((frame, input), format) in inputs.flat_map(|i| FORMATS.map(|f| (i, f))) {
        let picture = Picture::new(format, frame, 5, noise);
        let spec = InputSpec {
            element: Element::U8,
            fit: Fit::Stretch,
            ..spec(input)
        };
        let whole = Preprocessor {
            band: usize::MAX,
            ..Preprocessor::default()
        };
        let [found, whole] = [Preprocessor::default(), whole].map(|p| picture.run_in(p, &spec));
        let pairs = found.bytes.iter().zip(whole.bytes.iter());
        let most = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // One where a weight is rounded the other way.
        assert!(most <= 1, "{format} {frame:?}: {most}");
    }
}

#[test]
fn buffers_are_kept_from_frame_to_frame() {
    for format in FORMATS {
        let picture = Picture::new(format, (65, 47), 3, |_, _| GREEN);
        let mut preprocessor = Preprocessor::default();
        let mut row = Slot::row(&spec((32, 32)), 1);
        let mut buffers = || {
            preprocessor
                .run(&picture.frame(), &spec((32, 32)), &mut row[0])
                .unwrap();
            let Preprocessor { whole, small, .. } = &preprocessor;
            (whole.as_ptr(), small.as_ptr())
        };
        assert_eq!(buffers(), buffers());
    }
}

#[test]
fn a_frame_of_8k_is_no_exception() {
    let (width, height) = (7680, 4320);
    let luma = vec![81; width * height];
    let (u, v) = (vec![90; luma.len() / 4], vec![240; luma.len() / 4]);
    let plane = |data, stride| Plane { data, stride };
    let frame = Frame {
        format: PixelFormat::I420,
        width: width as u32,
        height: height as u32,
        planes: [
            plane(&luma, width),
            plane(&u, width / 2),
            plane(&v, width / 2),
        ],
        colours: BT601,
    };
    let mut preprocessor = Preprocessor::default();
    let spec = spec((384, 288));
    let mut row = Slot::row(&spec, 1);
    let letterbox = preprocessor.run(&frame, &spec, &mut row[0]).unwrap();
    let tensor = Slot::join(&spec, &mut row);
    assert_eq!((letterbox.fit, letterbox.top), ((384, 216), 36));
    assert_colour(pixel(&tensor, 383, 36 + 215), RED);
}

#[test]
fn sizes_that_are_no_picture_are_refused() {
    for (width, height) in [(0, 8), (8, 0), (u32::MAX, 1), (1, MAX_SIDE + 1)] {
        let mut picture = Picture::new(PixelFormat::Rgb, (8, 8), 0, |_, _| RED);
        (picture.width, picture.height) = (width, height);
        let err = picture.refusal();
        assert_eq!(err, FrameError::Size { width, height });
    }
}

#[test]
fn strides_beyond_sense_are_refused() {
    for stride in [0, 7, usize::MAX] {
        let mut picture = Picture::new(PixelFormat::I420, (8, 8), 0, |_, _| RED);
        picture.planes[0].1 = stride;
        let err = picture.refusal();
        let text = err.to_string();
        assert!(
            text.contains(&format!("rows of {stride} bytes, not 8 to")),
            "{text}"
        );
    }
}

proptest! {
    #[test]
    fn any_size_and_stride_gives_the_same_picture(
        width in 1u32..300, height in 1u32..70, padding in 0usize..9,
        format in prop::sample::select(&FORMATS[..]),
        input in (1u32..50, 1u32..50),
    ) {
        let tensor = Picture::new(format, (width, height), padding, |_, _| BLUE).run(input);
        let fit = Letterbox::new((width, height), input);
        for y in 0..input.1 {
            for x in 0..input.0 {
                let inside = (fit.left..fit.left + fit.fit.0).contains(&x)
                    && (fit.top..fit.top + fit.fit.1).contains(&y);
                let expected = if inside { BLUE } else { [114; 3] };
                assert_colour(pixel(&tensor, x as usize, y as usize), expected);
            }
        }
    }

    #[test]
    fn a_plane_that_is_a_byte_short_is_an_error(
        width in 1u32..40, height in 1u32..40, padding in 0usize..9,
        format in prop::sample::select(&FORMATS[..]),
        which in 0usize..3,
    ) {
        let mut picture = Picture::new(format, (width, height), padding, |_, _| BLUE);
        let which = which % picture.planes.len();
        let data = &mut picture.planes[which].0;
        let need = data.len();
        data.pop();
        let err = picture.refusal();
        let expected = FrameError::Short { format, plane: which, have: need - 1, need };
        prop_assert_eq!(err, expected);
    }
}
