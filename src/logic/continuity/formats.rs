//! Which audio and video can be published: as it is, converted, or not at all.
//!
//! The lists name what is taken as it is. Whether anything else can be converted is GStreamer's to know; refused
//! here is what nobody can make sense of.

use std::time::Duration;

/// Sample rates taken as they are, hertz.
pub const RATES: [u32; 7] = [8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000];
/// Highest rate that is resampled, hertz.
pub const MAX_RATE: u32 = 768_000;
/// Lowest rate that is resampled, hertz: a period of a millisecond holds a sample.
pub const MIN_RATE: u32 = 1_000;
/// GStreamer names positions for no more.
pub const MAX_CHANNELS: u32 = 64;
/// Most pixels of a frame, unless configured otherwise: full HD, whatever the shape.
pub const MAX_PIXELS: u64 = 1_920 * 1_080;
/// Highest frame rate, unless configured otherwise.
pub const MAX_FPS: u32 = 30;
/// No configuration goes beyond.
pub const MAX_MAX_FPS: u32 = 240;

/// The rest of what is published when nothing else is said.
pub const DEFAULT_RATE: u32 = 48_000;
pub const DEFAULT_CHANNELS: u32 = 2;
pub const DEFAULT_SIZE: (u32, u32) = (640, 480);

/// 16 bit samples in the order of this machine, as GStreamer calls them.
pub const S16: &str = if cfg!(target_endian = "little") {
    "S16LE"
} else {
    "S16BE"
};

/// How something that is accepted gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Native,
    /// After conversion, resampling or a change of rate.
    Convert,
}

/// Why something is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error(
        "{0:?} is no raw {1} format; {2} are taken as they are, other raw formats are converted"
    )]
    NotRaw(String, &'static str, &'static str),
    #[error("a sample rate of {0} Hz is not possible; {MIN_RATE} to {MAX_RATE} are")]
    Rate(u32),
    #[error("{0} channels are not possible; 1 to {MAX_CHANNELS} are")]
    Channels(u32),
    #[error("a frame of {0}x{1} has no pixels; width and height are at least 1")]
    Empty(u32, u32),
    #[error("a frame of {width}x{height} has {} pixels; at most {max} are allowed, whatever its shape", u64::from(*.width) * u64::from(*.height))]
    TooLarge { width: u32, height: u32, max: u64 },
    #[error("{0}/{1} is no frame rate; the denominator is at least 1")]
    Fps(u32, u32),
    #[error("a frame of {width}x{height} in {format} takes {needed} bytes, the buffer has {bytes}")]
    VideoBuffer {
        width: u32,
        height: u32,
        format: &'static str,
        needed: u128,
        bytes: usize,
    },
    #[error("a period of {0:?} is not possible; 1 ms to 1 s are")]
    Period(Duration),
    #[error("a capacity of {0:?} does not hold one period of {1:?}")]
    Capacity(Duration, Duration),
}

/// What becomes of raw audio, `format` being GStreamer's name.
pub fn audio(
    format: &str,
    interleaved: bool,
    rate: u32,
    channels: u32,
) -> Result<Fit, FormatError> {
    let format = raw(format, "audio", "16 bit samples in native order")?;
    if !(MIN_RATE..=MAX_RATE).contains(&rate) {
        return Err(FormatError::Rate(rate));
    }
    if !(1..=MAX_CHANNELS).contains(&channels) {
        return Err(FormatError::Channels(channels));
    }
    let native = format == S16 && interleaved && RATES.contains(&rate) && channels <= 2;
    Ok(if native { Fit::Native } else { Fit::Convert })
}

/// What becomes of raw video, `format` being GStreamer's name or one that [`PixelFormat`] knows.
pub fn video(format: &str, width: u32, height: u32, max_pixels: u64) -> Result<Fit, FormatError> {
    let format = raw(format, "video", "I420, BGR and BGRA")?;
    if width == 0 || height == 0 {
        return Err(FormatError::Empty(width, height));
    }
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(FormatError::TooLarge {
            width,
            height,
            max: max_pixels,
        });
    }
    Ok(match PixelFormat::named(&format) {
        Some(_) => Fit::Native,
        None => Fit::Convert,
    })
}

/// The name in capitals, if it may stand for raw media.
fn raw(name: &str, medium: &'static str, native: &'static str) -> Result<String, FormatError> {
    let upper = name.to_ascii_uppercase();
    // DMA_DRM is memory of a device, in a layout that only the device knows.
    match upper.as_str() {
        "" | "UNKNOWN" | "ENCODED" | "DMA_DRM" => {
            Err(FormatError::NotRaw(name.into(), medium, native))
        }
        _ => Ok(upper),
    }
}

/// Pixels that are taken as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    I420,
    Bgr,
    Bgra,
}

impl PixelFormat {
    /// By GStreamer's name or by the one that connectors use, in small letters or capitals.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "I420" | "YUV420P" => Some(Self::I420),
            // Those names tell the order within a word: in memory blue comes first.
            "BGR" | "RGB24" => Some(Self::Bgr),
            "BGRA" | "ARGB32" => Some(Self::Bgra),
            _ => None,
        }
    }

    /// GStreamer's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::I420 => "I420",
            Self::Bgr => "BGR",
            Self::Bgra => "BGRA",
        }
    }

    /// The bytes of a frame without padding, which no layout goes below.
    pub fn bytes(self, width: u32, height: u32) -> u128 {
        let (w, h) = (u128::from(width), u128::from(height));
        match self {
            Self::I420 => w * h + 2 * w.div_ceil(2) * h.div_ceil(2),
            Self::Bgr => 3 * w * h,
            Self::Bgra => 4 * w * h,
        }
    }

    /// How many of a buffer's bytes are the frame.
    pub fn frame_in(self, bytes: usize, width: u32, height: u32) -> Result<usize, FormatError> {
        let needed = self.bytes(width, height);
        within(needed, bytes).ok_or(FormatError::VideoBuffer {
            width,
            height,
            format: self.name(),
            needed,
            bytes,
        })
    }
}

fn within(needed: u128, bytes: usize) -> Option<usize> {
    usize::try_from(needed).ok().filter(|&n| n <= bytes)
}

/// A frame rate from 1 to [`MAX_MAX_FPS`] frames a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fps {
    num: u32,
    den: u32,
}

impl Default for Fps {
    fn default() -> Self {
        Self { num: 30, den: 1 }
    }
}

impl Fps {
    /// The rate at which a source of `num`/`den` frames a second goes out, at most `max` of them; 0/1 is a source
    /// of no certain rate.
    pub fn of_source(num: u32, den: u32, max: u32) -> Result<(Self, Fit), FormatError> {
        let max = max.clamp(1, MAX_MAX_FPS);
        if den == 0 {
            return Err(FormatError::Fps(num, den));
        }
        let whole = |fps| (Self { num: fps, den: 1 }, Fit::Convert);
        Ok(match (num, u64::from(num), u64::from(den)) {
            (0, ..) => whole(Self::default().num.min(max)),
            (_, n, d) if n < d => whole(1),
            (_, n, d) if n > d * u64::from(max) => whole(max),
            _ => (Self { num, den }, Fit::Native),
        })
    }

    /// From one frame to the next. To the nanosecond, which no clock notices: a frame in a month.
    pub fn period(self) -> Duration {
        Duration::from_nanos(u64::from(self.den) * 1_000_000_000 / u64::from(self.num))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(result: Result<impl std::fmt::Debug, FormatError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn f1_the_seven_rates_are_taken_as_they_are_and_others_are_resampled() {
        for rate in [8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000] {
            assert_eq!(audio(S16, true, rate, 1), Ok(Fit::Native), "{rate}");
        }
        for rate in [11_025, 22_050, 96_000] {
            assert_eq!(audio(S16, true, rate, 1), Ok(Fit::Convert), "{rate}");
        }
        assert_eq!(
            said(audio(S16, true, 0, 1)),
            "a sample rate of 0 Hz is not possible; 1000 to 768000 are"
        );
    }

    #[test]
    fn f1_other_samples_and_other_layouts_are_converted_and_coded_audio_is_refused() {
        let other_order = if S16 == "S16LE" { "S16BE" } else { "S16LE" };
        for format in [other_order, "F32LE", "U8"] {
            assert_eq!(audio(format, true, 48_000, 2), Ok(Fit::Convert));
        }
        assert_eq!(audio(S16, false, 48_000, 2), Ok(Fit::Convert));
        assert!(said(audio("ENCODED", true, 48_000, 2)).contains("\"ENCODED\" is no raw audio"));
        assert!(audio("", true, 48_000, 2).is_err());
    }

    #[test]
    fn f2_one_and_two_channels_are_taken_as_they_are_and_more_are_mixed() {
        let fit = |channels| audio(S16, true, 48_000, channels);
        assert_eq!((fit(1), fit(2)), (Ok(Fit::Native), Ok(Fit::Native)));
        assert_eq!((fit(3), fit(64)), (Ok(Fit::Convert), Ok(Fit::Convert)));
        assert_eq!(said(fit(0)), "0 channels are not possible; 1 to 64 are");
        assert!(fit(65).is_err());
    }

    #[test]
    fn f6_the_default_is_48000_in_stereo_and_native() {
        let fit = audio(S16, true, DEFAULT_RATE, DEFAULT_CHANNELS);
        assert_eq!(fit, Ok(Fit::Native));
        assert_eq!((DEFAULT_RATE, DEFAULT_CHANNELS), (48_000, 2));
    }

    #[test]
    fn f7_three_formats_are_taken_as_they_are_by_either_name_in_any_case() {
        for (name, format) in [
            ("yuv420p", PixelFormat::I420),
            ("I420", PixelFormat::I420),
            ("Rgb24", PixelFormat::Bgr),
            ("bgr", PixelFormat::Bgr),
            ("ARGB32", PixelFormat::Bgra),
            ("BGRA", PixelFormat::Bgra),
        ] {
            assert_eq!(PixelFormat::named(name), Some(format));
            assert_eq!(PixelFormat::named(format.name()), Some(format));
            assert_eq!(video(name, 640, 480, MAX_PIXELS), Ok(Fit::Native));
        }
        // GStreamer's own RGB is another order of bytes.
        for name in ["RGB", "ARGB", "NV12", "GRAY8"] {
            assert_eq!(video(name, 640, 480, MAX_PIXELS), Ok(Fit::Convert));
        }
        assert_eq!(
            said(video("DMA_DRM", 640, 480, MAX_PIXELS)),
            "\"DMA_DRM\" is no raw video format; I420, BGR and BGRA are taken as they are, \
             other raw formats are converted"
        );
    }

    #[test]
    fn f8_a_buffer_is_checked_against_the_size_of_the_frame() {
        assert_eq!(
            PixelFormat::Bgra.frame_in(1_228_801, 640, 480),
            Ok(1_228_800)
        );
        assert_eq!(PixelFormat::Bgr.frame_in(921_600, 640, 480), Ok(921_600));
        // Odd sizes round the colour planes up.
        assert_eq!(PixelFormat::I420.frame_in(99, 5, 3), Ok(15 + 2 * 3 * 2));
        assert_eq!(
            said(PixelFormat::I420.frame_in(26, 5, 3)),
            "a frame of 5x3 in I420 takes 27 bytes, the buffer has 26"
        );
        let odd = PixelFormat::Bgra.frame_in(usize::MAX, u32::MAX, u32::MAX);
        assert!(odd.is_err());
    }

    #[test]
    fn f9_the_number_of_pixels_is_limited_and_not_the_shape() {
        let fit = |w, h| video("I420", w, h, MAX_PIXELS);
        for (w, h) in [(1_920, 1_080), (1_080, 1_920), (4_096, 506), (1, 1)] {
            assert_eq!(fit(w, h), Ok(Fit::Native), "{w}x{h}");
        }
        assert_eq!(
            said(fit(1_921, 1_080)),
            "a frame of 1921x1080 has 2074680 pixels; at most 2073600 are allowed, whatever its shape"
        );
        assert!(said(fit(0, 1_080)).contains("at least 1"));
        assert!(fit(1, 0).is_err() && fit(u32::MAX, u32::MAX).is_err());
        assert_eq!(video("I420", 3_840, 2_160, 9_000_000), Ok(Fit::Native));
    }

    #[test]
    fn f10_one_to_thirty_frames_a_second_are_taken_as_they_are() {
        let out =
            |num, den| Fps::of_source(num, den, MAX_FPS).map(|(fps, fit)| (fps.num, fps.den, fit));
        assert_eq!(out(1, 1), Ok((1, 1, Fit::Native)));
        assert_eq!(out(30, 1), Ok((30, 1, Fit::Native)));
        assert_eq!(out(30_000, 1_001), Ok((30_000, 1_001, Fit::Native)));
        assert_eq!(out(60, 1), Ok((30, 1, Fit::Convert)));
        assert_eq!(out(1, 2), Ok((1, 1, Fit::Convert)));
        assert_eq!(out(u32::MAX, 1), Ok((30, 1, Fit::Convert)));
        // Of no certain rate.
        assert_eq!(out(0, 1), Ok((30, 1, Fit::Convert)));
        assert_eq!(
            said(out(30, 0)),
            "30/0 is no frame rate; the denominator is at least 1"
        );
        assert_eq!(Fps::default(), Fps { num: 30, den: 1 });
        assert_eq!(
            video("I420", DEFAULT_SIZE.0, DEFAULT_SIZE.1, MAX_PIXELS),
            Ok(Fit::Native)
        );
    }

    #[test]
    fn f10_a_higher_rate_may_be_configured_up_to_a_bound() {
        let out = |num, max| Fps::of_source(num, 1, max).map(|(fps, fit)| (fps.num, fit));
        assert_eq!(out(60, 60), Ok((60, Fit::Native)));
        assert_eq!(out(90, 60), Ok((60, Fit::Convert)));
        assert_eq!(out(u32::MAX, u32::MAX), Ok((240, Fit::Convert)));
        assert_eq!(out(5, 0), Ok((1, Fit::Convert)));
    }

    #[test]
    fn f11_what_is_preferred_obeys_the_same_limits() {
        assert!(video("I420", 1_921, 1_080, MAX_PIXELS).is_err());
        let (fps, fit) = Fps::of_source(31, 1, MAX_FPS).unwrap();
        assert_eq!((fps, fit), (Fps::default(), Fit::Convert));
    }

    proptest::proptest! {
        #[test]
        fn no_rate_is_without_a_period(num: u32, den in 1u32.., max: u32) {
            let (fps, _) = Fps::of_source(num, den, max).unwrap();
            proptest::prop_assert!(fps.period() <= Duration::from_secs(1));
            proptest::prop_assert!(fps.period() >= Duration::from_secs(1) / MAX_MAX_FPS - Duration::from_nanos(1));
        }
    }
}
