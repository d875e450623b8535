//! What excuses no secret: a parser's words beside it, and another secret's mark before it.
//!
//! The exemption for what a parser calls a token is asked with thousands of made keys of each alphabet
//! and length: what is found behind `token:` alone must be found behind a parser's words, too. Never
//! here: a draw that differs from run to run. Next room: `secrets.rs`.

use annals_observer::JsonText;

use crate::secrets::{ALNUM, UPPER, all_gone, kept, made, observer, rows};

/// Seven letters, digits at the end: a name to a parser, a password to everybody else.
const CHOSEN: &str = "sunshine42";

/// The mark of a key that has none itself stood before another secret, which was written as it was.
#[test]
fn a_secret_between_a_mark_and_its_key_is_found_as_well() {
    let aws = format!("AKIA{}", made(1, UPPER, 16));
    let mut found = Vec::new();
    for (n, between) in [
        ("password=hunter22x", "hunter22x"),
        ("pw=sunshine42", CHOSEN),
        ("a pw=ab12cd3 pwd=ef45gh6", "ef45gh6"),
    ]
    .iter()
    .map(|(text, secret)| ((*text).to_owned(), (*secret).to_owned()))
    .chain([
        (aws.clone(), aws.clone()),
        (format!("id {aws}"), aws.clone()),
        ("pg://u:hunter22x@db".to_owned(), "hunter22x".to_owned()),
        ("pw=ab12cd3 pwd=ef45gh6".to_owned(), "ab12cd3".to_owned()),
    ])
    .enumerate()
    {
        let (text, secret) = between;
        let key = made(n, ALNUM, 40);
        for after in [" ", " key="] {
            let text = format!("cohere {text}{after}{key}");
            // The mark must reach its key.
            if text.len() <= "cohere".len() + 33 + 40 {
                found.push((text.clone(), secret.clone()));
                found.push((text, key.clone()));
            }
        }
    }
    assert!(found.len() >= 20, "{}", found.len());
    all_gone(&found);
    // One that runs into the key: both are gone, and what stands around them is not.
    let key = made(9, ALNUM, 40);
    let text = format!("use cohere pw=\"ab12cd3 {key}\" here");
    let said = kept(&observer(), JsonText::string(&text));
    assert!(said.starts_with("\"use cohere ") && said.ends_with(" here\""), "{said}");
    assert!(!said.contains("ab12cd3") && !said.contains(&key), "{said}");
}

/// A parser speaks of `token` and of nothing else, in the same line and a few words before it.
#[test]
fn a_parsers_words_excuse_no_other_name_no_other_line_and_no_key() {
    all_gone(&rows(&[
        ("parse error, token: JBSWY3DPEHPK3PXP", "JBSWY3DPEHPK3PXP"),
        ("unexpected token: JBSWY3DPEHPK3PXP", "JBSWY3DPEHPK3PXP"),
        ("dotenv: parse error on line 4: API_SECRET=sunshine42", CHOSEN),
        ("dotenv: parse error on line 4: TOKEN=sunshine42", CHOSEN),
        ("syntax error in the file of your account, token: sunshine42", CHOSEN),
        ("unexpected secret: sunshine42", CHOSEN),
        ("unexpected api_key: sunshine42", CHOSEN),
        ("unexpected access_token: sunshine42", CHOSEN),
        ("unexpected credentials: sunshine42", CHOSEN),
        ("near secret_key: sunshine42", CHOSEN),
        ("unexpected token=sunshine42", CHOSEN),
        ("unexpected token: SUNSHINE42", "SUNSHINE42"),
        ("unexpected token: ab12cd34", "ab12cd34"),
        ("unexpected token: Ab12Cd34", "Ab12Cd34"),
        ("parse error,\rtoken: sunshine42", CHOSEN),
        ("parse error,\ntoken: sunshine42", CHOSEN),
        ("parse error at line 3\r\n token: sunshine42", CHOSEN),
        ("parse error,\\rtoken: sunshine42", CHOSEN),
        ("parse error, \\n token: sunshine42", CHOSEN),
    ]));
}

/// Numbers that are the same in every run (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    fn of(&mut self, alphabet: &[u8], length: usize) -> String {
        let pick = |draw: &mut Draw| {
            let at = usize::try_from(draw.next() % alphabet.len() as u64).unwrap();
            char::from(alphabet[at])
        };
        (0..length).map(|_| pick(self)).collect()
    }
}

/// Each line as it is kept; many at once, because an entry costs more than a line.
fn kept_lines(said: &str, keys: &[String]) -> Vec<String> {
    let observer = observer();
    let mut lines = Vec::new();
    for keys in keys.chunks(250) {
        let text: Vec<_> = keys.iter().map(|key| format!("{said}{key}")).collect();
        let kept = kept(&observer, JsonText::string(&text.join("\n")));
        let kept: String = serde_json::from_str(&kept).unwrap();
        lines.extend(kept.lines().map(str::to_owned));
    }
    assert_eq!(lines.len(), keys.len());
    lines
}

#[test]
fn hardly_a_key_of_any_alphabet_is_a_word_of_a_program() {
    const DRAWS: usize = 2000;
    let alphabets = [
        ("base32", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        ("small base32", "abcdefghijklmnopqrstuvwxyz234567"),
        ("base36", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"),
        ("small base36", "abcdefghijklmnopqrstuvwxyz0123456789"),
        ("hexadecimal", "0123456789abcdef"),
        ("letters", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
        ("base62", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"),
        ("base64", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
    ];
    let mut leaks = Vec::new();
    for (row, (name, alphabet)) in alphabets.into_iter().enumerate() {
        for length in [12, 13, 16, 20, 24, 32, 40] {
            let seed = (row * 100 + length) as u64;
            let mut draw = Draw(seed);
            let keys: Vec<_> = (0..DRAWS).map(|_| draw.of(alphabet.as_bytes(), length)).collect();
            let plain = kept_lines("token: ", &keys);
            for said in ["parse error, token: ", "Unexpected token: "] {
                let beside = kept_lines(said, &keys);
                let lines = keys.iter().zip(plain.iter().zip(&beside));
                let leaked = lines
                    .filter(|(key, (plain, beside))| !plain.contains(*key) && beside.contains(*key))
                    .count();
                // One in a thousand at twelve, where a short word with its number may be drawn.
                let most = if length == 12 { DRAWS / 1000 } else { 0 };
                if leaked > most {
                    leaks.push(format!("{said:?} {name} of {length}, seed {seed}: {leaked}"));
                }
            }
        }
    }
    assert!(leaks.is_empty(), "of {DRAWS} each pass:\n{}", leaks.join("\n"));
}
