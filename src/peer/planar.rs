//! RGB pictures as encoders want them, several times faster than by videoconvert, which converts each pixel by itself.

use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoColorMatrix, VideoColorRange, VideoFormat, VideoFrameRef, VideoInfo};
use yuv::{
    BufferStoreMut, YuvConversionMode, YuvError, YuvPlanarImageMut, YuvRange, YuvStandardMatrix,
};

/// From one form of RGB to I420 of the same size.
pub struct Planar {
    from: VideoInfo,
    to: VideoInfo,
    caps: gst::Caps,
    matrix: YuvStandardMatrix,
    convert: Convert,
    pool: gst::BufferPool,
}

/// Why a picture cannot be converted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unfit {
    #[error("a frame of {found} bytes is shorter than the {needed} that its caps say")]
    TooShort { found: usize, needed: usize },
    #[error("the memory of a frame cannot be read")]
    Unreadable,
    #[error("there is no buffer for a frame: {0}")]
    NoBuffer(gst::FlowError),
}

type Convert = fn(
    &mut YuvPlanarImageMut<u8>,
    &[u8],
    u32,
    YuvRange,
    YuvStandardMatrix,
    YuvConversionMode,
) -> Result<(), YuvError>;

impl Planar {
    /// `None` for what is left to videoconvert.
    pub fn new(caps: &gst::Caps) -> Option<Self> {
        let from = VideoInfo::from_caps(caps).ok()?;
        let convert: Convert = match from.format() {
            VideoFormat::Rgb => yuv::rgb_to_yuv420,
            VideoFormat::Bgr => yuv::bgr_to_yuv420,
            VideoFormat::Rgba | VideoFormat::Rgbx => yuv::rgba_to_yuv420,
            VideoFormat::Bgra | VideoFormat::Bgrx => yuv::bgra_to_yuv420,
            _ => return None,
        };
        // Half the range is to be stretched, which is not done here.
        let limited = from.colorimetry().range() == VideoColorRange::Range16_235;
        if from.is_interlaced() || limited {
            return None;
        }
        // Its colorimetry is the usual one of its size, which videoconvert would take as well.
        let to = VideoInfo::builder(VideoFormat::I420, from.width(), from.height())
            .fps(from.fps())
            .par(from.par())
            .build()
            .ok()?;
        let matrix = match to.colorimetry().matrix() {
            VideoColorMatrix::Bt709 => YuvStandardMatrix::Bt709,
            VideoColorMatrix::Bt601 => YuvStandardMatrix::Bt601,
            _ => return None,
        };
        let caps = to.to_caps().ok()?;
        let pool: gst::BufferPool = gst_video::VideoBufferPool::new().upcast();
        let mut config = pool.config();
        // An encoder gives back what it has seen; how many it looks at is its affair.
        config.set_params(Some(&caps), to.size() as u32, 1, 0);
        pool.set_config(config).ok()?;
        pool.set_active(true).ok()?;
        Some(Self {
            from,
            to,
            caps,
            matrix,
            convert,
            pool,
        })
    }

    /// What comes out.
    pub fn caps(&self) -> &gst::Caps {
        &self.caps
    }

    /// Keeps times and flags, and nothing else that is known of the picture.
    pub fn convert(&self, picture: &gst::Buffer) -> Result<gst::Buffer, Unfit> {
        let mut converted = self.pool.acquire_buffer(None).map_err(Unfit::NoBuffer)?;
        {
            let converted = converted.make_mut();
            let kept = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS;
            picture
                .copy_into(converted, kept, ..)
                .map_err(|_| Unfit::Unreadable)?;
            let from = VideoFrameRef::from_buffer_ref_readable(picture, &self.from);
            let from = from.map_err(|_| self.too_short(picture))?;
            let mut to = VideoFrameRef::from_buffer_ref_writable(converted, &self.to)
                .map_err(|_| Unfit::Unreadable)?;
            let stride = from.plane_stride()[0] as u32;
            let pixels = from.plane_data(0).map_err(|_| Unfit::Unreadable)?;
            let [y_stride, u_stride, v_stride] = [0, 1, 2].map(|i| to.plane_stride()[i] as u32);
            let [y, u, v, _] = to.planes_data_mut();
            let mut image = YuvPlanarImageMut {
                y_plane: BufferStoreMut::Borrowed(y),
                y_stride,
                u_plane: BufferStoreMut::Borrowed(u),
                u_stride,
                v_plane: BufferStoreMut::Borrowed(v),
                v_stride,
                width: self.to.width(),
                height: self.to.height(),
            };
            let mode = YuvConversionMode::default();
            (self.convert)(
                &mut image,
                pixels,
                stride,
                YuvRange::Limited,
                self.matrix,
                mode,
            )
            .map_err(|_| self.too_short(picture))?;
        }
        Ok(converted)
    }

    fn too_short(&self, picture: &gst::Buffer) -> Unfit {
        let (found, needed) = (picture.size(), self.from.size());
        match found < needed {
            true => Unfit::TooShort { found, needed },
            false => Unfit::Unreadable,
        }
    }
}

impl Drop for Planar {
    fn drop(&mut self) {
        // What is out comes back later, and is let go then.
        let _ = self.pool.set_active(false);
    }
}

#[cfg(test)]
mod tests {
    use gst_video::{VideoColorPrimaries, VideoColorimetry, VideoTransferFunction};

    use super::*;

    fn converted_by_videoconvert(
        caps: &gst::Caps,
        picture: &gst::Buffer,
        to: &gst::Caps,
    ) -> gst::Buffer {
        let sample = gst::Sample::builder().buffer(picture).caps(caps).build();
        let timeout = gst::ClockTime::from_seconds(10);
        let converted = gst_video::convert_sample(&sample, to, Some(timeout)).unwrap();
        converted.buffer_owned().unwrap()
    }

    /// Colours that change slowly, so that it does not matter how neighbours share one.
    fn gradient(info: &VideoInfo) -> gst::Buffer {
        let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
        let at = buffer.get_mut().unwrap();
        at.set_pts(gst::ClockTime::SECOND);
        at.set_flags(gst::BufferFlags::GAP);
        let mut frame = VideoFrameRef::from_buffer_ref_writable(at, info).unwrap();
        let (stride, bytes) = (
            info.stride()[0] as usize,
            info.format_info().pixel_stride()[0] as usize,
        );
        let (width, height) = (info.width() as usize, info.height() as usize);
        let rows = frame.plane_data_mut(0).unwrap();
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            for byte in 0..bytes {
                rows[y * stride + x * bytes + byte] =
                    [x * 255 / width, y * 255 / height, 255 - x * 200 / width, 77][byte] as u8;
            }
        }
        drop(frame);
        buffer
    }

    #[test]
    fn pictures_are_those_of_videoconvert() {
        gst::init().unwrap();
        let formats = [
            VideoFormat::Rgb,
            VideoFormat::Bgr,
            VideoFormat::Rgba,
            VideoFormat::Bgra,
            VideoFormat::Rgbx,
            VideoFormat::Bgrx,
        ];
        // BT.601, also where sides are odd, and BT.709.
        let sizes = [(640, 480), (321, 241), (1280, 720)];
        for (format, (width, height)) in formats.into_iter().flat_map(|f| sizes.map(|s| (f, s))) {
            let info = VideoInfo::builder(format, width, height).build().unwrap();
            let caps = info.to_caps().unwrap();
            let planar = Planar::new(&caps).unwrap();
            let picture = gradient(&info);
            let ours = planar.convert(&picture).unwrap();
            let kept = (ours.pts(), ours.flags().contains(gst::BufferFlags::GAP));
            assert_eq!(kept, (Some(gst::ClockTime::SECOND), true));
            let theirs = converted_by_videoconvert(&caps, &picture, planar.caps());
            let planes = [&ours, &theirs]
                .map(|b| VideoFrameRef::from_buffer_ref_readable(b, &planar.to).unwrap());
            for plane in 0..3_usize {
                let (w, h) = match plane {
                    0 => (width, height),
                    _ => (width.div_ceil(2), height.div_ceil(2)),
                };
                let [a, b] = [0, 1].map(|i| planes[i].plane_data(plane as u32).unwrap());
                let stride = planar.to.stride()[plane] as usize;
                // What the last column and row are made of where sides are odd is a matter of taste.
                let (w, h) = ((w - width % 2) as usize, (h - height % 2) as usize);
                for (x, y) in (0..h).flat_map(|y| (0..w).map(move |x| (x, y))) {
                    let off = a[y * stride + x].abs_diff(b[y * stride + x]);
                    assert!(
                        off <= 2,
                        "{format:?} {width}x{height}, plane {plane} at {x},{y}: {off}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_rgb_is_left_to_videoconvert() {
        gst::init().unwrap();
        for format in [VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Gray8] {
            let info = VideoInfo::builder(format, 64, 48).build().unwrap();
            assert!(Planar::new(&info.to_caps().unwrap()).is_none());
        }
        let half = VideoColorimetry::new(
            VideoColorRange::Range16_235,
            VideoColorMatrix::Rgb,
            VideoTransferFunction::Srgb,
            VideoColorPrimaries::Bt709,
        );
        let info = VideoInfo::builder(VideoFormat::Bgr, 64, 48).colorimetry(&half);
        assert!(Planar::new(&info.build().unwrap().to_caps().unwrap()).is_none());
        assert!(Planar::new(&gst::Caps::new_empty_simple("video/x-vp8")).is_none());
    }

    #[test]
    fn a_picture_that_is_too_small_is_refused() {
        gst::init().unwrap();
        let info = VideoInfo::builder(VideoFormat::Bgr, 64, 48)
            .build()
            .unwrap();
        let planar = Planar::new(&info.to_caps().unwrap()).unwrap();
        let small = gst::Buffer::with_size(info.size() - 1).unwrap();
        let (found, needed) = (info.size() - 1, info.size());
        assert_eq!(
            planar.convert(&small),
            Err(Unfit::TooShort { found, needed })
        );
    }
}
