use crate::world::{soon, world_over};
use plat_master::store::MemoryStore;
use plat_model::Problem;
use plat_model::problem::codes;
use std::sync::Arc;

#[tokio::test]
async fn a_store_that_fails_ends_the_master_so_that_it_can_be_started_again() {
    let store = Arc::new(MemoryStore::new());
    let world = world_over(store.clone()).await;
    store.fail(Problem::new(codes::STORE_FAILED, "cannot write to the store").because("no space left"));
    let served = soon(world.served).await.unwrap();
    assert_eq!(served.unwrap_err().code, codes::STORE_FAILED);
}
