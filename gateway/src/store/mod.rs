//! The store: what the gateway must not forget. SQLite in the data directory is the truth (ARCHITECTURE.md).

pub mod docs;
mod error;
mod session;
mod types;

pub use error::StoreError;
pub use types::*;

/// The store. Cheap to clone; every clone is the same store.
#[derive(Clone, Debug)]
pub struct Store {}
