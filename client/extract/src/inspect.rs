//! What was found in a photo, drawn upon it: boxes, landmarks, the aligned face, and the components of quality as text.

use crate::gates::Refusal;
use crate::geometry::{Face, Point, Rectangle};
use crate::photo::Picture;
use crate::pipeline::Examination;
use crate::warp;

mod glyphs;

/// The longest side of the drawn photo: enough to see, small enough to open anywhere.
const LONGEST: usize = 1200;
const CHOSEN: [u8; 3] = [60, 220, 90];
const REFUSED: [u8; 3] = [255, 90, 70];
const OTHER: [u8; 3] = [255, 190, 40];
const MARK: [u8; 3] = [70, 200, 255];
const PAPER: [u8; 3] = [24, 26, 30];
const INK: [u8; 3] = [225, 228, 232];
/// Pixels between things.
const MARGIN: usize = 12;
/// The least width of the text beside the photo.
const PANEL: usize = 420;

/// The examined photo with all that was found, and beside it the aligned face and what was measured.
#[must_use]
pub fn annotated(examination: &Examination) -> Picture {
    let photo = &examination.picture;
    let longest = photo.width().max(photo.height()).max(1);
    let factor = (LONGEST as f64 / longest as f64).min(1.0);
    let side = |pixels: usize| ((pixels as f64 * factor).round() as usize).max(1);
    let mut drawn = warp::reduced(photo, side(photo.width()), side(photo.height()));
    let colour = if examination.refusals.is_empty() { CHOSEN } else { REFUSED };
    for face in &examination.faces {
        let colour = if *face == examination.face { colour } else { OTHER };
        draw_face(&mut drawn, face, factor, colour);
    }
    let lines = lines(examination);
    let (line, letter) = (glyphs::HEIGHT + 6, glyphs::WIDTH + glyphs::SCALE);
    let longest = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or_default();
    let crop = &examination.crop;
    let panel = PANEL.max(longest * letter).max(crop.width()) + 2 * MARGIN;
    let height = drawn.height().max(crop.height() + lines.len() * line + 3 * MARGIN);
    let mut canvas = Picture::black(drawn.width() + panel, height);
    fill(&mut canvas, PAPER);
    place(&mut canvas, &drawn, 0, 0);
    let left = drawn.width() + MARGIN;
    place(&mut canvas, crop, left, MARGIN);
    let mut top = crop.height() + 2 * MARGIN;
    for (text, colour) in lines {
        glyphs::write(&mut canvas, left, top, &text, colour);
        top += line;
    }
    canvas
}

/// What was measured, line by line.
fn lines(examination: &Examination) -> Vec<(String, [u8; 3])> {
    let Examination { quality: q, face, faces, turned, refusals, .. } = examination;
    let mut lines: Vec<(String, [u8; 3])> = vec![
        (format!("faces found   {}", faces.len()), INK),
        (format!("detector      {:.2}", face.score), INK),
        (format!("eye distance  {:.0} px", q.eye_distance), INK),
        (format!("sharpness     {:.0}", q.sharpness), INK),
        (format!("yaw           {:+.2}", q.yaw), INK),
        (format!("pitch         {:+.2}", q.pitch), INK),
        (format!("roll          {:+.0} degrees", q.roll), INK),
        (format!("brightness    {:.0}", q.brightness), INK),
        (format!("contrast      {:.0}", q.contrast), INK),
        (format!("clipped       {:.1} %", q.clipped * 100.0), INK),
    ];
    lines.extend(q.model.map(|value| (format!("quality       {value:.2}"), INK)));
    lines.extend(q.liveness.map(|value| (format!("presence      {value:.2}"), INK)));
    if *turned > 0 {
        lines.push((format!("turned        {} degrees", u16::from(*turned) * 90), OTHER));
    }
    lines.push((String::new(), INK));
    if refusals.is_empty() {
        lines.push(("accepted".to_owned(), CHOSEN));
    }
    for refusal in refusals.iter().map(Refusal::to_string) {
        lines
            .extend(wrapped(&refusal, PANEL / (glyphs::WIDTH + glyphs::SCALE)).into_iter().map(|text| (text, REFUSED)));
    }
    lines
}

/// Words in lines of at most `most` letters, where words are not longer.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= most {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn draw_face(picture: &mut Picture, face: &Face, factor: f64, colour: [u8; 3]) {
    let Rectangle { x, y, width, height } = face.bounds;
    let (left, top) = ((x * factor).round(), (y * factor).round());
    let (right, bottom) = (((x + width) * factor).round(), ((y + height) * factor).round());
    for thick in 0..2 {
        let thick = f64::from(thick);
        let (left, top, right, bottom) = (left + thick, top + thick, right - thick, bottom - thick);
        line(picture, Point::new(left, top), Point::new(right, top), colour);
        line(picture, Point::new(right, top), Point::new(right, bottom), colour);
        line(picture, Point::new(right, bottom), Point::new(left, bottom), colour);
        line(picture, Point::new(left, bottom), Point::new(left, top), colour);
    }
    let radius = (face.landmarks.eye_distance() * factor / 18.0).clamp(2.0, 6.0);
    for mark in face.landmarks.points() {
        disc(picture, Point::new(mark.x * factor, mark.y * factor), radius, MARK);
    }
}

fn dot(picture: &mut Picture, x: f64, y: f64, colour: [u8; 3]) {
    if x >= 0.0 && y >= 0.0 && x < picture.width() as f64 && y < picture.height() as f64 {
        picture.set(x as usize, y as usize, colour);
    }
}

/// A level or upright line; both ends are drawn.
fn line(picture: &mut Picture, from: Point, to: Point, colour: [u8; 3]) {
    // A box may reach far beyond the picture: only what is within is walked.
    let most = (picture.width() + picture.height()) as f64;
    let within = |value: f64| value.clamp(-1.0, most);
    let (from, to) = (Point::new(within(from.x), within(from.y)), Point::new(within(to.x), within(to.y)));
    let steps = from.distance(to).max(1.0);
    for step in 0..=steps as usize {
        let share = step as f64 / steps;
        dot(picture, from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, colour);
    }
}

fn disc(picture: &mut Picture, centre: Point, radius: f64, colour: [u8; 3]) {
    let reach = radius.ceil() as i32;
    for dy in -reach..=reach {
        for dx in -reach..=reach {
            if f64::from(dx).hypot(f64::from(dy)) <= radius {
                dot(picture, centre.x + f64::from(dx), centre.y + f64::from(dy), colour);
            }
        }
    }
}

fn fill(picture: &mut Picture, colour: [u8; 3]) {
    for y in 0..picture.height() {
        for x in 0..picture.width() {
            picture.set(x, y, colour);
        }
    }
}

fn place(canvas: &mut Picture, picture: &Picture, left: usize, top: usize) {
    for y in 0..picture.height() {
        for x in 0..picture.width() {
            canvas.set(left + x, top + y, picture.pixel(x, y));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped_and_none_is_lost() {
        let text = "face too small: 24 px between the eyes, 32 needed; come closer";
        let lines = wrapped(text, 20);
        assert!(lines.iter().all(|line| line.len() <= 20) && lines.len() > 2, "{lines:?}");
        assert_eq!(lines.join(" "), text);
        assert_eq!(wrapped("incomprehensibilities", 5), ["incomprehensibilities"]);
    }

    #[test]
    fn boxes_beyond_the_picture_are_drawn_as_far_as_they_reach() {
        let mut picture = Picture::black(40, 30);
        let landmarks = crate::geometry::Landmarks::from_points([Point::new(10.0, 10.0); 5]);
        let bounds = Rectangle { x: -1e12, y: 5.0, width: 2e12, height: 1e15 };
        draw_face(&mut picture, &Face { bounds, landmarks, score: 1.0 }, 1.0, CHOSEN);
        assert_eq!(picture.pixel(20, 5), CHOSEN);
        assert_eq!(picture.pixel(10, 10), MARK);
        assert_eq!(picture.pixel(20, 20), [0; 3]);
    }
}
