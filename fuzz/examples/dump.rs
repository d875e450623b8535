use annals_wal::format::*;
use annals_wal::fs::mem::*;
use annals_wal::scan::*;
fn dump(disk: &MemDir) {
    for n in disk.names() {
        let b = disk.bytes(&n).unwrap();
        println!("-- {n} {} bytes", b.len());
        if !n.ends_with(".wal") {
            if n == "CONTROL" {
                println!("   {:?}", Control::decode(&b));
            }
            continue;
        }
        let HeaderVerdict::Good(h) = SegmentHeader::decode(&b) else {
            println!("   {:?}", SegmentHeader::decode(&b));
            continue;
        };
        println!("   {h:?}");
        let mut w = Walker::new(b.as_slice(), &h);
        let mut k = 0;
        while let Some(s) = w.step().unwrap() {
            k += 1;
            if k > 60 {
                break;
            }
            match s {
                Step::Frame(f) => {
                    print!(
                        "   @{} lsn {} kind {:#x} fl {} len {} lag {} {:?}",
                        f.offset,
                        f.header.lsn,
                        f.header.kind,
                        f.header.flags,
                        f.header.len,
                        f.header.durable_lag,
                        f.trouble
                    );
                    if f.header.is_own() && f.trouble.is_none() {
                        print!(" {:?}", OwnBody::decode(w.payload(&f).unwrap()).ok());
                    }
                    println!();
                }
                o => println!("   {o:?}"),
            }
        }
    }
}
fn main() {
    let b = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    let disk = annals_fuzz::files::from(&b);
    dump(&disk);
    match annals_fuzz::directory::open(&disk) {
        Ok(log) => {
            println!("opened {} ", log.recovery());
            println!("{:?}", log.append("after"));
            for r in log.range(..).unwrap() {
                match r {
                    Ok(_) => {}
                    Err(e) => println!("{e:?}"),
                }
            }
            dump(&disk);
        }
        Err(e) => println!("{e:?}"),
    }
}
