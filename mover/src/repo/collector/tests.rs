use super::*;
use crate::{
    format::pack::pack_object,
    repo::mark::Needs,
    store::{ObjectStore, mem::MemStore},
};

#[tokio::test]
async fn no_more_frames_are_moved_than_writers_can_carry() {
    let (store, pack) = (MemStore::new(), PackId([7; 16]));
    store.put_if_absent(&pack_object(pack, 0), vec![0; 1 << 20].into()).await.unwrap();
    let mut table = PackTable::list(&store).await.unwrap();
    table.frame(pack, 0, 1000);
    let options = PruneOptions::default();
    for (moved, is_full) in [(RELOCATED_FRAMES_MAX - 1, false), (RELOCATED_FRAMES_MAX, true)] {
        let mut plan = PrunePlan::new(&options);
        plan.take_packs(&table);
        plan.choose_repack(&table, &options, moved);
        assert_eq!(plan.repack_is_full, is_full, "{moved} frames were moved");
        assert_eq!(plan.repack, if is_full { Vec::new() } else { vec![pack] });
    }
}
