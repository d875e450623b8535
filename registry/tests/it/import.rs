//! JSON registries in and out: exact, or refused by name; and no key changed that no import made.

use annals_registry::{ErrorKind, Finding, Prefix, Registry, RegistryReader, Value, check_json};
use annals_wal::LogReader;
use annals_wal::fs::mem::MemDir;

use crate::support::{json, key, open, prefix};

const T1: &str = r#"{"task_id":"T1","agents":[{"id":"A7","status":"working"}],"active_count":1}"#;

fn import(registry: &Registry, text: &str) -> Vec<Finding> {
    registry.import_json("T1.json", text, false).unwrap().findings
}

fn export(registry: &Registry) -> annals_registry::Result<Option<String>> {
    registry.export_json(&prefix("tasks/T1"))
}

fn keys(registry: &Registry) -> Vec<String> {
    registry.scan(&Prefix::all()).into_iter().map(|(key, _)| key.to_string()).collect()
}

fn raw(text: &str) -> Value {
    Value::new(text.as_bytes(), annals_registry::Codec::JSON)
}

/// Everything that a document can hold comes out as it went in.
#[test]
fn what_is_imported_comes_out_equal() {
    let documents = [
        T1,
        r#"{"task_id":"T1","agents":{"A7":{"n":1.50},"a/b:c%":{},"":{},"\u0000":{}},"x":null}"#,
        r#"{"agents":[],"task_id":"T1","é/ü":[1, 2],":layout":3,"":4,"%":5,"%25":6}"#,
        // Ids twice: which one counts is said, and both stay.
        r#"{"task_id":"T1","agents":[{"id":"A","n":1},{"id":"B"},{"id":"A","n":2},{"id":"A","n":3}]}"#,
    ];
    for document in documents {
        let registry = open(&MemDir::new(1));
        import(&registry, document);
        // What is no ASCII and a control character may be spelled in another way.
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let exported = export(&registry).unwrap().unwrap();
        assert_eq!(value(&exported), value(document));
        let again = registry.import_json("T1.json", document, false).unwrap();
        assert_eq!(again.revision, None, "the same again changes nothing");
        if document.is_ascii() && !document.contains("\\u") && !document.contains(", ") {
            assert_eq!(exported, document);
        }
    }
}

#[test]
fn of_entries_with_one_id_none_is_dropped() {
    let registry = open(&MemDir::new(1));
    let text = r#"{"task_id":"T1","agents":[{"id":"A","n":1},{"id":"B"},{"id":"A","n":2}]}"#;
    let findings = import(&registry, text);
    assert!(matches!(&findings[..], [Finding::Twice { id, .. }] if id == "A"), "{findings:?}");
    let agent = registry.get(&key("tasks/T1/agents/A")).unwrap().value;
    assert_eq!(agent.bytes(), br#"{"id":"A","n":2}"#);
    assert_eq!(export(&registry).unwrap().unwrap(), text);
    // Gone is gone, both of them.
    registry.delete(&key("tasks/T1/agents/A")).unwrap();
    let left = export(&registry).unwrap().unwrap();
    assert_eq!(left, r#"{"task_id":"T1","agents":[{"id":"B"}]}"#);
}

/// A member of that name whose members are no objects lists nobody.
#[test]
fn what_is_no_list_of_objects_is_a_value_and_is_named() {
    for (agents, why) in [
        (r#"{"total":3,"active":1}"#, "total"),
        (r#"{"A7":{"status":"working"},"note":"x"}"#, "note"),
        (r#"["A7","A8"]"#, "entry 1"),
        ("7", "neither"),
    ] {
        let registry = open(&MemDir::new(1));
        let text = format!(r#"{{"agents":{agents},"tasks":{{}},"agent_count":2}}"#);
        let imported = registry.import_json("G.json", &text, false).unwrap();
        assert_eq!(imported.agents, 0);
        let said: Vec<String> = imported.findings.iter().map(ToString::to_string).collect();
        assert!(
            matches!(&imported.findings[..], [Finding::NotAList { member, .. }] if member == "agents"),
            "{said:?}"
        );
        assert!(said[0].contains(why), "{said:?}");
        assert_eq!(keys(&registry), ["global/:layout", "global/agent_count", "global/agents"]);
        assert_eq!(registry.export_json(&prefix("global")).unwrap(), Some(text));
    }
    let error = check_json("T1.json", r#"{"task_id":"T1","agents":{"total":3}}"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Import, "nothing else is listed");
}

#[test]
fn a_task_may_be_named_by_a_number() {
    for (said, root) in [("17", "tasks/17"), (r#""17""#, "tasks/17"), ("1.5", "tasks/1.5")] {
        let registry = open(&MemDir::new(1));
        let text = format!(r#"{{"task_id":{said},"agents":[]}}"#);
        let imported = registry.import_json("x.json", &text, false).unwrap();
        assert_eq!(imported.root, prefix(root));
    }
}

/// A document that would not say all there is is not written.
#[test]
fn what_has_no_place_in_the_document_is_refused_by_name() {
    let cases: [(&str, Value, ErrorKind); 9] = [
        ("tasks/T1/agents/A7/notes", json(1), ErrorKind::Export),
        ("tasks/T1", json(1), ErrorKind::Export),
        ("tasks/T1/agents", json(1), ErrorKind::Export),
        ("tasks/T1/active_count/x", json(1), ErrorKind::Export),
        ("tasks/T1/agents/A8", raw(r#"{"status":"working"}"#), ErrorKind::Export),
        ("tasks/T1/agents/A7", raw(r#"{"id":"A9"}"#), ErrorKind::Export),
        ("tasks/T1/note", Value::raw(*b"1"), ErrorKind::Decode),
        ("tasks/T1/note", raw("{"), ErrorKind::Decode),
        ("tasks/T1/note", raw("1 2"), ErrorKind::Decode),
    ];
    for (at, value, kind) in cases {
        let disk = MemDir::new(1);
        let registry = open(&disk);
        import(&registry, T1);
        registry.put(&key(at), value).unwrap();
        let reader = RegistryReader::on(LogReader::open_in(disk.dir()).unwrap()).unwrap();
        let root = prefix("tasks/T1");
        for error in [export(&registry).unwrap_err(), reader.export_json(&root).unwrap_err()] {
            assert_eq!(error.kind(), kind, "{at}: {error}");
            // Of a member and what lies below it, one is named.
            assert!(error.to_string().contains("tasks/T1"), "{at}: {error}");
        }
        let first = export(&registry).unwrap_err().to_string();
        assert!(first.contains(at) || at == "tasks/T1/active_count/x", "{first}");
    }
    // Two spellings of one name.
    let registry = open(&MemDir::new(1));
    import(&registry, T1);
    registry.put(&key("tasks/T1/a%2fb"), json(1)).unwrap();
    assert!(export(&registry).unwrap().unwrap().ends_with(r#","a/b":1}"#));
    // No spelling of a name: what it says is its name.
    registry.put(&key("tasks/T1/%ff"), json(1)).unwrap();
    registry.put(&key("tasks/T1/a%2Fb"), json(2)).unwrap();
    let exported = export(&registry).unwrap().unwrap();
    assert!(exported.contains(r#""%ff":1"#) && exported.contains(r#""a%2Fb":2"#), "{exported}");
    registry.put(&key("tasks/T1/a%252Fb"), json(3)).unwrap();
    assert_eq!(export(&registry).unwrap_err().kind(), ErrorKind::Export, "twice");
}

#[test]
fn new_agents_and_members_come_after_the_old_ones() {
    let registry = open(&MemDir::new(1));
    import(&registry, T1);
    registry.put(&key("tasks/T1/agents/A8"), raw(r#"{"id":"A8"}"#)).unwrap();
    registry.put(&key("tasks/T1/active_count"), json(2)).unwrap();
    registry.put(&key("tasks/T1/new"), json(1)).unwrap();
    registry.put(&key("tasks/T1/more/x"), json(2)).unwrap();
    assert_eq!(
        export(&registry).unwrap().unwrap(),
        concat!(
            r#"{"task_id":"T1","agents":[{"id":"A7","status":"working"},{"id":"A8"}],"#,
            r#""active_count":2,"new":1,"more":{"x":2}}"#
        )
    );
}

#[test]
fn replace_touches_no_key_that_no_import_made() {
    let registry = open(&MemDir::new(1));
    let other = [key("tasks/T1/owner"), key("tasks/T1/agents/A8"), key("tasks/T1/agents/A7/log")];
    let lease = registry.grant(std::time::Duration::from_secs(1), "A8").unwrap();
    for k in &other {
        registry.put_leased(k, json(1), lease.id).unwrap();
    }
    import(&registry, T1);
    let before: Vec<_> = other.iter().map(|k| registry.get(k).unwrap()).collect();
    // The same again is the same, whatever else stands there.
    assert_eq!(registry.import_json("T1.json", T1, false).unwrap().revision, None);
    let task_id = registry.get(&key("tasks/T1/task_id")).unwrap();

    let text = r#"{"task_id":"T1","agents":[{"id":"A9"}]}"#;
    let error = registry.import_json("T1.json", text, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Import);
    assert!(error.to_string().contains("another document stands under tasks/T1"), "{error}");
    registry.import_json("T1.json", text, true).unwrap();
    assert_eq!(
        keys(&registry),
        [
            "tasks/T1/:layout",
            "tasks/T1/agents/A7/log",
            "tasks/T1/agents/A8",
            "tasks/T1/agents/A9",
            "tasks/T1/owner",
            "tasks/T1/task_id"
        ]
    );
    let after: Vec<_> = other.iter().map(|k| registry.get(k).unwrap()).collect();
    assert_eq!(after, before, "revisions and leases too");
    assert_eq!(registry.get(&key("tasks/T1/task_id")), Some(task_id), "equal: not written again");

    // One that it would have to change is named, and nothing is changed.
    let (text, all) = (r#"{"task_id":"T1","agents":[{"id":"A8"}]}"#, registry.scan(&Prefix::all()));
    let error = registry.import_json("T1.json", text, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Import);
    assert!(error.to_string().contains("tasks/T1/agents/A8"), "{error}");
    assert_eq!(registry.scan(&Prefix::all()), all);
}

#[test]
fn a_key_that_stands_in_the_way_of_a_first_import_is_named() {
    let registry = open(&MemDir::new(1));
    registry.put(&key("tasks/T1/active_count"), json(7)).unwrap();
    for replace in [false, true] {
        let error = registry.import_json("T1.json", T1, replace).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Import);
        assert!(error.to_string().contains("tasks/T1/active_count"), "{error}");
        assert_eq!(keys(&registry), ["tasks/T1/active_count"]);
    }
    registry.put(&key("tasks/T1/:layout"), json(7)).unwrap();
    let error = registry.import_json("T1.json", T1, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Import);
    assert!(error.to_string().contains("tasks/T1/:layout"), "{error}");
}

/// Keys below an entry of a list are no entries.
#[test]
fn what_lies_below_an_agent_or_a_task_is_neither() {
    let registry = open(&MemDir::new(1));
    let global = r#"{"tasks":{"T1":{}},"agents":{"A7":{"task_id":"T1","status":"working"}}}"#;
    registry.import_json("G.json", global, false).unwrap();
    registry.put(&key("global/tasks/T1/notes"), json(1)).unwrap();
    let below = raw(r#"{"task_id":"T1"}"#);
    registry.put(&key("global/agents/A7/log"), below).unwrap();
    assert_eq!(import(&registry, T1), []);
}
