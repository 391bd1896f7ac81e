//! The flashes.

use dialhome_loadtest::sim::nor_board::Sizes;

/// Rows of 256 bytes, pages of 64, 8 writes to a row; two rows are swapped together.
pub(crate) const SAMD21: Sizes = Sizes {
    name: "samd21",
    write: 4,
    erase: 256,
    read_errors: false,
    writes_max: 8,
    page: 64,
    swap: 2,
    slot: 4,
    window: 512,
    claim_every: 512,
};

/// Pages of 1 KB, words of 4 bytes.
pub(crate) const NRF51: Sizes = Sizes {
    name: "nrf51",
    write: 4,
    erase: 1024,
    read_errors: false,
    writes_max: 0,
    page: 4,
    swap: 1,
    slot: 10,
    window: 2048,
    claim_every: 2048,
};

/// Pages of 2 KB, double words that are written once.
pub(crate) const STM32: Sizes = Sizes {
    name: "stm32",
    write: 8,
    erase: 2048,
    read_errors: false,
    writes_max: 0,
    page: 8,
    swap: 1,
    slot: 8,
    window: 4096,
    claim_every: 4096,
};

/// The same with error correction: a torn double word cannot be read until it is erased.
pub(crate) const STM32_ECC: Sizes = Sizes {
    name: "stm32, read errors",
    read_errors: true,
    ..STM32
};

/// Sectors of 4 KB, bytes.
pub(crate) const SECTORS: Sizes = Sizes {
    name: "sectors",
    write: 1,
    erase: 4096,
    read_errors: false,
    writes_max: 0,
    page: 256,
    swap: 1,
    slot: 8,
    window: 8192,
    claim_every: 8192,
};
