//! `dialhome demo`: a gateway and three boards behind a hostile link, on one machine.

pub mod relay;
