//! What the machine asks its shell to do.

use super::cells::Cell;
use super::link::{GatewayList, KeyUse};
#[expect(unused_imports, reason = "named in the documentation")]
use super::{Cells, Machine};
use crate::code::BootReason;

/// What the shell does next. The comment names the method that answers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Connect and shake hands: [`Machine::dialed`].
    Dial {
        /// The list.
        list: GatewayList,
        /// The place in it.
        place: u8,
        /// The key.
        key: KeyUse,
    },
    /// Close the connection, after everything sent has left: [`Machine::hung_up`].
    HangUp,
    /// Check the manifest of the record that is still in the buffer: [`Machine::check_manifest`].
    CheckManifest,
    /// Check the gateways statement of that record: [`Machine::check_gateways`].
    CheckGateways,
    /// `Slot::select` and `Slot::prepare`: [`Machine::worked`].
    Prepare {
        /// The component.
        component: u8,
        /// Bytes of the image.
        size: u32,
    },
    /// `Slot::erase`: [`Machine::worked`].
    Erase {
        /// First byte.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// `Slot::write` of the last `len` bytes of the record's plaintext: [`Machine::worked`].
    Write {
        /// First byte in the slot.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// `Slot::read`, in pieces of any size, each to [`Machine::read_back`]; then [`Machine::worked`].
    Read {
        /// The component.
        component: u8,
        /// First byte.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// `Slot::flush`: [`Machine::worked`].
    Flush,
    /// `Journal::store` of what [`Machine::cell`] writes, or `Journal::erase`: [`Machine::worked`].
    Store(Cell),
    /// Something of `Boot`: [`Machine::booted`], [`Machine::self_tested`] or [`Machine::looked`].
    Boot(BootAction),
}

/// What `Boot` is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootAction {
    /// `activate` of the image in [`Cells::trial`]: [`Machine::booted`].
    Activate,
    /// `confirm`: [`Machine::booted`].
    Confirm,
    /// `revert`: [`Machine::booted`].
    Revert,
    /// `self_test`: [`Machine::self_tested`].
    SelfTest,
    /// `restart`; where it returns, [`Machine::booted`].
    Restart(BootReason),
    /// `running`, after a change that needs no restart: [`Machine::looked`].
    Look,
}
