//! One process, one thread, one durable append at a time: on a log of its own, and on one made for
//! several processes with nobody else there. `cargo run --release -p annals-bench --example sharing
//! [DIR]`. Rounds alternate, so that both meet the same machine.

#![allow(clippy::print_stdout, reason = "a figure is printed")]

use std::time::{Duration, Instant};

use annals_wal::{Log, Options, Sharing};

const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_millis(500);

fn rate(log: &Log) -> annals_wal::Result<f64> {
    let payload = [7_u8; 128];
    let begin = Instant::now();
    let mut appends = 0_u32;
    while begin.elapsed() < ROUND {
        log.append(&payload[..])?;
        appends += 1;
    }
    Ok(f64::from(appends) / begin.elapsed().as_secs_f64())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base = std::env::args().nth(1).unwrap_or_else(|| "/var/tmp".to_owned());
    let dir = tempfile::tempdir_in(base)?;
    let open = |name: &str, sharing| Options::new().sharing(sharing).open(dir.path().join(name));
    let logs = [open("alone", Sharing::Exclusive)?, open("shared", Sharing::Processes)?];
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (log, rates) in logs.iter().zip(&mut rates) {
            rates.push(rate(log)?);
        }
    }
    let [alone, shared] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!(
        "exclusive {alone:.0}/s, shared {shared:.0}/s (medians of {ROUNDS} rounds): {:.2}",
        shared / alone
    );
    Ok(())
}
