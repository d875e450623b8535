//! Secrets in the clothes in which tools hand them over: behind an escape or a colour code, in a
//! diff, in a list, with a slash in front. None may reach the log, and what only looks like one
//! stays.

use annals_observer::{JsonText, Observer, Options};
use annals_wal::fs::mem::MemDir;

use crate::common::{all, open};

const KEY: &str = "a7Zq0w9e8r7t6y5u4i3o2p1a0s9d8f7g6h5j";
/// 40 bytes as AWS makes them.
const BASE64: &str = "/wJalrXUtnFEMIK7MDENGbPxRfiCYzT4dQ8m2Ls5";

fn kept(observer: &Observer, text: JsonText) -> String {
    observer.session("s-1").unwrap().error(text).unwrap();
    all(observer.log()).pop().unwrap().error.unwrap().as_str().to_owned()
}

fn observer() -> Observer {
    let log = open(&MemDir::new(31));
    Options::new().inline_bytes_max(1 << 20).on(log).unwrap()
}

/// What of the text is still there of a secret, asked of the raw string and of JSON in it.
#[track_caller]
fn is_gone(observer: &Observer, text: &str, secret: &str) {
    let nested = serde_json::json!({ "content": text }).to_string();
    let twice = serde_json::json!({ "arguments": nested }).to_string();
    for text in [text, &nested, &twice] {
        let kept = kept(observer, JsonText::string(text));
        assert!(!kept.contains(secret), "{text} is kept as {kept}");
        assert!(kept.contains("[redacted:"), "{text} is kept as {kept}");
    }
}

#[test]
fn a_secret_right_behind_an_escape_or_a_colour_is_found() {
    let observer = observer();
    let secrets = [
        format!("ghp_{KEY}"),
        format!("sk-{KEY}{KEY}"),
        "AKIA7ABCDEFGHIJ23456".to_owned(),
        format!("eyJ{KEY}.eyJ{KEY}.{KEY}"),
        format!("Bearer {KEY}"),
        format!("xoxb-123456789012-{KEY}"),
    ];
    let leads = [
        "line1\n",
        "line1\t",
        "line1\r",
        "line1\u{8}",
        "line1\u{c}",
        "line1\u{b}",
        "a\u{1b}[01;31m",
        "a\u{1b}[K",
        "a\u{1b}[01;31m\u{1b}[K",
        "line1\\n",
        "line1\\t",
        "line1\\u000a",
        "a\\x1b[31m",
        "a\\033[1m",
        "a\\e[0m",
        "key%3D",
        "a\\x0a",
    ];
    for secret in &secrets {
        for lead in leads {
            let text = format!("{lead}{secret} and more");
            is_gone(&observer, &text, secret);
            // What stands before a secret stays whole, so JSON in a string is still JSON.
            let nested = serde_json::json!({ "content": text }).to_string();
            let kept: String =
                serde_json::from_str(&kept(&observer, JsonText::string(&nested))).unwrap();
            let content = serde_json::from_str::<serde_json::Value>(&kept).unwrap();
            assert!(content["content"].as_str().unwrap().starts_with(lead), "{kept}");
        }
    }
    let raw = format!(r#"{{"arguments":"{{\"content\":\"line1\\nghp_{KEY}\"}}"}}"#);
    let kept = kept(&observer, JsonText::parse(raw).unwrap());
    assert_eq!(kept, r#"{"arguments":"{\"content\":\"line1\\n[redacted:api-key]\"}"}"#);
}

#[test]
fn a_private_key_with_dashes_in_it_is_found_to_its_last_line() {
    let observer = observer();
    let line = format!("{KEY}QmFzZTY0U3R1ZmY5X0lz");
    let bodies = [
        format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B2C3D\n\n{line}\n{line}"),
        format!("-{line}\n-{line}\n-{line}"),
        format!("id_rsa-{line}\nid_rsa-{line}"),
        format!("Version: Any - 1.0\n\n{line}\n{line}"),
    ];
    for kind in ["RSA ", "", "ENCRYPTED ", "OPENSSH "] {
        for body in &bodies {
            let begun = format!("-----BEGIN {kind}PRIVATE KEY-----\n{body}\n");
            is_gone(&observer, &begun, &line);
            let kept = kept(
                &observer,
                JsonText::string(&format!("a {begun}-----END {kind}PRIVATE KEY----- b")),
            );
            assert_eq!(kept, "\"a [redacted:private-key] b\"");
        }
    }
    let stays = "look for -----BEGIN RSA PRIVATE KEY----- in the tree, and say where it is: the \
                 tests of crate x have some, all others are to be moved";
    assert_eq!(kept(&observer, JsonText::string(stays)), format!("\"{stays}\""));
}

#[test]
fn a_value_with_a_sign_in_front_is_a_secret_and_a_placeholder_closes() {
    let observer = observer();
    let values = [
        BASE64,
        "$2b$12$KIXQJ8v1Y0n",
        "%40bc12deF9x",
        "$up3rs3cr3t9",
        "~Tr0ub4dor3x",
        ".Tr0ub4dor3x",
    ];
    for value in values {
        is_gone(&observer, &format!("password={value}"), value);
        is_gone(&observer, &format!("aws_secret_access_key = {value}"), value);
    }
    for value in values.into_iter().chain(["[Tr0ub4dor3", "{Tr0ub4dor3", "<Tr0ub4dor3"]) {
        let text = serde_json::json!({ "password": value }).to_string();
        let kept = kept(&observer, JsonText::parse(text).unwrap());
        assert_eq!(kept, r#"{"password":"[redacted:named-secret]"}"#, "{value}");
    }
    for value in [
        "${DB_PASSWORD_12}",
        "<password 12ab>",
        "{{ vault.db12 }}",
        "$DB_PASSWORD_12",
        "%DB_PASS12%",
        "[your-password12]",
        "/run/secrets/db12",
        "./secrets/db12.txt",
        "/home/agent7/projects/rust1/secrets/token2.json",
    ] {
        let text = serde_json::json!({ "password": value }).to_string();
        assert_eq!(kept(&observer, JsonText::parse(text.clone()).unwrap()), text);
    }
}

#[test]
fn every_name_of_a_secret_counts_as_a_member_and_in_an_assignment() {
    let observer = observer();
    for name in [
        "token",
        "secret",
        "pwd",
        "accountKey",
        "refresh_token",
        "sharedAccessKey",
        "password",
        "passwd",
        "passphrase",
        "apiKey",
        "api-key",
        "x-api-key",
        "AWS_SECRET_ACCESS_KEY",
        "client_secret",
        "private_key",
        "DB_PASSWORD",
        "sharedAccessSignature",
        "access_token",
    ] {
        let secret = "Tr0ub4dor3x";
        let member = serde_json::json!({ name: secret }).to_string();
        let kept = kept(&observer, JsonText::parse(member).unwrap());
        assert_eq!(kept, format!(r#"{{"{name}":"[redacted:named-secret]"}}"#));
        is_gone(&observer, &format!("{name}={secret}"), secret);
        is_gone(&observer, &format!("{name}: {secret}"), secret);
    }
}

#[test]
fn a_secret_name_counts_for_all_that_is_under_it() {
    let observer = observer();
    let of = |text: &str| kept(&observer, JsonText::parse(text.to_owned()).unwrap());
    let gone = "[redacted:named-secret]";
    assert_eq!(of(r#"{"password":["Tr0ub4dor3"]}"#), format!(r#"{{"password":["{gone}"]}}"#));
    assert_eq!(
        of(r#"{"password": {"value": "Tr0ub4dor3", "n": [1, "Tr0ub4dor4"]}, "id": "Tr0ub4dor5"}"#),
        format!(r#"{{"password": {{"value": "{gone}", "n": [1, "{gone}"]}}, "id": "Tr0ub4dor5"}}"#)
    );
    for stays in [
        r#"{"tool":{"id":"call_12ab34"},"token":7,"id":["call_12ab34"]}"#,
        r#"[{"password":"not set"},["call_12ab34"]]"#,
        r#"{"password":[],"ids":["call_12ab34"]}"#,
    ] {
        assert_eq!(of(stays), stays);
    }
}

#[test]
fn a_url_password_of_any_length_with_any_sign_is_found() {
    let observer = observer();
    for password in
        ["ab/cd12ef", "/ab/cd12", "p@ss/w0rd", "pass@w0rd", "a?b#c:d", &"x7Y".repeat(200)]
    {
        for scheme in ["postgres", "amqps", "mongodb+srv"] {
            let url = format!("{scheme}://app:{password}@db.internal:5432/app");
            is_gone(&observer, &format!("at {url} now"), password);
        }
    }
    for stays in [
        "http://localhost:4873/@types/node",
        "https://example.com:8080/path?mail=a@b.example",
        "postgres://user:password@localhost/app?mail=a@b.example",
        "http://host:{port}/users/a@b.example",
        "redis://cache:6379,redis://other:6379/@x",
        "postgres://user:[YOUR-PASSWORD]@db.example/postgres",
    ] {
        assert_eq!(kept(&observer, JsonText::string(stays)), format!("\"{stays}\""));
    }
}

/// The new looks are bounded as the old ones are: what is no secret is not looked at twice.
#[test]
fn long_near_secrets_in_disguise_are_looked_at_in_time() {
    let observer = observer();
    for near in [
        "-----BEGIN RSA PRIVATE KEY----- ",
        "ab://x:y",
        "ab://x:y/",
        "\\nsk-",
        "\u{1b}[1;",
        "%41",
        "\\u0041",
        "ab://x:1/",
        "$",
        "-----END PRIVATE KEY-----",
        "password=/",
    ] {
        let text = JsonText::string(&near.repeat((128 << 10) / near.len()));
        assert_eq!(kept(&observer, text.clone()), text.as_str(), "{near}");
    }
}
