//! Slot and journal in files.

use super::{SLOT_SIZE, replace};
use dialhome_device::journal::{Journal, JournalError};
use dialhome_device::slot::{Geometry, Slot, SlotError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// `DIR/slot`.
pub(crate) struct FileSlot(pub(crate) PathBuf);

impl FileSlot {
    fn open(&self) -> io::Result<File> {
        let path = self.0.join("slot");
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn within(offset: u32, len: usize) -> Result<(), SlotError> {
        match offset.checked_add(u32::try_from(len).unwrap_or(u32::MAX)) {
            Some(end) if end <= SLOT_SIZE => Ok(()),
            _ => Err(SlotError::OutOfRange),
        }
    }
}

impl Slot for FileSlot {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: SLOT_SIZE,
            write_unit: 1,
            erase_unit: 4096,
        }
    }

    /// The file has its full size before the first write: a full disk shows here.
    fn prepare(&mut self, image_size: u32) -> Result<(), SlotError> {
        Self::within(0, image_size as usize)?;
        let path = self.0.join("slot");
        let open = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        open.and_then(|file| {
            file.set_len(image_size.into())?;
            file.sync_all()
        })
        .and_then(|()| File::open(&self.0)?.sync_all())
        .map_err(slot_error)
    }

    /// A file takes new bytes without it.
    fn erase(&mut self, offset: u32, len: u32) -> Result<(), SlotError> {
        Self::within(offset, len as usize)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError> {
        Self::within(offset, bytes.len())?;
        let written = self
            .open()
            .and_then(|f| f.write_all_at(bytes, offset.into()));
        written.map_err(slot_error)
    }

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError> {
        Self::within(offset, bytes.len())?;
        let read = self
            .open()
            .and_then(|f| f.read_exact_at(bytes, offset.into()));
        read.map_err(slot_error)
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        self.open().and_then(|f| f.sync_all()).map_err(slot_error)
    }
}

fn slot_error(error: io::Error) -> SlotError {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::NotFound => SlotError::OutOfRange,
        ErrorKind::StorageFull => SlotError::Full,
        ErrorKind::ReadOnlyFilesystem => SlotError::WriteProtected,
        _ => SlotError::Io,
    }
}

/// `DIR/cell-N`.
pub(crate) struct FileJournal(pub(crate) PathBuf);

impl Journal for FileJournal {
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError> {
        let value = match fs::read(self.0.join(format!("cell-{cell}"))) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            value => value.map_err(|_| JournalError::Io)?,
        };
        let room = buffer.get_mut(..value.len()).ok_or(JournalError::TooLong)?;
        room.copy_from_slice(&value);
        Ok(Some(value.len()))
    }

    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError> {
        replace(&self.0, &format!("cell-{cell}"), value).map_err(|_| JournalError::Io)
    }

    fn erase(&mut self, cell: u8) -> Result<(), JournalError> {
        match fs::remove_file(self.0.join(format!("cell-{cell}"))) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed
                .and_then(|()| File::open(&self.0)?.sync_all())
                .map_err(|_| JournalError::Io),
        }
    }
}
