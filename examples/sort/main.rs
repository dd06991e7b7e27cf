//! Sorting from a moving belt: a small simulated world, and the expert that a policy learns it from.
//!
//!     cargo run --release --example sort -- --expert [--episodes N] [--seed N]
//!     cargo run --release --example sort -- --demonstrations DIR [--frames N] [--seed N]

mod camera;
mod demonstrations;
mod expert;
mod random;
mod world;

use world::{Outcome, TICK_LIMIT, World};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let number = |name: &str, default: u64| option(name).map_or(Ok(default), |v| v.parse());
    let seed = number("--seed", 0)?;
    if let Some(directory) = option("--demonstrations") {
        return Ok(demonstrations::write(directory.as_ref(), number("--frames", 40_000)? as usize, seed)?);
    }
    let episodes = number("--episodes", 100)?;
    let sorted = (0..episodes).filter(|episode| expert_sorts(seed + episode, *episode as usize % 2)).count();
    println!("the expert sorted {sorted} of {episodes}");
    Ok(())
}

fn expert_sorts(seed: u64, bin: usize) -> bool {
    let (mut world, goal) = World::new(seed);
    for _ in 0..TICK_LIMIT {
        world.step(expert::act(&world, goal, bin));
        if world.outcome(goal) != Outcome::Running {
            break;
        }
    }
    world.outcome(goal) == Outcome::Sorted
}
