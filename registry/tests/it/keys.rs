//! What is a key, and what a prefix covers.

use annals_registry::{ErrorKind, KEY_BYTES_MAX, Key, Prefix};

use crate::support::{key, prefix};

#[test]
fn a_key_is_non_empty_segments_joined_by_slashes() {
    let longest = "k".repeat(KEY_BYTES_MAX);
    for path in ["a", "tasks/T1/agents/A7", "ä/日本", "with space/and.dot/..", &longest] {
        assert_eq!(Key::new(path).unwrap().as_str(), path);
    }
    let too_long = "k".repeat(KEY_BYTES_MAX + 1);
    for path in ["", "/", "/a", "a/", "a//b", "a\nb", "a/\u{7f}", "\u{85}", "\0", &too_long] {
        let error = Key::new(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey, "{path:?}");
    }
}

#[test]
fn the_message_names_the_rule_and_does_not_repeat_the_path() {
    let message = Key::new("sk-secret//T1").unwrap_err().to_string();
    assert!(message.contains("empty segment at byte 10"), "{message}");
    assert!(!message.contains("secret"), "{message}");
    let message = Key::new("sk-secret\n").unwrap_err().to_string();
    assert!(message.contains("control character at byte 9"), "{message}");
    assert!(!message.contains("secret"), "{message}");
}

#[test]
fn a_prefix_covers_whole_segments() {
    let task = prefix("tasks/T1");
    for covered in ["tasks/T1", "tasks/T1/a", "tasks/T1/a/b"] {
        assert!(task.covers(&key(covered)), "{covered}");
    }
    for other in ["tasks", "tasks/T10", "tasks/T1-old", "tasks/T", "tasks/T2/T1", "x/tasks/T1"] {
        assert!(!task.covers(&key(other)), "{other}");
    }
    assert!(Prefix::all().covers(&key("anything")));
    assert_eq!(Prefix::new("").unwrap(), Prefix::all());
    assert_eq!(Prefix::from(&key("tasks/T1")), task);
    assert_eq!(Prefix::new("tasks/").unwrap_err().kind(), ErrorKind::InvalidKey);
}
