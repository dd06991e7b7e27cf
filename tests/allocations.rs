//! After the first chunk, an inference allocates nothing of ours. One test alone in this crate: the counter is the
//! process's.

mod common;

use common::{Scene, load_tiny};
use pi0_edge::{InferOptions, Noise};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

#[test]
fn the_steady_state_allocates_nothing() {
    let mut policy = load_tiny();
    let two = Scene::new(&policy, &[0, 1], "pick up the cube");
    let three = Scene::new(&policy, &[0, 1, 2], "pick up the cube");
    let options = |seed| InferOptions { noise: Noise::Seed(seed), num_steps: Some(4) };
    two.with(|o| {
        policy.infer(o, &options(0)).unwrap();
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        for seed in 1..20 {
            policy.infer(o, &options(seed)).unwrap();
        }
        let used = region.change();
        assert_eq!((used.allocations, used.reallocations), (0, 0), "same cameras, same prompt");
    });
    // A camera that comes and goes costs a rebinding, still without an allocation once its frame size is known.
    three.with(|o| policy.infer(o, &options(0)).map(|_| ())).unwrap();
    two.with(|two| {
        three.with(|three| {
            let region = Region::new(&INSTRUMENTED_SYSTEM);
            for seed in 1..10 {
                policy.infer(two, &options(seed)).unwrap();
                policy.infer(three, &options(seed)).unwrap();
            }
            let used = region.change();
            assert_eq!((used.allocations, used.reallocations), (0, 0), "cameras that come and go");
        });
    });
    // The counter counts: a new prompt is tokenised, which allocates.
    let other = Scene::new(&policy, &[0, 1], "open the drawer");
    other.with(|o| {
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        policy.infer(o, &options(0)).unwrap();
        assert!(region.change().allocations > 0, "the counter is alive");
    });
}
