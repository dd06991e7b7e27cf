//! Frames with the expert's chunks, for training.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::camera::{Camera, FRAME};
use crate::expert;
use crate::random::Random;
use crate::world::{Goal, Outcome, TICK_LIMIT, World};

/// The rows of a chunk.
pub const ROWS: usize = 20;

/// Writes `frames` frames of noisy episodes to `directory`, each with the chunk that the expert would do from there:
/// `base.npy` and `wrist.npy` u8 `[N, 56, 56, 3]`, `state.npy` f32 `[N, 5]`, `prompt.npy` u8 `[N]` (the number of the
/// goal in [`Goal::ALL`]), `chunk.npy` f32 `[N, 20, 4]`, `blocks.npy` f32 `[N, 6]`; and the prompts in `prompts.json`.
pub fn write(directory: &Path, frames: usize, seed: u64) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let prompts: Vec<String> = Goal::ALL.iter().map(|goal| goal.prompt()).collect();
    fs::write(directory.join("prompts.json"), format!("{prompts:?}\n"))?;
    let npy = |name: &str, kind, row: &[usize]| Npy::create(&directory.join(name), kind, frames, row);
    let image = [FRAME, FRAME, 3];
    let mut pictures = [npy("base.npy", "|u1", &image)?, npy("wrist.npy", "|u1", &image)?];
    let mut state = npy("state.npy", "<f4", &[5])?;
    let mut prompt = npy("prompt.npy", "|u1", &[])?;
    let mut chunk = npy("chunk.npy", "<f4", &[ROWS, 4])?;
    let mut blocks = npy("blocks.npy", "<f4", &[6])?;
    let cameras = [Camera::base(FRAME, FRAME), Camera::wrist(FRAME, FRAME)];
    let mut pixels = vec![0; FRAME * FRAME * 3];
    let mut random = Random::new(seed);
    let mut episodes = (0..).map(|_| Noisy::new(random.next()));
    let mut episode = episodes.next().expect("endless");
    for _ in 0..frames {
        while episode.over() {
            episode = episodes.next().expect("endless");
        }
        for (camera, file) in cameras.iter().zip(&mut pictures) {
            camera.draw(&episode.world, &mut pixels);
            file.bytes(&pixels)?;
        }
        state.floats(&episode.world.state())?;
        prompt
            .bytes(&[Goal::ALL.iter().position(|goal| *goal == episode.goal).expect("one of all") as u8])?;
        chunk.floats(rollout(&episode.world, episode.goal, episode.bin).as_flattened())?;
        blocks.floats(episode.world.blocks.as_flattened())?;
        episode.step();
    }
    pictures.into_iter().chain([state, prompt, chunk, blocks]).try_for_each(Npy::finish)
}

/// Returns what the expert would do from here if nothing disturbed it.
pub fn rollout(world: &World, goal: Goal, bin: usize) -> [[f32; 4]; ROWS] {
    let mut world = world.undisturbed();
    std::array::from_fn(|_| {
        let [x, y, z] = world.tool;
        let action = match world.outcome(goal) {
            Outcome::Running => expert::act(&world, goal, bin),
            _ => [x, y, z, 0.0],
        };
        world.step(action);
        action
    })
}

/// An episode of an expert whose hand is pushed about.
struct Noisy {
    world: World,
    goal: Goal,
    bin: usize,
    tick: usize,
    /// How strong the pushes are, and where the hand is pushed now.
    strength: f32,
    push: [f32; 3],
    /// Ticks left of a hand that drifts away, or of suction that is the wrong way round.
    drift: usize,
    drop: usize,
    random: Random,
}

impl Noisy {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(!seed);
        let (world, goal) = World::new(seed);
        let strength = 0.006 * random.unit();
        let bin = random.below(2);
        Noisy { world, goal, bin, tick: 0, strength, push: [0.0; 3], drift: 0, drop: 0, random }
    }

    fn over(&self) -> bool {
        self.tick == TICK_LIMIT || self.world.outcome(self.goal) != Outcome::Running
    }

    fn step(&mut self) {
        let random = &mut self.random;
        if random.unit() < 0.03 {
            self.drift = 3 + random.below(6);
            self.push = [0.0; 3].map(|_| random.within(0.025));
        }
        if random.unit() < 0.008 {
            self.drop = 1 + random.below(3);
        }
        if self.drift == 0 {
            self.push = self.push.map(|v| v * 0.7 + random.within(self.strength));
        }
        let mut action = expert::act(&self.world, self.goal, self.bin);
        for (value, push) in action.iter_mut().zip(self.push) {
            *value += push;
        }
        if self.drop > 0 {
            action[3] = 1.0 - action[3];
        }
        (self.drift, self.drop) = (self.drift.saturating_sub(1), self.drop.saturating_sub(1));
        self.world.step(action);
        self.tick += 1;
    }
}

/// A numpy file that is written row by row.
struct Npy(BufWriter<File>);

impl Npy {
    fn create(path: &Path, kind: &str, rows: usize, row: &[usize]) -> io::Result<Self> {
        let shape: String = row.iter().map(|n| format!(" {n},")).collect();
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows},{shape}), }}");
        let mut file = BufWriter::new(File::create(path)?);
        // Magic, version 1, the header's length: all padded to 128 bytes.
        file.write_all(b"\x93NUMPY\x01\x00\x76\x00")?;
        writeln!(file, "{header:<117}")?;
        Ok(Npy(file))
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn floats(&mut self, values: &[f32]) -> io::Result<()> {
        values.iter().try_for_each(|value| self.0.write_all(&value.to_le_bytes()))
    }

    fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}
