//! Synthetic people in groups, for tests and for showing what the fairness step can and cannot do.
//!
//! A person of group g has the direction normalise(c_g·u_g + D_g·z), with z standard normal, u_g a unit vector of the group,
//! c_g how much of it all faces of the group share, and D_g diagonal in a basis of the group's own; an image is
//! normalise(a·person + √(1−a²)·noise) with a varying by image. Two reasons why a model matches strangers of one group more often than of another:
//!
//! - **a shared direction** (c_g larger): the group's non-mated scores have a mean above zero;
//! - **a narrow group** (D_g falls off faster): they have mean zero but a larger spread.

use veilmatch_secret::Stream;

use crate::bootstrap::{normal, stream};
use crate::{People, Templates};

/// Standard deviation of an image's likeness to its person; with a mean of 0.8 mated scores spread as a real model's on LFW.
const VARIATION: f64 = 0.09;

/// How a group's faces are distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// People in it.
    pub people: usize,
    /// Weight of the shared direction against a person's own, which has about unit length.
    pub shared: f64,
    /// Dimensions that the group's faces vary in effectively; no more than there are.
    pub breadth: f64,
}

/// Which synthetic set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Groups differ in how much of a direction their faces share.
    SharedDirection,
    /// Groups differ in how many dimensions their faces vary in.
    Narrowness,
}

impl Cause {
    /// Three groups of equal size.
    #[must_use]
    pub fn groups(self, people: usize, dimension: usize) -> [Group; 3] {
        let all = dimension as f64;
        let group = |shared, breadth| Group { people, shared, breadth };
        match self {
            Self::SharedDirection => [group(0.05, all), group(0.3, all), group(0.45, all)],
            Self::Narrowness => [group(0.1, all), group(0.1, 0.6 * all), group(0.1, 0.4 * all)],
        }
    }
}

/// People of some groups.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Their templates.
    pub templates: Templates,
    /// Who is in which row.
    pub people: People,
    /// The group of each row.
    pub groups: Vec<usize>,
}

/// Draws a crowd; `likeness` is the mean of a, the cosine of an image to its person, which varies unless it is 1. The seed decides everything.
#[must_use]
pub fn crowd(groups: &[Group], images: usize, dimension: usize, likeness: f64, seed: u64) -> Crowd {
    let mut stream = stream("veilmatch/evaluation/synthetic", seed, 0);
    let (mut values, mut labels, mut of_row) = (Vec::new(), Vec::new(), Vec::new());
    for (number, group) in groups.iter().enumerate() {
        let shared = unit(dimension, &mut stream);
        let amplitudes = amplitudes(dimension, group.breadth);
        let mirrors: Vec<Vec<f64>> = (0..dimension).map(|_| unit(dimension, &mut stream)).collect();
        for person in 0..group.people {
            let mut own: Vec<f64> = amplitudes.iter().map(|a| a * normal(&mut stream)).collect();
            // As many reflections as dimensions make a basis of the group's own.
            for mirror in &mirrors {
                let along = 2.0 * own.iter().zip(mirror).map(|(x, m)| x * m).sum::<f64>();
                own.iter_mut().zip(mirror).for_each(|(x, m)| *x -= along * m);
            }
            own.iter_mut().zip(&shared).for_each(|(x, s)| *x += group.shared * s);
            to_unit(&mut own);
            for _ in 0..images {
                let mut noise = unit(dimension, &mut stream);
                let along = noise.iter().zip(&own).map(|(n, o)| n * o).sum::<f64>();
                noise.iter_mut().zip(&own).for_each(|(n, o)| *n -= along * o);
                to_unit(&mut noise);
                let variation = if likeness < 1.0 { VARIATION * normal(&mut stream) } else { 0.0 };
                let a = (likeness + variation).clamp(0.0, 1.0);
                let rest = (1.0 - a * a).sqrt();
                let mut image: Vec<f64> = own.iter().zip(&noise).map(|(o, n)| a * o + rest * n).collect();
                to_unit(&mut image);
                values.extend(image.iter().map(|&v| v as f32));
                labels.push(format!("{number}/{person}"));
                of_row.push(number);
            }
        }
    }
    let templates = Templates::trusted(values, dimension);
    Crowd { templates, people: People::new(labels), groups: of_row }
}

/// Standard deviations of the coordinates, with squares that add up to 1 and fall off so that (Σλ)²/Σλ² is the breadth.
fn amplitudes(dimension: usize, breadth: f64) -> Vec<f64> {
    let variances = |t: f64| -> Vec<f64> { (0..dimension).map(|k| (-(k as f64) / t).exp()).collect() };
    let effective = |l: &[f64]| l.iter().sum::<f64>().powi(2) / l.iter().map(|v| v * v).sum::<f64>();
    let (mut low, mut high) = (0.1, 1e6);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if effective(&variances(middle)) < breadth { low = middle } else { high = middle }
    }
    let chosen = variances(high);
    let sum: f64 = chosen.iter().sum();
    chosen.iter().map(|v| (v / sum).sqrt()).collect()
}

fn unit(dimension: usize, stream: &mut Stream) -> Vec<f64> {
    let mut v: Vec<f64> = (0..dimension).map(|_| normal(stream)).collect();
    to_unit(&mut v);
    v
}

fn to_unit(v: &mut [f64]) {
    let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    v.iter_mut().for_each(|x| *x /= norm);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and standard deviation of the scores of different people of one group.
    fn moments(crowd: &Crowd, group: usize) -> (f64, f64) {
        let rows: Vec<usize> = (0..crowd.groups.len()).filter(|&r| crowd.groups[r] == group).collect();
        let scores: Vec<f64> = rows
            .iter()
            .flat_map(|&a| rows.iter().filter(move |&&b| b > a).map(move |&b| crowd.templates.cosine(a, b).unwrap()))
            .collect();
        let n = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / n;
        (mean, (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n).sqrt())
    }

    #[test]
    fn groups_have_the_moments_that_they_were_made_for() {
        let groups = [
            Group { people: 300, shared: 0.0, breadth: 64.0 },
            Group { people: 300, shared: 0.5, breadth: 64.0 },
            Group { people: 300, shared: 0.0, breadth: 20.0 },
        ];
        let crowd = crowd(&groups, 1, 64, 1.0, 3);
        assert_eq!((crowd.templates.len(), crowd.people.len()), (900, 900));
        let [plain, shared, narrow] = [0, 1, 2].map(|g| moments(&crowd, g));
        assert!(plain.0.abs() < 0.005 && (plain.1 - 1.0 / 8.0).abs() < 0.01, "{plain:?}");
        assert!((shared.0 - 0.25 / 1.25).abs() < 0.02, "{shared:?}");
        assert!(narrow.0.abs() < 0.02 && (narrow.1 - (1.0f64 / 20.0).sqrt()).abs() < 0.03, "{narrow:?}");
    }
}
