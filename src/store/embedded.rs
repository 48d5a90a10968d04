//! The embedded store: the tables of the database in one folder of this machine.
//!
//! For the demo, for tests, and for a single instance that wants no database. One process owns the folder; a second
//! one is refused by the lock file in it. A write returns when its one atomic batch is synced to the disk, so a
//! crash of process or machine loses nothing that was acknowledged.
//!
//! Write timestamps mean what they mean in the database: of two writes to a cell the higher timestamp wins in
//! whatever order they arrive, and on equal timestamps the greater bytes win. Each cell therefore keeps its timestamp
//! in front of the bytes, and a write reads what it is about to replace.
//!
//! It is not shared storage: a consumer group of two instances needs ScyllaDB.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Slice};

use super::{AuditQuery, AuditRow, AuditStore, Cell, FenceRow, StateStore, StoreError, audit_row};

mod failure;
mod fence;
mod key;

use failure::refused;

/// Layout of the folder; raised when a table changes its shape.
const FORMAT: u32 = 1;
/// Bytes of the timestamp in front of a cell.
const TIMESTAMP_BYTES: usize = size_of::<i64>();

/// The store in a folder. Clones share it; the folder is released when the last clone and the last call are gone.
#[derive(Clone)]
pub struct EmbeddedStore {
    tables: Arc<Tables>,
}

/// The open tables and what guards their read-compare-write.
struct Tables {
    db: Database,
    users: Keyspace,
    partition_fence: Keyspace,
    decisions: Keyspace,
    /// Held while a call reads what it is about to replace; without it two writers of one cell could both see the
    /// old timestamp and the lower one could come last.
    writing: Mutex<()>,
    folder: PathBuf,
}

impl EmbeddedStore {
    /// Opens the folder, creating it and its tables where they do not exist. Blocks on the disk.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|error| refused(folder, &fjall::Error::Io(error)))?;
        let tables = Tables::open(folder).map_err(|error| refused(folder, &error))?;
        tables.check_format()?;
        Ok(Self { tables: Arc::new(tables) })
    }

    /// Runs `work` where it may block on the disk without holding up other tasks. When the caller goes away the
    /// work still ends by itself, which is the "may have been applied" of [`StoreError::Unavailable`].
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tables = Arc::clone(&self.tables);
        tokio::task::spawn_blocking(move || work(&tables)).await.map_err(|error| {
            StoreError::Unavailable(format!("the call into the embedded store ended early: {error}"))
        })?
    }
}

impl Tables {
    fn open(folder: &Path) -> fjall::Result<Self> {
        let db = Database::builder(folder).open()?;
        let table = |name| db.keyspace(name, KeyspaceCreateOptions::default);
        Ok(Self {
            users: table("users")?,
            partition_fence: table("partition_fence")?,
            decisions: table("decisions")?,
            writing: Mutex::new(()),
            folder: folder.to_owned(),
            db,
        })
    }

    /// Writes the format into a new folder and refuses the folder of another format.
    fn check_format(&self) -> Result<(), StoreError> {
        const KEY: &[u8] = b"format";
        let meta = self.db.keyspace("meta", KeyspaceCreateOptions::default).map_err(|e| self.refused(&e))?;
        match meta.get(KEY).map_err(|e| self.refused(&e))? {
            None => {
                let mut batch = self.batch(1);
                batch.insert(&meta, KEY, FORMAT.to_be_bytes());
                batch.commit().map_err(|e| self.refused(&e))
            }
            Some(found) if *found == FORMAT.to_be_bytes() => Ok(()),
            Some(_) => Err(StoreError::Refused(format!(
                "{} was written by another version of campaignd (this one knows format {FORMAT}); use that version, or another folder",
                self.folder.display()
            ))),
        }
    }

    /// A batch that is on the disk when its commit returns.
    fn batch(&self, capacity: usize) -> OwnedWriteBatch {
        OwnedWriteBatch::with_capacity(self.db.clone(), capacity).durability(Some(PersistMode::SyncData))
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // A panic while it was held leaves no half-written state behind: the batch is atomic.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, error: &fjall::Error) -> StoreError {
        refused(&self.folder, error)
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Refused(format!(
            "the embedded store in {} is damaged: {what}; stop campaignd and restore the folder from a copy, or start with an empty one",
            self.folder.display()
        ))
    }

    /// Splits a stored cell into timestamp and bytes.
    fn split_cell<'a>(&self, stored: &'a [u8]) -> Result<(i64, &'a [u8]), StoreError> {
        match stored.split_first_chunk::<TIMESTAMP_BYTES>() {
            Some((timestamp, bytes)) => Ok((i64::from_be_bytes(*timestamp), bytes)),
            None => Err(self.damaged("a user's cell has no timestamp")),
        }
    }

    fn load(&self, user_ids: Vec<Result<Slice, StoreError>>) -> Vec<Result<Option<Bytes>, StoreError>> {
        let read = |user_id: Result<Slice, StoreError>| {
            let Some(stored) = self.users.get(user_id?).map_err(|e| self.refused(&e))? else {
                return Ok(None);
            };
            let (_, bytes) = self.split_cell(&stored)?;
            Ok(Some(Bytes::copy_from_slice(bytes)))
        };
        user_ids.into_iter().map(read).collect()
    }

    /// `cells` in key order, so that the tree is walked once from left to right.
    fn write(&self, cells: Vec<StoredCell>) -> Result<(), StoreError> {
        let _writing = self.lock();
        let mut batch = self.batch(cells.len());
        for cell in cells {
            let current = self.users.get(&cell.user_id).map_err(|e| self.refused(&e))?;
            let wins = match &current {
                None => true,
                Some(stored) => compare(self.split_cell(&cell.stored)?, self.split_cell(stored)?).is_gt(),
            };
            if wins {
                batch.insert(&self.users, cell.user_id, cell.stored);
            }
        }
        batch.commit().map_err(|e| self.refused(&e))
    }

    fn read_fence(&self, key: &[u8]) -> Result<Option<FenceRow>, StoreError> {
        match self.partition_fence.get(key).map_err(|e| self.refused(&e))? {
            None => Ok(None),
            Some(stored) => fence::decode(&stored).map(Some).map_err(|what| self.damaged(&what)),
        }
    }

    fn insert_audit(&self, rows: Vec<(Slice, Slice)>) -> Result<(), StoreError> {
        let mut batch = self.batch(rows.len());
        for (key, row) in rows {
            batch.insert(&self.decisions, key, row);
        }
        batch.commit().map_err(|e| self.refused(&e))
    }

    fn read_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        let Some(range) = key::audit_range(&query.user_id, query.since_ms, query.until_ms)? else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        for entry in self.decisions.range(range) {
            if rows.len() >= query.limit {
                break;
            }
            let stored = entry.value().map_err(|e| self.refused(&e))?;
            let row = audit_row::decode(&stored).map_err(|what| self.damaged(&what))?;
            if audit_row::matches(&row, query) {
                rows.push(row);
            }
        }
        Ok(rows)
    }
}

/// A cell as it lies in the table.
struct StoredCell {
    user_id: Slice,
    stored: Slice,
}

impl StoredCell {
    fn new(cell: &Cell) -> Result<Self, StoreError> {
        let mut stored = Vec::with_capacity(TIMESTAMP_BYTES + cell.bytes.len());
        stored.extend_from_slice(&cell.timestamp_us.to_be_bytes());
        stored.extend_from_slice(&cell.bytes);
        Ok(Self { user_id: key::user(&cell.user_id)?, stored: stored.into() })
    }
}

/// The order of two writes to one cell: the timestamp, then the bytes.
fn compare(left: (i64, &[u8]), right: (i64, &[u8])) -> Ordering {
    left.cmp(&right)
}

/// Of several cells of one user in a call only the one that wins, in key order.
fn winners(cells: &[Cell]) -> Result<Vec<StoredCell>, StoreError> {
    let mut sorted: Vec<&Cell> = cells.iter().collect();
    let write = |cell: &Cell| (cell.timestamp_us, cell.bytes.clone());
    sorted.sort_unstable_by(|left, right| {
        left.user_id.cmp(&right.user_id).then_with(|| write(right).cmp(&write(left)))
    });
    sorted.dedup_by(|later, kept| later.user_id == kept.user_id);
    sorted.into_iter().map(StoredCell::new).collect()
}

#[async_trait]
impl StateStore for EmbeddedStore {
    async fn load(&self, user_ids: &[&str]) -> Vec<Result<Option<Bytes>, StoreError>> {
        if user_ids.is_empty() {
            return Vec::new();
        }
        let keys: Vec<_> = user_ids.iter().map(|id| key::user(id)).collect();
        let asked = keys.len();
        match self.blocking(move |tables| Ok(tables.load(keys))).await {
            Ok(cells) => cells,
            Err(error) => vec![Err(error); asked],
        }
    }

    async fn clock_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    async fn write(&self, cells: &[Cell]) -> Result<(), StoreError> {
        if cells.is_empty() {
            return Ok(());
        }
        let cells = winners(cells)?;
        self.blocking(move |tables| tables.write(cells)).await
    }

    async fn read_fence(&self, topic: &str, partition: i32) -> Result<Option<FenceRow>, StoreError> {
        let key = key::fence(topic, partition);
        self.blocking(move |tables| tables.read_fence(&key)).await
    }

    async fn replace_fence(
        &self,
        topic: &str,
        partition: i32,
        expected: Option<&FenceRow>,
        next: &FenceRow,
    ) -> Result<(), StoreError> {
        let (topic, expected, next) = (topic.to_owned(), expected.cloned(), next.clone());
        self.blocking(move |tables| {
            let key = key::fence(&topic, partition);
            let _writing = tables.lock();
            let current = tables.read_fence(&key)?;
            if current.as_ref() == Some(&next) {
                return Ok(()); // the same call again
            }
            let unchanged = match (&current, &expected) {
                (None, None) => true,
                (Some(found), Some(expected)) => found.same_owner(expected),
                _ => false,
            };
            if !unchanged {
                return Err(StoreError::Fenced { topic, partition });
            }
            let mut batch = tables.batch(1);
            batch.insert(&tables.partition_fence, key, fence::encode(&next));
            batch.commit().map_err(|e| tables.refused(&e))
        })
        .await
    }
}

#[async_trait]
impl AuditStore for EmbeddedStore {
    async fn insert_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let encode =
            |row: &AuditRow| Ok((key::audit(&row.decision)?, audit_row::encode(row).into_bytes().into()));
        let mut rows = rows.iter().map(encode).collect::<Result<Vec<(Slice, Slice)>, StoreError>>()?;
        rows.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        self.blocking(move |tables| tables.insert_audit(rows)).await
    }

    async fn read_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        let query = query.clone();
        self.blocking(move |tables| tables.read_audit(&query)).await
    }
}
