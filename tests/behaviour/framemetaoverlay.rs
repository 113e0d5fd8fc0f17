//! `framemetaoverlay` alone: what it draws is what the meta says, on every format, and nothing else is touched.
//!
//! The golden pictures are made anew with `UPDATE_GOLDEN=1`, and to be looked at then.

use std::{collections::BTreeSet, fs, path::PathBuf};

use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo, VideoMeta, prelude::*};
use gstrtcinference::logic::{
    detections::Detection,
    frame_facts::FrameFacts,
    palette::{Rgb, colour_of},
};
use proptest::prelude::*;

use crate::{Overheard, init};

fn found(class: &str, confidence: f32, corners: [f32; 4]) -> Detection {
    let [left, top, right, bottom] = corners;
    Detection {
        x: (left + right) / 2.0,
        y: (top + bottom) / 2.0,
        width: right - left,
        height: bottom - top,
        confidence,
        class_id: 0,
        class: class.into(),
    }
}

fn facts(results: Vec<Detection>) -> FrameFacts {
    FrameFacts {
        results: Some(results),
        ..FrameFacts::default()
    }
}

fn info(format: VideoFormat, (width, height): (u32, u32), colorimetry: &str) -> VideoInfo {
    init();
    let info = VideoInfo::builder(format, width, height).fps(gst::Fraction::new(30, 1));
    match colorimetry {
        "" => info.build(),
        colorimetry => {
            let colorimetry = colorimetry.parse().unwrap();
            info.colorimetry(&colorimetry).build()
        }
    }
    .unwrap()
}

fn harness(info: &VideoInfo) -> Harness {
    let mut harness = Harness::new("framemetaoverlay");
    harness.set_src_caps(info.to_caps().unwrap());
    harness
}

/// Grey, darker from row to row, so that a drawing moved by a row shows.
fn grey(y: usize, height: usize) -> u8 {
    (200 - 120 * y / height) as u8
}

/// A frame with nothing on it but the grey.
fn blank(info: &VideoInfo) -> gst::Buffer {
    let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
    paint_blank(buffer.get_mut().unwrap(), info);
    buffer
}

fn paint_blank(buffer: &mut gst::BufferRef, info: &VideoInfo) {
    let mut frame = VideoFrameRef::from_buffer_ref_writable(buffer, info).unwrap();
    let full = info.colorimetry().range() == gst_video::VideoColorRange::Range0_255;
    for plane in 0..info.n_planes() {
        let stride = frame.plane_stride()[plane as usize] as usize;
        let data = frame.plane_data_mut(plane).unwrap();
        for (y, row) in data.chunks_mut(stride).enumerate() {
            let level = grey(y, info.height() as usize);
            row.fill(match (info.is_yuv(), plane) {
                (true, 0) if !full => (16.0 + f32::from(level) * 219.0 / 255.0).round() as u8,
                (true, 1..) => 128,
                _ => level,
            });
        }
    }
}

fn with(mut buffer: gst::Buffer, facts: &FrameFacts) -> gst::Buffer {
    facts.write(buffer.get_mut().unwrap());
    buffer
}

/// A frame as red, green, blue, or as Y, Cb, Cr where it is one of those; chroma is the same for the pixels that share it.
#[derive(Clone, PartialEq)]
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn of(buffer: &gst::BufferRef, info: &VideoInfo) -> Picture {
        let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
        let (width, height) = (info.width() as usize, info.height() as usize);
        let component = |index: u32, x: usize, y: usize| {
            let format = info.format_info();
            let i = index as usize;
            let plane = format.plane()[i];
            let stride = frame.plane_stride()[plane as usize] as usize;
            let at = (y >> format.h_sub()[i]) * stride
                + (x >> format.w_sub()[i]) * format.pixel_stride()[i] as usize
                + format.poffset()[i] as usize;
            frame.plane_data(plane).unwrap()[at]
        };
        let pixels = (0..width * height)
            .map(|at| [0, 1, 2].map(|index| component(index, at % width, at / width)))
            .collect();
        Picture {
            width,
            height,
            pixels,
        }
    }

    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        self.pixels[y * self.width + x]
    }

    fn blank(info: &VideoInfo) -> Picture {
        Picture::of(&blank(info), info)
    }

    /// Where it is not as another one.
    fn differences(&self, other: &Picture) -> BTreeSet<(i32, i32)> {
        (0..self.pixels.len())
            .filter(|&at| self.pixels[at] != other.pixels[at])
            .map(|at| ((at % self.width) as i32, (at / self.width) as i32))
            .collect()
    }

    /// The same in Y, Cb, Cr, chroma averaged over those who share it.
    fn to_yuv(&self, info: &VideoInfo) -> Picture {
        let (kr, kb) = match info.colorimetry().matrix() {
            gst_video::VideoColorMatrix::Bt709 => (0.2126, 0.0722),
            gst_video::VideoColorMatrix::Bt601 => (0.299, 0.114),
            other => panic!("{other:?}"),
        };
        let (low, luma_scale, chroma_scale) = match info.colorimetry().range() {
            gst_video::VideoColorRange::Range0_255 => (0.0, 1.0, 1.0),
            _ => (16.0, 219.0 / 255.0, 224.0 / 255.0),
        };
        let luma = |[r, g, b]: [f32; 3]| kr * r + (1.0 - kr - kb) * g + kb * b;
        let pixels = (0..self.pixels.len()).map(|at| {
            let (x, y) = (at % self.width, at / self.width);
            let shared: Vec<_> = [(0, 0), (1, 0), (0, 1), (1, 1)]
                .into_iter()
                .map(|(dx, dy)| ((x & !1) + dx, (y & !1) + dy))
                .filter(|&(x, y)| x < self.width && y < self.height)
                .map(|(x, y)| self.at(x, y).map(f32::from))
                .collect();
            let mean: [f32; 3] = std::array::from_fn(|index| {
                shared.iter().map(|pixel| pixel[index]).sum::<f32>() / shared.len() as f32
            });
            [
                low + luma(self.at(x, y).map(f32::from)) * luma_scale,
                128.0 + (mean[2] - luma(mean)) / (2.0 * (1.0 - kb)) * chroma_scale,
                128.0 + (mean[0] - luma(mean)) / (2.0 * (1.0 - kr)) * chroma_scale,
            ]
            .map(|value| value.round().clamp(0.0, 255.0) as u8)
        });
        Picture {
            pixels: pixels.collect(),
            ..*self
        }
    }

    fn load(path: &PathBuf) -> Picture {
        let file = fs::File::open(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let mut reader = png::Decoder::new(std::io::BufReader::new(file))
            .read_info()
            .unwrap();
        let mut data = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut data).unwrap();
        assert_eq!(frame.color_type, png::ColorType::Rgb);
        Picture {
            width: frame.width as usize,
            height: frame.height as usize,
            pixels: data.as_chunks::<3>().0.to_vec(),
        }
    }

    fn save(&self, path: &PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(path).unwrap();
        let mut encoder = png::Encoder::new(file, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(self.pixels.as_flattened()).unwrap();
    }

    /// Nearly as another one: rasterised letters may differ by a rounding from one processor to the next.
    #[track_caller]
    fn assert_like(&self, expected: &Picture, what: &str) {
        assert_eq!(
            (self.width, self.height),
            (expected.width, expected.height),
            "{what}"
        );
        let far = (0..self.pixels.len())
            .filter(|&at| {
                let (a, b) = (self.pixels[at], expected.pixels[at]);
                a.iter().zip(b).any(|(&a, b)| a.abs_diff(b) > 3)
            })
            .map(|at| (at % self.width, at / self.width))
            .collect::<Vec<_>>();
        assert!(
            far.is_empty(),
            "{what}: {} pixels, first {:?}: {:?} is not {:?}",
            far.len(),
            far[0],
            self.at(far[0].0, far[0].1),
            expected.at(far[0].0, far[0].1)
        );
    }
}

/// What is drawn on a blank frame.
fn drawn(info: &VideoInfo, facts: &FrameFacts, properties: &[(&str, u32)]) -> Picture {
    let mut harness = harness(info);
    let element = harness.element().unwrap();
    for (name, value) in properties {
        match element.find_property(name).unwrap().value_type() {
            glib::Type::BOOL => element.set_property(name, *value != 0),
            _ => element.set_property(name, value),
        }
    }
    let out = harness.push_and_pull(with(blank(info), facts)).unwrap();
    Picture::of(&out, info)
}

const BARE: [(&str, u32); 3] = [("labels", 0), ("confidence", 0), ("line-width", 1)];

#[track_caller]
fn every_format_is_golden(name: &str, size: (u32, u32), facts: &FrameFacts) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/overlay")
        .join(format!("{name}.png"));
    let trail = [("trail", 1)];
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        drawn(&info(VideoFormat::Rgb, size, ""), facts, &trail).save(&path);
    }
    let golden = Picture::load(&path);
    for format in [
        VideoFormat::Rgb,
        VideoFormat::Bgr,
        VideoFormat::Rgba,
        VideoFormat::Bgra,
        VideoFormat::Rgbx,
        VideoFormat::Bgrx,
    ] {
        drawn(&info(format, size, ""), facts, &trail).assert_like(&golden, &format!("{format:?}"));
    }
    for format in [VideoFormat::I420, VideoFormat::Nv12] {
        // Both matrices, limited and full range.
        for colorimetry in ["2:4:16:4", "1:4:16:4", "2:3:5:1", "1:3:5:1"] {
            let info = info(format, size, colorimetry);
            drawn(&info, facts, &trail)
                .assert_like(&golden.to_yuv(&info), &format!("{format:?} {colorimetry}"));
        }
    }
}

/// Boxes in the middle, at the edges and over them, given in parts of the frame, with names of all kinds.
fn crowd((width, height): (u32, u32)) -> FrameFacts {
    let (w, h) = (width as f32, height as f32);
    let one = |class: &str, confidence, [left, top, right, bottom]: [f32; 4]| {
        found(
            class,
            confidence,
            [left * w, top * h, right * w, bottom * h],
        )
    };
    FrameFacts {
        frame_id: Some(812),
        result_frame_id: Some(809),
        ..facts(vec![
            one("circle", 0.91, [0.1013, 0.1507, 0.35, 0.45]),
            one("square", 1.0, [0.42, 0.02, 0.6, 0.25]),
            one("triangle", 0.505, [0.9, 0.3, 1.2, 0.55]),
            one("star", 0.75, [-0.1, 0.6, 0.12, 0.8]),
            one(
                "Fußgängerübergang, ça va? Þór Łódź čeština ľahký žltý kôň",
                0.66,
                [0.3, 0.55, 0.5, 0.7],
            ),
            one("猫 αβγ Привет", 0.33, [0.64, 0.62, 0.88, 0.9]),
            one("cross", 0.04, [0.7, 0.85, 0.9, 1.3]),
            one("arrow", 0.5, [0.67, 0.1, 0.671, 0.101]),
        ])
    }
}

#[test]
fn every_format_shows_the_same_at_96x96() {
    let facts = FrameFacts {
        frame_id: Some(812),
        ..facts(vec![
            found("circle", 0.91, [8.0, 15.0, 50.0, 48.0]),
            found("heart", 0.7, [61.0, 43.0, 120.0, 71.0]),
        ])
    };
    every_format_is_golden("96x96", (96, 96), &facts);
}

#[test]
fn every_format_shows_the_same_at_640x480() {
    every_format_is_golden("640x480", (640, 480), &crowd((640, 480)));
}

#[test]
fn every_format_shows_the_same_at_1920x1080() {
    every_format_is_golden("1920x1080", (1920, 1080), &crowd((1920, 1080)));
}

#[test]
fn every_format_shows_the_same_at_an_odd_size() {
    every_format_is_golden("161x121", (161, 121), &crowd((161, 121)));
}

/// The pixels of a line of one pixel around what `left..right` and `top..bottom` hold, as far as the frame has them.
fn edge(corners: [i32; 4], (width, height): (u32, u32)) -> BTreeSet<(i32, i32)> {
    let [left, top, right, bottom] = corners;
    let across = (left..right).flat_map(|x| [(x, top), (x, bottom - 1)]);
    let down = (top..bottom).flat_map(|y| [(left, y), (right - 1, y)]);
    across
        .chain(down)
        .filter(|&(x, y)| (0..width as i32).contains(&x) && (0..height as i32).contains(&y))
        .collect()
}

#[test]
fn a_box_is_drawn_on_its_very_pixels() {
    let size = (64, 48);
    let info = info(VideoFormat::Rgb, size, "");
    for corners in [
        [10, 8, 40, 30],
        [0, 0, 64, 48],
        [63, 47, 64, 48],
        [-5, 11, 13, 60],
        [20, -9, 90, 21],
    ] {
        let facts = facts(vec![found("circle", 0.9, corners.map(|v| v as f32))]);
        let picture = drawn(&info, &facts, &BARE);
        assert_eq!(
            picture.differences(&Picture::blank(&info)),
            edge(corners, size),
            "{corners:?}"
        );
        let Rgb(red, green, blue) = colour_of("circle");
        for (x, y) in edge(corners, size) {
            assert_eq!(picture.at(x as usize, y as usize), [red, green, blue]);
        }
    }
}

#[test]
fn results_of_a_larger_frame_are_scaled() {
    let size = (64, 48);
    let info = info(VideoFormat::Rgb, size, "");
    let facts = FrameFacts {
        width: Some(640),
        height: Some(96),
        ..facts(vec![found("circle", 0.9, [100.0, 20.0, 400.0, 60.0])])
    };
    assert_eq!(
        drawn(&info, &facts, &BARE).differences(&Picture::blank(&info)),
        edge([10, 10, 40, 30], size)
    );
}

#[test]
fn results_find_their_places_behind_a_scaler() {
    init();
    let info = info(VideoFormat::Rgb, (128, 96), "");
    let mut harness = Harness::new_parse(
        "videoscale ! video/x-raw,width=64,height=48 ! framemetaoverlay labels=false confidence=false line-width=1",
    );
    harness.set_src_caps(info.to_caps().unwrap());
    let facts = FrameFacts {
        width: Some(128),
        height: Some(96),
        ..facts(vec![found("circle", 0.9, [20.0, 16.0, 80.0, 60.0])])
    };
    let out = harness.push_and_pull(with(blank(&info), &facts)).unwrap();
    let small = self::info(VideoFormat::Rgb, (64, 48), "");
    let picture = Picture::of(&out, &small);
    let Rgb(red, green, blue) = colour_of("circle");
    let of_class = (0..64 * 48)
        .map(|at| (at % 64, at / 64))
        .filter(|&(x, y)| picture.at(x as usize, y as usize) == [red, green, blue])
        .collect();
    assert_eq!(edge([10, 8, 40, 30], (64, 48)), of_class);
}

#[test]
fn a_frame_with_nothing_to_draw_passes_as_it_is() {
    let info = info(VideoFormat::I420, (64, 48), "");
    let mut harness = harness(&info);
    let nothing = [
        None,
        Some(FrameFacts {
            frame_id: Some(1),
            ..FrameFacts::default()
        }),
        Some(facts(vec![])),
        Some(facts(vec![found(
            "circle",
            0.9,
            [100.0, 100.0, 120.0, 120.0],
        )])),
    ];
    for facts in nothing {
        let mut buffer = gst::Buffer::from_slice(vec![7; info.size()]);
        if let Some(facts) = &facts {
            buffer = with(buffer, facts);
        }
        let held = buffer.clone();
        let out = harness.push_and_pull(buffer).unwrap();
        assert_eq!(out.as_ptr(), held.as_ptr(), "{facts:?}");
        assert_eq!(FrameFacts::read(&out), facts.unwrap_or_default());
    }
}

#[test]
fn a_frame_with_nothing_to_draw_is_not_mapped_for_writing() {
    let info = info(VideoFormat::I420, (64, 48), "");
    let mut harness = harness(&info);
    let buffer = gst::Buffer::from_slice(vec![7; info.size()]);
    // Memory of two buffers is copied by whoever maps it for writing.
    let other = buffer.copy();
    let out = harness.push_and_pull(with(buffer, &facts(vec![]))).unwrap();
    assert_eq!(out.peek_memory(0).as_ptr(), other.peek_memory(0).as_ptr());
}

#[test]
fn frames_pass_or_are_drawn_on_each_for_itself() {
    let info = info(VideoFormat::Rgb, (64, 48), "");
    let mut harness = harness(&info);
    let some = facts(vec![found("circle", 0.9, [10.0, 8.0, 40.0, 30.0])]);
    for draws in [true, false, false, true, false, true] {
        let facts = if draws { some.clone() } else { facts(vec![]) };
        let held = with(blank(&info), &facts);
        let out = harness.push_and_pull(held.clone()).unwrap();
        assert_eq!(out.as_ptr() != held.as_ptr(), draws);
        assert_eq!(Picture::of(&out, &info) != Picture::blank(&info), draws);
    }
}

#[test]
fn a_frame_of_ours_alone_is_drawn_on_where_it_lies_and_keeps_its_meta() {
    let info = info(VideoFormat::I420, (64, 48), "");
    let mut harness = harness(&info);
    let facts = facts(vec![found("circle", 0.9, [10.0, 8.0, 40.0, 30.0])]);
    let buffer = with(blank(&info), &facts);
    let (buffer_was, memory_was) = (buffer.as_ptr(), buffer.peek_memory(0).as_ptr());
    let out = harness.push_and_pull(buffer).unwrap();
    assert_eq!(
        (out.as_ptr(), out.peek_memory(0).as_ptr()),
        (buffer_was, memory_was)
    );
    assert!(Picture::of(&out, &info) != Picture::blank(&info));
    assert_eq!(FrameFacts::read(&out), facts);
}

#[test]
fn a_frame_somebody_else_holds_stays_as_it_was() {
    let info = info(VideoFormat::I420, (64, 48), "");
    let mut harness = harness(&info);
    let facts = facts(vec![found("circle", 0.9, [10.0, 8.0, 40.0, 30.0])]);
    let held = with(blank(&info), &facts);
    // Another buffer with the same memory is a holder too.
    for (buffer, holder) in [(held.clone(), &held), (held.copy(), &held)] {
        let out = harness.push_and_pull(buffer).unwrap();
        assert!(Picture::of(holder, &info) == Picture::blank(&info));
        assert!(Picture::of(&out, &info) != Picture::blank(&info));
        assert_eq!(FrameFacts::read(&out), facts);
    }
}

#[test]
fn strides_and_offsets_of_the_frame_are_kept_to() {
    for format in [
        VideoFormat::I420,
        VideoFormat::Nv12,
        VideoFormat::Rgb,
        VideoFormat::Bgra,
    ] {
        let size = (63, 47);
        let info = info(format, size, "");
        let strides: Vec<i32> = info.stride().iter().map(|stride| stride + 13).collect();
        let mut offsets = Vec::new();
        let mut end = 5;
        for (plane, stride) in strides.iter().enumerate() {
            offsets.push(end);
            let rows = if plane == 0 { 47 } else { 24 };
            end += *stride as usize * rows + 7;
        }
        let mut buffer = gst::Buffer::with_size(end).unwrap();
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.map_writable().unwrap().fill(1);
            VideoMeta::add_full(
                buffer,
                gst_video::VideoFrameFlags::empty(),
                format,
                size.0,
                size.1,
                &offsets,
                &strides,
            )
            .unwrap();
            paint_blank(buffer, &info);
        }
        let before = buffer.map_readable().unwrap().to_vec();
        let out = harness(&info)
            .push_and_pull(with(buffer, &crowd(size)))
            .unwrap();
        assert!(
            Picture::of(&out, &info) == drawn(&info, &crowd(size), &[]),
            "{format:?}"
        );
        // What lies between rows and planes is not part of the frame.
        let after = out.map_readable().unwrap();
        for (plane, stride) in strides.iter().enumerate() {
            let rows = if plane == 0 { 47 } else { 24 };
            let bytes = match (format, plane) {
                (VideoFormat::I420, 1..) => 32,
                (VideoFormat::Nv12, 1) => 64,
                (VideoFormat::Rgb, _) => 63 * 3,
                (VideoFormat::Bgra, _) => 63 * 4,
                _ => 63,
            };
            for row in 0..rows {
                let start = offsets[plane] + row * *stride as usize;
                let between = start + bytes..start + *stride as usize;
                assert_eq!(
                    after[between.clone()],
                    before[between],
                    "{format:?} {plane} {row}"
                );
            }
        }
    }
}

#[test]
fn opaque_is_what_is_drawn_on_a_transparent_frame() {
    let info = info(VideoFormat::Rgba, (64, 48), "");
    let mut harness = harness(&info);
    let facts = facts(vec![found("circle", 0.9, [10.0, 8.0, 40.0, 30.0])]);
    let buffer = gst::Buffer::from_slice(vec![0; info.size()]);
    let out = harness.push_and_pull(with(buffer, &facts)).unwrap();
    let data = out.map_readable().unwrap();
    let alphas: BTreeSet<u8> = data
        .as_chunks::<4>()
        .0
        .iter()
        .map(|pixel| pixel[3])
        .collect();
    assert_eq!(alphas, [0, 255].into());
    let alpha = |x: usize, y: usize| data[(y * 64 + x) * 4 + 3];
    assert_eq!((alpha(39, 28), alpha(40, 28)), (255, 0));
}

#[test]
fn properties_hold_from_the_next_frame_on() {
    let info = info(VideoFormat::Rgb, (640, 480), "");
    let mut harness = harness(&info);
    let element = harness.element().unwrap();
    let facts = FrameFacts {
        frame_id: Some(812),
        ..facts(vec![found("circle", 0.91, [100.0, 100.0, 300.0, 300.0])])
    };
    let mut draw = || {
        let out = harness.push_and_pull(with(blank(&info), &facts)).unwrap();
        Picture::of(&out, &info).differences(&Picture::blank(&info))
    };
    let count = |pixels: &BTreeSet<(i32, i32)>, [left, top, right, bottom]: [i32; 4]| {
        pixels
            .iter()
            .filter(|&&(x, y)| (left..right).contains(&x) && (top..bottom).contains(&y))
            .count() as i32
    };
    let label = |pixels: &_| count(pixels, [0, 0, 640, 100]);
    let corner = |pixels: &_| count(pixels, [0, 400, 640, 480]);
    let lines = |pixels: &_| count(pixels, [0, 100, 640, 400]);

    let auto = draw();
    assert_eq!(lines(&auto), 200 * 200 - 196 * 196);
    assert!(label(&auto) > 0);
    assert_eq!(corner(&auto), 0);
    element.set_property("line-width", 10u32);
    assert_eq!(lines(&draw()), 200 * 200 - 180 * 180);
    element.set_property("text-height", 32u32);
    assert!(label(&draw()) > 3 * label(&auto));
    element.set_property("text-height", 0u32);
    element.set_property("confidence", false);
    let name = label(&draw());
    assert!((1..label(&auto)).contains(&name));
    element.set_property("labels", false);
    assert_eq!(label(&draw()), 0);
    element.set_property("confidence", true);
    let percent = label(&draw());
    assert!((1..name).contains(&percent));
    element.set_property("trail", true);
    assert!(corner(&draw()) > 0);
}

#[test]
fn the_time_since_arrival_is_told_where_it_is_known() {
    let info = info(VideoFormat::Rgb, (640, 480), "");
    let width = |arrival_time| {
        let facts = FrameFacts {
            frame_id: Some(812),
            arrival_time,
            ..FrameFacts::default()
        };
        let pixels = drawn(&info, &facts, &[("trail", 1)]).differences(&Picture::blank(&info));
        pixels.iter().map(|(x, _)| x + 1).max().unwrap_or(0)
    };
    let hundred_years = 3_155_760_000 * 1_000_000_000;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    assert!(width(None) > 0);
    assert!(width(Some(now)) > width(None));
    assert!(width(Some(0)) > width(Some(now)));
    assert_eq!(width(Some(now + hundred_years)), width(None));
}

#[test]
fn a_buffer_that_is_no_frame_passes_undrawn() {
    let info = info(VideoFormat::I420, (64, 48), "");
    let mut harness = harness(&info);
    let bus = Overheard::of(&harness.element().unwrap());
    let facts = facts(vec![found("circle", 0.9, [10.0, 8.0, 40.0, 30.0])]);
    let short = gst::Buffer::from_slice(vec![7; 100]);
    let out = harness.push_and_pull(with(short, &facts)).unwrap();
    assert_eq!(*out.map_readable().unwrap(), [7; 100]);
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_none());
}

#[test]
fn upstream_gets_the_pool_of_downstream() {
    init();
    let mut harness = Harness::new("framemetaoverlay");
    harness.add_propose_allocation_meta(VideoMeta::meta_api(), None);
    let caps = info(VideoFormat::I420, (64, 48), "").to_caps().unwrap();
    harness.set_src_caps(caps.clone());
    let mut query = gst::query::Allocation::new(Some(&caps), false);
    assert!(harness.srcpad().unwrap().peer_query(query.query_mut()));
    assert!(query.find_allocation_meta::<VideoMeta>().is_some());
}

fn any_number() -> impl Strategy<Value = f32> {
    prop_oneof![
        prop::num::f32::ANY,
        -50f32..150.0,
        Just(f32::NAN),
        Just(f32::INFINITY),
        Just(f32::NEG_INFINITY),
        Just(f32::MAX),
        Just(f32::MIN_POSITIVE),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_the_meta_says_frames_come_through(
        boxes in prop::collection::vec(
            ((any_number(), any_number()), (any_number(), any_number()), any_number(), "\\PC{0,20}|.{0,20}"), 0..6),
        then in (any::<Option<i32>>(), any::<Option<i32>>()),
        size in (1u32..70, 1u32..70),
        style in (0u32..257, 0u32..257, any::<bool>(), any::<bool>()),
        format in prop::sample::select(vec![VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Rgb, VideoFormat::Bgrx]),
    ) {
        let info = info(format, size, "");
        let mut harness = harness(&info);
        let element = harness.element().unwrap();
        element.set_property("line-width", style.0);
        element.set_property("text-height", style.1);
        element.set_property("labels", style.2);
        element.set_property("trail", style.3);
        let results = boxes.into_iter()
            .map(|((x, y), (width, height), confidence, class)| Detection {
                x, y, width, height, confidence, class_id: 3,
                // A string of GObject ends at its first zero.
                class: class.replace('\0', "").into(),
            })
            .collect();
        let facts = FrameFacts {
            width: then.0,
            height: then.1,
            frame_id: Some(u64::MAX),
            ..facts(results)
        };
        prop_assert_eq!(harness.push(with(blank(&info), &facts)), Ok(gst::FlowSuccess::Ok));
        prop_assert_eq!(harness.pull().unwrap().size(), info.size());
    }
}
