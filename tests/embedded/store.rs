//! The embedded store keeps the store contract, its folder belongs to one process, and a crash loses nothing.

use bytes::Bytes;
use campaignd::store::embedded::EmbeddedStore;
use campaignd::store::{Cell, StateStore, StoreError};

#[path = "../support/store_contract.rs"]
mod store_contract;

macro_rules! tests {
    ($($case:ident,)*) => {
        mod contract {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let folder = tempfile::tempdir().unwrap();
                    let store = super::EmbeddedStore::open(folder.path()).unwrap();
                    super::store_contract::$case(&store).await;
                }
            )*
        }
    };
}
store_contract::for_each_case!(tests);

fn cell(user_id: &str, bytes: &'static str, timestamp_us: i64) -> Cell {
    Cell { user_id: user_id.to_owned(), bytes: Bytes::from(bytes), timestamp_us }
}

/// A copy of the folder's files as they are on the disk now: what a killed process leaves.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_second_owner_of_the_folder_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedStore::open(folder.path()).unwrap();
    let Err(StoreError::Refused(text)) = EmbeddedStore::open(folder.path()) else { panic!("two owners") };
    assert!(text.contains("another process") && text.contains("store.embedded.path"), "{text}");
    drop(first);
    EmbeddedStore::open(folder.path()).expect("free again once the first is gone");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (live, left) = (folder.path().join("live"), folder.path().join("left"));
    let store = EmbeddedStore::open(&live).unwrap();
    store.write(&[cell("u", "old", 1), cell("v", "v", 1)]).await.unwrap();
    store.write(&[cell("u", "new", 2)]).await.unwrap();
    copy(&live, &left);
    let after = EmbeddedStore::open(&left).unwrap();
    let loaded = after.load(&["u", "v"]).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(loaded, [Some(Bytes::from("new")), Some(Bytes::from("v"))]);
    after.write(&[cell("u", "older", 1)]).await.unwrap();
    let newest = after.load(&["u"]).await;
    assert!(matches!(&newest[..], [Ok(Some(bytes))] if bytes == "new"), "the timestamp survived too");
}

#[tokio::test]
async fn a_damaged_folder_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(folder.path()).unwrap());
    std::fs::write(folder.path().join("version"), b"nonsense").unwrap();
    let Err(StoreError::Refused(text)) = EmbeddedStore::open(folder.path()) else { panic!("opened") };
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
}

#[tokio::test]
async fn a_file_instead_of_a_folder_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let Err(StoreError::Refused(text)) = EmbeddedStore::open(file.path()) else { panic!("opened") };
    assert!(text.contains("not a folder"), "{text}");
}
