//! Letters as coverage, kept for the next frame.
//!
//! The font is a part of the plugin, so that a text looks alike on every machine. It is DejaVu Sans 2.37 without what is
//! not Latin, Greek, Cyrillic or punctuation: `pyftsubset DejaVuSans.ttf --no-hinting --layout-features=
//! --drop-tables+=FFTM,MATH,GDEF,GPOS,GSUB,gasp --name-IDs='*' --unicodes=U+0020-007E,U+00A0-017F,U+0218-021B,
//! U+0386-03CE,U+0400-045F,U+0490-0491,U+1E9E,U+2010-2026,U+2030,U+20AC,U+2122,U+FFFD`

use std::{collections::HashMap, sync::LazyLock};

use ab_glyph::{Font, FontRef, GlyphId, PxScale, ScaleFont, point};

static FONT: LazyLock<FontRef> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("font/DejaVuSans-subset.ttf"))
        .expect("the file is a font")
});

/// How far a character takes the next one to the right, in pixels, in a text of this height.
pub fn advance(character: char, height: u32) -> f32 {
    FONT.as_scaled(height as f32).h_advance(id(character))
}

/// What stands for the character: for one that the font lacks, the sign that says so.
fn id(character: char) -> GlyphId {
    match FONT.glyph_id(character) {
        GlyphId(0) => FONT.glyph_id(char::REPLACEMENT_CHARACTER),
        id => id,
    }
}

/// Places between two pixels where a letter may begin.
const PLACES: u8 = 4;

/// Most letters kept, counting each place by itself.
const MOST: usize = 512;

/// The letters of one text height.
#[derive(Default)]
pub struct Glyphs {
    height: u32,
    kept: HashMap<(GlyphId, u8), Glyph>,
}

/// How much of each pixel a letter covers.
#[derive(Debug, Default, PartialEq)]
pub struct Glyph {
    /// From the beginning of the letter and the top of the line to the first pixel.
    pub left: i32,
    pub top: i32,
    pub width: usize,
    /// Rows of `width`, 0 to 255.
    pub coverage: Vec<u8>,
}

impl Glyphs {
    /// Calls `draw` with each letter of a text that begins at pixel `left`, and the pixel the letter begins at.
    pub fn spell(&mut self, text: &str, height: u32, left: i32, mut draw: impl FnMut(&Glyph, i32)) {
        if self.height != height {
            self.kept.clear();
            self.height = height;
        }
        let mut position = 0.0;
        for character in text.chars() {
            let steps = (position * f32::from(PLACES)).round() as i32;
            let place = steps.rem_euclid(i32::from(PLACES)) as u8;
            let key = (id(character), place);
            if self.kept.len() >= MOST && !self.kept.contains_key(&key) {
                self.kept.clear();
            }
            let glyph = self
                .kept
                .entry(key)
                .or_insert_with(|| Glyph::new(key.0, place, height));
            draw(glyph, left + steps.div_euclid(i32::from(PLACES)));
            position += advance(character, height);
        }
    }
}

impl Glyph {
    fn new(id: GlyphId, place: u8, height: u32) -> Glyph {
        let scale = PxScale::from(height as f32);
        let baseline = FONT.as_scaled(scale).ascent().round();
        let begin = point(f32::from(place) / f32::from(PLACES), baseline);
        // A space has no outline.
        let Some(outline) = FONT.outline_glyph(id.with_scale_and_position(scale, begin)) else {
            return Glyph::default();
        };
        let bounds = outline.px_bounds();
        let (width, rows) = (bounds.width() as usize, bounds.height() as usize);
        let mut coverage = vec![0; width * rows];
        outline.draw(|x, y, covered| {
            if let Some(pixel) = coverage.get_mut(y as usize * width + x as usize) {
                *pixel = (covered * 255.0).round() as u8;
            }
        });
        Glyph {
            left: bounds.min.x as i32,
            top: bounds.min.y as i32,
            width,
            coverage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(character: char) -> Glyph {
        Glyph::new(id(character), 0, 20)
    }

    #[test]
    fn european_letters_have_shapes_of_their_own() {
        let replacement = shape(char::REPLACEMENT_CHARACTER);
        for character in "AZaz09%…äöüÄÖÜßéèêëçñøåæœőűłąęčšžřďťňğışțΩλЖяђ€".chars()
        {
            assert_ne!(shape(character), replacement, "{character}");
            assert!(
                shape(character).coverage.iter().any(|&c| c > 128),
                "{character}"
            );
        }
    }

    #[test]
    fn a_character_the_font_lacks_shows_the_replacement() {
        let replacement = shape(char::REPLACEMENT_CHARACTER);
        assert!(replacement.coverage.iter().any(|&c| c > 128));
        for character in ['猫', '🦀', '\0', '\u{10ffff}'] {
            assert_eq!(shape(character), replacement, "{character:?}");
            assert_eq!(advance(character, 20), advance('\u{fffd}', 20));
        }
    }

    #[test]
    fn letters_stay_within_the_line() {
        for character in "Åjgyp|Q…\u{fffd}".chars() {
            let glyph = shape(character);
            let rows = (glyph.coverage.len() / glyph.width) as i32;
            assert!(
                glyph.top >= 0 && glyph.top + rows <= 21,
                "{character} {} {rows}",
                glyph.top
            );
        }
    }

    #[test]
    fn no_more_letters_are_kept_than_there_is_room_for() {
        let mut glyphs = Glyphs::default();
        let all: String = (0..0x600).filter_map(char::from_u32).collect();
        for shift in 0..8 {
            let text = "i".repeat(shift) + &all;
            glyphs.spell(&text, 13, 0, |_, _| ());
            assert!(glyphs.kept.len() <= MOST);
        }
    }
}
