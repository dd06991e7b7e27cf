//! The one thread that computes, for one request after the other.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pi0_edge::{Policy, Result};
use serde_json::{Value, json};

use crate::metrics::Metrics;
use crate::request::Request;
use crate::waiting::Bell;

/// A request on its way to the policy.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) asked: Instant,
    pub(crate) reply: Reply,
}

/// The way back to a connection. Dropping it rings the bell, whether there is an answer or never will be.
#[derive(Debug)]
pub(crate) struct Reply {
    answer: Option<Sender<Result<Answer>>>,
    bell: Arc<Bell>,
    /// Lives as long as the connection.
    wanted: Weak<()>,
}

/// A computed chunk.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Row by row, in robot units.
    pub(crate) actions: Vec<f32>,
    pub(crate) action_dim: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) num_steps: usize,
    pub(crate) policy_timing: Value,
    /// Time in the policy.
    pub(crate) infer_ms: f64,
    /// Time until the policy was free.
    pub(crate) queue_ms: f64,
}

impl Reply {
    pub(crate) fn new(answer: Sender<Result<Answer>>, bell: &Arc<Bell>, wanted: &Arc<()>) -> Self {
        Reply { answer: Some(answer), bell: Arc::clone(bell), wanted: Arc::downgrade(wanted) }
    }

    pub(crate) fn give(&self, answer: Result<Answer>) {
        if let Some(reply) = &self.answer {
            // A client that went away meanwhile wants no answer.
            let _ = reply.send(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // The sender first: whoever hears the bell must find the answer, or that there is none.
        self.answer = None;
        self.bell.ring();
    }
}

/// Milliseconds, for messages and people.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Computes until nobody can ask any more. First come, first served: a connection has one job at a time.
pub(crate) fn run(mut policy: Policy, first_seed: u64, jobs: &Receiver<Job>, metrics: &Metrics) {
    let mut unseeded = 0;
    for job in jobs {
        if job.reply.wanted.strong_count() == 0 {
            continue;
        }
        let queued = job.asked.elapsed();
        let begun = Instant::now();
        let seed = first_seed.wrapping_add(unseeded);
        let done =
            job.request.with(seed, |observation, options| policy.infer(observation, options).map(|_| ()));
        if done.is_ok() {
            unseeded += u64::from(job.request.seed.is_none() && !job.request.has_noise());
            metrics.computed(queued, begun.elapsed());
        }
        let answer = done.map(|()| {
            let timing = policy.timing();
            Answer {
                actions: policy.chunk().as_slice().to_vec(),
                action_dim: policy.chunk().action_dim(),
                seed: (!job.request.has_noise()).then(|| job.request.seed.unwrap_or(seed)),
                num_steps: timing.steps.len(),
                policy_timing: json!({
                    "infer_ms": ms(timing.total),
                    "preprocess_ms": ms(timing.preprocess),
                    "vision_ms": ms(timing.vision),
                    "prefix_ms": ms(timing.prefix),
                    "denoise_ms": ms(timing.denoise()),
                }),
                infer_ms: ms(begun.elapsed()),
                queue_ms: ms(queued),
            }
        });
        job.reply.give(answer);
    }
}
