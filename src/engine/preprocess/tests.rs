use proptest::prelude::*;

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
        let mut preprocessor = Preprocessor::default();
        preprocessor.run(&self.frame(), input).unwrap().0.clone()
    }
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
    [0, 1, 2].map(|channel| tensor.data[(channel * height + y) * width + x])
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
        assert_eq!(pixel(&tensor, 16, y), [114.0 / 255.0; 3], "row {y}");
    }
    for y in [4, 27] {
        assert_eq!(pixel(&tensor, 0, y), [1.0, 0.0, 0.0], "row {y}");
        assert_eq!(pixel(&tensor, 31, y), [1.0, 0.0, 0.0], "row {y}");
    }
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
    for size in [(48, 64), (64, 48), (64, 64), (48, 64)] {
        let picture = Picture::new(PixelFormat::I420, size, 0, |_, _| GREEN);
        let (tensor, _) = preprocessor.run(&picture.frame(), (32, 32)).unwrap();
        assert_eq!(*tensor, picture.run((32, 32)));
    }
}

#[test]
fn buffers_are_kept_from_frame_to_frame() {
    for format in FORMATS {
        let picture = Picture::new(format, (65, 47), 3, |_, _| GREEN);
        let mut preprocessor = Preprocessor::default();
        let mut buffers = || {
            preprocessor.run(&picture.frame(), (32, 32)).unwrap();
            let Preprocessor {
                whole,
                small,
                tensor,
                ..
            } = &preprocessor;
            (whole.as_ptr(), small.as_ptr(), tensor.data.as_ptr())
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
    let (tensor, letterbox) = preprocessor.run(&frame, (384, 288)).unwrap();
    assert_eq!((letterbox.fit, letterbox.top), ((384, 216), 36));
    assert_colour(pixel(tensor, 383, 36 + 215), RED);
}

#[test]
fn sizes_that_are_no_picture_are_refused() {
    for (width, height) in [(0, 8), (8, 0), (u32::MAX, 1), (1, MAX_SIDE + 1)] {
        let mut picture = Picture::new(PixelFormat::Rgb, (8, 8), 0, |_, _| RED);
        (picture.width, picture.height) = (width, height);
        let mut preprocessor = Preprocessor::default();
        let err = preprocessor.run(&picture.frame(), (8, 8)).unwrap_err();
        assert_eq!(err, FrameError::Size { width, height });
    }
}

#[test]
fn strides_beyond_sense_are_refused() {
    for stride in [0, 7, usize::MAX] {
        let mut picture = Picture::new(PixelFormat::I420, (8, 8), 0, |_, _| RED);
        picture.planes[0].1 = stride;
        let mut preprocessor = Preprocessor::default();
        let err = preprocessor.run(&picture.frame(), (8, 8)).unwrap_err();
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
        let mut preprocessor = Preprocessor::default();
        let err = preprocessor.run(&picture.frame(), (16, 16)).unwrap_err();
        let expected = FrameError::Short { format, plane: which, have: need - 1, need };
        prop_assert_eq!(err, expected);
    }
}
