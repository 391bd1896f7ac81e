//! The board's machine: what it does about records, storage results and time
//! (spec/states.md section 1). The shell in `device-client` carries out its [`Work`].
//!
//! The rules between the two: one [`Work`] at a time, answered by the method that its
//! documentation names; a new record goes in only while [`Machine::wants_record`]; a
//! frame comes out only after everything that it states is in the journal.

mod cells;
mod config;
mod dialing;
mod hello;
mod link;
mod machine;
mod offer;
mod outbox;
mod proof;
mod receiving;
mod several;
mod stage;
#[cfg(feature = "texts")]
mod texts;
mod transmit;
mod trial;
mod work;

pub use cells::{CELL_LEN, Cell, Cells, ClaimCell, ImageCell, Keys, TrialCell, TrialPhase};
pub use config::{
    COMPONENTS, ComponentConfig, Config, ENTRIES, Facts, GATEWAY_LISTS, ROTATION, RunningImage,
    TASK_LOG, TEXTS,
};
pub use hello::FRAME_MAX;
pub use link::{DialFault, GatewayList, KeyUse, LinkState};
pub use machine::Machine;
pub use outbox::{Entry, Outbox, Said};
pub use several::EntryCell;
#[cfg(feature = "texts")]
pub use texts::TextDue;
pub use work::{BootAction, Work};
