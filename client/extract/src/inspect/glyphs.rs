//! Letters of 5 by 7 dots: what the lines of an annotated picture need, lower case alone.

use crate::photo::Picture;

/// Pixels per dot.
pub(super) const SCALE: usize = 2;
/// Width and height of a letter, in pixels.
pub(super) const WIDTH: usize = 5 * SCALE;
pub(super) const HEIGHT: usize = 7 * SCALE;

/// The letters that have a shape, each seven rows of five dots, the left one the highest bit.
#[rustfmt::skip]
const SHAPES: [(char, [u8; 7]); 48] = [
    (' ', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000]),
    ('!', [0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00000, 0b00100]),
    ('%', [0b11000, 0b11001, 0b00010, 0b00100, 0b01000, 0b10011, 0b00011]),
    ('(', [0b00010, 0b00100, 0b01000, 0b01000, 0b01000, 0b00100, 0b00010]),
    (')', [0b01000, 0b00100, 0b00010, 0b00010, 0b00010, 0b00100, 0b01000]),
    ('+', [0b00000, 0b00100, 0b00100, 0b11111, 0b00100, 0b00100, 0b00000]),
    (',', [0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b00100, 0b01000]),
    ('-', [0b00000, 0b00000, 0b00000, 0b11111, 0b00000, 0b00000, 0b00000]),
    ('.', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b01100]),
    ('/', [0b00000, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b00000]),
    ('0', [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110]),
    ('1', [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('2', [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111]),
    ('3', [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110]),
    ('4', [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010]),
    ('5', [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110]),
    ('6', [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110]),
    ('7', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000]),
    ('8', [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110]),
    ('9', [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100]),
    (':', [0b00000, 0b01100, 0b01100, 0b00000, 0b01100, 0b01100, 0b00000]),
    (';', [0b00000, 0b01100, 0b01100, 0b00000, 0b01100, 0b00100, 0b01000]),
    ('a', [0b00000, 0b00000, 0b01110, 0b00001, 0b01111, 0b10001, 0b01111]),
    ('b', [0b10000, 0b10000, 0b10110, 0b11001, 0b10001, 0b10001, 0b11110]),
    ('c', [0b00000, 0b00000, 0b01110, 0b10000, 0b10000, 0b10001, 0b01110]),
    ('d', [0b00001, 0b00001, 0b01101, 0b10011, 0b10001, 0b10001, 0b01111]),
    ('e', [0b00000, 0b00000, 0b01110, 0b10001, 0b11111, 0b10000, 0b01110]),
    ('f', [0b00110, 0b01001, 0b01000, 0b11100, 0b01000, 0b01000, 0b01000]),
    ('g', [0b00000, 0b01111, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110]),
    ('h', [0b10000, 0b10000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001]),
    ('i', [0b00100, 0b00000, 0b01100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('j', [0b00010, 0b00000, 0b00110, 0b00010, 0b00010, 0b10010, 0b01100]),
    ('k', [0b10000, 0b10000, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010]),
    ('l', [0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('m', [0b00000, 0b00000, 0b11010, 0b10101, 0b10101, 0b10001, 0b10001]),
    ('n', [0b00000, 0b00000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001]),
    ('o', [0b00000, 0b00000, 0b01110, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('p', [0b00000, 0b00000, 0b11110, 0b10001, 0b11110, 0b10000, 0b10000]),
    ('q', [0b00000, 0b00000, 0b01101, 0b10011, 0b01111, 0b00001, 0b00001]),
    ('r', [0b00000, 0b00000, 0b10110, 0b11001, 0b10000, 0b10000, 0b10000]),
    ('s', [0b00000, 0b00000, 0b01110, 0b10000, 0b01110, 0b00001, 0b11110]),
    ('t', [0b01000, 0b01000, 0b11100, 0b01000, 0b01000, 0b01001, 0b00110]),
    ('u', [0b00000, 0b00000, 0b10001, 0b10001, 0b10001, 0b10011, 0b01101]),
    ('v', [0b00000, 0b00000, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100]),
    ('w', [0b00000, 0b00000, 0b10001, 0b10001, 0b10101, 0b10101, 0b01010]),
    ('x', [0b00000, 0b00000, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001]),
    ('y', [0b00000, 0b00000, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110]),
    ('z', [0b00000, 0b00000, 0b11111, 0b00010, 0b00100, 0b01000, 0b11111]),
];

/// What is drawn for a letter without a shape: a frame.
const UNKNOWN: [u8; 7] = [0b11111, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b11111];

/// Writes one line; what does not fit on the picture is cut off.
pub(super) fn write(picture: &mut Picture, left: usize, top: usize, text: &str, colour: [u8; 3]) {
    for (place, letter) in text.chars().enumerate() {
        let letter = letter.to_ascii_lowercase();
        let shape = SHAPES.iter().find(|(known, _)| *known == letter).map_or(UNKNOWN, |(_, shape)| *shape);
        let left = left + place * (WIDTH + SCALE);
        for (row, dots) in shape.iter().enumerate() {
            for column in (0..5).filter(|column| dots >> (4 - column) & 1 == 1) {
                for dot in 0..SCALE * SCALE {
                    picture.set(left + column * SCALE + dot % SCALE, top + row * SCALE + dot / SCALE, colour);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gates::Refusal;

    #[test]
    fn every_letter_of_the_refusals_has_a_shape() {
        let words = [
            Refusal::Small { found: 1.0, needed: 2.0 },
            Refusal::Blurred { found: 1.0, needed: 2.0 },
            Refusal::Aside { found: 1.0, allowed: 0.5 },
            Refusal::Nodding { found: -1.0, allowed: 0.5 },
            Refusal::Tilted { found: 1.0, allowed: 0.5 },
            Refusal::Dark { found: 1.0, needed: 2.0 },
            Refusal::Bright { found: 1.0, allowed: 0.5 },
            Refusal::Flat { found: 1.0, needed: 2.0 },
            Refusal::Clipped { found: 1.0, allowed: 0.5 },
            Refusal::Poor { found: 1.0, needed: 2.0 },
            Refusal::NotPresent { found: 1.0, needed: 2.0 },
        ];
        for letter in words.iter().flat_map(|refusal| refusal.to_string().to_lowercase().chars().collect::<Vec<_>>()) {
            assert!(SHAPES.iter().any(|(known, _)| *known == letter), "{letter:?} has no shape");
        }
    }

    #[test]
    fn a_letter_is_where_it_was_put() {
        let mut picture = Picture::black(30, 20);
        write(&mut picture, 3, 2, "L", [9; 3]);
        assert_eq!(picture.pixel(3 + 4, 2 + 12), [9; 3]);
        assert_eq!(picture.pixel(3, 2 + 12), [0; 3]);
        // Beyond the picture nothing happens.
        write(&mut picture, 25, 15, "mm", [9; 3]);
    }
}
