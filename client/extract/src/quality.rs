//! What can be said about a face before it is embedded: how large it is, how sharp, how it is turned, how it is lit.
//!
//! Numbers alone, no judgement: what is good enough is a matter of [`Gates`](crate::Gates).

use zeroize::Zeroizing;

use crate::geometry::{Face, Landmarks, Point};
use crate::photo::Picture;

/// The components of quality of one face. None of them says who it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// The distance between the eyes, in pixels of the photo.
    pub eye_distance: f64,
    /// Variance of the Laplacian of the aligned face's brightness (0 to 255): low is blurred. Measured on the crop of the
    /// embedder, so a face that had to be enlarged counts as blurred, which is what it is to the embedder.
    pub sharpness: f64,
    /// How far the head is turned to the side: (l − r) / (l + r), l and r the distances of the nose from both eyes along
    /// the line of the eyes. 0 is frontal, ±1 is a nose above an eye; positive is towards the picture's right.
    pub yaw: f64,
    /// How far the head is lifted or lowered: where the nose lies on the way from the eyes (0) to the mouth (1), minus
    /// one half. Positive is lowered; people differ by about ±0.1.
    pub pitch: f64,
    /// How far the line of the eyes is from level, in degrees, clockwise positive.
    pub roll: f64,
    /// Mean brightness of the aligned face, 0 to 255.
    pub brightness: f64,
    /// Standard deviation of the brightness of the aligned face.
    pub contrast: f64,
    /// The share of pixels of the aligned face that are black (below 8) or white (above 247), 0 to 1.
    pub clipped: f64,
    /// What the quality model says, 0 to 1, where there is one.
    pub model: Option<f64>,
    /// How likely the face is there in person, 0 to 1, where there are models for that.
    pub liveness: Option<f64>,
}

impl Quality {
    /// Measures a face and its aligned crop.
    pub(crate) fn measured(face: &Face, crop: &Picture) -> Self {
        let grey = brightness(crop);
        let (brightness, contrast) = mean_and_deviation(&grey);
        let clipped = grey.iter().filter(|&&value| !(8.0..=247.0).contains(&value)).count();
        let (yaw, pitch) = pose(&face.landmarks);
        Self {
            eye_distance: face.landmarks.eye_distance(),
            sharpness: laplacian(&grey, crop.width(), crop.height()),
            yaw,
            pitch,
            roll: face.landmarks.roll(),
            brightness,
            contrast,
            clipped: clipped as f64 / grey.len().max(1) as f64,
            model: None,
            liveness: None,
        }
    }
}

/// Luma of BT.601, which is what JPEG stores.
fn brightness(picture: &Picture) -> Zeroizing<Vec<f32>> {
    let weighted = |pixel: &[u8]| match *pixel {
        [red, green, blue] => 0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue),
        _ => 0.0,
    };
    Zeroizing::new(picture.bytes().chunks_exact(3).map(weighted).collect())
}

fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
    let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

/// Variance of the four-neighbour Laplacian over the inner pixels.
fn laplacian(grey: &[f32], width: usize, height: usize) -> f64 {
    if width < 3 || height < 3 {
        return 0.0;
    }
    // All room at once: growing would leave copies behind.
    let mut answers = Zeroizing::new(Vec::with_capacity((width - 2) * (height - 2)));
    let rows: Vec<&[f32]> = grey.chunks_exact(width).collect();
    for three in rows.windows(3) {
        let [above, here, below] = three else { continue };
        for ((up, around), down) in above.iter().skip(1).zip(here.windows(3)).zip(below.iter().skip(1)) {
            if let [left, middle, right] = around {
                answers.push(up + down + left + right - 4.0 * middle);
            }
        }
    }
    mean_and_deviation(&answers).1.powi(2)
}

/// Yaw and pitch as [`Quality`] defines them, measured along the face's own axes so that a tilted head changes neither.
fn pose(marks: &Landmarks) -> (f64, f64) {
    let (eyes, mouth) = (marks.left_eye.middle(marks.right_eye), marks.left_mouth.middle(marks.right_mouth));
    let along = |from: Point, to: Point, point: Point| {
        let (dx, dy) = (to.x - from.x, to.y - from.y);
        let square = dx * dx + dy * dy;
        if square > 0.0 { ((point.x - from.x) * dx + (point.y - from.y) * dy) / square } else { 0.5 }
    };
    // 0 at the left eye, 1 at the right: (l − r) / (l + r) for a nose between them.
    let yaw = 2.0 * along(marks.left_eye, marks.right_eye, marks.nose) - 1.0;
    (yaw, along(eyes, mouth, marks.nose) - 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Rectangle, Similarity};

    fn face(points: [(f64, f64); 5]) -> Face {
        let landmarks = Landmarks::from_points(points.map(|(x, y)| Point::new(x, y)));
        Face { bounds: Rectangle { x: 0.0, y: 0.0, width: 1.0, height: 1.0 }, landmarks, score: 1.0 }
    }

    const FRONTAL: [(f64, f64); 5] = [(40.0, 60.0), (80.0, 60.0), (60.0, 80.0), (45.0, 100.0), (75.0, 100.0)];

    #[test]
    fn pose_is_measured_in_the_faces_own_axes() {
        let frontal = face(FRONTAL);
        let (yaw, pitch) = pose(&frontal.landmarks);
        assert!(yaw.abs() < 1e-12 && pitch.abs() < 1e-12);
        let mut turned = FRONTAL;
        turned[2] = (70.0, 90.0);
        let (yaw, pitch) = pose(&face(turned).landmarks);
        assert!((yaw - 0.5).abs() < 1e-12 && (pitch - 0.25).abs() < 1e-12);
        let map = Similarity::new(1.7, 0.6, Point::new(9.0, -4.0));
        let tilted = face(turned).landmarks.map(|point| map.apply(point));
        let (tilted_yaw, tilted_pitch) = pose(&tilted);
        assert!((tilted_yaw - yaw).abs() < 1e-9 && (tilted_pitch - pitch).abs() < 1e-9);
        assert!((tilted.roll() - 0.6_f64.to_degrees()).abs() < 1e-9);
        assert!((tilted.eye_distance() - 40.0 * 1.7).abs() < 1e-9);
    }

    #[test]
    fn blur_lowers_sharpness_and_light_is_measured() {
        let mut sharp = Picture::black(32, 32);
        let mut soft = Picture::black(32, 32);
        for y in 0..32 {
            for x in 0..32 {
                sharp.set(x, y, [if (x / 2 + y / 2) % 2 == 0 { 60 } else { 180 }; 3]);
                let wave = (x as f64 * 0.3).sin() + (y as f64 * 0.3).sin();
                soft.set(x, y, [(120.0 + 30.0 * wave) as u8; 3]);
            }
        }
        let (sharp, soft) = (Quality::measured(&face(FRONTAL), &sharp), Quality::measured(&face(FRONTAL), &soft));
        assert!(sharp.sharpness > 50.0 * soft.sharpness, "{} {}", sharp.sharpness, soft.sharpness);
        assert!((sharp.brightness - 120.0).abs() < 0.1 && (sharp.contrast - 60.0).abs() < 0.1);
        assert_eq!(sharp.clipped, 0.0);
        let black = Quality::measured(&face(FRONTAL), &Picture::black(32, 32));
        assert_eq!((black.clipped, black.brightness, black.sharpness), (1.0, 0.0, 0.0));
        assert_eq!(Quality::measured(&face(FRONTAL), &Picture::black(0, 0)).clipped, 0.0);
    }
}
