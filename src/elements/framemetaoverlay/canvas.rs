//! Draws on the planes of a frame where they lie. Packed and planar formats, whole and halved chroma all are planes of
//! samples with a few bytes each, so all are drawn by the same code.
//!
//! Trusts nobody about lengths: what a plane does not have is not drawn.

use std::ops::Range;

use super::glyphs::Glyph;
use crate::logic::{overlay::Rect, palette::Rgb};

pub struct Canvas<'a> {
    /// Pixels.
    pub width: u32,
    pub height: u32,
    pub planes: Vec<Plane<'a>>,
    /// What the numbers mean where they are not red, green and blue.
    pub yuv: Yuv,
}

pub struct Plane<'a> {
    pub data: &'a mut [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Whether a sample stands for two by two pixels, rather than for one.
    pub halved: bool,
    /// What each byte of a sample is: one to four of them.
    pub sample: &'static [Channel],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Red,
    Green,
    Blue,
    /// Alpha, or a byte that is not looked at.
    Opaque,
    Luma,
    Cb,
    Cr,
}

/// What Y, Cb and Cr mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yuv {
    /// The parts of red and of blue in luma.
    pub kr: f32,
    pub kb: f32,
    /// Luma 16 to 235 and chroma 16 to 240, rather than all from 0 to 255.
    pub limited: bool,
}

impl Canvas<'_> {
    /// Paints what is in `outer` and not in `inner`.
    pub fn ring(&mut self, outer: Rect, inner: Rect, colour: Rgb) {
        let outer = outer.intersection(&self.area());
        let inner = inner.intersection(&outer);
        if outer.is_empty() {
            return;
        }
        self.each(colour, |plane, grid, value| {
            plane.ring(grid, outer, inner, value);
        });
    }

    pub fn fill(&mut self, area: Rect, colour: Rgb) {
        self.ring(area, Rect::default(), colour);
    }

    /// Paints a letter of a line of text that begins at `at`, as far as it lies in `within`.
    pub fn letter(&mut self, glyph: &Glyph, at: (i32, i32), within: Rect, colour: Rgb) {
        if glyph.width == 0 {
            return;
        }
        let (left, top) = (at.0 + glyph.left, at.1 + glyph.top);
        let area = Rect {
            left,
            top,
            right: left + glyph.width as i32,
            bottom: top + (glyph.coverage.len() / glyph.width) as i32,
        };
        let seen = area.intersection(&within).intersection(&self.area());
        if seen.is_empty() {
            return;
        }
        self.each(colour, |plane, grid, value| {
            plane.letter(grid, glyph, (left, top), seen, value);
        });
    }

    fn area(&self) -> Rect {
        let whole = |side: u32| i32::try_from(side).unwrap_or(0);
        Rect {
            left: 0,
            top: 0,
            right: whole(self.width),
            bottom: whole(self.height),
        }
    }

    fn each(&mut self, colour: Rgb, mut draw: impl FnMut(&mut Plane, Grid, &[u8])) {
        let area = self.area();
        for plane in &mut self.planes {
            let mut value = [0; 4];
            for (byte, &channel) in value.iter_mut().zip(plane.sample) {
                *byte = self.yuv.of(colour, channel);
            }
            let grid = Grid {
                across: Axis::new(area.right, plane.halved),
                down: Axis::new(area.bottom, plane.halved),
            };
            draw(plane, grid, &value[..plane.sample.len().min(4)]);
        }
    }
}

impl Yuv {
    fn of(&self, Rgb(red, green, blue): Rgb, channel: Channel) -> u8 {
        let [r, g, b] = [red, green, blue].map(f32::from);
        let luma = self.kr * r + (1.0 - self.kr - self.kb) * g + self.kb * b;
        let chroma = |distance: f32| {
            let scale = if self.limited { 224.0 / 255.0 } else { 1.0 };
            (128.0 + distance * scale).round() as u8
        };
        match channel {
            Channel::Red => red,
            Channel::Green => green,
            Channel::Blue => blue,
            Channel::Opaque => 255,
            Channel::Luma if self.limited => (16.0 + luma * 219.0 / 255.0).round() as u8,
            Channel::Luma => luma.round() as u8,
            Channel::Cb => chroma((b - luma) / (2.0 * (1.0 - self.kb))),
            Channel::Cr => chroma((r - luma) / (2.0 * (1.0 - self.kr))),
        }
    }
}

/// How samples lie over pixels.
#[derive(Clone, Copy)]
struct Grid {
    across: Axis,
    down: Axis,
}

#[derive(Clone, Copy)]
struct Axis {
    /// Pixels.
    length: i32,
    /// 1 where a sample stands for two pixels.
    shift: u32,
}

impl Axis {
    fn new(length: i32, halved: bool) -> Axis {
        Axis {
            length,
            shift: u32::from(halved),
        }
    }

    /// The samples that stand for any of these pixels.
    fn touched(&self, pixels: &Range<i32>) -> Range<usize> {
        let end = pixels.end + (1 << self.shift) - 1;
        (pixels.start >> self.shift) as usize..(end >> self.shift) as usize
    }

    /// The samples that stand for these pixels and no others.
    fn whole(&self, pixels: &Range<i32>) -> Range<usize> {
        let start = pixels.start + (1 << self.shift) - 1;
        let end = match pixels.end {
            // The last one may stand for one pixel only.
            end if end == self.length => self.touched(pixels).end,
            end => (end >> self.shift) as usize,
        };
        (start >> self.shift) as usize..end
    }

    /// The pixels that a sample stands for.
    fn pixels(&self, sample: usize) -> Range<i32> {
        let start = (sample as i32) << self.shift;
        start..(start + (1 << self.shift)).min(self.length)
    }
}

fn overlap(a: &Range<i32>, b: &Range<i32>) -> i32 {
    (a.end.min(b.end) - a.start.max(b.start)).max(0)
}

impl Plane<'_> {
    /// `outer` lies in the frame, `inner` in `outer`.
    fn ring(&mut self, grid: Grid, outer: Rect, inner: Rect, value: &[u8]) {
        let (outer_x, outer_y) = (outer.left..outer.right, outer.top..outer.bottom);
        let (inner_x, inner_y) = (inner.left..inner.right, inner.top..inner.bottom);
        let columns = grid.across.touched(&outer_x);
        let whole = grid.across.whole(&outer_x);
        let broken = grid.across.touched(&inner_x);
        for row in grid.down.touched(&outer_y) {
            let Some(line) = self.row(row) else {
                return;
            };
            let pixels = grid.down.pixels(row);
            let rows = overlap(&pixels, &outer_y);
            let free_rows = match inner.is_empty() {
                true => 0,
                false => overlap(&pixels, &inner_y),
            };
            // From left to right: samples on the edge, solid ones up to `near`, on the edge, those in `free` that nothing
            // covers, on the edge, solid ones from `far` on, on the edge. All but the outermost may be none.
            let (near, far) = match free_rows {
                0 => (whole.end, whole.end),
                _ => (broken.start.max(whole.start), broken.end.min(whole.end)),
            };
            let free = match free_rows == pixels.end - pixels.start {
                true => grid.across.whole(&inner_x),
                false => near..near,
            };
            for run in [
                columns.start..whole.start,
                near..free.start,
                free.end..far,
                whole.end..columns.end,
            ] {
                for sample in run {
                    let at = grid.across.pixels(sample);
                    let covered =
                        rows * overlap(&at, &outer_x) - free_rows * overlap(&at, &inner_x);
                    blend(line, sample, value, share(covered, &at, &pixels));
                }
            }
            let solid = share(rows, &(0..1), &pixels);
            fill(line, whole.start..near, value, solid);
            fill(line, far..whole.end, value, solid);
        }
    }

    /// `seen` lies in the frame and in the letter, whose first pixel is at `left` and `top`.
    fn letter(
        &mut self,
        grid: Grid,
        glyph: &Glyph,
        (left, top): (i32, i32),
        seen: Rect,
        value: &[u8],
    ) {
        let (seen_x, seen_y) = (seen.left..seen.right, seen.top..seen.bottom);
        for row in grid.down.touched(&seen_y) {
            let Some(line) = self.row(row) else {
                return;
            };
            let rows = grid.down.pixels(row);
            if grid.across.shift == 0 {
                let first = (rows.start - top) as usize * glyph.width;
                let skipped = (seen.left - left) as usize;
                let covered = &glyph.coverage[first + skipped..];
                // Most of a letter's rectangle is not letter.
                for (sample, &covered) in grid.across.touched(&seen_x).zip(covered) {
                    if covered > 0 {
                        blend(line, sample, value, covered.into());
                    }
                }
                continue;
            }
            let rows_seen = rows.start.max(seen.top)..rows.end.min(seen.bottom);
            for sample in grid.across.touched(&seen_x) {
                let columns = grid.across.pixels(sample);
                let columns_seen = columns.start.max(seen.left)..columns.end.min(seen.right);
                let mut sum = 0;
                for y in rows_seen.clone() {
                    let first = (y - top) as usize * glyph.width;
                    for x in columns_seen.clone() {
                        sum += u32::from(glyph.coverage[first + (x - left) as usize]);
                    }
                }
                if sum > 0 {
                    let area = (rows.end - rows.start) * (columns.end - columns.start);
                    blend(line, sample, value, sum / area as u32);
                }
            }
        }
    }

    /// As much of a row as the plane has.
    fn row(&mut self, row: usize) -> Option<&mut [u8]> {
        let start = row.checked_mul(self.stride)?;
        let rest = self.data.get_mut(start..)?;
        let end = rest.len().min(self.stride);
        Some(&mut rest[..end])
    }
}

/// How much of a sample is covered, 0 to 255, where that many of its pixels are.
fn share(covered: i32, columns: &Range<i32>, rows: &Range<i32>) -> u32 {
    let area = (columns.end - columns.start) * (rows.end - rows.start);
    (covered * 255 / area) as u32
}

fn fill(line: &mut [u8], samples: Range<usize>, value: &[u8], share: u32) {
    if share < 255 {
        for sample in samples {
            blend(line, sample, value, share);
        }
        return;
    }
    let start = samples.start * value.len();
    let end = (samples.end * value.len()).min(line.len());
    let Some(run) = line.get_mut(start..end) else {
        return;
    };
    match *value {
        [a] => run.fill(a),
        [a, b] => run.as_chunks_mut().0.fill([a, b]),
        [a, b, c] => run.as_chunks_mut().0.fill([a, b, c]),
        [a, b, c, d] => run.as_chunks_mut().0.fill([a, b, c, d]),
        _ => {}
    }
}

/// Moves a sample towards `value`: at 0 it stays, at 255 it is that.
fn blend(line: &mut [u8], sample: usize, value: &[u8], share: u32) {
    let start = sample * value.len();
    let Some(sample) = line.get_mut(start..start + value.len()) else {
        return;
    };
    for (byte, &value) in sample.iter_mut().zip(value) {
        let sum = u32::from(*byte) * (255 - share) + u32::from(value) * share;
        *byte = ((sum + 127) / 255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BT601: Yuv = Yuv {
        kr: 0.299,
        kb: 0.114,
        limited: true,
    };

    fn plane<'a>(data: &'a mut [u8], stride: usize, sample: &'static [Channel]) -> Plane<'a> {
        Plane {
            data,
            stride,
            halved: matches!(sample[0], Channel::Cb),
            sample,
        }
    }

    fn canvas(width: u32, height: u32, plane: Plane) -> Canvas {
        Canvas {
            width,
            height,
            planes: vec![plane],
            yuv: BT601,
        }
    }

    #[test]
    fn colours_are_those_of_the_matrix_and_range() {
        let of = |yuv: Yuv, colour| {
            [Channel::Luma, Channel::Cb, Channel::Cr].map(|channel| yuv.of(colour, channel))
        };
        let (red, white) = (Rgb(255, 0, 0), Rgb(255, 255, 255));
        let full = Yuv {
            limited: false,
            ..BT601
        };
        let bt709 = Yuv {
            kr: 0.2126,
            kb: 0.0722,
            limited: true,
        };
        assert_eq!(of(BT601, red), [81, 90, 240]);
        assert_eq!(of(BT601, white), [235, 128, 128]);
        assert_eq!(of(bt709, red), [63, 102, 240]);
        assert_eq!(of(bt709, Rgb(0, 0, 0)), [16, 128, 128]);
        // 255.5 has no byte.
        assert_eq!(of(full, red), [76, 85, 255]);
        assert_eq!(of(full, white), [255, 128, 128]);
    }

    #[test]
    fn what_a_plane_lacks_is_not_drawn() {
        let all = Rect {
            left: 0,
            top: 0,
            right: 8,
            bottom: 8,
        };
        let glyph = Glyph {
            left: 0,
            top: 0,
            width: 8,
            coverage: vec![255; 64],
        };
        for length in 0..64 {
            for stride in [0, 1, 3, 8, 100, usize::MAX] {
                for sample in [&[Channel::Luma][..], &[Channel::Cb, Channel::Cr]] {
                    let mut data = vec![9; length];
                    let mut canvas = canvas(8, 8, plane(&mut data, stride, sample));
                    canvas.fill(all, Rgb(1, 2, 3));
                    canvas.letter(&glyph, (0, 0), all, Rgb(1, 2, 3));
                }
            }
        }
    }

    fn any_rect() -> impl Strategy<Value = Rect> {
        (-4i32..14, -4i32..14, -4i32..14, -4i32..14).prop_map(|(left, top, right, bottom)| Rect {
            left,
            top,
            right,
            bottom,
        })
    }

    fn holds(rect: &Rect, x: i32, y: i32) -> bool {
        (rect.left..rect.right).contains(&x) && (rect.top..rect.bottom).contains(&y)
    }

    /// The pixels of a sample that `painted` says are, out of all it has; nothing outside of the frame is a pixel.
    fn painted_of(
        (column, row): (usize, usize),
        side: usize,
        frame: (u32, u32),
        painted: impl Fn(i32, i32) -> u32,
    ) -> u32 {
        let mut sum = (0, 0);
        for y in row * side..((row + 1) * side).min(frame.1 as usize) {
            for x in column * side..((column + 1) * side).min(frame.0 as usize) {
                sum = (sum.0 + painted(x as i32, y as i32), sum.1 + 1);
            }
        }
        sum.0 / sum.1
    }

    proptest! {
        #[test]
        fn a_ring_paints_its_pixels_and_no_others(
            (width, height) in (1u32..12, 1u32..12), outer in any_rect(), hole in any_rect(), halved in any::<bool>(),
        ) {
            let sample: &'static [Channel] = match halved {
                true => &[Channel::Cb, Channel::Cr],
                false => &[Channel::Blue, Channel::Red, Channel::Green],
            };
            let side = if halved { 2 } else { 1 };
            let (columns, rows) = ((width as usize).div_ceil(side), (height as usize).div_ceil(side));
            let stride = columns * sample.len() + 3;
            let mut data = vec![100; stride * rows];
            let colour = Rgb(200, 0, 50);
            let inner = hole.intersection(&outer);
            canvas(width, height, plane(&mut data, stride, sample)).ring(outer, hole, colour);
            for row in 0..rows {
                for column in 0..columns {
                    let share = painted_of((column, row), side, (width, height), |x, y| {
                        if holds(&outer, x, y) && !holds(&inner, x, y) { 255 } else { 0 }
                    });
                    for (index, &channel) in sample.iter().enumerate() {
                        let value = u32::from(BT601.of(colour, channel));
                        let expected = (100 * (255 - share) + value * share + 127) / 255;
                        let got = data[row * stride + column * sample.len() + index];
                        prop_assert_eq!(u32::from(got), expected, "{} {}", column, row);
                    }
                }
                prop_assert_eq!(&data[row * stride + columns * sample.len()..][..3], &[100; 3]);
            }
        }

        #[test]
        fn a_letter_paints_what_it_covers_within_its_label(
            (width, height) in (1u32..12, 1u32..12), within in any_rect(), at in (-4i32..12, -4i32..12),
            coverage in prop::collection::vec(any::<u8>(), 20), halved in any::<bool>(),
        ) {
            let sample: &'static [Channel] = if halved { &[Channel::Cb] } else { &[Channel::Luma] };
            let side = if halved { 2 } else { 1 };
            let (columns, rows) = ((width as usize).div_ceil(side), (height as usize).div_ceil(side));
            let mut data = vec![100; columns * rows];
            let colour = Rgb(0, 0, 255);
            let glyph = Glyph { left: 1, top: -1, width: 4, coverage: coverage.clone() };
            canvas(width, height, plane(&mut data, columns, sample)).letter(&glyph, at, within, colour);
            let value = u32::from(BT601.of(colour, sample[0]));
            for row in 0..rows {
                for column in 0..columns {
                    let share = painted_of((column, row), side, (width, height), |x, y| {
                        let (across, down) = (x - at.0 - 1, y - at.1 + 1);
                        let inside = (0..4).contains(&across) && (0..5).contains(&down) && holds(&within, x, y);
                        if inside { u32::from(coverage[(down * 4 + across) as usize]) } else { 0 }
                    });
                    let expected = (100 * (255 - share) + value * share + 127) / 255;
                    prop_assert_eq!(u32::from(data[row * columns + column]), expected);
                }
            }
        }
    }
}
