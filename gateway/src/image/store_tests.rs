use super::*;
use crate::image::source::digest;

fn store() -> (tempfile::TempDir, ImageStore) {
    let data = tempfile::tempdir().unwrap();
    let store = ImageStore::open(data.path()).unwrap();
    (data, store)
}

fn half_written(data: &tempfile::TempDir) -> usize {
    fs::read_dir(data.path().join("images/new"))
        .unwrap()
        .count()
}

#[test]
fn a_stored_image_is_found_by_its_digest_and_read_in_ranges() {
    let (data, store) = store();
    let bytes: Vec<u8> = (0..150_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let stored = store.put(&bytes).unwrap();
    assert_eq!(stored, digest(&bytes));
    let name = stored.to_string();
    let file = data.path().join("images").join(&name[..2]).join(&name);
    assert_eq!(fs::read(file).unwrap(), bytes);
    assert_eq!(half_written(&data), 0);

    let image = store.get(&stored).unwrap();
    assert_eq!((image.size(), image.digest()), (150_000, stored));
    let mut range = [0; 1000];
    image.read_at(70_000, &mut range).unwrap();
    assert_eq!(range, bytes[70_000..71_000]);
    let beyond = image.read_at(149_500, &mut range).unwrap_err();
    assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    for offset in [0, 1, 65_536, 149_999, 150_000] {
        let prefix = &bytes[..offset as usize];
        assert_eq!(
            image.prefix_digest(offset).unwrap(),
            digest(prefix),
            "{offset}"
        );
    }
    let beyond = image.prefix_digest(150_001).unwrap_err();
    assert_eq!(beyond.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn an_image_in_parts_is_measured_before_it_is_kept() {
    let (data, store) = store();
    let mut new = store.begin().unwrap();
    new.write(b"one ").unwrap();
    new.write(b"image").unwrap();
    assert_eq!(new.measured(), (9, digest(b"one image")));
    assert!(!store.contains(&digest(b"one image")).unwrap());
    store.keep(new).unwrap();
    assert!(store.contains(&digest(b"one image")).unwrap());
    assert_eq!(half_written(&data), 0);
}

#[test]
fn an_image_that_is_not_kept_leaves_nothing() {
    let (data, store) = store();
    let mut new = store.begin().unwrap();
    new.write(b"cut").unwrap();
    assert_eq!(half_written(&data), 1);
    drop(new);
    assert_eq!(half_written(&data), 0);
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn what_a_stopped_process_left_goes_at_the_next_start() {
    let (data, store) = store();
    let kept = store.put(b"kept").unwrap();
    drop(store);
    fs::write(data.path().join("images/new/0"), b"half").unwrap();
    let store = ImageStore::open(data.path()).unwrap();
    assert_eq!(half_written(&data), 0);
    assert_eq!(store.list().unwrap(), [(kept, 4)]);
}

#[test]
fn a_removed_image_is_gone_but_stays_readable_where_it_is_in_use() {
    let (_data, store) = store();
    let stored = store.put(b"in use").unwrap();
    let image = store.get(&stored).unwrap();
    assert!(store.remove(&stored).unwrap());
    assert!(!store.remove(&stored).unwrap());
    let missing = store.get(&stored).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let mut bytes = [0; 6];
    image.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"in use");
}

#[test]
fn a_damaged_file_is_noticed_and_the_same_image_repairs_it() {
    let (data, store) = store();
    let stored = store.put(b"good bytes").unwrap();
    let name = stored.to_string();
    fs::write(
        data.path().join("images").join(&name[..2]).join(&name),
        b"bad! bytes",
    )
    .unwrap();
    let error = store.get(&stored).unwrap().prefix_digest(10).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("damaged"));
    store.put(b"good bytes").unwrap();
    assert_eq!(
        store.get(&stored).unwrap().prefix_digest(10).unwrap(),
        stored
    );
}

#[test]
fn open_images_are_bounded_and_the_least_recently_used_goes_first() {
    let (_data, store) = store();
    let digests: Vec<_> = (0..OPEN_MAX + 5)
        .map(|number| store.put(&number.to_le_bytes()).unwrap())
        .collect();
    let first = store.get(&digests[0]).unwrap();
    for digest in &digests[1..] {
        store.get(digest).unwrap();
        // Used again and again, so never the least recently used.
        assert!(Arc::ptr_eq(&store.get(&digests[0]).unwrap(), &first));
    }
    let open = store.open.lock().unwrap();
    assert_eq!(open.len(), OPEN_MAX);
    assert!(open.iter().all(|image| image.digest() != digests[1]));
}

#[test]
fn states_of_open_images_are_bounded() {
    let (_data, store) = store();
    // Holes: 1 GiB each without a byte on the disk.
    let store_sparse = |number: u8| {
        let new = store.begin().unwrap();
        new.file.write_all_at(&[number], 1 << 30).unwrap();
        store.keep_as(new, Digest([number; 32])).unwrap();
        store.get(&Digest([number; 32])).unwrap()
    };
    for number in 0..6 {
        store_sparse(number);
    }
    let open = store.open.lock().unwrap();
    let states: usize = open.iter().map(|image| image.states()).sum();
    assert!(states <= STATES_MAX, "{states}");
    assert_eq!(open.len(), 3, "16,385 states each");
    assert_eq!(open.last().unwrap().digest(), Digest([5; 32]));
}

#[test]
fn pieces_are_read_once_and_the_last_ones_stay_for_the_next() {
    let (_data, store) = store();
    let many = u32::try_from(RECENT_MAX).unwrap() + 1;
    let number = |at: u32| (at / PIECE).to_le_bytes()[0];
    let bytes: Vec<u8> = (0..many * PIECE).map(number).collect();
    let image = store.get(&store.put(&bytes).unwrap()).unwrap();
    let first = Arc::downgrade(&image.piece(0).unwrap());
    for other in 1..many - 1 {
        image.piece(other).unwrap();
    }
    let held = first
        .upgrade()
        .expect("it is among the last that were read");
    assert!(Arc::ptr_eq(&held, &image.piece(0).unwrap()));
    assert_eq!(held.chunk(0, 3).unwrap().0, [0, 0, 0]);
    drop(held);
    let last = image.piece(many - 1).unwrap();
    assert_eq!(last.chunk(0, 1).unwrap().0, [number((many - 1) * PIECE)]);
    assert!(first.upgrade().is_none(), "more have been read since");
}
