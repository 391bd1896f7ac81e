use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Made for this test by OpenSSL 3 (`openssl genpkey -algorithm ed25519`, `openssl pkey -pubout`).
const OPENSSL_PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJBc1nMqvHpI7TAIqlbMG1zyKXa/QCDKm+Q+iXdF/SBA
-----END PRIVATE KEY-----
";
const OPENSSL_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAaZQC7RTgbA1CmOG7gufSWQ8lviUUc4bPstmAGltrV4A=
-----END PUBLIC KEY-----
";
/// Of another kind: `openssl genpkey -algorithm x25519`.
const OPENSSL_X25519: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEINBcDDWUNuyyGbfQr8gZEyIAF+eZkriH4qCAr+VYEVBj
-----END PRIVATE KEY-----
";

fn file(content: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("op.key");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    (dir, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_key_is_two_files_that_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("op.key");
    let files = generate(&path).unwrap();
    assert_eq!(files.public, dir.path().join("op.key.pub"));
    assert_eq!(mode(&files.private), 0o600);
    assert_eq!(mode(&files.public) & 0o600, 0o600);
    let public = read_public(&files.public).unwrap();
    assert_eq!(
        read_private(&path).unwrap().verifying_key().to_bytes(),
        public
    );
    assert_eq!(files.signer, signer_id(&public));
    // The shape that OpenSSL reads: PKCS #8 of the first version, without the public half.
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.len(), OPENSSL_PRIVATE.len());
    let head = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEI";
    assert!(text.starts_with(head) && OPENSSL_PRIVATE.starts_with(head));
}

#[test]
fn two_new_keys_are_different() {
    let dir = tempfile::tempdir().unwrap();
    let one = generate(&dir.path().join("one")).unwrap();
    let two = generate(&dir.path().join("two")).unwrap();
    assert_ne!(one.signer, two.signer);
}

#[test]
fn an_existing_file_is_never_overwritten_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("op.key");
    let public = public_path(&path);
    fs::write(&public, "precious").unwrap();
    let error = generate(&path).unwrap_err();
    assert!(
        matches!(&error, KeyError::Exists(path) if *path == public),
        "{error}"
    );
    assert!(!path.exists());
    assert_eq!(fs::read_to_string(&public).unwrap(), "precious");
    fs::rename(&public, &path).unwrap();
    assert!(matches!(generate(&path).unwrap_err(), KeyError::Exists(_)));
    assert!(!public.exists());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    // Nor is a link followed to where nothing is yet.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
    assert!(matches!(generate(&link).unwrap_err(), KeyError::Exists(_)));
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = generate(Path::new("/nonexistent/op.key")).unwrap_err();
    assert!(
        error.to_string().starts_with("/nonexistent/op.key: "),
        "{error}"
    );
}

#[test]
fn keys_of_openssl_are_read() {
    let (_dir, private) = file(OPENSSL_PRIVATE, 0o600);
    let (_dir2, public) = file(OPENSSL_PUBLIC, 0o644);
    let key = read_private(&private).unwrap();
    assert_eq!(
        key.verifying_key().to_bytes(),
        read_public(&public).unwrap()
    );
}

#[test]
fn a_private_key_that_others_may_read_or_write_is_refused() {
    for open in [0o640, 0o604, 0o620, 0o602, 0o610] {
        let (_dir, path) = file(OPENSSL_PRIVATE, open);
        let error = read_private(&path).unwrap_err();
        assert!(
            matches!(error, KeyError::Open { mode, .. } if mode == open),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("chmod 600"));
    }
    let (_dir, path) = file(OPENSSL_PRIVATE, 0o400);
    read_private(&path).unwrap();
}

#[test]
fn the_wrong_half_is_named_and_the_right_file_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("op.key");
    let files = generate(&path).unwrap();
    let error = read_private(&files.public).unwrap_err();
    assert!(matches!(error, KeyError::IsPublic(_)), "{error}");
    assert!(error.hint().unwrap().ends_with("op.key."));
    let error = read_public(&path).unwrap_err();
    assert!(matches!(error, KeyError::IsPrivate(_)), "{error}");
    assert!(error.hint().unwrap().ends_with("op.key.pub."));
}

#[test]
fn what_is_no_key_is_named_as_such() {
    let weak = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
    for content in [
        "",
        "hello",
        "\0\u{1}",
        OPENSSL_X25519,
        &OPENSSL_PRIVATE[..90],
    ] {
        let (_dir, path) = file(content, 0o600);
        assert!(
            matches!(read_private(&path), Err(KeyError::NotKey(_))),
            "{content}"
        );
    }
    for content in ["", "hello", &OPENSSL_PUBLIC[..90], weak] {
        let (_dir, path) = file(content, 0o600);
        assert!(
            matches!(read_public(&path), Err(KeyError::NotKey(_))),
            "{content}"
        );
    }
    let encrypted = OPENSSL_PRIVATE.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let (_dir, path) = file(&encrypted, 0o600);
    assert!(matches!(read_private(&path), Err(KeyError::Encrypted(_))));
    let missing = read_private(Path::new("/nonexistent")).unwrap_err();
    assert!(matches!(missing, KeyError::File { .. }));
    assert!(missing.hint().unwrap().contains("key generate"));
}
