use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::{
    format::records::{self, RecordKind},
    repo::{FORMAT_OBJECT, Repository, testing},
    store::mem::MemStore,
};

const REPOSITORY: RepositoryId = RepositoryId([7; 16]);

fn argon(memory_kib: u32, passes: u32, lanes: u32) -> KeyDerivation {
    KeyDerivation::Argon2id { salt: [1; 16], memory_kib, passes, lanes }
}

fn word() -> Unlock {
    Unlock::Passphrase(Passphrase::new(b"a word".to_vec()))
}

/// A hostile key file must not take the machine.
#[test]
fn a_key_file_asks_for_so_much_work_and_no_more() {
    for derivation in [argon(8, KDF_PASSES_LIMIT, 1), argon(8 * KDF_LANES_LIMIT, 1, KDF_LANES_LIMIT)] {
        assert!(derive(&derivation, &word()).unwrap().is_some());
    }
    for derivation in [
        argon(8, KDF_PASSES_LIMIT + 1, 1),
        argon(8 * (KDF_LANES_LIMIT + 1), 1, KDF_LANES_LIMIT + 1),
        argon(KDF_MEMORY_LIMIT_KIB + 1, 1, 1),
        argon(u32::MAX, 1, 1),
        argon(8, 0, 1),
        argon(7, 1, 1),
    ] {
        let error = derive(&derivation, &word()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{derivation:?}: {error}");
    }
}

#[test]
fn a_guess_costs_64_mebibytes_if_nothing_else_is_said() {
    let CreateOptions { kdf_memory_kib, kdf_passes, kdf_lanes, .. } = CreateOptions::default();
    assert_eq!((kdf_memory_kib, kdf_passes, kdf_lanes), (65_536, 1, 4));
}

#[test]
fn a_wrapping_key_is_for_one_kind_of_secret_and_one_salt() {
    let secret = KeyDerivation::Secret { salt: [1; 16] };
    let derived = |derivation: &KeyDerivation, unlock: &Unlock| {
        derive(derivation, unlock).unwrap().map(|key| *key.expose())
    };
    assert_eq!(derived(&secret, &word()), None);
    assert_eq!(derived(&argon(8, 1, 1), &testing::unlock()), None);
    let keys = [
        derived(&secret, &testing::unlock()),
        derived(&KeyDerivation::Secret { salt: [2; 16] }, &testing::unlock()),
        derived(&argon(8, 1, 1), &word()),
        derived(&argon(8, 2, 1), &word()),
    ];
    assert!(keys.iter().all(Option::is_some));
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
}

/// Roots as somebody seals them who does not keep to the rules.
fn seal(wrapping: &Key, plain: &[u8]) -> Vec<u8> {
    let (nonce, mut sealed) = ([0; NONCE_LENGTH], plain.to_vec());
    let tag = wrapping_cipher(wrapping)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(REPOSITORY.0), &mut sealed)
        .unwrap();
    [&nonce[..], &sealed, tag.as_ref()].concat()
}

#[test]
fn sealed_roots_are_whole_keys_and_one_at_least() {
    let wrapping = Key::new([1; 32]);
    let count = |sealed: &[u8]| open_roots(&wrapping, REPOSITORY, sealed).map(|roots| roots.len());
    for (length, expected) in [(0, None), (31, None), (32, Some(1)), (33, None), (64, Some(2))] {
        assert_eq!(count(&seal(&wrapping, &vec![3_u8; length])), expected, "{length}");
    }
    let roots = [Key::new([3; 32]), Key::new([4; 32])];
    let sealed = seal_roots(&wrapping, REPOSITORY, &roots, &World::system()).unwrap();
    let opened = open_roots(&wrapping, REPOSITORY, &sealed).unwrap();
    assert!(opened.iter().map(Key::expose).eq(roots.iter().map(Key::expose)));
    assert_eq!(open_roots(&wrapping, RepositoryId([8; 16]), &sealed).map(|roots| roots.len()), None);
    assert_eq!(count(&sealed[1..]), None);
    assert_eq!(count(&sealed[..NONCE_LENGTH - 1]), None);
}

#[test]
fn the_next_rotation_of_the_same_keys_has_one_name() {
    let (one, other) = (Key::new([1; 32]), Key::new([2; 32]));
    assert_eq!(rotation_id(&one), rotation_id(&Key::new([1; 32])));
    assert_ne!(rotation_id(&one), rotation_id(&other));
}

/// After a rotation that was broken off the same secret may fit two files, whatever their names.
#[tokio::test]
async fn of_two_keys_that_fit_the_one_with_more_roots_counts() {
    let (world, options) = (World::system(), CreateOptions::default());
    let roots = [Key::new([1; 32]), Key::new([2; 32])];
    let keys = Keys::from_roots(REPOSITORY, &roots).unwrap();
    for order in [[1, 2], [2, 1]] {
        let store: Arc<dyn ObjectStore> = Arc::new(MemStore::new());
        for (number, count) in [10, 20].into_iter().zip(order) {
            let (id, of) = (RandomId([number; 16]), (&roots[..count], &keys));
            let put = put_key(&*store, &world, (REPOSITORY, id), &testing::unlock(), &options, of).await;
            assert_eq!(put.unwrap(), Put::Created);
        }
        let format = RepositoryFormat {
            version: 1,
            repository: REPOSITORY,
            maintenance_public: *keys.foundation_public().unwrap(),
            cut: CutSizes::default(),
            read_features: Vec::new(),
            write_features: Vec::new(),
            maintain_features: Vec::new(),
            created: world.clock.now(),
        };
        let files = KeyFiles::read(&store, &format).await.unwrap();
        let opened = open_root_keys(&*store, &format, &files, &testing::unlock()).unwrap();
        assert_eq!((files.proven.len(), opened.len()), (2, 2), "{order:?}");
    }
}

#[tokio::test]
async fn who_cannot_open_a_repository_is_told_why() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let open = async |unlock: &Unlock| {
        let opened = Repository::open(store.clone(), World::system(), unlock).await;
        let error = opened.unwrap_err();
        (error.kind(), error.to_string())
    };
    let (kind, words) = open(&Unlock::Secret(Key::new([9; 32]))).await;
    assert!(kind == ErrorKind::Denied && words.contains("the secret does not open"), "{words}");
    let (kind, words) = open(&word()).await;
    assert!(kind == ErrorKind::Denied && words.contains("wrong password"), "{words}");

    // The secret fits, and what it opens is damaged, although the repository has signed it.
    let files = KeyFiles::read(repository.store(), repository.format()).await.unwrap();
    let (name, file) = files.proven.into_iter().next().unwrap();
    let mut damaged = file.clone();
    damaged.sealed_roots[20] ^= 1;
    let body = key_files::encode(&name, &damaged, repository.keys()).unwrap();
    store.tamper(&name, Some(body.into()));
    let (kind, words) = open(&testing::unlock()).await;
    assert!(kind == ErrorKind::Corrupt && words.contains("one key cannot be read"), "{words}");
    // A key that fits is enough.
    let body = key_files::encode("keys/x", &damaged, repository.keys()).unwrap();
    store.tamper("keys/x", Some(body.into()));
    let body = key_files::encode(&name, &file, repository.keys()).unwrap();
    store.tamper(&name, Some(body.into()));
    testing::open(store.clone()).await.unwrap();

    store.tamper(&name, None);
    store.tamper("keys/x", Some("rubbish".into()));
    let (kind, words) = open(&testing::unlock()).await;
    assert!(kind == ErrorKind::Corrupt && words.contains("no key of memory can be believed"), "{words}");
    store.tamper("keys/x", None);
    let (kind, words) = open(&testing::unlock()).await;
    assert!(kind == ErrorKind::Corrupt && words.contains("has no keys"), "{words}");
}

/// It opens the repository for later programs: it counts, it is named, and it stays.
#[tokio::test]
async fn a_key_of_a_newer_version_opens_nothing_and_is_no_damage() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let files = KeyFiles::read(repository.store(), repository.format()).await.unwrap();
    let (name, file) = files.proven.into_iter().next().unwrap();
    let put = |name: &str, version: u32| {
        let body = key_files::encode(name, &KeyFile { version, ..file.clone() }, repository.keys()).unwrap();
        store.tamper(name, Some(body.into()));
    };
    put("keys/x", 2);
    let opened = testing::open(store.clone()).await.unwrap();
    // KEYS: it came, so what it signs is not forged.
    assert!(!repository.are_keys_unchanged().await.unwrap() && opened.are_keys_unchanged().await.unwrap());
    let (keys, unsigned) = opened.list_keys().await.unwrap();
    assert_eq!((keys.len(), unsigned.len()), (1, 0));
    let named = opened.unproven().await.unwrap();
    assert!(named[0].what.contains("keys/x") && named[0].message.contains("version 2"), "{named:?}");
    assert_eq!(opened.remove_unproven_keys().await.unwrap(), 0);

    // A password that fits no other one may be wrong, or that of the newer one.
    let error = Repository::open(store.clone(), World::system(), &word()).await.unwrap_err();
    let hint = error.hint().unwrap();
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("wrong password"), "{error}");
    assert!(
        hint.starts_with("check CARRACK_PASSWORD") && hint.contains("keys/x: use a newer carrack"),
        "{hint}"
    );

    // Where there is no other one, nobody can tell what it opens.
    put(&name, 2);
    let error = testing::open(store.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(crate::format::pack::is_newer(&error) && error.to_string().contains(&name), "{error}");
    put(&name, 0);
    store.tamper("keys/x", None);
    assert_eq!(testing::open(store.clone()).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Of a rotation by a later program that was killed before it removed the other keys.
#[tokio::test]
async fn who_holds_keys_of_before_a_rotation_by_a_later_program_is_told() {
    let store = Arc::new(MemStore::new());
    let repository = testing::create(store.clone()).await;
    let files = KeyFiles::read(repository.store(), repository.format()).await.unwrap();
    let roots = open_root_keys(store.as_ref(), repository.format(), &files, &testing::unlock()).unwrap();
    let file = KeyFile { version: 2, ..files.proven.into_values().next().unwrap() };
    let name = format!("keys/{}", rotation_id(roots.last().unwrap()));
    store.tamper(&name, Some(key_files::encode(&name, &file, repository.keys()).unwrap().into()));
    let error = testing::open(store.clone()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("were rotated"), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("newer carrack") && hint.contains(&name), "{hint}");
    assert_eq!(repository.check_keys_unchanged().await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// Whoever replaces both the object and its signature names a key of his own.
#[tokio::test]
async fn a_mover_opens_its_own_repository_and_no_other_in_its_place() {
    let (store, elsewhere) = (Arc::new(MemStore::new()), Arc::new(MemStore::new()));
    let repository = testing::create(store.clone()).await;
    let other = testing::create(elsewhere.clone()).await;
    let bundle = repository.keys().writer_bundle(repository.format().repository, Default::default());
    let mover = Unlock::Bundle(Box::new(bundle.unwrap()));
    Repository::open(store.clone(), World::system(), &mover).await.unwrap();
    let error = Repository::open(elsewhere, World::system(), &mover).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");

    let repository_id = repository.format().repository;
    let format = RepositoryFormat { repository: repository_id, ..other.format().clone() };
    let json = records::to_json(&format).unwrap();
    let mut body = other.keys().sign_foundation(FORMAT_OBJECT, &json).unwrap();
    body.extend_from_slice(&json);
    store.tamper(FORMAT_OBJECT, Some(records::encode_record(RecordKind::Format, &body).into()));
    let error = Repository::open(store, World::system(), &mover).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("own"), "{error}");

    let options = CreateOptions::default();
    let added = other.add_key(&testing::unlock(), &mover, &options).await;
    assert_eq!(added.unwrap_err().kind(), ErrorKind::Invalid, "it opens nothing for others");
}
