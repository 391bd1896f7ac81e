//! Images as files: `STATE/slots/a` and `b`, of which the one that `current` does not
//! point to is written.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    vec,
    vec::Vec,
};

use rustix::fs::FallocateFlags;

use super::{
    durable,
    state::State,
    switch::{Images, Step},
};
use crate::slot::{Geometry, Slot, SlotError};

/// The free one of the two files of each component.
#[derive(Debug)]
pub struct FileSlot {
    places: Vec<Place>,
    /// The one that was selected.
    at: usize,
}

/// Where the images of one component go.
#[derive(Debug)]
struct Place {
    component: u8,
    images: Images,
    size: u32,
    /// The slot that `prepare` was called for.
    prepared: Option<&'static str>,
    /// That slot, from a write to the flush behind it: a file that is open for writing
    /// cannot be executed, and its file system not be made read-only.
    open: Option<(&'static str, File)>,
}

impl FileSlot {
    /// The free slot of component 0, for images of up to `size` bytes.
    #[must_use]
    pub fn new(state: &State, size: u32) -> Self {
        Self {
            places: vec![Place::new(0, Images::new(state.dir()), size)],
            at: 0,
        }
    }

    /// Adds that of another component, for images of up to `size` bytes.
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn add(&mut self, state: &State, component: u8, size: u32) -> io::Result<()> {
        let images = Images::of_component(state.dir(), component);
        images.make()?;
        self.places.push(Place::new(component, images, size));
        Ok(())
    }

    fn place(&mut self) -> &mut Place {
        &mut self.places[self.at]
    }
}

impl Place {
    const fn new(component: u8, images: Images, size: u32) -> Self {
        Self {
            component,
            images,
            size,
            prepared: None,
            open: None,
        }
    }

    /// The open file, unless it has become the running image meanwhile.
    fn writable(&mut self) -> Result<&File, SlotError> {
        let free = self.images.free_slot().map_err(failed)?;
        if self.prepared != Some(free) {
            // Nothing may be written.
            return Err(SlotError::WriteProtected);
        }
        if !matches!(&self.open, Some((name, _)) if *name == free) {
            let path = self.images.path(free);
            let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            self.open = Some((free, file));
        }
        match &self.open {
            Some((_, file)) => Ok(file),
            None => Err(SlotError::WriteProtected),
        }
    }

    fn within(&self, offset: u32, len: usize) -> Result<(), SlotError> {
        let end = u32::try_from(len)
            .ok()
            .and_then(|len| offset.checked_add(len));
        match end {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(SlotError::OutOfRange),
        }
    }

    fn prepare(&mut self, image_size: u32) -> Result<(), SlotError> {
        if image_size > self.size {
            return Err(SlotError::OutOfRange);
        }
        // While an image is on trial the free slot holds the one to go back to.
        if let Some(switch) = self.images.switch().map_err(failed)?
            && !matches!(switch.step, Step::Restoring | Step::Returned)
        {
            return Err(SlotError::WriteProtected);
        }
        (self.prepared, self.open) = (None, None);
        let name = self.images.free_slot().map_err(failed)?;
        let path = self.images.path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let size = u64::from(image_size);
        file.set_len(size).map_err(failed)?;
        if size > 0 {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
                // Not every file system can; then a full disk shows at a write.
                Err(rustix::io::Errno::OPNOTSUPP) | Ok(()) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        file.sync_all()
            .and_then(|()| durable::sync_dir(&self.images.path("slots")))
            .map_err(failed)?;
        self.prepared = Some(name);
        Ok(())
    }
}

impl Slot for FileSlot {
    fn select(&mut self, component: u8) -> Result<(), SlotError> {
        let mut places = self.places.iter();
        self.at = places
            .position(|place| place.component == component)
            .ok_or(SlotError::OutOfRange)?;
        Ok(())
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.places[self.at].size,
            write_unit: 1,
            erase_unit: 1,
        }
    }

    fn prepare(&mut self, image_size: u32) -> Result<(), SlotError> {
        self.place().prepare(image_size)
    }

    fn erase(&mut self, offset: u32, len: u32) -> Result<(), SlotError> {
        // A file takes new bytes without it.
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.place().within(offset, len)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError> {
        let place = self.place();
        place.within(offset, bytes.len())?;
        place
            .writable()?
            .write_all_at(bytes, u64::from(offset))
            .map_err(failed)
    }

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError> {
        let place = self.place();
        place.within(offset, bytes.len())?;
        let free = place.images.free_slot().map_err(failed)?;
        // Opened afresh: the file may have been replaced behind the agent's back.
        match File::open(place.images.path(free)) {
            Ok(file) => file.read_exact_at(bytes, u64::from(offset)).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SlotError::OutOfRange),
            Err(error) => Err(failed(error)),
        }
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        let place = self.place();
        place.writable()?.sync_data().map_err(failed)?;
        place.open = None;
        Ok(())
    }
}

fn failed(error: io::Error) -> SlotError {
    use io::ErrorKind::{
        FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        UnexpectedEof,
    };
    if error.kind() == UnexpectedEof {
        return SlotError::OutOfRange;
    }
    tracing::warn!(%error, "slot");
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => SlotError::Full,
        ReadOnlyFilesystem | PermissionDenied => SlotError::WriteProtected,
        _ => SlotError::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::switch::Switch;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn slot(size: u32) -> (tempfile::TempDir, State, FileSlot) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        let slot = FileSlot::new(&state, size);
        (dir, state, slot)
    }

    #[test]
    fn written_bytes_are_read_back_also_without_prepare() {
        let (_dir, state, mut slot) = slot(100_000);
        assert_eq!(slot.read(0, &mut [0; 1]), Err(SlotError::OutOfRange));
        assert_eq!(slot.write(0, b"x"), Err(SlotError::WriteProtected));
        slot.prepare(70_000).unwrap();
        let image: Vec<u8> = (0..70_000u32)
            .map(|at| at.to_le_bytes()[0] ^ 0x5a)
            .collect();
        slot.write(40_000, &image[40_000..]).unwrap();
        slot.write(0, &image[..40_000]).unwrap();
        slot.flush().unwrap();
        let mut again = FileSlot::new(&state, 100_000);
        let mut bytes = vec![0; 70_000];
        again.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, image);
        assert_eq!(again.read(69_999, &mut [0; 2]), Err(SlotError::OutOfRange));
        // Resumed after a restart: the bytes are still there.
        again.prepare(70_000).unwrap();
        let mut bytes = vec![0; 70_000];
        again.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, image);
    }

    #[test]
    fn sizes_beyond_the_slot_are_refused() {
        let (_dir, _state, mut slot) = slot(100);
        assert_eq!(slot.prepare(101), Err(SlotError::OutOfRange));
        slot.prepare(100).unwrap();
        assert_eq!(slot.write(99, b"xy"), Err(SlotError::OutOfRange));
        assert_eq!(slot.write(u32::MAX, b"xy"), Err(SlotError::OutOfRange));
        assert_eq!(slot.erase(0, 101), Err(SlotError::OutOfRange));
        assert_eq!(slot.select(1), Err(SlotError::OutOfRange));
        slot.select(0).unwrap();
    }

    #[test]
    fn the_slot_that_current_points_to_is_never_written() {
        let (_dir, state, mut slot) = slot(100);
        slot.prepare(3).unwrap();
        slot.write(0, b"one").unwrap();
        durable::point(&state.dir().join("current"), "slots/a").unwrap();
        assert_eq!(slot.write(0, b"bad"), Err(SlotError::WriteProtected));
        slot.prepare(3).unwrap();
        slot.write(0, b"two").unwrap();
        assert_eq!(fs::read(state.dir().join("slots/a")).unwrap(), b"one");
        assert_eq!(fs::read(state.dir().join("slots/b")).unwrap(), b"two");
        // The same by its absolute name.
        let absolute = state.dir().join("slots/a");
        durable::point(&state.dir().join("current"), absolute.to_str().unwrap()).unwrap();
        slot.prepare(3).unwrap();
        slot.write(0, b"new").unwrap();
        assert_eq!(fs::read(&absolute).unwrap(), b"one");
    }

    #[test]
    fn the_old_image_is_not_written_over_during_a_trial() {
        let (_dir, state, mut slot) = slot(100);
        let images = Images::new(state.dir());
        let mut switch = Switch::trial();
        images.set_switch(&switch).unwrap();
        assert_eq!(slot.prepare(3), Err(SlotError::WriteProtected));
        switch.step = Step::Restoring;
        images.set_switch(&switch).unwrap();
        slot.prepare(3).unwrap();
        images.clear_switch().unwrap();
        slot.prepare(3).unwrap();
    }

    #[test]
    fn each_component_has_a_slot_of_its_own() {
        let (_dir, state, mut slot) = slot(100);
        slot.add(&state, 2, 50).unwrap();
        slot.prepare(3).unwrap();
        slot.write(0, b"one").unwrap();
        slot.select(2).unwrap();
        assert_eq!(slot.geometry().size, 50);
        assert_eq!(slot.prepare(51), Err(SlotError::OutOfRange));
        assert_eq!(slot.write(0, b"x"), Err(SlotError::WriteProtected));
        slot.prepare(5).unwrap();
        slot.write(0, b"child").unwrap();
        slot.flush().unwrap();
        slot.select(0).unwrap();
        slot.flush().unwrap();
        let mut bytes = [0; 3];
        slot.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"one");
        let child = state.dir().join("components/2/slots/a");
        assert_eq!(fs::read(child).unwrap(), b"child");
        // A trial of the one does not keep the other from an image.
        let images = Images::of_component(state.dir(), 2);
        images.set_switch(&Switch::trial()).unwrap();
        slot.prepare(3).unwrap();
        slot.select(2).unwrap();
        assert_eq!(slot.prepare(3), Err(SlotError::WriteProtected));
    }

    #[test]
    fn an_image_that_is_whole_can_be_executed() {
        let (_dir, state, mut slot) = slot(1000);
        let script = b"#!/bin/sh\nexit 7\n";
        slot.prepare(u32::try_from(script.len()).unwrap()).unwrap();
        slot.write(0, script).unwrap();
        slot.flush().unwrap();
        let path = state.dir().join("slots/a");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let status = std::process::Command::new(&path).status().unwrap();
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn what_the_system_says_becomes_a_named_error() {
        for (errno, expected) in [
            (rustix::io::Errno::NOSPC, SlotError::Full),
            (rustix::io::Errno::DQUOT, SlotError::Full),
            (rustix::io::Errno::ROFS, SlotError::WriteProtected),
            (rustix::io::Errno::IO, SlotError::Io),
        ] {
            assert_eq!(failed(errno.into()), expected);
        }
    }

    #[test]
    fn a_file_that_is_removed_behind_the_agents_back_is_noticed() {
        let (_dir, state, mut slot) = slot(100);
        slot.prepare(3).unwrap();
        slot.write(0, b"one").unwrap();
        fs::remove_file(state.dir().join("slots/a")).unwrap();
        assert_eq!(slot.read(0, &mut [0; 3]), Err(SlotError::OutOfRange));
    }
}
