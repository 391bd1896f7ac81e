//! `dialhome-agent`: the Dialhome client on Linux.
fn main() {}
