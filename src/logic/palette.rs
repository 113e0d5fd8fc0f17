//! The colour of a class: the same for the same name, in every process and on every machine.

/// A colour of sRGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

pub const BLACK: Rgb = Rgb(0, 0, 0);
pub const WHITE: Rgb = Rgb(255, 255, 255);

/// The colour of everything that is called so.
pub fn colour_of(class: &str) -> Rgb {
    // FNV-1a, not std's hasher: that one promises no same result in the next release.
    let hash = class.bytes().fold(SEED, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    // The last bytes have reached only the low bits.
    let mixed = (hash ^ (hash >> 15)).wrapping_mul(0x9e37_79b1);
    let place = (u64::from(mixed) * COLOURS.len() as u64) >> 32;
    COLOURS[place as usize]
}

/// Black or white, whichever is read better on `colour`.
pub fn ink_on(colour: Rgb) -> Rgb {
    // Where black and white have the same contrast by WCAG.
    if luminance(colour) > 0.179 {
        BLACK
    } else {
        WHITE
    }
}

/// Relative luminance, 0 to 1.
fn luminance(Rgb(red, green, blue): Rgb) -> f32 {
    let linear = |value: u8| {
        let value = f32::from(value) / 255.0;
        if value <= 0.04045 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
}

/// With it no two of the eight shapes of our own model have one colour.
const SEED: u32 = 2407;

/// Told from each other at a glance, also as a line two pixels wide.
const COLOURS: [Rgb; 18] = [
    Rgb(225, 30, 45),
    Rgb(255, 130, 20),
    Rgb(255, 215, 0),
    Rgb(170, 240, 40),
    Rgb(20, 165, 50),
    Rgb(0, 140, 130),
    Rgb(60, 235, 245),
    Rgb(30, 140, 255),
    Rgb(40, 50, 210),
    Rgb(130, 40, 190),
    Rgb(240, 50, 230),
    Rgb(255, 150, 185),
    Rgb(160, 75, 25),
    Rgb(120, 135, 0),
    Rgb(120, 0, 40),
    Rgb(165, 255, 190),
    Rgb(255, 210, 165),
    Rgb(200, 175, 255),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [&str; 8] = [
        "circle", "square", "triangle", "star", "heart", "cross", "arrow", "crescent",
    ];

    #[test]
    fn a_class_keeps_its_colour() {
        // Written down once: these change only by breaking the promise.
        assert_eq!(colour_of("circle"), Rgb(255, 150, 185));
        assert_eq!(colour_of("person"), Rgb(255, 215, 0));
        assert_eq!(colour_of("Füße"), Rgb(30, 140, 255));
        assert_eq!(colour_of(""), Rgb(240, 50, 230));
    }

    #[test]
    fn shapes_of_our_own_model_all_differ() {
        let mut colours: Vec<_> = SHAPES.map(colour_of).to_vec();
        colours.sort_by_key(|&Rgb(red, green, blue)| (red, green, blue));
        colours.dedup();
        assert_eq!(colours.len(), SHAPES.len());
    }

    #[test]
    fn many_classes_share_the_colours_evenly() {
        let mut uses = [0u32; COLOURS.len()];
        for number in 0..1800 {
            let colour = colour_of(&format!("class{number}"));
            uses[COLOURS.iter().position(|&c| c == colour).unwrap()] += 1;
        }
        assert!(
            uses.iter().all(|uses| (60..=140).contains(uses)),
            "{uses:?}"
        );
    }

    #[test]
    fn no_two_colours_are_alike() {
        for (index, a) in COLOURS.iter().enumerate() {
            for b in &COLOURS[..index] {
                let apart = [(a.0, b.0), (a.1, b.1), (a.2, b.2)]
                    .map(|(a, b)| (f32::from(a) - f32::from(b)).powi(2));
                let apart = (apart[0] + apart[1] + apart[2]).sqrt();
                assert!(apart > 60.0, "{a:?} and {b:?}: {apart}");
            }
        }
    }

    #[test]
    fn ink_is_read_on_every_colour() {
        for colour in COLOURS {
            let (light, dark) = (luminance(colour), luminance(ink_on(colour)));
            let contrast = (light.max(dark) + 0.05) / (light.min(dark) + 0.05);
            assert!(contrast >= 4.5, "{colour:?}: {contrast}");
        }
        assert_eq!(ink_on(BLACK), WHITE);
        assert_eq!(ink_on(WHITE), BLACK);
    }
}
