//! A deterministic simulator: the board's real client and the gateway's real machines,
//! over a link, a slot, a journal, a bootloader and a record that fail as a seed says.

pub mod boot;
pub mod card;
pub mod card_board;
pub mod fixture;
pub mod flash;
pub mod gate;
pub mod journal;
pub mod net;
pub mod nor;
pub mod nor_board;
pub mod power;
pub mod store;
pub mod world;
