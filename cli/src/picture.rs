//! The same map as a picture: one SVG, or one HTML page around it with the findings.
//!
//! Never here: a script, a font, an address. The file says everything by itself and loads nothing.
//! Texts from the log are escaped twice: for terminals and for XML. Next room: [`crate::damage`].

use std::fmt::Write as _;
use std::path::Path;

use annals_wal::diagnose::{Class, Damaged, Diagnosis, SegmentMap, SpanKind};

use crate::damage::{class_word, loss, next, place, state_name};
use crate::escape::escape;
use crate::map::{Drawn, LEGEND, drawn, left_out, size};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 150.0;
const ROW: f64 = 22.0;
const BAR: f64 = 15.0;
/// Characters of the path that fit into the title: its end tells more than its beginning.
const PATH_MAX: usize = 80;
/// No span is drawn narrower: a damage of one byte is seen.
const NARROWEST: f64 = 2.5;

/// Colours that stay apart for colour-blind eyes (Okabe and Ito); glyphs and words say the same.
fn colour(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Header => "#1f5673",
        SpanKind::Data => "#56a3c9",
        SpanKind::Unread => "#b5d3e3",
        SpanKind::Free => "#eceff1",
        SpanKind::Bad(Class::TornTail) => "#e69f00",
        SpanKind::Bad(Class::LostTail) => "#8c2d04",
        SpanKind::Bad(Class::BitRot) => "#d7191c",
        SpanKind::Bad(Class::ZeroedRange) => "#2b2b2b",
        SpanKind::Bad(Class::ForeignBytes) => "#7b3294",
        SpanKind::Bad(Class::Gap) => "#ffffff",
        SpanKind::Bad(Class::Overlap) => "#cc79a7",
        SpanKind::Bad(_) => "#f0e442",
    }
}

pub(crate) fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in escape(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

pub(crate) fn svg(dir: &Path, diagnosis: &Diagnosis) -> String {
    let maps = &diagnosis.maps;
    let longest = maps.iter().map(|map| map.len).max().unwrap_or(1).max(1) as f64;
    let legend = legend(maps);
    let per_line = 4;
    let lines = (legend.len() + 1).div_ceil(per_line) as f64;
    let rows = drawn(maps);
    let height = 80.0 + rows.len() as f64 * ROW + 40.0 + lines * 20.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let report = &diagnosis.report;
    let _ = writeln!(
        out,
        "<text x=\"12\" y=\"24\" font-size=\"16\" font-weight=\"600\">{}: {}</text>\n\
         <text x=\"12\" y=\"44\" fill=\"#555\">LSNs {} to {}, durable up to {}; {} segments, \
         {} damages{}</text>",
        xml(&path_end(dir)),
        state_name(report.state).replace('_', " "),
        report.head,
        report.last_lsn.map_or("none".to_owned(), |lsn| lsn.to_string()),
        report.proven_lsn.map_or("none".to_owned(), |lsn| lsn.to_string()),
        report.segments.len(),
        diagnosis.damages.len(),
        more(diagnosis)
    );
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"70\" text-anchor=\"end\" fill=\"#555\">segment</text>",
        LEFT - 8.0
    );
    let mut y = 78.0;
    for line in rows {
        match line {
            Drawn::Segment(map) => row(&mut out, map, diagnosis, y, longest),
            Drawn::LeftOut(sound, damaged) => {
                let _ = writeln!(
                    out,
                    "<text x=\"{LEFT}\" y=\"{}\" fill=\"#888\">{}</text>",
                    y + 12.0,
                    left_out(sound, damaged)
                );
            }
        }
        y += ROW;
    }
    scale(&mut out, y, longest);
    y += 30.0;
    let end = legend.len();
    let (x, at) = (12.0 + (end % per_line) as f64 * 230.0, y + (end / per_line) as f64 * 20.0);
    let _ = writeln!(
        out,
        "<path d=\"M{} {}v14\" stroke=\"#000\" stroke-width=\"1.5\"/>\
         <text x=\"{}\" y=\"{}\">durable up to here</text>",
        x + 7.0,
        at,
        x + 20.0,
        at + 11.0
    );
    for (index, (kind, meaning)) in legend.iter().enumerate() {
        let x = 12.0 + (index % per_line) as f64 * 230.0;
        let y = y + (index / per_line) as f64 * 20.0;
        swatch(&mut out, *kind, x, y);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{meaning}</text>", x + 20.0, y + 11.0);
    }
    out.push_str("</svg>\n");
    out
}

fn path_end(dir: &Path) -> String {
    let path = dir.display().to_string();
    match path.char_indices().rev().nth(PATH_MAX - 1) {
        Some((at, _)) if at > 0 => format!("...{}", &path[at..]),
        _ => path,
    }
}

/// Damages that are only counted.
fn more(diagnosis: &Diagnosis) -> String {
    match diagnosis.damages_cut {
        0 => String::new(),
        cut => format!(" and {cut} more, which are only counted"),
    }
}

/// How many bytes a bar's length is.
fn scale(out: &mut String, y: f64, longest: f64) {
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#888\" font-size=\"10\" \
             text-anchor=\"middle\">{}</text>",
            LEFT + share * (WIDTH - LEFT - RIGHT),
            y + 10.0,
            size((longest * share) as u64)
        );
    }
}

fn legend(maps: &[SegmentMap]) -> Vec<(SpanKind, &'static str)> {
    let seen = |kind| maps.iter().any(|map| map.spans.iter().any(|span| span.kind == kind));
    let mut legend: Vec<_> =
        LEGEND.iter().filter(|row| seen(row.0)).map(|row| (row.0, row.2)).collect();
    if let Some(header) = legend.iter_mut().find(|row| row.0 == SpanKind::Header) {
        header.1 = "segment header";
    }
    legend
}

fn swatch(out: &mut String, kind: SpanKind, x: f64, y: f64) {
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\" fill=\"{}\" stroke=\"{}\"{}/>",
        colour(kind),
        if kind == SpanKind::Bad(Class::Gap) { "#d7191c" } else { "#888" },
        if kind == SpanKind::Bad(Class::Gap) { " stroke-dasharray=\"3 2\"" } else { "" }
    );
}

fn row(out: &mut String, map: &SegmentMap, diagnosis: &Diagnosis, y: f64, longest: f64) {
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let x = |at: u64| LEFT + at as f64 * scale;
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        LEFT - 8.0,
        y + 12.0,
        map.segment
    );
    let mut spans: Vec<_> = map.spans.iter().collect();
    // Damage last, so that no neighbour paints over a narrow one.
    spans.sort_by_key(|span| matches!(span.kind, SpanKind::Bad(_)));
    for span in spans {
        let bad = matches!(span.kind, SpanKind::Bad(_));
        let width = (span.to - span.from) as f64 * scale;
        let width = if bad { width.max(NARROWEST) } else { width };
        let gap = span.kind == SpanKind::Bad(Class::Gap);
        let meaning = LEGEND.iter().find(|row| row.0 == span.kind).map_or("", |row| row.2);
        let _ = writeln!(
            out,
            "<rect x=\"{:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{BAR}\" fill=\"{}\"{}>\
             <title>segment {}, bytes {}..{} ({}): {meaning}</title></rect>",
            x(span.from),
            colour(span.kind),
            if gap { " stroke=\"#d7191c\" stroke-dasharray=\"4 3\"" } else { "" },
            map.segment,
            span.from,
            span.to,
            size(span.to - span.from)
        );
    }
    if let Some(end) = map.durable_end.filter(|end| *end <= map.len) {
        let _ = writeln!(
            out,
            "<path d=\"M{0:.2} {1}v{2}\" stroke=\"#000\" stroke-width=\"1.5\">\
             <title>durable up to byte {end}</title></path>",
            x(end),
            y - 2.0,
            BAR + 4.0
        );
    }
    let own = diagnosis.report.segments.iter().find(|own| own.sequence == map.segment);
    let bad = diagnosis.damages.iter().filter(|damage| damage.segment == Some(map.segment)).count();
    let (fill, note) = match own.and_then(|own| own.lsns) {
        _ if !map.present => ("#d7191c", "missing".to_owned()),
        _ if bad > 0 => ("#d7191c", format!("{bad} damage{}", if bad == 1 { "" } else { "s" })),
        Some((first, last)) => ("#555", format!("LSN {first}\u{2013}{last}")),
        None => ("#555", String::new()),
    };
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" fill=\"{fill}\">{note}</text>",
        WIDTH - RIGHT + 10.0,
        y + 12.0
    );
}

const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1000px;\
padding:0 16px;color:#1c1c1c}h1{font-size:20px}h2{font-size:16px;margin-top:28px}svg{max-width:100%;\
height:auto}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;\
padding:6px 10px;border-bottom:1px solid #ddd}code{background:#f3f3f3;padding:1px 4px}\
.card{border-left:4px solid #999;padding:4px 12px;margin:14px 0;background:#fafafa}\
dt{font-weight:600;float:left;width:80px}dd{margin:0 0 2px 90px}";

/// The head of a page that loads nothing.
pub(crate) fn page(title: &str, style: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'\"><title>{}</title><style>{style}</style></head><body>\n{body}\
         </body></html>\n",
        xml(title)
    )
}

pub(crate) fn html(dir: &Path, diagnosis: &Diagnosis) -> String {
    let mut body = svg(dir, diagnosis);
    let _ = writeln!(body, "<h2>Damage</h2>");
    if diagnosis.damages.is_empty() {
        body.push_str("<p>None was found.</p>\n");
    }
    for damage in &diagnosis.damages {
        body.push_str(&card(dir, damage));
    }
    if diagnosis.damages_cut > 0 {
        let _ = writeln!(body, "<p>{} more were counted.</p>", diagnosis.damages_cut);
    }
    page(&format!("{}: the log", dir.display()), STYLE, &body)
}

fn card(dir: &Path, damage: &Damaged) -> String {
    let mut rows = vec![
        ("expected", xml(&damage.expected)),
        ("found", xml(&damage.found)),
        ("decided", xml(&damage.decided)),
    ];
    if let Some(flip) = damage.flip {
        rows.push(("one bit", format!("bit {} of byte {} explains it", flip.bit, flip.byte)));
    }
    rows.push(("lost", loss(damage)));
    rows.push(("next", format!("<code>{}</code>", xml(&next(dir, damage)))));
    let rows: String = rows.iter().map(|(k, v)| format!("<dt>{k}</dt><dd>{v}</dd>")).collect();
    format!(
        "<div class=\"card\" style=\"border-color:{}\"><b>{}</b>: {}<dl>{rows}</dl></div>\n",
        colour(SpanKind::Bad(damage.class)),
        class_word(damage.class),
        xml(&place(damage)),
    )
}
