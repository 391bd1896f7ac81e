//! The gateway's two machines: [`Session`], as long as the link holds, and
//! [`Delivery`], while an update is under way in it (spec/states.md section 3).

mod delivery;
mod plan;
mod sending;
mod session;
mod state;

pub use delivery::{Command, Delivery, Record};
pub use plan::{Part, Plan, Standing};
pub use sending::{ChunkRange, Counters, Sending};
pub use session::{Due, Session, Verdict};
pub use state::{Awaits, State};

use crate::code::CloseCode;

/// The peer broke the protocol: the session ends with this code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault(pub CloseCode);
