//! An emulator of a u-blox AT modem.
