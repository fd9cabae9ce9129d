//! Finding faces: a photo is scaled and padded, the detector answers per cell, overlapping answers become one face.

use crate::geometry::{Face, Landmarks, Point, Rectangle};
use crate::manifest::{Detect, Input};
use crate::photo::Picture;
use crate::runtime::{RuntimeError, Session, Tensor};
use crate::warp;

/// Most candidates that are compared with one another; a detector that gives more is not looking at faces.
const MOST_CANDIDATES: usize = 2000;

/// A loaded detector.
pub(crate) struct Detector {
    pub(crate) session: Box<dyn Session>,
    pub(crate) input: Input,
    pub(crate) detect: Detect,
}

impl Detector {
    /// All faces of the picture, the surest first.
    pub(crate) fn find(&self, picture: &Picture) -> Result<Vec<Face>, RuntimeError> {
        let longest = picture.width().max(picture.height());
        if longest == 0 {
            return Ok(Vec::new());
        }
        // A small photo is not enlarged: nothing new would be seen.
        let factor = (f64::from(self.detect.longest) / longest as f64).min(1.0);
        let side = |pixels: usize| ((pixels as f64 * factor).round() as usize).clamp(1, self.detect.longest as usize);
        let (width, height) = (side(picture.width()), side(picture.height()));
        let multiple = self.detect.multiple as usize;
        let (columns, rows) = (width.next_multiple_of(multiple), height.next_multiple_of(multiple));
        let small = warp::reduced(picture, width, height);
        let tensor = warp::tensor(&small, &self.input, columns, rows)?;
        let outputs = self.session.run(&[(&self.input.name, &tensor)])?;
        let mut candidates = Vec::new();
        for &stride in &self.detect.strides {
            candidates.extend(decoded(&outputs, stride, columns, rows, self.detect.score)?);
        }
        let faces = apart(candidates, f64::from(self.detect.overlap));
        // Sides were rounded to whole pixels: each has its own way back.
        let (back_x, back_y) = (picture.width() as f64 / width as f64, picture.height() as f64 / height as f64);
        Ok(faces.into_iter().map(|face| enlarged(&face, back_x, back_y)).collect())
    }
}

/// The candidates of one level: score √(cls·obj), centre (cell + offset)·s, size exp(·)·s, landmarks (offset + cell)·s.
fn decoded(
    outputs: &[(String, Tensor)],
    stride: u32,
    columns: usize,
    rows: usize,
    least: f32,
) -> Result<Vec<Face>, RuntimeError> {
    let across = columns / stride as usize;
    let cells = across * (rows / stride as usize);
    let level = |kind: &str, each: usize| {
        let name = format!("{kind}_{stride}");
        let Some((_, tensor)) = outputs.iter().find(|(known, _)| *known == name) else {
            return Err(RuntimeError::Output { name });
        };
        if tensor.values().len() != cells * each {
            let expected = format!("[1, {cells}, {each}]");
            return Err(RuntimeError::OutputShape { name, found: tensor.shape().to_vec(), expected });
        }
        Ok(tensor.values())
    };
    let (classes, objects) = (level("cls", 1)?, level("obj", 1)?);
    let (boxes, points) = (level("bbox", 4)?, level("kps", 10)?);
    let s = f64::from(stride);
    let mut found = Vec::new();
    for (cell, (class, object)) in classes.iter().zip(objects).enumerate() {
        let score = (class.clamp(0.0, 1.0) * object.clamp(0.0, 1.0)).sqrt();
        // A score that is not a number is no face.
        if score.is_nan() || score < least {
            continue;
        }
        let (column, row) = ((cell % across) as f64, (cell / across) as f64);
        let (Some(&[dx, dy, log_width, log_height]), Some(marks)) =
            (boxes.get(cell * 4..).and_then(<[f32]>::first_chunk::<4>), points.get(cell * 10..cell * 10 + 10))
        else {
            continue;
        };
        let (width, height) = (f64::from(log_width).exp() * s, f64::from(log_height).exp() * s);
        let (x, y) = ((column + f64::from(dx)) * s - width / 2.0, (row + f64::from(dy)) * s - height / 2.0);
        let mut landmarks = [Point::default(); 5];
        for (landmark, mark) in landmarks.iter_mut().zip(marks.chunks_exact(2)) {
            if let &[mx, my] = mark {
                *landmark = Point::new((column + f64::from(mx)) * s, (row + f64::from(my)) * s);
            }
        }
        let finite = landmarks.iter().all(|mark| mark.x.is_finite() && mark.y.is_finite());
        if finite && [x, y, width, height].iter().all(|value| value.is_finite()) {
            let bounds = Rectangle { x, y, width, height };
            found.push(Face { bounds, landmarks: Landmarks::from_points(landmarks), score: f64::from(score) });
        }
    }
    Ok(found)
}

/// Non-maximum suppression: the surest first, without those that overlap a surer one.
fn apart(mut candidates: Vec<Face>, overlap: f64) -> Vec<Face> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(MOST_CANDIDATES);
    let mut kept: Vec<Face> = Vec::new();
    for face in candidates {
        if kept.iter().all(|better| better.bounds.overlap(&face.bounds) <= overlap) {
            kept.push(face);
        }
    }
    kept
}

fn enlarged(face: &Face, x: f64, y: f64) -> Face {
    let Rectangle { x: left, y: top, width, height } = face.bounds;
    Face {
        bounds: Rectangle { x: left * x, y: top * y, width: width * x, height: height * y },
        landmarks: face.landmarks.map(|point| Point::new(point.x * x, point.y * y)),
        score: face.score,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One level of 2 x 2 cells of stride 8, every cell with the same answer.
    fn outputs(score: f32, log_width: f32) -> Vec<(String, Tensor)> {
        let level =
            |name: &str, each: &[f32]| (name.to_owned(), Tensor::new(vec![1, 4, each.len()], each.repeat(4)).unwrap());
        vec![
            level("cls_8", &[score]),
            level("obj_8", &[1.0]),
            level("bbox_8", &[0.5, 0.25, log_width, 0.0]),
            level("kps_8", &[0.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.0, 1.0, 1.0, 1.0]),
        ]
    }

    #[test]
    fn cells_are_decoded_as_the_formula_says() {
        let faces = decoded(&outputs(0.81, 2.0_f32.ln()), 8, 16, 16, 0.6).unwrap();
        assert_eq!(faces.len(), 4);
        let last = faces[3];
        assert!((last.score - 0.9).abs() < 1e-6);
        assert!((last.bounds.x - (12.0 - 8.0)).abs() < 1e-5 && (last.bounds.y - (10.0 - 4.0)).abs() < 1e-5);
        assert!((last.bounds.width - 16.0).abs() < 1e-5 && (last.bounds.height - 8.0).abs() < 1e-5);
        assert_eq!(last.landmarks.right_eye, Point::new(16.0, 8.0));
        assert_eq!(last.landmarks.nose, Point::new(12.0, 12.0));
    }

    #[test]
    fn answers_that_are_no_numbers_are_no_faces() {
        for (score, log_width) in
            [(f32::NAN, 0.0), (0.5 * 0.5, 0.0), (0.9, f32::INFINITY), (0.9, f32::NAN), (0.9, 999.0)]
        {
            assert!(decoded(&outputs(score, log_width), 8, 16, 16, 0.6).unwrap().is_empty(), "{score} {log_width}");
        }
    }

    #[test]
    fn outputs_of_another_shape_are_refused() {
        assert!(matches!(decoded(&outputs(0.9, 0.0), 8, 32, 16, 0.6), Err(RuntimeError::OutputShape { .. })));
        assert!(matches!(decoded(&outputs(0.9, 0.0), 16, 16, 16, 0.6), Err(RuntimeError::Output { .. })));
    }

    #[test]
    fn of_overlapping_faces_the_surest_stays() {
        let face = |x: f64, score: f64| Face {
            bounds: Rectangle { x, y: 0.0, width: 10.0, height: 10.0 },
            landmarks: Landmarks::from_points([Point::default(); 5]),
            score,
        };
        let kept = apart(vec![face(0.0, 0.7), face(1.0, 0.9), face(30.0, 0.8), face(2.0, 0.6)], 0.3);
        assert_eq!(kept.iter().map(|face| face.score).collect::<Vec<_>>(), [0.9, 0.8]);
    }
}
