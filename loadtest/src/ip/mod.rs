//! Slow links at the level of IP packets: two network namespaces with a TUN device in each, and
//! a forwarder between them with rate, round trip, queue, loss and blackouts. Whatever crosses,
//! TCP or QUIC, the kernel's or a program's, crosses with its headers and retransmissions, and
//! is counted.

mod field;
mod tcp;
mod way;

pub use field::{CONGESTION_CONTROL, Field, GATEWAY_PORT};
pub use way::{Count, Shape};
