//! One input through its body, on stable:
//! cargo run --manifest-path fuzz/Cargo.toml --example one -- TARGET FILE...

use annals_fuzz::TARGETS;

fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let Some((_, body)) = TARGETS.into_iter().find(|(target, _)| *target == name) else {
        panic!("name a target: {:?}", TARGETS.map(|(target, _)| target));
    };
    for file in args {
        println!("{file}");
        body(&std::fs::read(file).unwrap());
    }
}
