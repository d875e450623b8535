//! The waterfall as one page: rows, bars, what went in and out, folded away.
//!
//! Never here: a script or anything loaded. Texts are escaped for terminals and for HTML; a text
//! longer than [`TEXT_MAX`] is cut, and the page says where the whole stands. Next room:
//! [`crate::picture`], whose page this is.

use std::fmt::Write as _;

use crate::escape::cut;
use crate::picture::{page, xml};
use crate::stats::short_time;
use crate::timeline::{Call, Run, Sort};

/// Characters of an input or output on the page.
const TEXT_MAX: usize = 2000;

const STYLE: &str = "body{font:13px/1.4 system-ui,sans-serif;margin:20px;color:#1c1c1c}\
h1{font-size:18px;margin:0 0 4px}p{margin:2px 0 12px;color:#555}\
summary{display:grid;grid-template-columns:56px minmax(300px,1.1fr) 1fr 190px;gap:8px;align-items:center;\
padding:2px 0;cursor:pointer;list-style:none;border-bottom:1px solid #f0f0f0}\
summary::-webkit-details-marker{display:none}summary:hover{background:#f6f8fa}\
.n{color:#888;text-align:right;font-variant-numeric:tabular-nums}\
.bare summary,.bare.axis{grid-template-columns:56px minmax(300px,1.1fr) 1fr 8px}\
details[open]>summary{background:#eef3f8}.l{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}.l b{font-weight:600;margin-right:6px}\
.t{position:relative;height:14px;background:#f4f5f7}\
.t i{position:absolute;top:2px;height:10px;min-width:3px;border-radius:2px}\
.m{color:#555;font-size:12px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}\
.agent{background:#0072b2}.llm{background:#009e73}.tool{background:#e69f00}.span{background:#56b4e9}\
.event{background:#999}.bad{outline:2px solid #d7191c}.open{background-image:repeating-linear-gradient(\
45deg,transparent 0 4px,rgba(255,255,255,.6) 4px 8px)}.err{color:#b00020;font-weight:600}\
pre{white-space:pre-wrap;word-break:break-word;background:#fafafa;border-left:3px solid #ccc;\
margin:4px 0 10px 64px;padding:6px 10px;max-height:340px;overflow:auto}\
.key span{display:inline-block;margin-right:16px}.key i{display:inline-block;width:12px;height:10px;\
margin-right:5px}.axis{display:grid;grid-template-columns:56px minmax(300px,1.1fr) 1fr 190px;gap:8px;color:#888;\
margin-bottom:4px;\
font-size:11px}.axis .u{text-align:right}.axis div{display:flex;justify-content:space-between}";

pub(crate) fn html(run: &Run) -> String {
    let mut body = format!("<h1>session {}</h1>\n<p>{}</p>\n", xml(&run.session), facts(run));
    body.push_str("<p class=\"key\">");
    for sort in [Sort::Agent, Sort::Llm, Sort::Tool, Sort::Span, Sort::Event] {
        if run.calls.iter().any(|call| call.sort == sort) {
            let name = sort.name();
            let _ = write!(body, "<span><i class=\"{name}\"></i>{name}</span>");
        }
    }
    body.push_str(
        "<span><i class=\"tool bad\"></i>error</span><span><i class=\"tool open\"></i>unfinished\
         </span> click a row for what went in and out</p>\n",
    );
    // Nothing to note beside any bar: the bars have the room.
    let bare = run.calls.iter().all(|call| notes(call).is_empty() && call.error.is_none());
    let class = if bare { " bare" } else { "" };
    let _ = write!(body, "<div class=\"run{class}\">\n{}", axis(run, class));
    for call in &run.calls {
        body.push_str(&row(call, run.length));
    }
    body.push_str("</div>\n");
    page(&format!("session {}", run.session), STYLE, &body)
}

fn facts(run: &Run) -> String {
    let errors = run.calls.iter().filter(|call| call.error.is_some()).count();
    let open = run.calls.iter().filter(|call| call.unfinished.is_some()).count();
    let tokens = run.calls.iter().filter_map(|call| call.tokens);
    let (read, wrote) = tokens.fold((0, 0), |sum, t| (sum.0 + t.0, sum.1 + t.1));
    let axis = match &run.begun {
        Some(begun) => format!("{} from {begun}", short_time((run.length * 1e6) as u64)),
        None => "drawn in the order of the entries: their times are those of the import".to_owned(),
    };
    let tokens = if read + wrote > 0 { format!(", {read}+{wrote} tokens") } else { String::new() };
    format!(
        "{} calls and events, {errors} errors, {open} unfinished{tokens}; {axis}",
        run.calls.len()
    )
}

fn axis(run: &Run, class: &str) -> String {
    let ticks: String = (0..=4)
        .map(|tick| {
            let at = run.length * f64::from(tick) / 4.0;
            let text = if run.timed { short_time((at * 1e6) as u64) } else { format!("{at:.0}") };
            format!("<span>{text}</span>")
        })
        .collect();
    let unit = if run.timed { "time" } else { "entry of the session, counted from 0" };
    format!(
        "<div class=\"axis{class}\"><span class=\"n\">LSN</span><span class=\"u\">{unit}</span>\
         <div>{ticks}</div><span></span></div>\n"
    )
}

fn row(call: &Call, length: f64) -> String {
    let percent = |at: f64| at / length.max(f64::MIN_POSITIVE) * 100.0;
    let (left, width) = (percent(call.start), percent(call.end - call.start));
    let left = left.min(99.5);
    let mut classes = call.sort.name().to_owned();
    if call.error.is_some() {
        classes.push_str(" bad");
    }
    if call.unfinished.is_some() {
        classes.push_str(" open");
    }
    let mut notes = xml(&notes(call).join("  "));
    if let Some(error) = &call.error {
        let _ = write!(notes, " <span class=\"err\">{}</span>", xml(&cut(error, 80)));
    }
    let mut out = format!(
        "<details><summary><span class=\"n\">{}</span><span class=\"l\" \
         style=\"padding-left:{}px\"><b>{}</b>{}</span><span class=\"t\"><i class=\"{classes}\" \
         style=\"left:{left:.2}%;width:{width:.2}%\"></i></span><span class=\"m\">{notes}</span>\
         </summary>",
        call.lsn,
        call.depth.min(12) * 16,
        call.sort.name(),
        xml(&cut(&call.label, 80))
    );
    for (name, text) in [("in", &call.input), ("out", &call.output), ("error", &call.error)] {
        if let Some(text) = text {
            let _ = write!(out, "<pre>{name}: {}</pre>", readable(text));
        }
    }
    out.push_str("</details>\n");
    out
}

/// What was measured, and what is missing.
fn notes(call: &Call) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(call.duration.map(|d| short_time(d.as_micros() as u64)));
    notes.extend(call.tokens.map(|(read, wrote)| format!("{read}+{wrote} tokens")));
    notes.extend(call.unfinished.map(str::to_owned));
    notes
}

/// A conversation as most runtimes hand it to a model: who says what.
fn messages(text: &str) -> Option<String> {
    let all: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let one = |message: &serde_json::Value| {
        let (role, content) = (message.get("role")?.as_str()?, message.get("content")?.as_str()?);
        Some(format!("[{role}]\n{}\n", content.trim_end()))
    };
    let all: Option<Vec<String>> = all.iter().map(one).collect();
    all.filter(|all| !all.is_empty()).map(|all| all.join("\n"))
}

/// A JSON string as its text, line by line; a conversation message by message; anything else as it
/// stands.
fn readable(text: &str) -> String {
    let plain = serde_json::from_str::<String>(text).ok().or_else(|| messages(text));
    let plain = plain.unwrap_or_else(|| text.to_owned());
    let short = cut(&plain, TEXT_MAX);
    let lines: Vec<String> = short.lines().map(xml).collect();
    let more = if short.len() < plain.len() {
        format!("\n({} bytes; wal cat shows all)", plain.len())
    } else {
        String::new()
    };
    lines.join("\n") + &more
}
