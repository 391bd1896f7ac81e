//! What a board is given, for boards that read no TOML: the record that `dialhome device pack`
//! writes (spec/protocol.md section 11.2).
//!
//! A porter puts it where it survives updates, in a flash page of its own or a file on a
//! card, and hands [`Record::parse`] the bytes from there on; the client borrows from them.
//!
//! ```
//! use dialhome_device::client::Provision;
//! use dialhome_device::provision::{Record, RecordFault};
//! use dialhome_proto::link::DeviceKey;
//!
//! fn boot(flash_page: &[u8]) -> Result<(), RecordFault> {
//!     let record = Record::parse(flash_page)?;
//!     let key = DeviceKey::new(*record.key);
//!     let provision = Provision {
//!         key: &key,
//!         gateways: &record.gateways,
//!         trust: record.trust.as_ref(),
//!         seed: Some(record.seed),
//!     };
//!     // Client::start(config, provision, parts, now) ...
//!     # let _ = provision;
//!     Ok(())
//! }
//! # assert_eq!(boot(&[0xFF; 1024]), Err(RecordFault::NoRecord));
//! ```

pub use dialhome_proto::provision::{MAGIC, RECORD_MAX, Record, RecordFault, VERSION};
