use carrack_mover::{error::ErrorKind, store::open_url};

use super::*;

#[tokio::test]
async fn nothing_reaches_the_store_and_own_records_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().to_str().expect("UTF-8");
    let real = open_url(place, &Default::default()).await.expect("a store");
    real.put_if_absent("keys/00", Bytes::from_static(b"real")).await.expect("puts");
    let dry = DryRunStore::over(Arc::clone(&real));
    for name in ["sessions/01", "packs/ab/02", "index/s-03"] {
        assert_eq!(
            dry.put_if_absent(name, Bytes::from_static(b"0123456789")).await.expect("puts"),
            Put::Created
        );
        assert_eq!(real.get(name, ByteRange::All).await.expect_err("not there").kind(), ErrorKind::NotFound);
    }
    dry.delete("keys/00").await.expect("deletes");
    assert_eq!(&dry.get("keys/00", ByteRange::All).await.expect("still there")[..], b"real");
    assert_eq!(&dry.get("sessions/01", ByteRange::Last(3)).await.expect("kept")[..], b"789");
    let slice = ByteRange::Slice { offset: 2, length: 3 };
    assert_eq!(&dry.get("sessions/01", slice).await.expect("kept")[..], b"234");
    let beyond = ByteRange::Slice { offset: 9, length: 3 };
    assert_eq!(dry.get("sessions/01", beyond).await.expect_err("too far").kind(), ErrorKind::Corrupt);
}
