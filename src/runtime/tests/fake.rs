//! Inference of a few lines that computes in simulated or real time and fails where it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::policy::rtc::{Guidance, guidance_weight};
use crate::realtime::clock::SimulatedClock;
use crate::runtime::Inference;
use crate::{Error, ErrorKind, Result};

/// A fault in a call.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    Error,
    /// As if the observation could not be used.
    Refuse(ErrorKind),
    Panic,
    /// Takes this much longer.
    Slow(Duration),
    /// Gives this many values instead of a chunk (`finish` only; an error elsewhere).
    Length(usize),
    /// Puts this value at this place of `x_t` (`step`) or of the chunk (`finish`).
    Value(usize, f32),
}

/// A call that inference got.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    WarmUp,
    Begin { chunk: u64, seen: f32, guided: Option<Guided> },
    Step(usize),
    Finish,
    Prompt(String),
    NumSteps(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Guided {
    pub(super) leftover: Vec<f32>,
    pub(super) weights: Vec<f32>,
    pub(super) max: f32,
    pub(super) delay: usize,
}

/// The state that the test and inference both reach.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// The calls that go wrong, counted over all calls from 0, and how.
    pub(super) faults: BTreeMap<usize, Fault>,
    pub(super) calls: Vec<Call>,
    /// The time each call takes, on the simulated clock.
    pub(super) begin_time: Duration,
    pub(super) step_time: Duration,
}

/// Row i of a chunk is the observation's one number plus i, plus `spread` times something peculiar to the chunk, in
/// every joint: as if the policy wanted to move at one unit a row and changed its mind a little each time.
///
/// It gets there by flow matching with guidance, as a policy does: `v = (x_t − a) / time`, so `x0` is `a`.
#[derive(Debug)]
pub(super) struct Fake {
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) num_steps: usize,
    pub(super) spread: f32,
    /// As if trained for real-time chunking with this.
    pub(super) max_delay: Option<usize>,
    pub(super) clock: Option<SimulatedClock>,
    pub(super) script: Arc<Mutex<Script>>,
    target: Vec<f32>,
    x: Vec<f32>,
    guided: Option<Guided>,
}

impl Fake {
    pub(super) fn new(rows: usize, dim: usize) -> Self {
        Fake {
            rows,
            dim,
            num_steps: 4,
            spread: 0.0,
            max_delay: None,
            clock: None,
            script: Arc::default(),
            target: vec![],
            x: vec![],
            guided: None,
        }
    }

    /// Notes the call, takes the time it takes, and fails if it is this one's turn.
    fn call(&mut self, call: Call, time: fn(&Script) -> Duration) -> Result<Option<Fault>> {
        let (fault, time) = {
            // A test that panicked on purpose has not spoilt anything.
            let mut script = self.script.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            script.calls.push(call);
            (script.faults.get(&(script.calls.len() - 1)).cloned(), time(&script))
        };
        let extra = if let Some(Fault::Slow(extra)) = fault { extra } else { Duration::ZERO };
        match &self.clock {
            Some(clock) => clock.advance(time + extra),
            None if time + extra > Duration::ZERO => std::thread::sleep(time + extra),
            None => {}
        }
        match fault {
            Some(Fault::Refuse(kind)) => Err(Error::new(kind, "told to refuse")),
            Some(Fault::Error) => Err(Error::new(ErrorKind::Graph, "told to fail")),
            Some(Fault::Panic) => panic!("told to panic"),
            other => Ok(other),
        }
    }
}

/// The same for the same chunk, and different between neighbours: from −1 to 1.
pub(super) fn peculiar(chunk: u64) -> f32 {
    ((chunk.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1u32 << 23) as f32) - 1.0
}

impl Inference for Fake {
    type Observation = f32;

    fn new_observation(&self) -> f32 {
        f32::NAN
    }

    fn action_horizon(&self) -> usize {
        self.rows
    }

    fn action_dim(&self) -> usize {
        self.dim
    }

    fn num_steps(&self) -> usize {
        self.num_steps
    }

    fn max_inference_delay(&self) -> Option<usize> {
        self.max_delay
    }

    fn joint_scales(&self) -> Option<Vec<f32>> {
        Some(vec![1.0; self.dim])
    }

    fn state<'a>(&self, observation: &'a f32) -> &'a [f32] {
        std::slice::from_ref(observation)
    }

    fn set_num_steps(&mut self, num_steps: usize) -> Result<()> {
        self.call(Call::NumSteps(num_steps), |_| Duration::ZERO)?;
        if num_steps == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "no steps"));
        }
        self.num_steps = num_steps;
        Ok(())
    }

    fn set_prompt(&mut self, prompt: &str) -> Result<()> {
        self.call(Call::Prompt(prompt.to_owned()), |_| Duration::ZERO).map(drop)
    }

    fn warm_up(&mut self) -> Result<()> {
        self.call(Call::WarmUp, |_| Duration::ZERO).map(drop)
    }

    fn begin(&mut self, observation: &f32, guidance: Option<Guidance<'_>>, chunk: u64) -> Result<()> {
        self.guided = guidance.map(|g| Guided {
            leftover: g.previous.to_vec(),
            weights: g.prefix_weights.to_vec(),
            max: g.max_guidance_weight,
            delay: g.inference_delay,
        });
        let call = Call::Begin { chunk, seen: *observation, guided: self.guided.clone() };
        let start = observation + self.spread * peculiar(chunk);
        self.target = (0..self.rows * self.dim).map(|i| start + (i / self.dim) as f32).collect();
        self.x = (0..self.rows * self.dim).map(|i| peculiar(chunk ^ ((i / self.dim) as u64) << 32)).collect();
        self.call(call, |script| script.begin_time).map(drop)
    }

    fn step(&mut self, k: usize) -> Result<()> {
        let fault = self.call(Call::Step(k), |script| script.step_time)?;
        let dt = -1.0 / self.num_steps as f64;
        let time = 1.0 + k as f64 * dt;
        for (i, x) in self.x.iter_mut().enumerate() {
            let v = (f64::from(*x) - f64::from(self.target[i])) / time;
            let guided = self.guided.as_ref().map_or(0.0, |g| {
                let x0 = f64::from(*x) - time * v;
                let weight = f64::from(guidance_weight(time, g.max)) * f64::from(g.weights[i / self.dim]);
                weight * (f64::from(g.leftover[i]) - x0)
            });
            *x += (dt * (v - guided)) as f32;
        }
        if let Some(Fault::Value(index, value)) = fault {
            self.x[index] = value;
        }
        Ok(())
    }

    fn finish(&mut self, actions: &mut [f32]) -> Result<usize> {
        let fault = self.call(Call::Finish, |_| Duration::ZERO)?;
        if let Some(Fault::Value(index, value)) = fault {
            self.x[index] = value;
        }
        actions.copy_from_slice(&self.x);
        match fault {
            Some(Fault::Length(length)) => Ok(length),
            _ => Ok(actions.len()),
        }
    }
}
