//! Opening the database, its schema, and SQLite's errors in words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Params};
use serde::de::DeserializeOwned;

use super::StoreError;

/// The newest format of the data directory that this version knows (`PRAGMA user_version`).
pub const FORMAT: i64 = 2;
/// Statements that a connection keeps prepared: more than there are.
const STATEMENTS: usize = 128;
/// Name of the database in the data directory.
pub(crate) const DATABASE: &str = "dialhome.db";

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) STRICT, WITHOUT ROWID;
CREATE TABLE device (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE device_secret (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE TABLE image (name TEXT PRIMARY KEY, digest TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE INDEX image_digest ON image (digest);
CREATE TABLE update_intent (id TEXT PRIMARY KEY, device TEXT NOT NULL, image TEXT NOT NULL, deadline_ms INTEGER NOT NULL,
  revision INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE update_state (id TEXT PRIMARY KEY, device TEXT NOT NULL, open INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT,
  revision INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE INDEX update_open ON update_state (device) WHERE open = 1;
CREATE INDEX update_by_device ON update_state (device);
CREATE TABLE event (seq INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT, body TEXT NOT NULL) STRICT;
INSERT INTO meta (key, value) VALUES ('hold', '0'), ('starts', '0');
";

const DEVICE_STATE: &str = "
CREATE TABLE device_state (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, generation INTEGER NOT NULL, connected INTEGER NOT NULL,
  last_contact TEXT, disconnected_at TEXT, disconnect_reason TEXT, air_sent INTEGER NOT NULL, air_received INTEGER NOT NULL,
  hello TEXT) STRICT;
";

/// In format 1 the record of a session was one JSON body, and two indexes cost every event and every state more
/// than they saved a reader.
const OLD_DEVICE_STATE: &str = "
DROP INDEX IF EXISTS update_outcome;
DROP INDEX IF EXISTS event_device;
ALTER TABLE device_state RENAME TO device_state_1;
";
const FROM_OLD_DEVICE_STATE: &str = "
INSERT INTO device_state SELECT id, revision, coalesce(body ->> '$.generation', 0), connected,
  body ->> '$.last_contact', body ->> '$.last_disconnect.at', body ->> '$.last_disconnect.reason',
  coalesce(body ->> '$.air_sent', 0), coalesce(body ->> '$.air_received', 0), body ->> '$.hello' FROM device_state_1;
DROP TABLE device_state_1;
";

/// Opens the database for writing and brings it to this version's format.
pub(crate) fn open_for_writing(data: &Path) -> Result<Connection, StoreError> {
    let path = data.join(DATABASE);
    let fault = |error| explain(&path, error);
    let mut db = Connection::open(&path).map_err(fault)?;
    db.busy_timeout(Duration::from_secs(2)).map_err(fault)?;
    keep_statements(&db).map_err(fault)?;
    let found: i64 = db
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(fault)?;
    if found > FORMAT {
        return Err(StoreError::NewerVersion {
            path: data.into(),
            found,
            known: FORMAT,
        });
    }
    db.pragma_update(None, "journal_mode", "WAL")
        .map_err(fault)?;
    db.pragma_update(None, "synchronous", "FULL")
        .map_err(fault)?;
    db.pragma_update(None, "cache_size", -8192).map_err(fault)?;
    let verdict: String = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(fault)?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt {
            path,
            detail: verdict,
        });
    }
    // Taken even when there is nothing to change: another program's lock shows here, not in the first command.
    let change = db
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(fault)?;
    if found < FORMAT {
        let bring = if found == 0 {
            [SCHEMA, DEVICE_STATE].concat()
        } else {
            [OLD_DEVICE_STATE, DEVICE_STATE, FROM_OLD_DEVICE_STATE].concat()
        };
        change.execute_batch(&bring).map_err(fault)?;
        change
            .pragma_update(None, "user_version", FORMAT)
            .map_err(fault)?;
    }
    change.commit().map_err(fault)?;
    Ok(db)
}

/// Statements stay prepared. Without a stable plan SQLite prepares a join anew for every value bound to it.
fn keep_statements(db: &Connection) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

/// Opens another connection to the database, for reading only.
pub(crate) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let fault = |error| explain(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(fault)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(fault)?;
    keep_statements(&db).map_err(fault)?;
    Ok(db)
}

/// An error of SQLite as a sentence that says what to do.
pub(crate) fn explain(path: &Path, error: rusqlite::Error) -> StoreError {
    let data = || {
        path.parent()
            .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
    };
    let rusqlite::Error::SqliteFailure(failure, detail) = &error else {
        return StoreError::Database(error.to_string());
    };
    match failure.code {
        ErrorCode::DiskFull => StoreError::DiskFull { path: data() },
        // A quota or a limit on the size of a file: to SQLite an I/O error, to the operator a disk without room.
        ErrorCode::SystemIoFailure
            if [
                rusqlite::ffi::SQLITE_IOERR_WRITE,
                rusqlite::ffi::SQLITE_IOERR_FSYNC,
                rusqlite::ffi::SQLITE_IOERR_SHMSIZE,
            ]
            .contains(&failure.extended_code) =>
        {
            StoreError::DiskFull { path: data() }
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            StoreError::Locked { path: path.into() }
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt {
            path: path.into(),
            detail: detail.clone().unwrap_or_else(|| failure.to_string()),
        },
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
            StoreError::Io {
                action: "cannot open",
                path: path.into(),
                detail: detail.clone().unwrap_or_else(|| failure.to_string()),
            }
        }
        _ => StoreError::Database(error.to_string()),
    }
}

/// The JSON record that `sql` selects as its only column, if there is one.
pub(crate) fn record<T: DeserializeOwned>(
    db: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Option<T>, StoreError> {
    let read = row(db, sql, params, |row| Ok(parse(row.get_ref(0)?.as_str()?)))?;
    read.transpose()
}

/// The JSON records that `sql` selects as its only column.
pub(crate) fn records<T: DeserializeOwned>(
    db: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Vec<T>, StoreError> {
    let fault = |error| explain_on(db, error);
    let mut query = db.prepare_cached(sql).map_err(fault)?;
    let mut rows = query.query(params).map_err(fault)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        out.push(parse(
            row.get_ref(0)
                .and_then(|body| Ok(body.as_str()?))
                .map_err(fault)?,
        )?);
    }
    Ok(out)
}

/// Runs a statement; the number of rows changed.
pub(crate) fn run(db: &Connection, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    db.prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(|error| explain_on(db, error))
}

/// A single value, if there is one.
pub(crate) fn value<T: rusqlite::types::FromSql>(
    db: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Option<T>, StoreError> {
    row(db, sql, params, |row| row.get(0))
}

/// What `take` takes from the row that `sql` selects, if there is one.
pub(crate) fn row<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    take: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    db.prepare_cached(sql)
        .and_then(|mut query| query.query_row(params, take).optional())
        .map_err(|error| explain_on(db, error))
}

/// [`explain`] for an open connection, which knows its file.
pub(crate) fn explain_on(db: &Connection, error: rusqlite::Error) -> StoreError {
    explain(Path::new(db.path().unwrap_or(DATABASE)), error)
}

/// Reads a record's JSON.
pub(crate) fn parse<T: DeserializeOwned>(body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body)
        .map_err(|error| StoreError::Database(format!("a record cannot be read: {error}")))
}

/// A record's JSON.
pub(crate) fn json<T: serde::Serialize>(record: &T) -> Result<String, StoreError> {
    serde_json::to_string(record)
        .map_err(|error| StoreError::Database(format!("a record cannot be written: {error}")))
}
