//! The closed loop: the world is shown to the runtime, and does what the runtime's actions say.

use std::error::Error;
use std::time::Duration;

use pi0_edge::runtime::{
    Controller, Event, Flags, Inference, Lockstep, ObservationWriter, Reading, Runtime, RuntimeConfig,
    SimulatedClock, Status, Timestamp, Turn,
};

use crate::camera::{Camera, FRAME};
use crate::sorter::{Delayed, Scene, Sorter};
use crate::world::{Goal, Outcome, TICK_LIMIT, World, length, minus};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub const PERIOD: Duration = Duration::from_millis(50);

/// The runtime in the loop.
pub struct Loop<I: Sorter> {
    sensors: ObservationWriter<I::Observation>,
    controller: Controller,
    cameras: [Camera; 2],
    time: Time<I>,
    /// The time of this tick.
    now: Timestamp,
}

enum Time<I: Sorter> {
    Virtual(Box<Virtual<I>>),
    /// The machine's time, and inference on a thread of its own.
    Real(Box<Runtime<Delayed<I>>>),
}

/// Time that passes as the loop says.
struct Virtual<I: Inference> {
    lockstep: Lockstep<I>,
    clock: SimulatedClock,
    /// What the clock shows.
    at: Timestamp,
    /// The time that a chunk takes, and when the one that is being computed is done.
    delay: Duration,
    done: Option<Timestamp>,
}

/// What happened in an episode.
pub struct Episode {
    pub goal: Goal,
    pub outcome: Outcome,
    pub ticks: usize,
    /// The distance between actions where one chunk took over from another, in metres.
    pub seams: Vec<f32>,
    /// Reads by [`Status`].
    pub reads: [u64; 4],
}

/// One tick of an episode, before the world has taken the action.
pub struct Moment<'a> {
    pub world: &'a World,
    pub prompt: &'a str,
    pub reading: Reading,
    pub action: [f32; 4],
    /// On the first action of a chunk that took over: how far it is from the one before.
    pub seam: Option<f32>,
}

impl<I: Sorter + 'static> Loop<I>
where
    I::Observation: 'static,
{
    /// Starts the loop in virtual time, in which a chunk takes `delay`.
    pub fn in_virtual_time(sorter: I, config: &RuntimeConfig, delay: Duration) -> Result<Self> {
        let clock = SimulatedClock::default();
        let (lockstep, sensors, controller) = Lockstep::new(sorter, config, clock.clone())?;
        let at = Timestamp::default();
        let time = Virtual { lockstep, clock, at, delay, done: None };
        Ok(Self::new(sensors, controller, Time::Virtual(Box::new(time)), at))
    }

    /// Starts the loop in the machine's time. A chunk takes as long as it takes, and at least `delay`.
    pub fn in_real_time(sorter: I, config: &RuntimeConfig, delay: Duration) -> Result<Self> {
        let (runtime, sensors, controller) = Runtime::start(Delayed::new(sorter, delay), config)?;
        Ok(Self::new(sensors, controller, Time::Real(Box::new(runtime)), Timestamp::now()))
    }

    fn new(
        sensors: ObservationWriter<I::Observation>,
        controller: Controller,
        time: Time<I>,
        now: Timestamp,
    ) -> Self {
        Loop {
            sensors,
            controller,
            cameras: [Camera::base(FRAME, FRAME), Camera::wrist(FRAME, FRAME)],
            time,
            now,
        }
    }

    /// Runs the episode of `seed`, asking for what `ask` makes of its goal, and shows each tick to `watch`.
    ///
    /// # Errors
    /// Whatever goes wrong in the runtime: nothing may.
    pub fn run(
        &mut self,
        seed: u64,
        ask: impl Fn(Goal) -> Goal,
        mut watch: impl FnMut(&Self, &Moment<'_>),
    ) -> Result<Episode> {
        let (world, goal) = World::new(seed);
        let mut scene = Scene { world, goal: ask(goal), bin: (seed % 2) as usize };
        let prompt = scene.goal.prompt();
        self.begin_episode(&prompt)?;
        let [x, y, z] = scene.world.tool;
        let mut action = [x, y, z, 0.0];
        self.controller.set_reference(&action);
        let mut episode = Episode { goal, outcome: Outcome::Running, ticks: 0, seams: vec![], reads: [0; 4] };
        let mut moved = false;
        while episode.outcome == Outcome::Running && episode.ticks < TICK_LIMIT {
            let reading = self.tick(&scene)?;
            let before = action;
            if let Some(next) = self.controller.action() {
                action.copy_from_slice(next);
            }
            let place = |[x, y, z, _]: [f32; 4]| [x, y, z];
            let took_over = reading.flags.contains(Flags::NEW_CHUNK) && moved;
            let seam = took_over.then(|| length(minus(place(action), place(before))));
            moved |= reading.status != Status::Empty;
            episode.seams.extend(seam);
            episode.reads[reading.status as usize] += 1;
            watch(self, &Moment { world: &scene.world, prompt: &prompt, reading, action, seam });
            scene.world.step(action);
            episode.outcome = scene.world.outcome(goal);
            episode.ticks += 1;
        }
        Ok(episode)
    }

    /// Returns the rows of the chunk with this number, as long as the flight recorder has it.
    pub fn chunk(&self, number: u64) -> Vec<Vec<f32>> {
        let record = match &self.time {
            Time::Virtual(time) => time.lockstep.runtime().flight_record(),
            Time::Real(runtime) => runtime.flight_record(),
        };
        record
            .chunks
            .into_iter()
            .find(|chunk| chunk.info.number == number)
            .map_or(vec![], |chunk| chunk.actions)
    }

    fn begin_episode(&mut self, prompt: &str) -> Result<()> {
        match &mut self.time {
            Time::Virtual(time) => {
                time.lockstep.runtime().set_prompt(prompt)?;
                time.lockstep.begin_episode_at(self.now);
                // What was being computed is dropped.
                time.done = None;
            }
            Time::Real(runtime) => {
                runtime.set_prompt(prompt)?;
                runtime.begin_episode();
                self.now = Timestamp::now();
            }
        }
        Ok(())
    }

    /// Shows the scene to the policy, and reads the action.
    fn tick(&mut self, scene: &Scene) -> Result<Reading> {
        let before = self.now;
        self.now = before + PERIOD;
        // For a splice rule by the state; suction has none.
        let [x, y, z] = scene.world.tool;
        self.controller.set_state(&[x, y, z, f32::NAN]);
        match &mut self.time {
            Time::Virtual(time) => {
                // Whatever is done at the very moment of the tick comes after its observation.
                time.infer_until(before.plus(PERIOD.as_nanos() as u64 - 1))?;
                time.advance(self.now);
                I::show(self.sensors.slot(), scene, &self.cameras);
                self.sensors.publish_at(self.now, self.now)?;
                time.infer_until(self.now)?;
                Ok(self.controller.read_at(self.now))
            }
            Time::Real(runtime) => {
                self.now.sleep_until();
                let captured = Timestamp::now();
                I::show(self.sensors.slot(), scene, &self.cameras);
                self.sensors.publish(captured)?;
                match runtime.events().try_iter().find(|event| !matches!(event, Event::Chunk(_))) {
                    Some(event) => Err(format!("{event:?}").into()),
                    None => Ok(self.controller.read()),
                }
            }
        }
    }
}

impl<I: Inference> Virtual<I> {
    fn advance(&mut self, now: Timestamp) {
        self.at = now;
        self.clock.set(now);
    }

    /// Lets inference do what it does until `now`.
    fn infer_until(&mut self, now: Timestamp) -> Result<()> {
        loop {
            match self.done {
                Some(done) if done > now => return Ok(()),
                Some(done) => {
                    self.advance(done);
                    self.finish_chunk()?;
                }
                None => {
                    let begun = self.lockstep.runtime().stats().inference.begun;
                    match self.lockstep.turn() {
                        Turn::Wait(Some(due)) if due <= now => self.advance(due),
                        Turn::Wait(_) | Turn::Stopped => return Ok(()),
                        Turn::Worked if self.lockstep.runtime().stats().inference.begun == begun => {}
                        Turn::Worked => self.done = Some(self.at + self.delay),
                    }
                }
            }
        }
    }

    fn finish_chunk(&mut self) -> Result<()> {
        self.done = None;
        loop {
            self.lockstep.turn();
            match self.lockstep.runtime().events().try_recv() {
                Ok(Event::Chunk(_)) => return Ok(()),
                Ok(event) => return Err(format!("{event:?}").into()),
                Err(_) => {}
            }
        }
    }
}
