//! Good schemas on disk, so that a restart needs no registry.
//!
//! One file for each schema, and one for each id that our own schemas have under a subject. Its name is made of the
//! registry's address and of what it holds; its first line is a checksum of the rest, which repeats both. What is
//! damaged, or belongs to another registry, is ignored with a warning, and written anew when the registry has answered.
//!
//! It holds what a registry has said and nothing else: no errors, and no "unknown", which may be registered meanwhile. It
//! is not trusted more than the registry: whoever can ask, asks.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::writer::WriterSchema;

/// Files kept; the one that was written longest ago goes first.
const MAX_FILES: usize = 2_048;
/// A longer file is none of ours: the longest schema, escaped, and its references.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// How our files end.
const ENDING: &str = ".schema";

/// A folder of schemas of one registry; others may use the same folder.
#[derive(Clone, Debug)]
pub(super) struct SchemaFolder {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    registry: String,
    /// Whether it was logged that nothing can be written.
    complained: AtomicBool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptSchema {
    registry: String,
    id: u32,
    schema: String,
    references: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptId {
    registry: String,
    subject: String,
    schema: String,
    id: u32,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is longer than {MAX_FILE_BYTES} bytes")]
    TooLong,
    #[error("its checksum does not fit")]
    Checksum,
    #[error("it is of another form: {0}")]
    Form(#[from] serde_json::Error),
    #[error("it holds something else than its name says")]
    Other,
}

impl SchemaFolder {
    /// The folder of a registry's schemas; made when the first is kept.
    pub fn new(path: PathBuf, registry: &str) -> Self {
        let registry = registry.trim_end_matches('/').to_owned();
        Self { inner: Arc::new(Inner { path, registry, complained: AtomicBool::new(false) }) }
    }

    /// A schema that was kept.
    pub async fn schema(&self, id: u32) -> Option<WriterSchema> {
        self.blocking(move |inner| {
            let kept: KeptSchema = inner.read(&inner.schema_name(id))?;
            if kept.id != id || kept.registry != inner.registry {
                inner.warn(&inner.schema_name(id), &Damage::Other);
                return None;
            }
            let parsed = WriterSchema::parse_with_references(id, &kept.schema, &kept.references);
            parsed.inspect_err(|error| inner.warn(&inner.schema_name(id), error)).ok()
        })
        .await
    }

    /// Keeps a schema that the registry gave and that can be used.
    pub async fn keep_schema(&self, id: u32, schema: &str, references: &[String]) {
        let (schema, references) = (schema.to_owned(), references.to_vec());
        self.blocking(move |inner| {
            let kept = KeptSchema { registry: inner.registry.clone(), id, schema, references };
            inner.write(&inner.schema_name(id), &kept);
            Some(())
        })
        .await;
    }

    /// Forgets a schema that the registry knows no more.
    pub async fn forget_schema(&self, id: u32) {
        self.blocking(move |inner| fs::remove_file(inner.path.join(inner.schema_name(id))).ok()).await;
    }

    /// The id that a schema had under a subject.
    pub async fn id(&self, subject: &str, schema: &str) -> Option<u32> {
        let (subject, schema) = (subject.to_owned(), schema.to_owned());
        self.blocking(move |inner| {
            let name = inner.id_name(&subject, &schema);
            let kept: KeptId = inner.read(&name)?;
            let wanted = KeptId { registry: inner.registry.clone(), subject, schema, id: kept.id };
            if kept == wanted {
                return Some(kept.id);
            }
            inner.warn(&name, &Damage::Other);
            None
        })
        .await
    }

    /// Keeps the id that a schema has under a subject.
    pub async fn keep_id(&self, subject: &str, schema: &str, id: u32) {
        let (subject, schema) = (subject.to_owned(), schema.to_owned());
        self.blocking(move |inner| {
            let name = inner.id_name(&subject, &schema);
            inner.write(&name, &KeptId { registry: inner.registry.clone(), subject, schema, id });
            Some(())
        })
        .await;
    }

    /// Runs file work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.ok().flatten()
    }
}

impl Inner {
    fn schema_name(&self, id: u32) -> String {
        format!("{:016x}-{id}{ENDING}", xxh3_64(self.registry.as_bytes()))
    }

    fn id_name(&self, subject: &str, schema: &str) -> String {
        let of = xxh3_64(format!("{}:{subject}:{schema}", subject.len()).as_bytes());
        format!("{:016x}-id-{of:016x}{ENDING}", xxh3_64(self.registry.as_bytes()))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        match read(&self.path.join(name)) {
            Ok(kept) => Some(kept),
            Err(Damage::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(damage) => {
                self.warn(name, &damage);
                None
            }
        }
    }

    fn warn(&self, name: &str, damage: &dyn std::fmt::Display) {
        let file = self.path.join(name);
        tracing::warn!(file = %file.display(), "a kept schema is not used, the registry will be asked: {damage}");
    }

    fn write(&self, name: &str, kept: &impl Serialize) {
        if let Err(error) = write(&self.path, name, kept).and_then(|()| drop_oldest(&self.path))
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                folder = %self.path.display(),
                "schemas cannot be kept, so a restart needs the registry; see registry.cache_path: {error}"
            );
        }
    }
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Damage> {
    if fs::metadata(file)?.len() > MAX_FILE_BYTES {
        return Err(Damage::TooLong);
    }
    let bytes = fs::read(file)?;
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (checksum, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if checksum != checksum_of(body).as_bytes() {
        return Err(Damage::Checksum);
    }
    Ok(serde_json::from_slice(body)?)
}

/// Written beside its place and moved there, so that a reader sees all of it or nothing.
fn write(folder: &Path, name: &str, kept: &impl Serialize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let body = serde_json::to_vec(kept)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{}", checksum_of(&body))?;
    file.write_all(&body)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name)).map_err(|error| error.error)?;
    Ok(())
}

fn checksum_of(body: &[u8]) -> String {
    format!("{:016x}", xxh3_64(body))
}

fn drop_oldest(folder: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ENDING) {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort();
    let too_many = files.len().saturating_sub(MAX_FILES);
    files.iter().take(too_many).try_for_each(|(_, file)| fs::remove_file(file))
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
