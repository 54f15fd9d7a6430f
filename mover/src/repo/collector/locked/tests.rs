use std::sync::Arc;

use async_trait::async_trait;

use super::*;
use crate::{
    error::ErrorKind,
    format::pack::pack_object,
    repo::{
        PruneOptions, Unused,
        collector::tests::Crowd,
        mark::{Needs, testing::Stage},
    },
    store::{Decorator, ObjectStore, mem::MemStore},
};

/// A store that holds some of its objects, and of others does not tell.
#[derive(Debug)]
struct Holding {
    inner: Arc<MemStore>,
    until: BTreeMap<String, Timestamp>,
    secret: Option<String>,
}

#[async_trait]
impl Decorator for Holding {
    fn inner(&self) -> &dyn ObjectStore {
        &*self.inner
    }

    async fn locked_until(&self, name: &str) -> Result<Option<Timestamp>> {
        match self.secret.as_deref() == Some(name) {
            true => Err(Error::denied("nobody may look")),
            false => Ok(self.until.get(name).copied()),
        }
    }
}

fn pack(number: u8) -> PackId {
    PackId([number; 16])
}

/// A plan for all packs that are there: those from the fifth on are needed in part, each in as many of 128.
async fn plan(stage: &Stage) -> (PrunePlan, PackTable) {
    let mut table = PackTable::list(stage.store.as_ref()).await.unwrap();
    for number in 5..=9u8 {
        if let Some(bytes) = table.get(pack(number)).map(|row| row.bytes) {
            let part = u32::try_from(bytes / 128).unwrap();
            table.frame(pack(number), 0, part * u32::from(number));
        }
    }
    let options = PruneOptions { max_unused: Some(Unused::Bytes(0)), ..PruneOptions::default() };
    let mut plan = PrunePlan::new(&options);
    plan.take_packs(&table);
    plan.choose_repack(&table, &options, 0);
    (plan, table)
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// It is 1970, and what is held until then, or was, is held no more.
#[tokio::test]
async fn what_is_held_is_left_out_until_the_last_of_its_sendings_is_free() {
    const BYTES: usize = 1 << 20;
    let stage = Stage::new().await;
    for (number, attempt) in [(1, 0), (1, 3), (2, 0), (3, 0), (5, 0), (6, 0)] {
        stage.put_pack(number, attempt, BYTES);
    }
    let (mut plan, table) = plan(&stage).await;
    let all = plan.clone();
    assert_eq!(all.delete, [1, 2, 3].map(pack));
    assert_eq!(all.repack, [5, 6].map(pack));
    let until = [(1, 0, 50), (1, 3, 90), (2, 0, 0), (3, 0, -5), (5, 0, 70)];
    let until = until.map(|(number, attempt, until)| (pack_object(pack(number), attempt), second(until)));
    let holding = |until, secret| Arc::new(Holding { inner: stage.store.clone(), until, secret });
    let repository = stage.through(holding(until.into(), None)).await;
    repository.leave_locked(&mut plan, &table).await.unwrap();
    let bytes = BYTES as u64;
    assert_eq!((plan.delete, plan.delete_bytes), (vec![pack(2), pack(3)], 2 * bytes));
    let rest = table.get(pack(6)).unwrap();
    assert_eq!((plan.repack, plan.repack_bytes), (vec![pack(6)], rest.needed_bytes()));
    assert_eq!(plan.repack_unused_bytes, rest.unused_bytes());
    let held = table.get(pack(5)).unwrap().unused_bytes();
    assert_eq!((plan.locked, plan.locked_bytes), (vec![pack(1), pack(5)], 2 * bytes + held));
    assert_eq!(plan.locked_until, Some(second(70)), "the first that is free in all its sendings");

    // Where nothing is held, all stays as it was planned.
    let mut plan = all.clone();
    stage.repository.leave_locked(&mut plan, &table).await.unwrap();
    assert_eq!(plan, all);
    let secret = holding(BTreeMap::new(), Some(pack_object(pack(6), 0)));
    let error = stage.through(secret).await.leave_locked(&mut plan, &table).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn some_packs_are_asked_for_at_once() {
    let stage = Stage::new().await;
    (10..50).for_each(|number| stage.put_pack(number, 0, 10));
    let (mut plan, table) = plan(&stage).await;
    let crowd = Crowd::on(&stage.store);
    let repository = stage.through(crowd.clone()).await;
    crowd.most();
    repository.leave_locked(&mut plan, &table).await.unwrap();
    assert_eq!((crowd.most(), plan.delete.len()), (PARALLEL_LOOKS, 40));
}
