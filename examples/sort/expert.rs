//! The scripted expert: sees the whole world, keeps no memory, and always succeeds.

use crate::world::{BELT, BIN_HEIGHT, BINS, BLOCK, Goal, Point, TICK, World, length, minus, over_belt, plus};

/// The longest way in a tick; the share of a way that is left which is gone in the next tick.
const STEP: f32 = 0.016;
const GAIN: f32 = 0.5;
/// The height of the tool while it carries, and that from which a hanging block clears the bins.
const CARRY: f32 = 0.13;
const CLEAR: f32 = BIN_HEIGHT + BLOCK + 0.01;

/// Returns the next action towards `goal`: the tool's next x, y, z and suction. `bin` is where "a bin" shall be.
pub fn act(world: &World, goal: Goal, bin: usize) -> [f32; 4] {
    let tool = world.tool;
    match world.held {
        None => pick(world, goal.block),
        Some(block) if block == goal.block => {
            let [x, y] = BINS[goal.bin.unwrap_or(bin)];
            let way = minus([x, y, CARRY], tool);
            let there = length([way[0], way[1], 0.0]) < 0.02;
            // Across only as the block clears the walls.
            let risen = ((tool[2] - BLOCK) / (CLEAR - BLOCK)).clamp(0.0, 1.0);
            let next = towards(tool, [way[0] * risen, way[1] * risen, way[2]], [0.0; 3]);
            action(next, !there)
        }
        // The wrong block: back to the belt with it.
        Some(_) => {
            let middle = (BELT[0] + BELT[1]) / 2.0;
            let next = towards(tool, [0.0, middle - tool[1], 0.08 - tool[2]], [0.0; 3]);
            action(next, !(over_belt(tool) && (tool[1] - middle).abs() < 0.05))
        }
    }
}

/// Flies to the block and down on it, in a funnel: the nearer, the lower.
fn pick(world: &World, block: usize) -> [f32; 4] {
    let (tool, at) = (world.tool, world.blocks[block]);
    let belt = if world.rides(block) { [world.belt_speed * TICK, 0.0, 0.0] } else { [0.0; 3] };
    let top = at[2] + BLOCK / 2.0;
    let away = length([at[0] - tool[0], at[1] - tool[1], 0.0]);
    let height = ((away - 0.008) * 1.2).clamp(0.0, 0.09);
    let next = towards(tool, minus([at[0], at[1], top + height], tool), belt);
    action(next, away < 0.03 && tool[2] - top < 0.03)
}

/// Returns the place after the next tick on `way` from `from`, on ground that moves by `carried`.
fn towards(from: Point, way: Point, carried: Point) -> Point {
    let step = plus(way.map(|v| v * GAIN), carried);
    let long = length(step);
    plus(from, if long > STEP { step.map(|v| v * (STEP / long)) } else { step })
}

fn action([x, y, z]: Point, suction: bool) -> [f32; 4] {
    [x, y, z, if suction { 1.0 } else { 0.0 }]
}
