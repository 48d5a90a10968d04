//! The folder by itself: what is kept is found again, and nothing else is.

use super::*;

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;
const URL: &str = "http://registry:8081/";

fn file_of(folder: &Path) -> PathBuf {
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    file.clone()
}

#[tokio::test]
async fn what_is_kept_is_found_by_whoever_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made").join("when needed");
    let first = SchemaFolder::new(path.clone(), URL);
    assert!(first.schema(7).await.is_none());
    first.keep_schema(7, SCHEMA, &[]).await;
    first.keep_id("events-value", SCHEMA, 7).await;
    let second = SchemaFolder::new(path.clone(), URL.trim_end_matches('/'));
    assert_eq!(second.schema(7).await.unwrap().text(), SCHEMA);
    assert_eq!(second.id("events-value", SCHEMA).await, Some(7));
    assert!(second.schema(8).await.is_none());
    assert_eq!(second.id("events-value", "{}").await, None);
    assert_eq!(second.id("other-value", SCHEMA).await, None);
    let other = SchemaFolder::new(path, "http://other:8081");
    assert!(other.schema(7).await.is_none());
    assert_eq!(other.id("events-value", SCHEMA).await, None);
    second.forget_schema(7).await;
    assert!(first.schema(7).await.is_none());
}

#[tokio::test]
async fn references_are_kept_too() {
    let folder = tempfile::tempdir().unwrap();
    let kept = SchemaFolder::new(folder.path().to_owned(), URL);
    let money = r#"{"type":"record","name":"shop.Money","fields":[{"name":"cents","type":"long"}]}"#;
    let order = r#"{"type":"record","name":"Order","fields":[{"name":"total","type":"shop.Money"}]}"#;
    kept.keep_schema(5, order, &[money.to_owned()]).await;
    assert_eq!(kept.schema(5).await.unwrap().text(), order);
}

#[tokio::test]
async fn a_file_with_any_byte_changed_or_cut_off_anywhere_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let kept = SchemaFolder::new(folder.path().to_owned(), URL);
    kept.keep_schema(7, SCHEMA, &[]).await;
    let file = file_of(folder.path());
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert!(kept.schema(7).await.is_none(), "byte {at}");
        fs::write(&file, &good[..at]).unwrap();
        assert!(kept.schema(7).await.is_none(), "cut off at {at}");
    }
    kept.keep_schema(7, SCHEMA, &[]).await;
    assert!(kept.schema(7).await.is_some(), "it is written anew");
}

#[tokio::test]
async fn a_good_file_under_another_name_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let kept = SchemaFolder::new(folder.path().to_owned(), URL);
    kept.keep_schema(7, SCHEMA, &[]).await;
    fs::rename(file_of(folder.path()), folder.path().join(kept.inner.schema_name(8))).unwrap();
    assert!(kept.schema(8).await.is_none());
    let other = SchemaFolder::new(folder.path().to_owned(), "http://other:8081");
    fs::rename(file_of(folder.path()), folder.path().join(other.inner.schema_name(7))).unwrap();
    assert!(other.schema(7).await.is_none());
}

#[tokio::test]
async fn the_oldest_go_when_there_are_too_many_and_other_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let kept = SchemaFolder::new(folder.path().to_owned(), URL);
    fs::write(folder.path().join("not ours"), "").unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for number in 0..MAX_FILES {
        let file = fs::File::create(folder.path().join(format!("{number}{ENDING}"))).unwrap();
        file.set_modified(long_ago + std::time::Duration::from_secs(number as u64)).unwrap();
    }
    kept.keep_schema(7, SCHEMA, &[]).await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MAX_FILES + 1);
    assert!(!folder.path().join(format!("0{ENDING}")).exists());
    assert!(folder.path().join(format!("1{ENDING}")).exists() && kept.schema(7).await.is_some());
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, "").unwrap();
    let kept = SchemaFolder::new(file.clone(), URL);
    kept.keep_schema(7, SCHEMA, &[]).await;
    kept.keep_id("s", SCHEMA, 7).await;
    assert!(kept.schema(7).await.is_none());
    assert!(file.is_file());
}
