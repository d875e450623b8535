//! Names whose values are secrets: members of JSON, keys of assignments, flags, elements of XML.
//!
//! Never here: what a value looks like ([`super::judge`]). Invariant: the list for regular
//! expressions and the list for members say the same, and a test asks both for each name.

/// What a name says about the value that it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    /// A person chose it: one digit or sign among letters is enough.
    Password,
    /// A machine made it: it looks random.
    Token,
    /// The value of a header: a scheme and a credential, or the credential alone.
    Authorization,
    /// `user:password` in base64, as in the settings of registries; everything else is a setting.
    Auth,
}

/// How the name of a password may end.
const PASSWORDS: &str = "passwd|password|passphrase|pwd";
/// The same, but only as a word of its own: `compass` and `bypass` are none.
const SHORT: &str = "pass|pw";
/// How the name of a token or key may end. Where a bar is there may be a dash, a space, an underscore.
const KEYS: [&str; 11] = [
    "account",
    "access",
    "api",
    "auth",
    "client",
    "encryption",
    "master",
    "private",
    "role",
    "secret",
    "signing",
];

/// An expression for the names of passwords, and one for those of tokens; a number may follow.
pub(super) fn expressions() -> (String, String) {
    let keys = KEYS.map(|key| format!("{key}[ _-]?keys?")).join("|");
    let number = "(?:[_-]?[0-9]{1,2})?";
    let passwords =
        format!("(?:(?i:(?:{PASSWORDS})s?)|(?:\\b|[_-])(?i:{SHORT})|[a-z]Pass){number}");
    let tokens = format!(
        "(?i:{keys}|subscription[ _-]?keys?|shared[ _-]?access[ _-]?signatures?|\
         secret[ _-]?key[ _-]?base|secrets?|tokens?|credentials?|authorization){number}"
    );
    (passwords, tokens)
}

/// What the name of a member says, quotes included or not. Asked for each member of each text.
pub(super) fn named(name: &str) -> Option<Named> {
    let mut name = name.as_bytes();
    while let Some((last, before)) = name.split_last()
        && !last.is_ascii_alphabetic()
    {
        name = before;
    }
    let (last, _) = name.split_last()?;
    // Most names are none, and most of those by their last letter.
    if !b"yetndlhsw".contains(&last.to_ascii_lowercase()) {
        return None;
    }
    of(name).or_else(|| match name.split_last()? {
        (b's' | b'S', one) => of(one),
        _ => None,
    })
}

fn of(name: &[u8]) -> Option<Named> {
    let mut buffer = [0; 24];
    let mut from = buffer.len();
    for byte in name.iter().rev().filter(|byte| byte.is_ascii_alphanumeric()) {
        let Some(place) = from.checked_sub(1).and_then(|at| buffer.get_mut(at)) else { break };
        (*place, from) = (byte.to_ascii_lowercase(), from - 1);
    }
    let tail = buffer.get(from..)?;
    let ends = |with: &[&str]| with.iter().any(|end| tail.ends_with(end.as_bytes()));
    let (one, _) = tail.split_last()?;
    match one {
        b'd' => ends(&["passwd", "password", "pwd"]).then_some(Named::Password),
        b'e' if ends(&["passphrase"]) => Some(Named::Password),
        b'e' => ends(&["sharedaccesssignature", "secretkeybase"]).then_some(Named::Token),
        b's' | b'w' => is_short(name).then_some(Named::Password),
        b't' => ends(&["secret"]).then_some(Named::Token),
        b'l' => ends(&["credential"]).then_some(Named::Token),
        b'h' => (tail == b"auth").then_some(Named::Auth),
        b'n' if ends(&["authorization"]) => Some(Named::Authorization),
        b'n' => ends(&["token"]).then_some(Named::Token),
        b'y' => {
            let before = tail.strip_suffix(b"key")?;
            let key = |word: &str| before.ends_with(word.as_bytes());
            (KEYS.into_iter().any(key) || key("subscription")).then_some(Named::Token)
        }
        _ => None,
    }
}

/// `pass` or `pw` as the last word of a name.
fn is_short(name: &[u8]) -> bool {
    SHORT.split('|').any(|short| {
        let Some(at) = name.len().checked_sub(short.len()) else { return false };
        let (before, word) = name.split_at(at);
        word.eq_ignore_ascii_case(short.as_bytes())
            && before.last().is_none_or(|last| {
                !last.is_ascii_alphanumeric()
                    || last.is_ascii_lowercase() && word.first() == Some(&b'P')
            })
    })
}
