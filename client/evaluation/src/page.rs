//! The report: one HTML file that loads nothing, with DET curves, score histograms of the plaintext side, the encrypted
//! operating points drawn on them, and tables with intervals.

use veilmatch_plots::{Area, Bar, Kind, Series, areas, bars, document, lines, section, table};

use crate::bootstrap::{Interval, Rate};
use crate::encrypted::{EncryptedPoint, EncryptedSearches};
use crate::fair::{Fitted, Verdict};
use crate::folds::Rates;
use crate::groups::{Groups, Spread};
use crate::identification::Identification;
use crate::images::{Accuracy, Acquisition, Pairs, TimeLimits};
use crate::time::OverTime;
use crate::verification::Verification;

/// Curves that one plot can tell apart.
const CURVES: [Kind; 5] = [Kind::Plain, Kind::Second, Kind::Machine, Kind::Other, Kind::Further];

/// A rate in percent: two decimals, or two digits that count where it is smaller.
#[must_use]
pub fn percent(rate: f64) -> String {
    let value = 100.0 * rate;
    match value.abs() {
        0.0 => String::from("0 %"),
        v if v >= 0.1 => format!("{value:.2} %"),
        v => {
            let digits = (1 - v.log10().floor() as i32).clamp(2, 9) as usize;
            format!("{value:.digits$} %")
        }
    }
}

/// A wanted rate as people write it: 0.01, 1e-5.
#[must_use]
pub fn wanted(rate: f64) -> String {
    if rate >= 1e-3 { rate.to_string() } else { format!("{rate:e}") }
}

/// An interval in percent.
#[must_use]
pub fn percent_interval(interval: Option<Interval>) -> String {
    // From ten percent on, no interval here is known to more than a digit after the point.
    let bound =
        |v: f64| if v >= 0.1 { format!("{:.1}", 100.0 * v) } else { percent(v).trim_end_matches(" %").to_owned() };
    interval.map_or_else(|| String::from("-"), |i| format!("{} to {} %", bound(i.low), bound(i.high)))
}

/// A rate with its interval.
#[must_use]
pub fn rate(rate: &Rate) -> String {
    match rate.trials {
        0 => String::from("-"),
        _ => format!("{} ({})", percent(rate.rate), percent_interval(rate.interval)),
    }
}

/// The same without the signs, for narrow columns whose head has it.
#[must_use]
pub fn rate_numbers(rate: &Rate) -> String {
    self::rate(rate).replace(" %", "")
}

/// Thousands separated by commas.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let places = digits.len();
    digits.chars().enumerate().fold(String::new(), |mut text, (i, digit)| {
        if i > 0 && (places - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
        text
    })
}

/// A verdict in words.
#[must_use]
pub fn verdict(fitted: &Fitted) -> &'static str {
    match fitted.verdict {
        Verdict::Helps => {
            "The map helps: on people whom it was not fitted on, the Gini coefficient of FMR falls below its 95 % interval without the map."
        }
        Verdict::NotShown => {
            "The Gini coefficient of FMR falls, but no further than its 95 % interval without the map: an effect is not shown."
        }
        Verdict::DoesNotHelp => {
            "The map does not help: the spread of FMR does not fall on people whom it was not fitted on."
        }
    }
}

/// A report under construction.
#[derive(Clone, Debug, Default)]
pub struct Page {
    body: String,
}

impl Page {
    /// The file. `source` says in one line what was evaluated.
    #[must_use]
    pub fn render(&self, source: &str) -> String {
        let words = format!(
            "{}. Intervals are 95 %, from a bootstrap over people. Curves and histograms are of plaintext scores: the \
             encrypted protocol opens decisions alone, and what it decided is drawn as points.",
            veilmatch_plots::escape(source)
        );
        document("Veilmatch: accuracy", &words, &self.body)
    }

    fn add(&mut self, title: &str, words: &str, body: &str) {
        self.body.push_str(&section(title, words, body));
    }

    /// Verification of a list of pairs over folds; rates encrypted beside plaintext.
    pub fn folds(&mut self, plain: &Rates, eer: f64, encrypted: Option<&Rates>, words: &str) {
        let row = |name: &str, r: &Rates, eer: String| {
            vec![name.to_owned(), percent(r.accuracy), percent(r.fmr), percent(r.fnmr), eer]
        };
        let mut rows = vec![row("plaintext", plain, percent(eer))];
        rows.extend(encrypted.map(|e| row("encrypted", e, String::from("none: no scores"))));
        let header = [("", false), ("accuracy", true), ("FMR", true), ("FNMR", true), ("EER", true)];
        self.add("Verification over folds", words, &table(&header, &rows));
    }

    /// Verification: DET, histograms, operating points.
    pub fn verification(&mut self, v: &Verification, encrypted: &[EncryptedPoint]) {
        let det = |points: Vec<(f64, f64)>, name: &str, kind, joined| Series {
            name: name.to_owned(),
            kind,
            joined,
            marked: !joined,
            points,
        };
        let visible = |points: &mut Vec<(f64, f64)>| points.retain(|p| p.0 > 0.0 && p.1 > 0.0);
        let mut curve: Vec<(f64, f64)> = v.det.iter().map(|p| (p.false_positive, p.false_negative)).collect();
        visible(&mut curve);
        let mut listed: Vec<(f64, f64)> =
            v.points.iter().filter_map(|p| Some((p.fmr.rate, p.fnmr_listed.as_ref()?.rate))).collect();
        visible(&mut listed);
        let mut decided: Vec<(f64, f64)> = encrypted.iter().map(|e| (e.fmr, e.fnmr_encrypted)).collect();
        visible(&mut decided);
        let mut series = vec![det(curve, "plaintext, all mated pairs", Kind::Plain, true)];
        if !listed.is_empty() {
            series.push(det(listed, "plaintext, listed mated pairs", Kind::Machine, false));
        }
        if !decided.is_empty() {
            series.push(det(decided, "encrypted, the same mated pairs", Kind::Ours, false));
        }
        let words = format!(
            "{} templates of {} people: {} non-mated and {} mated pairs. EER {} ({}) at cosine {:.3}. Both axes logarithmic.",
            count(v.templates as u64),
            count(v.people as u64),
            count(v.non_mated_pairs),
            count(v.mated_pairs),
            percent(v.eer),
            percent_interval(v.eer_interval),
            v.eer_threshold,
        );
        self.add("Verification: DET", &words, &lines("DET", "FMR", "FNMR", &series));
        let [non_mated, mated] = &v.densities;
        let area =
            |name: &str, kind, points: &[(f64, f64)]| Area { name: name.to_owned(), kind, points: points.to_vec() };
        let marks: Vec<(f64, String)> =
            v.points.iter().map(|p| (p.threshold, format!("FMR {}", wanted(p.wanted_fmr)))).collect();
        let both =
            [area("non-mated, plaintext", Kind::Plain, non_mated), area("mated, plaintext", Kind::Second, mated)];
        let words = format!(
            "Each area is scaled to its own peak. Non-mated: mean {:.3}, standard deviation {:.3}; mated: {:.3}, {:.3}. \
             Lines: thresholds at these FMRs; the encrypted protocol decided at some of them.",
            v.non_mated.mean, v.non_mated.std, v.mated.mean, v.mated.std
        );
        self.add("Scores", &words, &areas("Scores", "cosine", (-0.5, 1.0), &both, &marks));
        self.points(v);
        self.encrypted(encrypted);
    }

    fn points(&mut self, v: &Verification) {
        let rows: Vec<Vec<String>> = v
            .points
            .iter()
            .map(|p| {
                vec![
                    wanted(p.wanted_fmr),
                    format!("{:.4}", p.threshold),
                    format!("{}{}", count(p.fmr.errors), if p.few { " (few)" } else { "" }),
                    percent_interval(p.fmr.interval),
                    rate(&p.fnmr),
                    p.fnmr_listed.as_ref().map_or_else(|| String::from("-"), rate),
                ]
            })
            .collect();
        let header = [
            ("FMR", true),
            ("threshold", true),
            ("false matches", true),
            ("FMR, 95 %", true),
            ("FNMR, all mated pairs", true),
            ("FNMR, listed pairs", true),
        ];
        self.add(
            "Operating points",
            "Few: under 30 false matches, so the threshold is a guess (rule of 30, ISO/IEC 19795-1). Intervals of FMR are for the \
             threshold as it stands; those of FNMR choose it anew in every resample.",
            &table(&header, &rows),
        );
    }

    /// Encrypted decisions; nothing if there are none.
    pub fn encrypted(&mut self, encrypted: &[EncryptedPoint]) {
        if encrypted.is_empty() {
            return;
        }
        let rows: Vec<Vec<String>> = encrypted
            .iter()
            .map(|e| {
                vec![
                    wanted(e.wanted_fmr),
                    format!("{:.4}", e.threshold),
                    count(e.mated),
                    percent(e.fnmr_plain),
                    percent(e.fnmr_encrypted),
                    format!("{} and {} of {}", e.false_matches_plain, e.false_matches_encrypted, count(e.non_mated)),
                    e.differing.to_string(),
                    e.in_band.to_string(),
                    e.outside_band.to_string(),
                ]
            })
            .collect();
        let header = [
            ("FMR", true),
            ("threshold", true),
            ("mated", true),
            ("FNMR plain", true),
            ("FNMR encrypted", true),
            ("false matches, plain and encrypted", true),
            ("differ", true),
            ("in band", true),
            ("outside band", true),
        ];
        self.add(
            "Encrypted decisions",
            "Differ: decisions that are not the plaintext ones. In band: plaintext scores so near the threshold that noise may decide. \
             Outside band: differences that noise does not explain.",
            &table(&header, &rows),
        );
    }

    /// Open-set identification.
    pub fn identification(&mut self, i: &Identification, encrypted: &[EncryptedSearches]) {
        let mut series: Vec<Series> = i
            .galleries
            .iter()
            .zip(CURVES)
            .map(|(gallery, kind)| Series {
                name: format!("{} enrolled, plaintext", count(gallery.size as u64)),
                kind,
                joined: true,
                marked: false,
                points: gallery
                    .det
                    .iter()
                    .filter(|p| p.false_negative > 0.0)
                    .map(|p| (p.false_positive, p.false_negative))
                    .collect(),
            })
            .collect();
        let decided: Vec<(f64, f64)> = encrypted
            .iter()
            .filter(|e| e.misses_encrypted > 0)
            .map(|e| (e.wanted_fpir, e.misses_encrypted as f64 / e.mated.max(1) as f64))
            .collect();
        if !decided.is_empty() {
            let name = String::from("encrypted, a sample");
            series.push(Series { name, kind: Kind::Ours, joined: false, marked: true, points: decided });
        }
        let words = format!(
            "{} templates of {} people, {} draws of who is enrolled with which image. FNIR: mated searches without the mate \
             at rank 1 and above the threshold.",
            count(i.templates as u64),
            count(i.people as u64),
            i.draws
        );
        self.add("Identification: DET", &words, &lines("Identification", "FPIR", "FNIR", &series));
        let mut rows = Vec::new();
        for gallery in &i.galleries {
            for point in &gallery.points {
                rows.push(vec![
                    count(gallery.size as u64),
                    rate(&gallery.rank1_miss),
                    wanted(point.wanted_fpir),
                    format!("{:.3}{}", point.threshold, if point.few { " (few)" } else { "" }),
                    rate(&point.fnir),
                    rate(&point.fnir_any_rank),
                ]);
            }
        }
        let header = [
            ("enrolled", true),
            ("rank-1 misses", true),
            ("FPIR", true),
            ("threshold", true),
            ("FNIR, rank 1", true),
            ("FNIR, any rank", true),
        ];
        self.add(
            "Identification by gallery size",
            "Few: under 30 false positives in all draws. Intervals are over the people who search; the draws vary the gallery.",
            &table(&header, &rows),
        );
        let rows: Vec<Vec<String>> = encrypted
            .iter()
            .map(|e| {
                vec![
                    count(e.gallery),
                    wanted(e.wanted_fpir),
                    format!("{:.3}", e.threshold),
                    format!("{} and {} of {}", e.misses_plain, e.misses_encrypted, e.mated),
                    format!("{} and {} of {}", e.false_positives_plain, e.false_positives_encrypted, e.non_mated),
                    e.differing.to_string(),
                    e.outside_band.to_string(),
                ]
            })
            .collect();
        if !rows.is_empty() {
            let header = [
                ("enrolled", true),
                ("FPIR", true),
                ("threshold", true),
                ("misses, plain and encrypted", true),
                ("false positives, plain and encrypted", true),
                ("differ", true),
                ("outside band", true),
            ];
            self.add("Encrypted searches", "The decision `best` in an encrypted gallery.", &table(&header, &rows));
        }
    }

    /// Groups at one threshold.
    pub fn groups(&mut self, title: &str, g: &Groups) {
        let chart: Vec<Bar> = g
            .groups
            .iter()
            .map(|group| Bar {
                name: group.name.clone(),
                note: if group.too_small_for_fmr { String::from("too small") } else { String::new() },
                kind: if group.too_small_for_fmr { Kind::Machine } else { Kind::Plain },
                value: group.fmr.rate,
            })
            .collect();
        let rows: Vec<Vec<String>> = g
            .groups
            .iter()
            .map(|group| {
                let small = |mark: bool| if mark { " (too small)" } else { "" };
                vec![
                    group.name.clone(),
                    count(group.people as u64),
                    format!("{}{}", rate(&group.fmr), small(group.too_small_for_fmr)),
                    format!("{}{}", rate(&group.fnmr), small(group.too_small_for_fnmr)),
                ]
            })
            .collect();
        let header = [("group", false), ("people", true), ("FMR", true), ("FNMR", true)];
        let words = format!(
            "One threshold for everybody: cosine {:.4}, overall FMR {}, FNMR {}. FMR of a group: strangers of the same group. {} {}",
            g.threshold,
            percent(g.fmr),
            percent(g.fnmr),
            spread("FMR", g.fmr_spread.as_ref()),
            spread("FNMR", g.fnmr_spread.as_ref()),
        );
        let body = bars(title, "FMR within the group, logarithmic", &chart) + &table(&header, &rows);
        self.add(title, &words, &body);
    }

    /// The fairness step.
    pub fn fairness(&mut self, f: &Fitted) {
        let row = |name: &str, g: &Groups| {
            let of = |s: Option<&Spread>, value: fn(&Spread) -> String| s.map_or_else(|| String::from("-"), value);
            vec![
                name.to_owned(),
                format!("{:.4}", g.threshold),
                percent(g.fmr),
                percent(g.fnmr),
                of(g.fmr_spread.as_ref(), |s| s.max_over_min.map_or_else(|| String::from("-"), |r| format!("{r:.2}"))),
                of(g.fmr_spread.as_ref(), |s| format!("{:.3}", s.gini)),
                of(g.fmr_spread.as_ref(), |s| {
                    s.gini_interval.map_or_else(|| String::from("-"), |i| format!("{:.3} to {:.3}", i.low, i.high))
                }),
            ]
        };
        let rows = [row("without the map", &f.before), row("with it", &f.after)];
        let header = [
            ("", false),
            ("threshold", true),
            ("FMR", true),
            ("FNMR", true),
            ("FMR max/min", true),
            ("Gini of FMR", true),
            ("95 %", true),
        ];
        let words = format!(
            "Fitted on {} people, shown on {} others: {:.0} % of the centroids removed, whitening {:.2}. {}",
            count(f.fitting_people as u64),
            count(f.reported_people as u64),
            100.0 * f.removal,
            f.whitening,
            verdict(f)
        );
        self.add("Fairness step", &words, &table(&header, &rows));
        self.groups("Groups without the map", &f.before);
        self.groups("Groups with the map", &f.after);
    }

    /// Mated scores over time.
    pub fn time(&mut self, t: &OverTime) {
        let years = |days: f64| format!("{:.2}", days / 365.25);
        let rows: Vec<Vec<String>> = t
            .bins
            .iter()
            .map(|b| {
                let to = b.to_days.map_or_else(|| String::from("more"), years);
                let interval =
                    b.mean_interval.map_or_else(|| String::from("-"), |i| format!("{:.3} to {:.3}", i.low, i.high));
                vec![
                    format!("{} to {to}", years(b.from_days)),
                    count(b.pairs),
                    format!("{:.3}", b.mean),
                    interval,
                    rate(&b.fnmr),
                ]
            })
            .collect();
        let header =
            [("years between", false), ("mated pairs", true), ("mean score", true), ("95 %", true), ("FNMR", true)];
        let slope = |s: Option<crate::time::Slope>| {
            s.map_or_else(
                || String::from("none"),
                |s| {
                    let interval =
                        s.interval.map_or_else(String::new, |i| format!(" ({:+.4} to {:+.4})", i.low, i.high));
                    format!("{:+.4}{interval}", s.per_year)
                },
            )
        };
        let words = format!(
            "{} mated pairs of {} people; threshold {:.3}. Change of the score in a year: {} over all pairs, {} within people.",
            count(t.pairs),
            count(t.people),
            t.threshold,
            slope(t.slope),
            slope(t.slope_within)
        );
        self.add("Over time", &words, &table(&header, &rows));
    }

    /// From images: refusals, and pairs with them.
    pub fn images(&mut self, a: &Acquisition, pairs: &[Pairs], accuracy: Option<Accuracy>) {
        let reasons: Vec<String> = a.reasons.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        let rows: Vec<Vec<String>> = pairs
            .iter()
            .map(|p| {
                vec![
                    format!("{:.4}", p.threshold),
                    format!("{} of {}", count(p.refused), count(p.pairs)),
                    rate(&p.fmr),
                    rate(&p.fnmr),
                    rate(&p.false_accept),
                    rate(&p.false_reject),
                ]
            })
            .collect();
        let header = [
            ("threshold", true),
            ("refused pairs", true),
            ("FMR", true),
            ("FNMR", true),
            ("false accepts", true),
            ("false rejects", true),
        ];
        let folds = accuracy.map_or_else(String::new, |a| {
            format!(" Accuracy {} ± {} over {} folds.", percent(a.accuracy), percent(a.standard_error), a.folds)
        });
        let words = format!(
            "{} images; failure to acquire {}{}{}.{folds} FMR and FNMR are over pairs of acquired images; a pair with a refused \
             image counts as a rejection in the last two columns.",
            count(a.images),
            rate(&a.failure_to_acquire),
            if reasons.is_empty() { "" } else { ": " },
            reasons.join(", ")
        );
        self.add("From images", &words, &table(&header, &rows));
    }

    /// Time limits.
    pub fn time_limits(&mut self, t: &TimeLimits) {
        let rows: Vec<Vec<String>> = t
            .stages
            .iter()
            .map(|s| vec![s.stage.clone(), format!("{:.2}", s.p50), format!("{:.2}", s.p95), format!("{:.2}", s.p99)])
            .collect();
        let header = [("stage", false), ("median, ms", true), ("95th", true), ("99th percentile", true)];
        let limits: Vec<String> = t
            .limits
            .iter()
            .map(|l| {
                let met = if l.met { "met" } else { "not met" };
                format!("{:.0} ms {met} ({} within)", l.limit_ms, percent(l.within))
            })
            .collect();
        let words = format!("From the image's bytes to the decision: {}.", limits.join(", "));
        self.add("Time limits", &words, &table(&header, &rows));
    }
}

/// A spread in words.
#[must_use]
pub fn spread(name: &str, spread: Option<&Spread>) -> String {
    let Some(s) = spread else { return format!("{name}: fewer than two groups are large enough for a spread.") };
    let ratio = |r: Option<f64>| r.map_or_else(|| String::from("unbounded"), |r| format!("{r:.2}"));
    let interval = |i: Option<Interval>| i.map_or_else(String::new, |i| format!(" ({:.2} to {:.2})", i.low, i.high));
    format!(
        "{name} between {} groups: max/min {}{}, max − min {}, max/geometric mean {}, Gini {:.3}{}.",
        s.groups,
        ratio(s.max_over_min),
        interval(s.max_over_min_interval),
        percent(s.max_minus_min),
        ratio(s.max_over_geometric_mean),
        s.gini,
        interval(s.gini_interval)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::Bootstrap;
    use crate::groups::{Membership, Threshold, compare};
    use crate::images::{Image, Outcome, Pair, accuracy, acquisition, pairs, time_limits};
    use crate::synthetic::{Cause, crowd};
    use crate::{fair, identification, time, verification};

    const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 50, seed: 1 };

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [0.0137, 0.5, 0.000_123, 0.0, 1.0].map(percent),
            ["1.37 %", "50.00 %", "0.012 %", "0 %", "100.00 %"]
        );
        assert_eq!(percent_interval(Some(Interval { low: 0.01, high: 0.02 })), "1.00 to 2.00 %");
        assert_eq!(percent_interval(Some(Interval { low: 0.000_12, high: 0.123 })), "0.012 to 12.3 %");
        assert_eq!([0.01, 1e-3, 1e-4, 2.5e-5].map(wanted), ["0.01", "0.001", "1e-4", "2.5e-5"]);
        let rate = Rate::new(1, 50, 9, Some(Interval { low: 0.01, high: 0.123 }));
        assert_eq!(rate_numbers(&rate), "2.00 (1.00 to 12.3)");
        assert_eq!(count(29_647_350), "29,647,350");
    }

    #[test]
    fn a_page_of_everything_is_well_formed_and_shows_the_encrypted_points() {
        let crowd = crowd(&Cause::SharedDirection.groups(90, 16), 2, 16, 0.85, 1);
        let (t, p) = (&crowd.templates, &crowd.people);
        let names: Vec<String> = crowd.groups.iter().map(|g| format!("<g{g}>")).collect();
        let membership = Membership::new(p, &names).unwrap();
        let mut page = Page::default();
        let settings = verification::Settings { fmr: vec![0.1, 0.01], bootstrap: BOOTSTRAP };
        let v = verification::verify(t, p, &[], &settings, &|_| {}).unwrap();
        let point = EncryptedPoint {
            wanted_fmr: 0.01,
            fmr: 0.0099,
            threshold: 0.6,
            mated: 270,
            fnmr_plain: 0.1,
            fnmr_encrypted: 0.1,
            non_mated: 100,
            false_matches_plain: 1,
            false_matches_encrypted: 1,
            differing: 0,
            in_band: 3,
            outside_band: 0,
        };
        page.verification(&v, &[point]);
        let rates = Rates { accuracy: 0.9, fmr: 0.1, fnmr: 0.1 };
        page.folds(&rates, 0.1, Some(&rates), "words");
        let settings =
            identification::Settings { sizes: vec![20, 100], fpir: vec![0.1], draws: 1, bootstrap: BOOTSTRAP };
        let searches = EncryptedSearches {
            wanted_fpir: 0.1,
            threshold: 0.5,
            gallery: 100,
            mated: 20,
            misses_plain: 2,
            misses_encrypted: 2,
            non_mated: 20,
            false_positives_plain: 2,
            false_positives_encrypted: 2,
            differing: 0,
            in_band: 0,
            outside_band: 0,
        };
        page.identification(&identification::identify(t, p, &settings, &|_| {}).unwrap(), &[searches]);
        page.groups("Groups", &compare(t, p, &membership, Threshold::AtFmr(0.02), BOOTSTRAP, &|_| {}).unwrap());
        let settings = fair::Settings { fmr: 0.02, fnmr_rise: 0.1, bootstrap: BOOTSTRAP };
        page.fairness(&fair::fit(t, p, &membership, &settings, &|| {}).unwrap());
        let days: Vec<f64> = (0..t.len()).map(|row| 100.0 * (row % 2) as f64).collect();
        let settings = time::Settings { bins: vec![50.0], threshold: 0.5, bootstrap: BOOTSTRAP };
        page.time(&time::over_time(t, p, &days, &settings).unwrap());
        let image = |person, outcome| Image { person, outcome, stages: vec![("detect", 3.0)] };
        let images = [image(0, Outcome::Acquired), image(1, Outcome::Refused("too-small".into()))];
        let list: Vec<Pair> =
            (0..20).map(|k| Pair { fold: k / 4, images: (0, 1), same: k % 2 == 0, score: None }).collect();
        let at = pairs(&images, &list, 0.5, BOOTSTRAP).unwrap();
        page.images(&acquisition(&images, BOOTSTRAP), &[at], accuracy(&list));
        page.time_limits(&time_limits(&images, &[100.0]).unwrap());
        let html = page.render("a <test>");
        let document = roxmltree::Document::parse(html.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
        assert!(!html.contains("NaN") && !html.contains("inf\""), "a number is missing");
        let count = |name: &str| document.descendants().filter(|n| n.tag_name().name() == name).count();
        assert_eq!((count("svg"), count("section")), (6, 15));
        let ours = document.descendants().filter(|n| n.attribute("class") == Some("mark ours")).count();
        // A point and its entry in the legend, in each of the two plots.
        assert_eq!(ours, 4);
        for words in ["too-small 1", "&lt;g2&gt;", "Gini", "failure to acquire", "100 ms met", "Change of the score"] {
            assert!(html.contains(words), "{words}");
        }
    }
}
