//! Cutting, scaling and turning pictures, and turning them into the input of a model.

use crate::geometry::{Point, Rectangle, Similarity};
use crate::manifest::{Colour, Input, Layout};
use crate::photo::Picture;
use crate::runtime::{RuntimeError, Tensor};
use zeroize::Zeroizing;

/// The picture seen through `map` (which takes its points to points of the result), bilinear, black outside.
#[must_use]
pub(crate) fn warped(picture: &Picture, map: &Similarity, width: usize, height: usize) -> Picture {
    let back = map.inverse();
    let mut result = Picture::black(width, height);
    for y in 0..height {
        for x in 0..width {
            let from = back.apply(Point::new(x as f64, y as f64));
            if let Some(colour) = sample(picture, from) {
                result.set(x, y, colour);
            }
        }
    }
    result
}

/// A rectangle of the picture scaled to `width` by `height`, bilinear; outside the picture its edge goes on.
#[must_use]
pub(crate) fn scaled(picture: &Picture, region: &Rectangle, width: usize, height: usize) -> Picture {
    let mut result = Picture::black(width, height);
    if picture.width() == 0 || picture.height() == 0 {
        return result;
    }
    let (right, bottom) = ((picture.width() - 1) as f64, (picture.height() - 1) as f64);
    let (step_x, step_y) = (region.width / width as f64, region.height / height as f64);
    for y in 0..height {
        // Centres of pixels lie on whole numbers, their borders between.
        let from_y = (region.y + (y as f64 + 0.5) * step_y - 0.5).clamp(0.0, bottom);
        for x in 0..width {
            let from_x = (region.x + (x as f64 + 0.5) * step_x - 0.5).clamp(0.0, right);
            if let Some(colour) = sample(picture, Point::new(from_x, from_y)) {
                result.set(x, y, colour);
            }
        }
    }
    result
}

/// The whole picture made smaller: every pixel is the mean of the area it covers, so that detail too fine for the result is
/// averaged away instead of becoming noise.
///
/// Sides that are not smaller than the picture's keep its size.
#[must_use]
pub(crate) fn reduced(picture: &Picture, width: usize, height: usize) -> Picture {
    let (width, height) = (width.min(picture.width()), height.min(picture.height()));
    if (width, height) == (picture.width(), picture.height()) {
        return picture.duplicate();
    }
    let (across, down) = (taps(picture.width(), width), taps(picture.height(), height));
    // Rows first: all of a row's columns, as floats, for every row of the photo.
    let mut rows = Zeroizing::new(vec![0.0_f32; picture.height() * width * 3]);
    for (y, out) in rows.chunks_exact_mut(width * 3).enumerate() {
        let row = picture.row(y);
        for (out, (first, weights)) in out.chunks_exact_mut(3).zip(&across) {
            let pixels = row.get(first * 3..).unwrap_or_default().chunks_exact(3);
            for (pixel, weight) in pixels.zip(weights) {
                out.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += weight * f32::from(value));
            }
        }
    }
    let mut result = Picture::black(width, height);
    let mut sums = Zeroizing::new(vec![0.0_f32; width * 3]);
    for (y, (first, weights)) in down.iter().enumerate() {
        sums.fill(0.0);
        for (row, weight) in rows.chunks_exact(width * 3).skip(*first).zip(weights) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += weight * value);
        }
        for (x, sum) in sums.chunks_exact(3).enumerate() {
            if let &[red, green, blue] = sum {
                result.set(x, y, [red, green, blue].map(|value| (value + 0.5) as u8));
            }
        }
    }
    result
}

/// For every place of the shorter side: the first of the longer side's places that it sees, and how much it sees of it and
/// its followers. Weights add up to 1.
fn taps(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let step = from as f64 / to as f64;
    (0..to)
        .map(|place| {
            let (begin, end) = (place as f64 * step, (place + 1) as f64 * step);
            let (first, last) = (begin.floor() as usize, (end.ceil() as usize).min(from));
            let covered = |at: usize| (end.min((at + 1) as f64) - begin.max(at as f64)).max(0.0);
            (first, (first..last).map(|at| (covered(at) / step) as f32).collect())
        })
        .collect()
}

/// The colour between four pixels; pixels outside the picture are black, and far outside there is none.
fn sample(picture: &Picture, at: Point) -> Option<[u8; 3]> {
    let (left, top) = (at.x.floor(), at.y.floor());
    if !(left >= -1.0 && top >= -1.0 && left < picture.width() as f64 && top < picture.height() as f64) {
        return None;
    }
    let (fx, fy) = ((at.x - left) as f32, (at.y - top) as f32);
    // One column and row beyond the border are black: −1 becomes a number that no picture has.
    let (x0, y0) = ((left as isize) as usize, (top as isize) as usize);
    let (x1, y1) = (x0.wrapping_add(1), y0.wrapping_add(1));
    let pixel = |x: usize, y: usize| if y < picture.height() { picture.pixel(x, y) } else { [0; 3] };
    let corners = [pixel(x0, y0), pixel(x1, y0), pixel(x0, y1), pixel(x1, y1)];
    let weights = [(1.0 - fx) * (1.0 - fy), fx * (1.0 - fy), (1.0 - fx) * fy, fx * fy];
    let mut sums = [0.0_f32; 3];
    for (corner, weight) in corners.iter().zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(corner) {
            *sum += weight * f32::from(value);
        }
    }
    Some(sums.map(|sum| (sum + 0.5) as u8))
}

/// The picture as a model wants it, in the upper left corner of `width` by `height` pixels; the rest is zero.
///
/// # Errors
/// [`RuntimeError::Shape`] if the picture does not fit.
pub(crate) fn tensor(picture: &Picture, input: &Input, width: usize, height: usize) -> Result<Tensor, RuntimeError> {
    if picture.width() > width || picture.height() > height {
        let shape = vec![1, 3, height, width];
        return Err(RuntimeError::Shape { shape, values: picture.bytes().len() });
    }
    let order = match input.colour {
        Colour::Rgb => [0, 1, 2],
        Colour::Bgr => [2, 1, 0],
    };
    let mut values = vec![0.0; 3 * width * height];
    let (plane, (step, between)) = (
        width * height,
        match input.layout {
            Layout::Nchw => (1, width * height),
            Layout::Nhwc => (3, 1),
        },
    );
    debug_assert_eq!(plane * 3, values.len());
    for y in 0..picture.height() {
        for (x, pixel) in picture.row(y).chunks_exact(3).enumerate() {
            for (channel, (&source, (mean, std))) in order.iter().zip(input.mean.iter().zip(&input.std)).enumerate() {
                let value = pixel.get(source).copied().map_or(0.0, f32::from);
                if let Some(out) = values.get_mut((y * width + x) * step + channel * between) {
                    *out = (value - mean) / std;
                }
            }
        }
    }
    let shape = match input.layout {
        Layout::Nchw => vec![1, 3, height, width],
        Layout::Nhwc => vec![1, height, width, 3],
    };
    Tensor::new(shape, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pixel tells where it is.
    fn ramp(width: usize, height: usize) -> Picture {
        let mut picture = Picture::black(width, height);
        for y in 0..height {
            for x in 0..width {
                picture.set(x, y, [(x * 4) as u8, (y * 4) as u8, 100]);
            }
        }
        picture
    }

    #[test]
    fn warping_moves_pixels_to_where_the_transform_says() {
        let picture = ramp(60, 40);
        let map = Similarity::new(1.0, 0.0, Point::new(-5.0, -3.0));
        let moved = warped(&picture, &map, 10, 10);
        assert_eq!(moved.pixel(2, 4), picture.pixel(7, 7));
        // Half a pixel: the mean of two neighbours.
        let half = warped(&picture, &Similarity::new(1.0, 0.0, Point::new(-5.5, 0.0)), 4, 4);
        assert_eq!(half.pixel(0, 0), [22, 0, 100]);
        // A quarter turn, and black where there is nothing.
        let turned =
            warped(&picture, &Similarity::new(1.0, std::f64::consts::FRAC_PI_2, Point::new(39.0, 0.0)), 70, 70);
        assert_eq!(turned.pixel(39 - 11, 20), picture.pixel(20, 11));
        assert_eq!(turned.pixel(60, 65), [0; 3]);
    }

    #[test]
    fn scaling_keeps_the_borders() {
        let picture = ramp(60, 40);
        let whole = Rectangle { x: 0.0, y: 0.0, width: 60.0, height: 40.0 };
        let same = scaled(&picture, &whole, 60, 40);
        assert_eq!(same.bytes(), picture.bytes());
        let half = scaled(&picture, &whole, 30, 20);
        assert_eq!(half.pixel(3, 3), [26, 26, 100]);
        let beyond = scaled(&picture, &Rectangle { x: -20.0, y: -20.0, width: 10.0, height: 10.0 }, 4, 4);
        assert_eq!(beyond.pixel(3, 3), picture.pixel(0, 0));
    }

    #[test]
    fn tensors_follow_the_manifest() {
        let mut picture = Picture::black(2, 1);
        picture.set(0, 0, [10, 20, 30]);
        picture.set(1, 0, [40, 50, 60]);
        let mut input =
            Input { name: "input".into(), layout: Layout::Nchw, colour: Colour::Bgr, mean: [0.0; 3], std: [1.0; 3] };
        let planes = tensor(&picture, &input, 3, 1).unwrap();
        assert_eq!(planes.shape(), [1, 3, 1, 3]);
        assert_eq!(planes.values(), [30.0, 60.0, 0.0, 20.0, 50.0, 0.0, 10.0, 40.0, 0.0]);
        input = Input { layout: Layout::Nhwc, colour: Colour::Rgb, mean: [10.0; 3], std: [10.0; 3], ..input };
        let pixels = tensor(&picture, &input, 2, 1).unwrap();
        assert_eq!((pixels.shape(), pixels.values()), (&[1, 1, 2, 3][..], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]));
        assert!(matches!(tensor(&picture, &input, 1, 1), Err(RuntimeError::Shape { .. })));
    }
}
