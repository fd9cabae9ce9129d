//! The two-sample chi-square test over byte values.

use std::collections::BTreeMap;

/// Significance level of one test. With fixed seeds the outcome is always the same; for fresh ones the chance that any
/// of about 200 tests fails without a cause is below 200·α (Bonferroni).
pub(super) const ALPHA: f64 = 1e-6;
/// Byte values are pooled until a cell holds this many bytes of both samples together: 10 expected in each.
const CELL: u64 = 20;

/// The outcome of one test.
#[derive(Clone, Copy)]
pub(super) struct Alike {
    /// Bytes of each sample.
    pub(super) bytes: [usize; 2],
    /// χ².
    pub(super) statistic: f64,
    /// Degrees of freedom.
    pub(super) freedom: usize,
    /// Chance of a statistic as large if both samples come from one distribution.
    pub(super) p: f64,
}

impl std::fmt::Display for Alike {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes: [a, b], statistic, freedom, p } = self;
        write!(f, "{a} and {b} bytes, χ² = {statistic:.1} at {freedom} degrees of freedom, p = {p:.2e}")
    }
}

/// Whether two samples of bytes come from one distribution, whatever it is. `None` if they are too short for two cells.
pub(super) fn alike(a: &[u8], b: &[u8]) -> Option<Alike> {
    let mut counts: BTreeMap<u8, [u64; 2]> = BTreeMap::new();
    for (sample, bytes) in [a, b].into_iter().enumerate() {
        for byte in bytes {
            counts.entry(*byte).or_default()[sample] += 1;
        }
    }
    let mut cells: Vec<[u64; 2]> = Vec::new();
    let mut open = [0u64; 2];
    for count in counts.into_values() {
        open = [open[0] + count[0], open[1] + count[1]];
        if open[0] + open[1] >= CELL {
            cells.push(std::mem::take(&mut open));
        }
    }
    let last = cells.last_mut()?;
    *last = [last[0] + open[0], last[1] + open[1]];
    let freedom = cells.len() - 1;
    if freedom == 0 {
        return None;
    }
    let (na, nb) = (a.len() as f64, b.len() as f64);
    let statistic = cells
        .iter()
        .map(|&[x, y]| ((nb / na).sqrt() * x as f64 - (na / nb).sqrt() * y as f64).powi(2) / (x + y) as f64)
        .sum();
    Some(Alike { bytes: [a.len(), b.len()], statistic, freedom, p: upper_tail(freedom, statistic) })
}

/// Pr[χ²_freedom ≥ x] = Q(freedom/2, x/2), the regularised upper incomplete gamma function (Press et al., Numerical
/// Recipes, section 6.2).
fn upper_tail(freedom: usize, x: f64) -> f64 {
    let (a, x) = (freedom as f64 / 2.0, x / 2.0);
    // ln Γ(a) for halves of integers, from Γ(1) = 1 or Γ(1/2) = √π.
    let (mut at, mut ln_gamma) =
        if freedom.is_multiple_of(2) { (1.0, 0.0) } else { (0.5, std::f64::consts::PI.ln() / 2.0) };
    while at < a {
        ln_gamma += f64::ln(at);
        at += 1.0;
    }
    if x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - ln_gamma).exp();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for k in 1..10_000 {
            term *= x / (a + f64::from(k));
            sum += term;
            if term < sum * 1e-15 {
                break;
            }
        }
        return 1.0 - front * sum;
    }
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1e300, 1.0 / b);
    let mut fraction = d;
    for k in 1..10_000 {
        let an = -f64::from(k) * (f64::from(k) - a);
        b += 2.0;
        d = 1.0 / (an * d + b);
        c = b + an / c;
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

#[test]
fn tails_agree_with_tables() {
    for (freedom, x, p) in
        [(1, 23.928, 1e-6), (2, 27.631, 1e-6), (255, 377.2, 1e-6), (10, 18.307, 0.05), (3, 0.584, 0.9)]
    {
        let found = upper_tail(freedom, x);
        assert!((found / p - 1.0).abs() < 0.05, "{freedom} {x}: {found}");
    }
}
