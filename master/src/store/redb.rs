//! redb as the engine: a B-tree in one file, copied on write, each page under a checksum that its parent holds. A
//! commit is whole when the header that points to its root is, whatever order the kernel wrote the pages in.

use super::folder::{cannot_open, sync_path};
use super::group::{Engine, Rows, Visit};
use plat_model::Problem;
use plat_model::problem::codes;
use redb::{Database, ReadableDatabase, TableDefinition};
use std::ops::ControlFlow;
use std::path::Path;

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// The state is in memory already; what is read from here is the ledger and the audit log.
const CACHE_BYTES: usize = 16 << 20;

pub(super) struct RedbEngine {
    database: Database,
}

impl RedbEngine {
    pub fn open(folder: &Path) -> Result<Self, Problem> {
        let failed = |cause: redb::Error| {
            cannot_open(folder).because(cause).fix("check the room on its disk; if it is damaged, restore a backup")
        };
        let (file, fresh) = (folder.join("records.redb"), folder.join("records.redb.new"));
        let exists = file.try_exists().map_err(|cause| failed(cause.into()))?;
        let create = |path: &Path| Database::builder().set_cache_size(CACHE_BYTES).create(path);
        if exists {
            let database = create(&file).map_err(|cause| failed(cause.into()))?;
            return Ok(Self { database });
        }
        // A file whose making was cut short by power loss does not open (its magic number is written last): it gets its
        // name when it is whole.
        let made = || {
            if fresh.try_exists()? {
                std::fs::remove_file(&fresh)?;
            }
            let engine = Self { database: create(&fresh)? };
            // Makes the table, so that reading never finds it missing.
            engine.commit(&Rows::new())?;
            std::fs::rename(&fresh, &file)?;
            sync_path(folder)?;
            Ok(engine)
        };
        made().map_err(failed)
    }

    fn commit(&self, rows: &Rows) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in rows {
                match value {
                    Some(value) => drop(table.insert(&key[..], &value[..])?),
                    None => drop(table.remove(&key[..])?),
                }
            }
        }
        // Ends in fdatasync: redb's default durability.
        transaction.commit()?;
        Ok(())
    }
}

impl Engine for RedbEngine {
    fn write(&self, rows: &Rows) -> Result<(), Problem> {
        self.commit(rows).map_err(|cause| {
            Problem::new(codes::STORE_FAILED, "cannot write to the store")
                .because(cause)
                .fix("make room on the disk or mend it, then start the master again")
        })
    }

    fn scan(&self, range: (&[u8], &[u8]), visit: Visit<'_>) -> Result<(), Problem> {
        let table = self.database.begin_read().map_err(unreadable)?.open_table(TABLE).map_err(unreadable)?;
        for row in table.range(range.0..range.1).map_err(unreadable)? {
            let (key, value) = row.map_err(unreadable)?;
            if visit(key.value(), value.value())? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        let table = self.database.begin_read().map_err(unreadable)?.open_table(TABLE).map_err(unreadable)?;
        let value = table.get(key).map_err(unreadable)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn last(&self, range: (&[u8], &[u8])) -> Result<Option<Vec<u8>>, Problem> {
        let table = self.database.begin_read().map_err(unreadable)?.open_table(TABLE).map_err(unreadable)?;
        let row = table.range(range.0..range.1).map_err(unreadable)?.next_back();
        Ok(row.transpose().map_err(unreadable)?.map(|(key, _)| key.value().to_vec()))
    }
}

fn unreadable(cause: impl Into<redb::Error>) -> Problem {
    Problem::new(codes::STORE_FAILED, "cannot read the store")
        .because(cause.into())
        .fix("check the disk; if it is damaged, restore the store's folder from a backup")
}
