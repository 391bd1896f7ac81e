//! Boards that move: the NAT forgets, addresses change, a link is dark for a while, UDP does not pass. In network
//! namespaces, with nftables; as root.

mod blocked;
mod moves;
mod network;
#[path = "../support/mod.rs"]
mod support;
