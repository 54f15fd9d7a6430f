use carrack_mover::error::ErrorKind;

use super::*;

fn file(contents: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), contents).expect("writes");
    file
}

fn word(source: &SecretSource) -> Vec<u8> {
    match obtain(source, "r", Ask::Once).expect("a password") {
        Secret::Passphrase(passphrase) => passphrase.expose().to_vec(),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn only_the_first_line_counts() {
    for contents in [&b"secret"[..], b"secret\n", b"secret\r\n", b"secret\nmore\n"] {
        assert_eq!(word(&SecretSource::PasswordFile(file(contents).path().into())), b"secret");
    }
    assert_eq!(word(&SecretSource::PasswordFile(file(b" a b \n").path().into())), b" a b ");
    assert_eq!(word(&SecretSource::PasswordCommand("printf 'x\\ny'".into())), b"x");
}

#[test]
fn what_is_no_password_is_refused() {
    let kind = |source: SecretSource| obtain(&source, "r", Ask::Once).expect_err("refused").kind();
    assert_eq!(kind(SecretSource::PasswordFile(file(b"\nx").path().into())), ErrorKind::Denied);
    assert_eq!(kind(SecretSource::PasswordFile("/does/not/exist".into())), ErrorKind::NotFound);
    assert_eq!(kind(SecretSource::PasswordFile(file(&[b'x'; 70_000]).path().into())), ErrorKind::Invalid);
    assert_eq!(kind(SecretSource::PasswordCommand("echo x; exit 3".into())), ErrorKind::Denied);
    assert_eq!(kind(SecretSource::KeyFile(file(b"abcd").path().into())), ErrorKind::Invalid);
    assert_eq!(kind(SecretSource::Bundle(file(b"{}").path().into())), ErrorKind::Invalid);
}

#[test]
fn a_key_file_is_hexadecimal() {
    let contents = format!("{}\n", "0f".repeat(32));
    let key = read_key(file(contents.as_bytes()).path()).expect("a key");
    assert_eq!(key.expose(), &[0x0f; 32]);
}
