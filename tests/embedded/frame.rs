//! The helpers of the suites do what the stories rely on.

use crate::support::unique;

#[test]
fn unique_names_differ_and_suit_topics_and_keyspaces() {
    let names = [unique("orders"), unique("orders"), unique("sixteen_bytes_ab")];
    assert_ne!(names[0], names[1]);
    for name in &names {
        assert!(name.len() <= 48, "too long for a keyspace: {name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
    }
}
