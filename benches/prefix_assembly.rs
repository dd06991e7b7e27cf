//! Assembling the prefix embedding: list-and-concatenate against writes into one preallocated buffer, and against
//! what pi0-edge does, where the vision encoder's output already *is* the first rows of that buffer.
//!
//!     cargo bench --bench prefix_assembly
//!
//! Three configurations, one, two and three cameras of 256 rows each plus 48 token rows of width 2048, f32. Every
//! variant is checked to give the same bytes before it is timed. Variants alternate within one run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const WIDTH: usize = 2048;
const ROWS_PER_VIEW: usize = 256;
const PROMPT_ROWS: usize = 48;
const ROUNDS: usize = 300;

struct Source {
    views: Vec<Vec<f32>>,
    token_table: Vec<f32>,
    tokens: Vec<usize>,
}

impl Source {
    fn new(views: usize) -> Self {
        let fill = |seed: usize, n: usize| (0..n).map(|i| ((i * 7 + seed) % 1013) as f32 * 1e-3).collect();
        Source {
            views: (0..views).map(|v| fill(v, ROWS_PER_VIEW * WIDTH)).collect(),
            token_table: fill(99, 512 * WIDTH),
            tokens: (0..PROMPT_ROWS).map(|i| (i * 37) % 512).collect(),
        }
    }

    fn rows(&self) -> usize {
        self.views.len() * ROWS_PER_VIEW + PROMPT_ROWS
    }

    fn token_row(&self, token: usize) -> &[f32] {
        &self.token_table[token * WIDTH..(token + 1) * WIDTH]
    }
}

/// Each part becomes a tensor of its own, the parts a list, the list one new tensor: what the Python policy does.
fn list_and_concatenate(source: &Source) -> Vec<f32> {
    let mut parts: Vec<Vec<f32>> = Vec::new();
    for view in &source.views {
        parts.push(view.clone());
    }
    parts.push(source.tokens.iter().flat_map(|&t| source.token_row(t).iter().copied()).collect());
    parts.concat()
}

/// Every part is copied into its place in a buffer that exists once.
fn preallocated(source: &Source, prefix: &mut [f32]) {
    let mut places = prefix.chunks_exact_mut(ROWS_PER_VIEW * WIDTH);
    for view in &source.views {
        places.next().expect("a place for every view").copy_from_slice(view);
    }
    token_rows(source, prefix);
}

/// The views are in place already: only token rows are gathered.
fn token_rows(source: &Source, prefix: &mut [f32]) {
    let rows = &mut prefix[source.views.len() * ROWS_PER_VIEW * WIDTH..];
    for (row, &token) in rows.chunks_exact_mut(WIDTH).zip(&source.tokens) {
        row.copy_from_slice(source.token_row(token));
    }
}

fn measure(times: &mut Vec<Duration>, work: impl FnOnce()) -> usize {
    let region = Region::new(&INSTRUMENTED_SYSTEM);
    let start = Instant::now();
    work();
    let took = start.elapsed();
    let allocated = region.change().bytes_allocated;
    times.push(took);
    allocated
}

fn main() {
    println!("| cameras | variant | rows | p50 µs | p90 µs | bytes allocated a chunk | n |");
    println!("|--:|---|--:|--:|--:|--:|--:|");
    for views in 1..=3 {
        let source = Source::new(views);
        let mut prefix = vec![0.0f32; source.rows() * WIDTH];
        let mut bound = vec![0.0f32; source.rows() * WIDTH];
        preallocated(&source, &mut prefix);
        let expected = list_and_concatenate(&source);
        assert!(prefix == expected, "preallocated writes differ from the concatenation");
        // What the vision encoder would have written.
        bound[..views * ROWS_PER_VIEW * WIDTH].copy_from_slice(&expected[..views * ROWS_PER_VIEW * WIDTH]);
        token_rows(&source, &mut bound);
        assert!(bound == expected, "bound rows differ from the concatenation");

        let mut times = [(); 3].map(|()| Vec::with_capacity(ROUNDS));
        let mut bytes = [0; 3];
        for _ in 0..ROUNDS {
            let [list, pre, zero] = &mut times;
            bytes[0] = measure(list, || drop(black_box(list_and_concatenate(black_box(&source)))));
            bytes[1] = measure(pre, || preallocated(black_box(&source), black_box(&mut prefix)));
            bytes[2] = measure(zero, || token_rows(black_box(&source), black_box(&mut bound)));
        }
        let names = ["list and concatenate", "preallocated, direct writes", "bound output (pi0-edge)"];
        for ((name, times), bytes) in names.iter().zip(&mut times).zip(bytes) {
            times.sort_unstable();
            let at = |p: f64| times[(p * (times.len() - 1) as f64) as usize].as_secs_f64() * 1e6;
            let (p50, p90, n) = (at(0.5), at(0.9), times.len());
            println!("| {views} | {name} | {} | {p50:.1} | {p90:.1} | {bytes} | {n} |", source.rows());
        }
    }
}
