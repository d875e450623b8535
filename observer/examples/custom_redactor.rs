//! A redactor of one's own beside the built-in ones: customer numbers never reach the disk.
//!
//! `cargo run -p annals-observer --example custom_redactor`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use annals_observer::{JsonText, Options, entries};
use annals_wal::Log;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("annals-redact-{}", std::process::id()));
    let observer = Options::new().redactor(customer_numbers).on(Log::open(&dir)?)?;
    let session = observer.session("s-1")?;
    let input = JsonText::parse(r#"{"customer": "KD-4711-09", "note": "amount 12.50"}"#)?;
    let mut call = session.tool("refund").input(input).start()?;
    call.end_ok(JsonText::string(
        "refunded KD-4711-09 with ghp_0123456789abcdefABCDEF0123456789abcd",
    ))?;
    for stored in entries(observer.log())? {
        println!("{}", serde_json::to_string(&stored?.entry)?);
    }
    Ok(())
}

/// `KD-` and what follows it up to the next space.
fn customer_numbers(text: &str) -> Option<String> {
    if !text.contains("KD-") {
        return None;
    }
    let words =
        text.split(' ').map(|word| if word.starts_with("KD-") { "[customer]" } else { word });
    Some(words.collect::<Vec<_>>().join(" "))
}
