//! The system's random bytes.

use std::io;

use crate::rng::Rng;

/// `getrandom(2)`.
#[derive(Debug)]
pub struct SystemRng(());

impl SystemRng {
    /// Checks once that the system gives random bytes; later calls then do not fail.
    ///
    /// # Errors
    /// It does not.
    pub fn open() -> io::Result<Self> {
        getrandom::fill(&mut [0; 1])
            .map_err(|error| io::Error::other(std::format!("no random bytes: {error}")))?;
        Ok(Self(()))
    }
}

impl Rng for SystemRng {
    fn fill(&mut self, bytes: &mut [u8]) {
        // It was ready at the start, and Linux does not take that back.
        if let Err(error) = getrandom::fill(bytes) {
            panic!("the system's random source failed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_fills_differ() {
        let mut rng = SystemRng::open().unwrap();
        let mut both = [[0; 32]; 2];
        both.iter_mut().for_each(|bytes| rng.fill(bytes));
        assert_ne!(both[0], both[1]);
        assert_ne!(both[0], [0; 32]);
    }
}
