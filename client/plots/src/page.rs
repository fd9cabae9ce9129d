//! The page: one file that loads nothing, XML as well as HTML.

use std::fmt::Write as _;

use crate::escape;

const STYLE: &str = "\
:root{--paper:#fff;--ink:#1c2430;--faint:#667085;--grid:#e3e7ee;--ours:#0b6e99;--second:#5aa9c9;--plain:#b4632a;--machine:#8a8f98;--published:#7a5aa6;--other:#4a8a4a;--further:#7a5aa6}
@media(prefers-color-scheme:dark){:root{--paper:#14181f;--ink:#e6e9ef;--faint:#98a2b3;--grid:#2b323d;--ours:#4db6e2;--second:#2f7fa3;--plain:#e0935c;--machine:#9aa0aa;--published:#b49ae0;--other:#7fbf7f;--further:#b49ae0}}
body{background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:940px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:0}h2{font-size:1.2rem;margin-top:2.2rem}p.small,figcaption{color:var(--faint);font-size:.88rem}
figure{margin:0}svg{width:100%;height:auto}table{border-collapse:collapse;font-size:.88rem;width:100%}
td,th{border-bottom:1px solid var(--grid);padding:.25rem .5rem;text-align:left}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.grid{stroke:var(--grid);fill:none}.tick{fill:var(--faint);font-size:12px}.axis{fill:var(--ink);font-size:13px}.name{fill:var(--ink);font-size:13px}.note{fill:var(--faint);font-size:11px}
.line{fill:none;stroke-width:2}.line.ours{stroke:var(--ours)}.line.second{stroke:var(--second)}.line.plain{stroke:var(--plain);stroke-dasharray:9 5}.line.machine{stroke:var(--machine);stroke-dasharray:4 4}
.mark.ours,.bar.ours{fill:var(--ours)}.mark.second,.bar.second{fill:var(--second)}.mark.plain,.bar.plain{fill:var(--plain)}.mark.machine,.bar.machine{fill:var(--machine)}
.mark.published{fill:var(--paper);stroke:var(--published);stroke-width:2}.bar.published{fill:var(--published);fill-opacity:.3;stroke:var(--published)}
.mark.other,.bar.other{fill:var(--other)}.line.other{stroke:var(--other);stroke-dasharray:2 3}.mark.further,.bar.further{fill:var(--further)}.line.further{stroke:var(--further);stroke-dasharray:12 3 3 3}.area{fill-opacity:.35;stroke-width:1.5}.area.ours{fill:var(--ours);stroke:var(--ours)}.area.second{fill:var(--second);stroke:var(--second)}.area.plain{fill:var(--plain);stroke:var(--plain)}.area.machine{fill:var(--machine);stroke:var(--machine)}.area.other{fill:var(--other);stroke:var(--other)}.limit{stroke:var(--ink);stroke-dasharray:3 3;fill:none}
.stage0{fill:#8a8f98}.stage1{fill:#0b6e99}.stage2{fill:#b4632a}.stage3{fill:#7a5aa6}.stage4{fill:#5a8f5a}";

/// The whole page. `words`, a paragraph under the title, and `body` are markup; `title` is text.
#[must_use]
pub fn document(title: &str, words: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{title}</title><style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1><p class=\"small\">{words}</p>\n{body}</body></html>\n"
    )
}

/// A section: heading, what there is to see, and words below it. `body` is markup, the rest is text.
#[must_use]
pub fn section(title: &str, words: &str, body: &str) -> String {
    let (title, words) = (escape(title), escape(words));
    format!("<section><h2>{title}</h2><figure>{body}<figcaption>{words}</figcaption></figure></section>\n")
}

/// A table; columns marked true are numbers and stand to the right.
#[must_use]
pub fn table(header: &[(&str, bool)], rows: &[Vec<String>]) -> String {
    let class = |number: bool| if number { " class=\"n\"" } else { "" };
    let mut out = String::from("<table><thead><tr>");
    for (name, number) in header {
        let _ = write!(out, "<th{}>{}</th>", class(*number), escape(name));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (cell, (_, number)) in row.iter().zip(header) {
            let _ = write!(out, "<td{}>{}</td>", class(*number), escape(cell));
        }
        out.push_str("</tr>");
    }
    out + "</tbody></table>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_well_formed_and_loads_nothing() {
        let rows = [vec![String::from("<b>"), String::from("1")]];
        let body = section("a & b", "words", &table(&[("name", false), ("number", true)], &rows));
        let page = document("t < u", "see <code>x</code>", &body);
        let document = roxmltree::Document::parse(page.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
        let texts: Vec<_> = document.descendants().filter(|n| n.is_text()).filter_map(|n| n.text()).collect();
        assert!(texts.contains(&"<b>") && texts.contains(&"a & b") && texts.contains(&"t < u"));
        for loads in ["src=", "href=", "url(", "@import"] {
            assert!(!page.contains(loads), "{loads}");
        }
    }
}
