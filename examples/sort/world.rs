//! The simulated world: a suction tool, a belt with two blocks, two bins. Metres and seconds; x to the right, y away from
//! the viewer, z up from the table. Additions, products and square roots of f32 alone: the same bits on every machine.

use crate::random::Random;

pub type Point = [f32; 3];

/// The time of one tick in seconds: 20 Hz.
pub const TICK: f32 = 0.05;
/// An episode that has not ended by this tick has failed.
pub const TICK_LIMIT: usize = 200;
/// A block's edge.
pub const BLOCK: f32 = 0.04;
/// The belt's near and far edge; it runs along x.
pub const BELT: [f32; 2] = [0.03, 0.19];
/// The middle of each bin, and half its inner length and width.
pub const BINS: [[f32; 2]; 2] = [[-0.17, -0.13], [0.17, -0.13]];
pub const BIN_HALF: [f32; 2] = [0.09, 0.075];
pub const BIN_HEIGHT: f32 = 0.045;

/// Blocks turn back here: the belt reverses.
const BELT_END: f32 = 0.24;
const BELT_SPEED: f32 = 0.1;
/// The share of ticks in which the belt jumps to another speed.
const JUMPS: f32 = 0.03;
/// The longest way of the tool in a tick, and the corners of the box that it can reach.
const TOOL_STEP: f32 = 0.03;
const REACH: [Point; 2] = [[-0.32, -0.24, 0.01], [0.32, 0.22, 0.3]];
/// A block is picked up when the tool is this near to the middle of its top, across and in height.
const GRIP: [f32; 2] = [0.016, 0.006];
const FALL: f32 = 0.06;

/// The order of a goal's blocks and of [`World::blocks`].
pub const COLOURS: [&str; 2] = ["red", "blue"];

/// The task: a block, and the bin that it belongs in; none: either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Goal {
    pub block: usize,
    pub bin: Option<usize>,
}

impl Goal {
    /// The six goals, in the order of their numbers.
    pub const ALL: [Goal; 6] = [
        Goal { block: 0, bin: Some(0) },
        Goal { block: 0, bin: Some(1) },
        Goal { block: 0, bin: None },
        Goal { block: 1, bin: Some(0) },
        Goal { block: 1, bin: Some(1) },
        Goal { block: 1, bin: None },
    ];

    pub fn prompt(self) -> String {
        let bin = self.bin.map_or("a bin", |bin| ["the left bin", "the right bin"][bin]);
        format!("put the {} block in {bin}", COLOURS[self.block])
    }

    /// Returns the same task with the other block.
    pub fn swapped(self) -> Goal {
        Goal { block: 1 - self.block, ..self }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Running,
    Sorted,
    /// A block is in a bin that it does not belong in.
    Misplaced,
}

#[derive(Clone, Debug)]
pub struct World {
    /// The tip of the suction tool.
    pub tool: Point,
    /// The middles of the red and the blue block.
    pub blocks: [Point; 2],
    /// The block that hangs on the tool.
    pub held: Option<usize>,
    pub belt_speed: f32,
    /// The way that the belt has run.
    pub belt_way: f32,
    /// Where the held block hangs, from the tool.
    hanging: Point,
    jumps: f32,
    random: Random,
}

impl World {
    /// Returns the scene of `seed` and its goal.
    pub fn new(seed: u64) -> (World, Goal) {
        let mut random = Random::new(seed);
        let goal = Goal::ALL[random.below(6)];
        let on_belt = |x: f32, y: f32| [x, y, BLOCK / 2.0];
        let middle = (BELT[0] + BELT[1]) / 2.0;
        let x = random.within(0.2);
        let apart = 0.09 + random.unit() * 0.15;
        let other = if x > 0.0 { x - apart } else { x + apart };
        let blocks = [x, other].map(|x| on_belt(x, middle + random.within(0.04)));
        let tool = [random.within(0.2), -0.03 + random.within(0.08), 0.17 + random.within(0.05)];
        let belt_speed = random.within(BELT_SPEED);
        let blocks = if random.unit() < 0.5 { blocks } else { [blocks[1], blocks[0]] };
        let belt_way = random.unit();
        let hanging = [0.0; 3];
        (World { tool, blocks, held: None, belt_speed, belt_way, hanging, jumps: JUMPS, random }, goal)
    }

    /// Returns this world with a belt that keeps its speed.
    pub fn undisturbed(&self) -> World {
        World { jumps: 0.0, ..self.clone() }
    }

    /// What the policy knows of the robot: the tool's x, y, z, whether a block hangs on it (0 or 1), the belt's speed.
    pub fn state(&self) -> [f32; 5] {
        let [x, y, z] = self.tool;
        [x, y, z, if self.held.is_some() { 1.0 } else { 0.0 }, self.belt_speed]
    }

    /// Moves the world by one tick: the tool towards the x, y, z of `action`, with suction if its last value is above a half.
    pub fn step(&mut self, action: [f32; 4]) {
        self.move_belt();
        self.move_tool([action[0], action[1], action[2]]);
        let suction = action[3] > 0.5;
        if !suction {
            self.held = None;
        } else if self.held.is_none() {
            self.held = (0..2).find(|&block| self.can_grip(block));
            if let Some(block) = self.held {
                self.hanging = minus(self.blocks[block], self.tool);
            }
        }
        for block in 0..2 {
            if self.held == Some(block) {
                self.blocks[block] = plus(self.tool, self.hanging);
            } else {
                self.blocks[block][2] = (self.blocks[block][2] - FALL).max(BLOCK / 2.0);
            }
        }
    }

    fn move_belt(&mut self) {
        let jump = self.random.unit() < self.jumps;
        let speed = self.random.within(BELT_SPEED);
        if jump {
            self.belt_speed = speed;
        }
        let riding = [0, 1].map(|block| self.rides(block));
        let leaving = |x: f32| x.abs() > BELT_END && x * self.belt_speed > 0.0;
        if (0..2).any(|block| riding[block] && leaving(self.blocks[block][0])) {
            self.belt_speed = -self.belt_speed;
        }
        let way = self.belt_speed * TICK;
        self.belt_way += way;
        for (block, riding) in self.blocks.iter_mut().zip(riding) {
            block[0] += if riding { way } else { 0.0 };
        }
    }

    fn move_tool(&mut self, target: Point) {
        let mut way = minus(target, self.tool);
        if !way.iter().all(|v| v.is_finite()) {
            return;
        }
        let length = length(way);
        if length > TOOL_STEP {
            way = way.map(|v| v * (TOOL_STEP / length));
        }
        self.tool = plus(self.tool, way);
        for (axis, v) in self.tool.iter_mut().enumerate() {
            *v = v.clamp(REACH[0][axis], REACH[1][axis]);
        }
        // The tool stops at what is beneath it, and with a block at the table.
        if self.held.is_some() {
            self.tool[2] = self.tool[2].max(BLOCK / 2.0 - self.hanging[2]);
        }
        for (block, at) in self.blocks.iter().enumerate() {
            let across = minus(self.tool, *at);
            if self.held != Some(block) && across[0].abs() < BLOCK / 2.0 && across[1].abs() < BLOCK / 2.0 {
                self.tool[2] = self.tool[2].max(at[2] + BLOCK / 2.0);
            }
        }
    }

    fn can_grip(&self, block: usize) -> bool {
        let [x, y, z] = minus(self.tool, self.blocks[block]);
        length([x, y, 0.0]) < GRIP[0] && (z - BLOCK / 2.0).abs() < GRIP[1]
    }

    /// Returns whether the block lies on the table, the belt or the floor of a bin.
    pub fn lies(&self, block: usize) -> bool {
        self.held != Some(block) && self.blocks[block][2] <= BLOCK / 2.0
    }

    /// Returns whether the belt carries the block.
    pub fn rides(&self, block: usize) -> bool {
        self.lies(block) && over_belt(self.blocks[block])
    }

    /// Returns how the task stands.
    pub fn outcome(&self, goal: Goal) -> Outcome {
        for block in (0..2).filter(|&block| self.lies(block)) {
            if let Some(bin) = bin_under(self.blocks[block]) {
                let right = block == goal.block && goal.bin.is_none_or(|wanted| wanted == bin);
                return if right { Outcome::Sorted } else { Outcome::Misplaced };
            }
        }
        Outcome::Running
    }
}

pub fn over_belt(at: Point) -> bool {
    (BELT[0]..BELT[1]).contains(&at[1])
}

fn bin_under(at: Point) -> Option<usize> {
    BINS.iter().position(|bin| (0..2).all(|axis| (at[axis] - bin[axis]).abs() < BIN_HALF[axis]))
}

pub fn plus(a: Point, b: Point) -> Point {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub fn minus(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub fn length(a: Point) -> f32 {
    (a[0] * a[0] + a[1] * a[1] + a[2] * a[2]).sqrt()
}
