//! One process of a fleet.

use crate::Error;

/// Plays the boards that standard input names, until it is closed.
///
/// # Errors
/// Standard input holds something else.
pub fn run() -> Result<(), Error> {
    Err(Error::new("a crew cannot be played yet"))
}
