//! Images: how a firmware file becomes a signed one, and how the gateway keeps its bytes.
//!
//! The operator's half needs no gateway and holds the keys: [`source`] and [`hex`] make a flat image of a
//! file, [`key`] reads the keys, [`sign`] makes the manifest, [`container`] is the `.dhi` file that carries
//! both. The gateway's half holds no key: [`container`] again, and [`store`] for the bytes.

pub mod check;
pub mod container;
pub mod hex;
pub mod key;
pub mod name;
pub mod piece;
pub mod prefix;
pub mod sign;
pub mod source;
pub mod store;
