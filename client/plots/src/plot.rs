//! The plots: log-log lines, areas, bars, stacks.

use std::fmt::Write as _;

/// Whose number it is: decides on colour and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The encrypted system, measured here.
    Ours,
    /// Ours, but another quantity than the first.
    Second,
    /// Plaintext, measured here.
    Plain,
    /// A reference of the machine.
    Machine,
    /// Published, not measured here.
    Published,
    /// One more of the same sort, where a plot compares several.
    Other,
    /// And another.
    Further,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Second => "second",
            Self::Plain => "plain",
            Self::Machine => "machine",
            Self::Published => "published",
            Self::Other => "other",
            Self::Further => "further",
        }
    }
}

/// One line, or single points, of a log-log plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Colour and shape.
    pub kind: Kind,
    /// Whether points are joined.
    pub joined: bool,
    /// Whether each point has a mark; a curve of many points has none.
    pub marked: bool,
    /// Abscissa and ordinate; what is not positive is drawn at the edge of a logarithmic axis.
    pub points: Vec<(f64, f64)>,
}

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Its name, on the left.
    pub name: String,
    /// Small print beside the number.
    pub note: String,
    /// Colour.
    pub kind: Kind,
    /// Its length.
    pub value: f64,
}

/// An area under a curve.
#[derive(Clone, Debug)]
pub struct Area {
    /// Its name in the legend.
    pub name: String,
    /// Colour.
    pub kind: Kind,
    /// Abscissa and height, abscissae ascending.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 90.0;
const NAMES: f64 = 250.0;
const ROW: f64 = 30.0;
const PUBLISHED: &str = "published, not measured here";

/// Text for XML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number as people write it: three digits that count.
#[must_use]
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        _ if magnitude >= 1e9 => format!("{}G", short(value / 1e9)),
        _ if magnitude >= 1e6 => format!("{}M", short(value / 1e6)),
        _ if magnitude >= 1e4 => format!("{}k", short(value / 1e3)),
        _ if magnitude >= 100.0 || magnitude == 0.0 => format!("{value:.0}"),
        _ if magnitude >= 10.0 => trimmed(format!("{value:.1}")),
        _ if magnitude >= 1.0 => trimmed(format!("{value:.2}")),
        _ => {
            let digits = (2 - magnitude.log10().floor() as i32).clamp(0, 12) as usize;
            trimmed(format!("{value:.digits$}"))
        }
    }
}

/// A whole decade: written out near 1, else as a power.
fn decade(value: f64) -> String {
    if (1e-3..1e9).contains(&value) { short(value) } else { format!("{value:e}") }
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A logarithmic axis over whole decades.
struct Decades {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl Decades {
    /// Covers the positive values and is drawn between two coordinates.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for value in values.filter(|v| *v > 0.0 && v.is_finite()) {
            (low, high) = (low.min(value.log10()), high.max(value.log10()));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let low = low.floor() as i32;
        Self { low, high: (high.ceil() as i32).max(low + 1), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, f64)> {
        (self.low..=self.high).map(|e| (10f64.powi(e), self.place(10f64.powi(e))))
    }
}

fn open(height: f64, title: &str) -> String {
    let title = escape(title);
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{title}">"#
    )
}

/// A marker: measured ones are full, published ones are open diamonds.
fn marker(kind: Kind, x: f64, y: f64, says: &str) -> String {
    let (class, says) = (kind.class(), escape(says));
    let shape = if kind == Kind::Published {
        format!(r#"<path class="mark {class}" d="M{x:.1} {:.1}l6 6l-6 6l-6 -6z">"#, y - 6.0)
    } else {
        format!(r#"<circle class="mark {class}" cx="{x:.1}" cy="{y:.1}" r="4.5">"#)
    };
    let close = if kind == Kind::Published { "</path>" } else { "</circle>" };
    format!("{shape}<title>{says}</title>{close}")
}

/// Both axes logarithmic; a legend below.
#[must_use]
pub fn lines(title: &str, x_name: &str, y_name: &str, series: &[Series]) -> String {
    let (top, bottom) = (20.0, 380.0);
    // Published points carry their names; one entry explains their shape.
    let named = series.iter().filter(|s| s.kind != Kind::Published).count();
    let height = bottom + 60.0 + 22.0 * (named + 1).div_ceil(2) as f64;
    let points = || series.iter().flat_map(|s| &s.points);
    let x = Decades::over(points().map(|p| p.0), LEFT, WIDTH - 20.0);
    let y = Decades::over(points().map(|p| p.1), bottom, top);
    let mut svg = open(height, title);
    for (value, place) in x.ticks() {
        let _ = write!(svg, r#"<path class="grid" d="M{place:.1} {top}V{bottom}"/>"#);
        let _ = write!(
            svg,
            r#"<text class="tick" x="{place:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 18.0,
            decade(value)
        );
    }
    for (value, place) in y.ticks() {
        let _ = write!(svg, r#"<path class="grid" d="M{LEFT} {place:.1}H{}"/>"#, WIDTH - 20.0);
        let _ = write!(
            svg,
            r#"<text class="tick" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            place + 4.0,
            decade(value)
        );
    }
    let middle = (LEFT + WIDTH - 20.0) / 2.0;
    let _ = write!(
        svg,
        r#"<text class="axis" x="{middle}" y="{}" text-anchor="middle">{}</text>"#,
        bottom + 38.0,
        escape(x_name)
    );
    let _ = write!(
        svg,
        r#"<text class="axis" transform="translate(16 {}) rotate(-90)" text-anchor="middle">{}</text>"#,
        (top + bottom) / 2.0,
        escape(y_name)
    );
    for one in series {
        let class = one.kind.class();
        let mut sorted = one.points.clone();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        if one.joined && sorted.len() > 1 {
            let path: Vec<String> = sorted.iter().map(|p| format!("{:.1} {:.1}", x.place(p.0), y.place(p.1))).collect();
            let _ = write!(svg, r#"<path class="line {class}" d="M{}"/>"#, path.join("L"));
        }
        for p in &sorted {
            if !one.marked {
                continue;
            }
            let says = format!("{}: {} at {}", one.name, short(p.1), short(p.0));
            svg.push_str(&marker(one.kind, x.place(p.0), y.place(p.1), &says));
            if one.kind == Kind::Published {
                let (px, py) = (x.place(p.0), y.place(p.1));
                // Names stand on the side where there is room.
                let (dx, anchor) = if px > WIDTH - 180.0 { (-10.0, "end") } else { (10.0, "start") };
                let _ = write!(
                    svg,
                    r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
                    px + dx,
                    py + 4.0,
                    escape(&one.name)
                );
            }
        }
    }
    let published = series.iter().find(|s| s.kind == Kind::Published).map(|_| (Kind::Published, PUBLISHED));
    let entries = series.iter().filter(|s| s.kind != Kind::Published).map(|s| (s.kind, s.name.as_str()));
    for (number, (kind, name)) in entries.chain(published).enumerate() {
        let (x, y) = (LEFT + 400.0 * (number % 2) as f64, bottom + 62.0 + 22.0 * (number / 2) as f64);
        svg.push_str(&marker(kind, x, y, name));
        let _ = write!(svg, r#"<text class="name" x="{:.1}" y="{:.1}">{}</text>"#, x + 14.0, y + 4.0, escape(name));
    }
    svg + "</svg>"
}

/// Areas over a linear axis between two numbers, each scaled to its own highest point, and named vertical lines.
#[must_use]
pub fn areas(title: &str, x_name: &str, (from, to): (f64, f64), areas: &[Area], marks: &[(f64, String)]) -> String {
    let (top, bottom) = (20.0 + 16.0 * marks.len() as f64, 330.0 + 16.0 * marks.len() as f64);
    let (left, right) = (20.0, WIDTH - 20.0);
    let mut svg = open(bottom + 84.0, title);
    let x = |value: f64| left + ((value - from) / (to - from)).clamp(0.0, 1.0) * (right - left);
    let step = tick(to - from);
    let first = (from / step).ceil() as i64;
    for value in (first..).map(|i| i as f64 * step).take_while(|v| *v <= to + step * 1e-9) {
        grid(&mut svg, x(value), (top, bottom), value);
    }
    unit_below(&mut svg, (left + right) / 2.0, bottom, x_name);
    for (number, area) in areas.iter().enumerate() {
        let most = area.points.iter().map(|p| p.1).filter(|v| v.is_finite()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let inside: Vec<_> = area.points.iter().filter(|p| (from..=to).contains(&p.0)).collect();
        let class = area.kind.class();
        if let (Some(begin), Some(end)) = (inside.first(), inside.last()) {
            let place = |p: &&(f64, f64)| format!("{:.1} {:.1}", x(p.0), bottom - p.1 / most * (bottom - top));
            let path: Vec<String> = inside.iter().map(place).collect();
            let _ = write!(
                svg,
                r#"<path class="area {class}" d="M{:.1} {bottom:.1}L{}L{:.1} {bottom:.1}Z"/>"#,
                x(begin.0),
                path.join("L"),
                x(end.0)
            );
        }
        let (at, y) = (left + 430.0 * (number % 2) as f64, bottom + 56.0 + 20.0 * (number / 2) as f64);
        let _ = write!(svg, r#"<rect class="bar {class}" x="{at:.1}" y="{y:.1}" width="12" height="12"/>"#);
        let _ =
            write!(svg, r#"<text class="name" x="{:.1}" y="{:.1}">{}</text>"#, at + 18.0, y + 11.0, escape(&area.name));
    }
    for (number, (value, name)) in marks.iter().enumerate() {
        let (at, y) = (x(*value), 16.0 + 16.0 * number as f64);
        // Names stand on the side where there is room.
        let (dx, anchor) = if at > WIDTH - 180.0 { (-6.0, "end") } else { (6.0, "start") };
        let _ = write!(svg, r#"<path class="limit" d="M{at:.1} {:.1}V{bottom:.1}"/>"#, y - 8.0);
        let _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            at + dx,
            escape(name)
        );
    }
    svg + "</svg>"
}

/// Horizontal bars on a logarithmic axis; a published one is hatched by its class and says so.
#[must_use]
pub fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let (top, right) = (10.0, WIDTH - 210.0);
    let bottom = top + ROW * bars.len() as f64;
    let x = Decades::over(bars.iter().map(|b| b.value), NAMES, right);
    let mut svg = open(bottom + 48.0, title);
    for (value, place) in x.ticks() {
        grid(&mut svg, place, (top, bottom), value);
    }
    unit_below(&mut svg, (NAMES + right) / 2.0, bottom, unit);
    for (row, bar) in bars.iter().enumerate() {
        let y = top + ROW * row as f64;
        let end = x.place(bar.value).max(NAMES + 1.0);
        let _ = write!(
            svg,
            r#"<text class="name" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            NAMES - 10.0,
            y + 19.0,
            escape(&bar.name)
        );
        let _ = write!(
            svg,
            r#"<rect class="bar {}" x="{NAMES}" y="{:.1}" width="{:.1}" height="{}" rx="2"/>"#,
            bar.kind.class(),
            y + 5.0,
            end - NAMES,
            ROW - 10.0
        );
        let _ = write!(
            svg,
            r#"<text class="name" x="{:.1}" y="{:.1}">{}<tspan class="note" dx="8">{}</tspan></text>"#,
            end + 8.0,
            y + 19.0,
            short(bar.value),
            escape(&bar.note)
        );
    }
    svg + "</svg>"
}

/// Stacked horizontal bars on a linear axis that begins at 0; `stages` name the colours.
#[must_use]
pub fn stacks(title: &str, unit: &str, stages: &[&str], rows: &[(String, Vec<f64>)]) -> String {
    let (top, right) = (10.0, WIDTH - 90.0);
    let bottom = top + ROW * rows.len() as f64;
    let most = rows.iter().map(|(_, parts)| parts.iter().sum::<f64>()).fold(0.0, f64::max).max(1e-9);
    let x = |value: f64| NAMES + value / most * (right - NAMES);
    let mut svg = open(bottom + 80.0, title);
    let step = tick(most);
    for value in (0..).map(|i| f64::from(i) * step).take_while(|v| *v <= most * 1.0001) {
        let place = x(value);
        grid(&mut svg, place, (top, bottom), value);
    }
    unit_below(&mut svg, (NAMES + right) / 2.0, bottom, unit);
    for (row, (name, parts)) in rows.iter().enumerate() {
        let y = top + ROW * row as f64;
        let _ = write!(
            svg,
            r#"<text class="name" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            NAMES - 10.0,
            y + 19.0,
            escape(name)
        );
        let mut begun = 0.0;
        for (number, (value, stage)) in parts.iter().zip(stages).enumerate() {
            let says = escape(&format!("{stage}: {}", short(*value)));
            let _ = write!(
                svg,
                r#"<rect class="stage{number}" x="{:.1}" y="{:.1}" width="{:.1}" height="{}"><title>{says}</title></rect>"#,
                x(begun),
                y + 5.0,
                x(begun + value) - x(begun),
                ROW - 10.0
            );
            begun += value;
        }
        let _ =
            write!(svg, r#"<text class="name" x="{:.1}" y="{:.1}">{}</text>"#, x(begun) + 8.0, y + 19.0, short(begun));
    }
    let wide = (WIDTH - 20.0) / stages.len().max(1) as f64;
    for (number, stage) in stages.iter().enumerate() {
        let place = 10.0 + wide * number as f64;
        let _ = write!(
            svg,
            r#"<rect class="stage{number}" x="{place:.1}" y="{:.1}" width="12" height="12"/>"#,
            bottom + 56.0
        );
        let _ = write!(
            svg,
            r#"<text class="name" x="{:.1}" y="{:.1}">{}</text>"#,
            place + 18.0,
            bottom + 67.0,
            escape(stage)
        );
    }
    svg + "</svg>"
}

/// A round step that divides an axis up to `most` into four to ten parts.
fn tick(most: f64) -> f64 {
    let decade = 10f64.powf(most.log10().floor());
    [0.1, 0.2, 0.5, 1.0].into_iter().map(|s| s * decade).find(|s| most / s <= 10.0).unwrap_or(decade)
}

/// A vertical line of the grid and the number below it.
fn grid(svg: &mut String, place: f64, (top, bottom): (f64, f64), value: f64) {
    let _ = write!(svg, r#"<path class="grid" d="M{place:.1} {top}V{bottom:.1}"/>"#);
    let _ = write!(
        svg,
        r#"<text class="tick" x="{place:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
        bottom + 16.0,
        short(value)
    );
}

/// What a horizontal axis counts.
fn unit_below(svg: &mut String, middle: f64, bottom: f64, unit: &str) {
    let _ = write!(
        svg,
        r#"<text class="axis" x="{middle:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
        bottom + 38.0,
        escape(unit)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, kind: Kind, points: &[(f64, f64)]) -> Series {
        Series { name: name.into(), kind, joined: true, marked: true, points: points.to_vec() }
    }

    #[test]
    fn every_plot_is_well_formed_and_stays_inside_its_frame() {
        let name = "a < b & \"c\"";
        let line = lines(
            name,
            "x",
            "y",
            &[
                series(name, Kind::Ours, &[(1e6, 0.3), (10.0, 40.0)]),
                series("p", Kind::Published, &[(1e9, 1e-5)]),
                series("none", Kind::Plain, &[]),
            ],
        );
        let bar = |value| Bar { name: name.into(), note: "n".into(), kind: Kind::Plain, value };
        for svg in [
            line,
            bars(name, "u", &[bar(0.0), bar(1e-9), bar(3.0), bar(1e12)]),
            bars(name, "u", &[]),
            areas(
                name,
                "x",
                (-0.5, 1.0),
                &[
                    Area { name: name.into(), kind: Kind::Plain, points: vec![(-1.0, 1.0), (0.0, 3.0), (0.9, 0.5)] },
                    Area { name: name.into(), kind: Kind::Ours, points: Vec::new() },
                ],
                &[(0.4, name.into()), (5.0, "beyond".into())],
            ),
            stacks(name, "ms", &["a", "b"], &[(name.into(), vec![1.0, 2.0]), ("e".into(), vec![0.0, 0.0])]),
        ] {
            let document = roxmltree::Document::parse(&svg).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            for node in document.descendants() {
                for attribute in ["x", "cx", "width"] {
                    let value = node.attribute(attribute).map(|v| v.parse::<f64>().unwrap());
                    assert!(value.is_none_or(|v| (0.0..=WIDTH).contains(&v)), "{attribute} of {node:?}");
                }
            }
        }
    }

    #[test]
    fn points_lie_where_their_decade_says() {
        let axis = Decades::over([1.0, 900.0].into_iter(), 0.0, 300.0);
        assert_eq!(axis.ticks().map(|t| t.1 as i32).collect::<Vec<_>>(), [0, 100, 200, 300]);
        assert!((axis.place(31.622_776) - 150.0).abs() < 1e-3);
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let texts = [0.0, 0.065_43, 0.5, 1.0, 9.23, 12.34, 123.4, 2048.0, 100_000.0, 1e6, 4.3e9].map(short);
        assert_eq!(texts, ["0", "0.0654", "0.5", "1", "9.23", "12.3", "123", "2048", "100k", "1M", "4.3G"]);
        assert_eq!([short(0.000_232), tick(96.0).to_string()], ["0.000232", "10"]);
    }
}
