//! Drawn faces: pictures of people who do not exist, for tests and for a demonstration on a machine without models.
//!
//! A person is a seed: skin, hair, clothes, and the colours of 24 patches on the face. A photo of the person has its own
//! size, place, turn, light and noise, from a second seed. At each landmark lies a disc in a colour of its own, which the
//! detector `tiny-detect` measures; the embedder `tiny-embed` measures the patches (`models/make_tiny.py`).

use crate::geometry::{Landmarks, Point, Similarity};
use crate::photo::Picture;

/// Where the landmarks lie, in parts of the face's square: the alignment template of `tiny-embed`.
const LANDMARKS: [(f64, f64); 5] = [
    (0.315_568_75, 0.461_574_11),
    (0.682_622_92, 0.461_574_11),
    (0.500_262_5, 0.640_505_36),
    (0.349_471_88, 0.824_691_96),
    (0.653_436_46, 0.824_691_96),
];
/// The colours of their discs, as in `models/make_tiny.py`.
const DISCS: [[u8; 3]; 5] = [[20, 20, 230], [20, 220, 220], [30, 210, 30], [220, 20, 210], [220, 30, 20]];
/// The radius of a disc, in parts of the face's square.
const RADIUS: f64 = 0.045;
/// Cells (column, row) of the 8 x 8 on which discs lie; the others of the inner 6 x 6 carry the pattern.
const COVERED: [(usize, usize); 12] =
    [(2, 3), (2, 4), (5, 3), (5, 4), (3, 4), (4, 4), (3, 5), (4, 5), (2, 6), (3, 6), (4, 6), (5, 6)];
/// Samples per pixel and direction: borders are smooth.
const SAMPLES: usize = 3;

/// A person who does not exist.
pub struct Person {
    skin: [f64; 3],
    hair: [f64; 3],
    clothes: [f64; 3],
    /// What each cell of the inner 6 x 6 adds to the skin.
    pattern: [[[f64; 3]; 6]; 6],
}

/// How a face stands in a photo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Columns of the photo.
    pub width: usize,
    /// Rows of the photo.
    pub height: usize,
    /// The middle between the eyes, in pixels.
    pub eyes: Point,
    /// The distance between the eyes, in pixels.
    pub eye_distance: f64,
    /// The turn of the head, in degrees, clockwise.
    pub roll: f64,
    /// By how much light and camera multiply each channel.
    pub light: [f64; 3],
    /// The largest error of a pixel, of 255.
    pub noise: f64,
    /// What the noise and the background are drawn from.
    pub seed: u64,
}

impl View {
    /// The view number `number` of some person: size, place, turn, light and noise differ from photo to photo.
    #[must_use]
    pub fn varied(person: u64, number: u64) -> Self {
        let mut dice =
            Dice(person.wrapping_mul(0x9E37_79B9).wrapping_add(number).wrapping_mul(0xD129_0E3B) ^ 0x7669_6577);
        let gain = dice.between(0.88, 1.06);
        Self {
            width: 360,
            height: 440,
            eyes: Point::new(180.0 + dice.between(-30.0, 30.0), 200.0 + dice.between(-25.0, 25.0)),
            eye_distance: dice.between(60.0, 88.0),
            roll: dice.between(-14.0, 14.0),
            light: [0; 3].map(|_: i32| gain * dice.between(0.97, 1.03)),
            noise: 10.0,
            seed: dice.next(),
        }
    }

    /// From the face's square (sides of length 1) to pixels.
    fn placed(&self) -> Similarity {
        let [(left, level), (right, _), ..] = LANDMARKS;
        let (scale, angle) = (self.eye_distance / (right - left), self.roll.to_radians());
        let turned = Similarity::new(scale, angle, Point::default());
        let eyes = turned.apply(Point::new((left + right) / 2.0, level));
        Similarity::new(scale, angle, Point::new(self.eyes.x - eyes.x, self.eyes.y - eyes.y))
    }

    /// Where the landmarks are drawn.
    #[must_use]
    pub fn landmarks(&self) -> Landmarks {
        let placed = self.placed();
        Landmarks::from_points(LANDMARKS.map(|(x, y)| placed.apply(Point::new(x, y))))
    }
}

impl Person {
    /// The person of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed ^ 0x6472_6177_6e00);
        // Skins and patterns stay clear of the discs' colours, in any light of `View::varied`.
        let red = dice.between(165.0, 205.0);
        let skin = [red, red * dice.between(0.78, 0.86), red * dice.between(0.66, 0.76)];
        let shade = dice.between(35.0, 150.0);
        let hair = [shade, shade * dice.between(0.7, 0.95), shade * dice.between(0.55, 0.9)];
        let grey = dice.between(60.0, 190.0);
        let clothes = [0; 3].map(|_: i32| grey + dice.between(-25.0, 25.0));
        let mut pattern = [[[0.0; 3]; 6]; 6];
        for value in pattern.iter_mut().flatten().flatten() {
            *value = dice.between(-32.0, 32.0);
        }
        for (column, row) in COVERED {
            if let Some(cell) = pattern.get_mut(row - 1).and_then(|row| row.get_mut(column - 1)) {
                *cell = [0.0; 3];
            }
        }
        Self { skin, hair, clothes, pattern }
    }

    /// A photo of the person.
    #[must_use]
    pub fn photo(&self, view: &View) -> Picture {
        group(&[(self, *view)])
    }

    /// The colour at a point of the face's square and around it; none where the background shows.
    fn colour(&self, at: Point) -> Option<[f64; 3]> {
        for ((x, y), disc) in LANDMARKS.iter().zip(DISCS) {
            if at.distance(Point::new(*x, *y)) <= RADIUS {
                return Some(disc.map(f64::from));
            }
        }
        // The mouth, between the discs of its corners.
        if (0.40..0.60).contains(&at.x) && (0.81..0.84).contains(&at.y) {
            return Some([120.0, 80.0, 75.0]);
        }
        let oval = |x: f64, y: f64, half_width: f64, half_height: f64, power: i32| {
            ((at.x - x) / half_width).abs().powi(power) + ((at.y - y) / half_height).abs().powi(power) <= 1.0
        };
        if oval(0.5, 0.52, 0.44, 0.46, 4) {
            let cell = |place: f64| ((place * 8.0).floor() as isize - 1) as usize;
            let extra = self.pattern.get(cell(at.y)).and_then(|row| row.get(cell(at.x))).copied().unwrap_or_default();
            let mut colour = self.skin;
            colour.iter_mut().zip(extra).for_each(|(value, extra)| *value += extra);
            return Some(colour);
        }
        if oval(0.5, 0.40, 0.52, 0.54, 2) && at.y < 0.6 {
            return Some(self.hair);
        }
        if oval(0.5, 1.05, 0.2, 0.2, 4) {
            return Some(self.skin);
        }
        oval(0.5, 1.75, 0.95, 0.62, 4).then_some(self.clothes)
    }
}

/// Several people in one photo. Size, light, noise and background are those of the first view.
///
/// Without any people the photo shows a wall.
#[must_use]
pub fn group(people: &[(&Person, View)]) -> Picture {
    let wall = View {
        width: 360,
        height: 440,
        eyes: Point::default(),
        eye_distance: 1.0,
        roll: 0.0,
        light: [1.0; 3],
        noise: 10.0,
        seed: 0,
    };
    let view = people.first().map_or(wall, |(_, view)| *view);
    let mut dice = Dice(view.seed);
    let shade = dice.between(110.0, 200.0);
    let background = [0; 3].map(|_: i32| shade + dice.between(-15.0, 15.0));
    let faces: Vec<(&Person, Similarity)> =
        people.iter().map(|(person, view)| (*person, view.placed().inverse())).collect();
    let mut picture = Picture::black(view.width, view.height);
    for y in 0..view.height {
        for x in 0..view.width {
            let mut sums = [0.0; 3];
            for sample in 0..SAMPLES * SAMPLES {
                let within = |number: usize| (number as f64 + 0.5) / SAMPLES as f64 - 0.5;
                let at = Point::new(x as f64 + within(sample % SAMPLES), y as f64 + within(sample / SAMPLES));
                let colour = faces
                    .iter()
                    .find_map(|(person, back)| person.colour(back.apply(at)))
                    // A wall in soft light.
                    .unwrap_or_else(|| background.map(|value| value * (1.0 - 0.2 * at.y / view.height as f64)));
                sums.iter_mut().zip(colour).for_each(|(sum, value)| *sum += value);
            }
            let mut pixel = [0; 3];
            for ((out, sum), light) in pixel.iter_mut().zip(sums).zip(view.light) {
                let noise = dice.between(-view.noise, view.noise);
                *out = (sum / (SAMPLES * SAMPLES) as f64 * light + noise).round().clamp(0.0, 255.0) as u8;
            }
            picture.set(x, y, pixel);
        }
    }
    picture
}

/// splitmix64: the same numbers on every machine. Nothing secret is drawn from it.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}
