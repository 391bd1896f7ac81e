//! Flash in memory, for the tests of this folder.

extern crate std;

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use std::vec::Vec;

/// Flash in memory; the sweeps in loadtest have a model that also fails.
#[derive(Clone, Debug)]
pub(crate) struct Ram(pub(crate) Vec<u8>);

impl ErrorType for Ram {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Ram {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        let at = usize::try_from(offset).unwrap();
        bytes.copy_from_slice(&self.0[at..at + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}

impl NorFlash for Ram {
    const WRITE_SIZE: usize = 8;
    const ERASE_SIZE: usize = 1024;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        self.0[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].fill(0xFF);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        let at = usize::try_from(offset).unwrap();
        for (to, from) in self.0[at..].iter_mut().zip(bytes) {
            assert_eq!(*to, 0xFF, "written twice");
            *to = *from;
        }
        Ok(())
    }
}
