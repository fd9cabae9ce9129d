//! Points, boxes, landmarks, and the similarity transform that moves a face to where its model wants it.
//!
//! Coordinates are those of pixels: (0, 0) is the centre of the first pixel, x grows to the right, y downwards.

use std::fmt;

/// A point, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Downwards.
    pub y: f64,
}

impl Point {
    /// The point (x, y).
    #[must_use]
    pub const fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }

    /// The distance between two points.
    #[must_use]
    pub fn distance(self, other: Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    /// The middle between two points.
    #[must_use]
    pub fn middle(self, other: Self) -> Self {
        Self::new((self.x + other.x) / 2.0, (self.y + other.y) / 2.0)
    }
}

/// A rectangle with upright sides, in pixels. It may reach beyond the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rectangle {
    /// Left side.
    pub x: f64,
    /// Upper side.
    pub y: f64,
    /// Width, not negative.
    pub width: f64,
    /// Height, not negative.
    pub height: f64,
}

impl Rectangle {
    /// Area of the intersection over that of the union, 0 to 1.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> f64 {
        let side = |a: f64, a_len: f64, b: f64, b_len: f64| ((a + a_len).min(b + b_len) - a.max(b)).max(0.0);
        let both = side(self.x, self.width, other.x, other.width) * side(self.y, self.height, other.y, other.height);
        let either = self.area() + other.area() - both;
        if either > 0.0 { both / either } else { 0.0 }
    }

    /// Width times height.
    #[must_use]
    pub fn area(&self) -> f64 {
        self.width * self.height
    }
}

/// The five landmarks of a face. "Left" is the image's left: the eye on the left of the picture is the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Landmarks {
    /// The eye on the picture's left.
    pub left_eye: Point,
    /// The eye on the picture's right.
    pub right_eye: Point,
    /// The tip of the nose.
    pub nose: Point,
    /// The corner of the mouth on the picture's left.
    pub left_mouth: Point,
    /// The corner of the mouth on the picture's right.
    pub right_mouth: Point,
}

impl Landmarks {
    /// In the order of the fields.
    #[must_use]
    pub const fn points(&self) -> [Point; 5] {
        [self.left_eye, self.right_eye, self.nose, self.left_mouth, self.right_mouth]
    }

    /// From points in the order of the fields.
    #[must_use]
    pub const fn from_points(points: [Point; 5]) -> Self {
        let [left_eye, right_eye, nose, left_mouth, right_mouth] = points;
        Self { left_eye, right_eye, nose, left_mouth, right_mouth }
    }

    /// The distance between the eyes, in pixels.
    #[must_use]
    pub fn eye_distance(&self) -> f64 {
        self.left_eye.distance(self.right_eye)
    }

    /// How far the line of the eyes is turned from level, in degrees, clockwise positive, −180 to 180.
    #[must_use]
    pub fn roll(&self) -> f64 {
        (self.right_eye.y - self.left_eye.y).atan2(self.right_eye.x - self.left_eye.x).to_degrees()
    }

    /// Every point through `map`.
    #[must_use]
    pub fn map(&self, map: impl Fn(Point) -> Point) -> Self {
        Self::from_points(self.points().map(map))
    }
}

/// A face that a detector found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Its box.
    pub bounds: Rectangle,
    /// Its landmarks.
    pub landmarks: Landmarks,
    /// How sure the detector is, 0 to 1.
    pub score: f64,
}

/// Rotation, uniform scale and shift: (x, y) → (a·x − b·y + tx, b·x + a·y + ty).
#[derive(Clone, Copy, PartialEq)]
pub struct Similarity {
    a: f64,
    b: f64,
    tx: f64,
    ty: f64,
}

impl Similarity {
    /// Turns by `radians` (clockwise on the screen) and scales about the origin, then shifts.
    #[must_use]
    pub fn new(scale: f64, radians: f64, shift: Point) -> Self {
        Self { a: scale * radians.cos(), b: scale * radians.sin(), tx: shift.x, ty: shift.y }
    }

    /// The similarity without reflection that brings `from` closest to `onto` in the sense of least squares (Umeyama
    /// 1991, equations 40 to 43; in the plane its singular value decomposition has this closed form: with complex
    /// numbers z for `from` and w for `onto`, both centred, the factor is Σ z̄·w / Σ |z|²).
    ///
    /// `None` if there are fewer than two points, the numbers of points differ, all points of `from` coincide, the
    /// best factor is zero or a coordinate is not finite: then there is no direction to turn to.
    #[must_use]
    pub fn fit(from: &[Point], onto: &[Point]) -> Option<Self> {
        if from.len() != onto.len() || from.len() < 2 {
            return None;
        }
        let (z0, w0) = (mean(from), mean(onto));
        let (mut spread, mut real, mut imaginary) = (0.0, 0.0, 0.0);
        for (z, w) in from.iter().zip(onto) {
            let (zx, zy, wx, wy) = (z.x - z0.x, z.y - z0.y, w.x - w0.x, w.y - w0.y);
            spread += zx * zx + zy * zy;
            real += zx * wx + zy * wy;
            imaginary += zx * wy - zy * wx;
        }
        let (a, b) = (real / spread, imaginary / spread);
        let fitted = Self { a, b, tx: w0.x - a * z0.x + b * z0.y, ty: w0.y - b * z0.x - a * z0.y };
        let finite = [a, b, fitted.tx, fitted.ty].iter().all(|value| value.is_finite());
        (finite && fitted.scale() > 1e-9).then_some(fitted)
    }

    /// Where a point goes.
    #[must_use]
    pub fn apply(&self, point: Point) -> Point {
        Point::new(self.a * point.x - self.b * point.y + self.tx, self.b * point.x + self.a * point.y + self.ty)
    }

    /// The way back. The scale of a fitted transform is never zero.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        Self { a, b, tx: -(a * self.tx - b * self.ty), ty: -(b * self.tx + a * self.ty) }
    }

    /// The factor by which lengths grow.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.a.hypot(self.b)
    }

    /// The angle by which it turns, in radians.
    #[must_use]
    pub fn angle(&self) -> f64 {
        self.b.atan2(self.a)
    }
}

impl fmt::Debug for Similarity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Similarity(scale {}, angle {}, shift {}, {})", self.scale(), self.angle(), self.tx, self.ty)
    }
}

fn mean(points: &[Point]) -> Point {
    let n = points.len() as f64;
    Point::new(points.iter().map(|p| p.x).sum::<f64>() / n, points.iter().map(|p| p.y).sum::<f64>() / n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template() -> Vec<Point> {
        [(0.3156, 0.4616), (0.6826, 0.4616), (0.5003, 0.6405), (0.3495, 0.8247), (0.6534, 0.8247)]
            .map(|(x, y)| Point::new(x * 128.0, y * 128.0))
            .to_vec()
    }

    /// Mean squared distance after the transform.
    fn residual(map: &Similarity, from: &[Point], onto: &[Point]) -> f64 {
        from.iter().zip(onto).map(|(z, w)| map.apply(*z).distance(*w).powi(2)).sum::<f64>() / from.len() as f64
    }

    #[test]
    fn umeyamas_own_example() {
        // Section IV of the paper: there the best rotation without reflection has c = 0.721, R = [.832 .555; -.555 .832]
        // and t = (-0.800, 0.400).
        let from = [(0.0, 0.0), (1.0, 0.0), (0.0, 2.0)].map(|(x, y)| Point::new(x, y));
        let onto = [(0.0, 0.0), (-1.0, 0.0), (0.0, 2.0)].map(|(x, y)| Point::new(x, y));
        let map = Similarity::fit(&from, &onto).unwrap();
        assert!((map.scale() - 0.721).abs() < 5e-4, "{map:?}");
        assert!((map.a / map.scale() - 0.832).abs() < 5e-4 && (map.b / map.scale() + 0.555).abs() < 5e-4, "{map:?}");
        assert!((map.tx + 0.8).abs() < 5e-4 && (map.ty - 0.4).abs() < 5e-4, "{map:?}");
        // What is left: 8/15, by hand.
        assert!((residual(&map, &from, &onto) - 8.0 / 15.0).abs() < 1e-9);
    }

    #[test]
    fn there_is_no_fit_without_a_direction() {
        let point = Point::new(3.0, 4.0);
        assert!(Similarity::fit(&[point; 5], &template()).is_none());
        assert!(Similarity::fit(&template(), &[point; 5]).is_none());
        assert!(Similarity::fit(&[point], &[point]).is_none());
        assert!(Similarity::fit(&template(), &template()[..4]).is_none());
        let mut broken = template();
        broken[2].x = f64::NAN;
        assert!(Similarity::fit(&broken, &template()).is_none());
    }

    #[test]
    fn overlap_is_intersection_over_union() {
        let a = Rectangle { x: 0.0, y: 0.0, width: 10.0, height: 10.0 };
        assert!((a.overlap(&a) - 1.0).abs() < 1e-12);
        let b = Rectangle { x: 5.0, y: 0.0, ..a };
        assert!((a.overlap(&b) - 1.0 / 3.0).abs() < 1e-12);
        let c = Rectangle { x: 50.0, ..a };
        assert_eq!(a.overlap(&c), 0.0);
        let empty = Rectangle { width: 0.0, ..a };
        assert_eq!(empty.overlap(&empty), 0.0);
    }

    proptest! {
        #[test]
        fn a_known_transform_is_found_again(
            scale in 0.05..20.0_f64, angle in -3.1..3.1_f64, x in -2000.0..2000.0_f64, y in -2000.0..2000.0_f64,
        ) {
            let known = Similarity::new(scale, angle, Point::new(x, y));
            let moved: Vec<Point> = template().into_iter().map(|point| known.apply(point)).collect();
            let found = Similarity::fit(&template(), &moved).unwrap();
            prop_assert!((found.scale() / scale - 1.0).abs() < 1e-9);
            prop_assert!((found.angle() - angle).abs() < 1e-9);
            prop_assert!(residual(&found, &template(), &moved) < 1e-12 * scale * scale + 1e-15);
            let back = found.inverse();
            for (point, image) in template().into_iter().zip(moved) {
                prop_assert!(back.apply(image).distance(point) < 1e-7);
            }
        }

        #[test]
        fn nothing_near_it_fits_better(
            noise in proptest::collection::vec(-6.0..6.0_f64, 10),
            factor in 0.9..1.1_f64, turn in -0.1..0.1_f64, dx in -2.0..2.0_f64, dy in -2.0..2.0_f64,
        ) {
            let noisy: Vec<Point> = template()
                .iter()
                .zip(noise.chunks_exact(2))
                .map(|(point, noise)| Point::new(point.x + noise[0], point.y + noise[1]))
                .collect();
            let found = Similarity::fit(&noisy, &template()).unwrap();
            let shift = Point::new(found.tx + dx, found.ty + dy);
            let other = Similarity::new(found.scale() * factor, found.angle() + turn, shift);
            prop_assert!(residual(&found, &noisy, &template()) <= residual(&other, &noisy, &template()) + 1e-9);
        }
    }
}
