//! Runs the boards' firmware in QEMU against a real gateway.
