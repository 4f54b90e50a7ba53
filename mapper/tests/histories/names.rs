//! Generations: reserved by several cores, and never used twice.

use crate::harness::{BLOCK, OBJECT, World, blocks, with_seeds};
use atoll_backends::chaos::Op;
use atoll_mapper::VolumeHandle;
use atoll_reactor::spawn;
use std::time::Duration;

/// Each of these costs a generation of the home core.
async fn use_up(volume: &VolumeHandle, generations: u64) {
    for _ in 0..generations {
        let written = volume.write(0, blocks(1, BLOCK), false).await;
        written.expect("ok");
        volume.unmap(0, OBJECT).await.expect("ok");
    }
}

#[test]
fn two_cores_that_reserve_at_once_never_lower_the_mark() {
    with_seeds(12, |seed| {
        // Two cores.
        let mut world = World::new(seed * 4 + 2);
        world.live(move |life| async move {
            let first = life.create(0, "a", 1 << 20).await;
            let second = life.create(1, "b", 1 << 20).await;
            // Core 0 has used up its chunk then, core 1 has had none.
            use_up(&first, 1023).await;
            use_up(&second, 1).await;
            let delays = Duration::ZERO..Duration::from_millis(1);
            life.chaos.delay(Op::Reserve, delays);
            let tasks = [first, second]
                .map(|volume| spawn(async move { volume.write(0, blocks(2, BLOCK), true).await }));
            for task in tasks {
                task.await.expect("ok");
            }
        });
        world.end_process();
        world.check();
    });
}
