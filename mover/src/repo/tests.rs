use super::*;
use crate::store::mem::MemStore;

#[tokio::test]
async fn a_short_record_is_read_up_to_its_limit_and_not_beyond() {
    let (store, limit) = (MemStore::new(), usize::try_from(limits::SHORT_RECORD_LIMIT).unwrap());
    for (name, length) in [("sessions/full", limit), ("sessions/long", limit + 1)] {
        store.put_if_absent(name, vec![7; length].into()).await.unwrap();
    }
    assert_eq!(read_short(&store, "sessions/full").await.unwrap().len(), limit);
    let error = read_short(&store, "sessions/long").await.unwrap_err();
    assert!(error.to_string().contains("longer than any record of its kind"), "{error}");
}
