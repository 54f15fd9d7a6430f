use super::*;
use crate::format::session::SessionKind;

fn keys() -> Keys {
    Keys::from_roots(RepositoryId([1; 16]), &[Key::new([2; 32])]).unwrap()
}

fn session() -> SessionName {
    SessionName {
        kind: SessionKind::Backup,
        lineage: LineageId([3; 8]),
        nonce: crate::id::SessionNonce([4; 16]),
    }
}

#[test]
fn golden_derivations_do_not_move() {
    let keys = keys();
    insta::assert_snapshot!(format!(
        "id of nothing {}\nlineage hash {}\nmetadata {}\nindex {}\nbundle {}",
        keys.chunk_id(b""),
        hex::encode(keys.keyed_hash("lineage", &[b"host", b"/data"])),
        hex::encode(keys.session_metadata_key(0, session()).unwrap().expose()),
        hex::encode(keys.session_index_key(0, session()).unwrap().expose()),
        serde_json::to_string_pretty(&keys.writer_bundle(RepositoryId([1; 16]), LineageId([3; 8])).unwrap())
            .unwrap(),
    ));
}

#[test]
fn a_writer_cannot_open_what_it_sealed() {
    let world = World::system();
    let keys = keys();
    let bundle = keys.writer_bundle(RepositoryId([1; 16]), LineageId([3; 8])).unwrap();
    let writer = Keys::from_bundle(&bundle).unwrap();
    let sealed = writer.seal_data_key(0, session(), &Key::new([9; 32]), &world).unwrap();
    assert_eq!(sealed.len(), SEALED_KEY_LENGTH);
    assert_eq!(
        writer.open_data_key(0, session(), &sealed).unwrap_err().kind(),
        crate::error::ErrorKind::Denied
    );
    assert_eq!(keys.open_data_key(0, session(), &sealed).unwrap().expose(), &[9; 32]);
    assert!(writer.sign_maintenance("forgotten", b"x").is_err());
    let other = SessionName { lineage: LineageId([8; 8]), ..session() };
    assert!(writer.session_metadata_key(0, other).is_err());
    assert!(keys.open_data_key(0, other, &sealed).is_err(), "bound to its session");
}

#[test]
fn only_maintenance_signs() {
    let keys = keys();
    let signature = keys.sign_maintenance("forgotten", b"x").unwrap();
    assert!(keys.verify_maintenance("forgotten", b"x", &signature));
    assert!(!keys.verify_maintenance("final", b"x", &signature));
    assert!(!keys.verify_maintenance("forgotten", b"y", &signature));
}

#[test]
fn a_bundle_of_a_later_generation_writes_what_the_owner_can_read() {
    let (repository, world) = (RepositoryId([1; 16]), World::system());
    let keys = Keys::from_roots(repository, &[Key::new([2; 32]), Key::new([6; 32])]).unwrap();
    let writer = Keys::from_bundle(&keys.writer_bundle(repository, LineageId([3; 8])).unwrap()).unwrap();
    let generation = writer.newest();
    assert_eq!(generation, 1);
    let sealed = writer.seal_data_key(generation, session(), &Key::new([9; 32]), &world).unwrap();
    assert_eq!(keys.open_data_key(generation, session(), &sealed).unwrap().expose(), &[9; 32]);
    // What was written before the rotation too: parents, and where a repack moved things.
    for generation in 0..=generation {
        let metadata = |keys: &Keys| *keys.session_metadata_key(generation, session()).unwrap().expose();
        assert_eq!(metadata(&writer), metadata(&keys));
        let index = |keys: &Keys| *keys.session_index_key(generation, session()).unwrap().expose();
        assert_eq!(index(&writer), index(&keys));
    }
    assert!(writer.session_index_key(2, session()).is_err());
    let older = Keys::from_roots(repository, &[Key::new([2; 32])]).unwrap();
    let signature = older.sign_maintenance("final", b"x").unwrap();
    assert!(
        writer.verify_maintenance("final", b"x", &signature),
        "what an older generation signed still counts"
    );
}
