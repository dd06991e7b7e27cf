//! A state written into a prompt, as PI0.5 takes it.
//!
//! Source: `Pi05PrepareStateTokenizerProcessorStep` in lerobot, which has it from openpi's `PaligemmaTokenizer`.

use std::fmt::Write;

/// Lower ends of the bins: 256 of one width over [-1, 1], each an exact f32.
const EDGES: [f32; 256] = {
    let mut edges = [0.0; 256];
    let mut k = 0;
    while k < 256 {
        edges[k] = k as f32 / 128.0 - 1.0;
        k += 1;
    }
    edges
};

/// Most bytes that one value and its space take.
const MAX_VALUE_BYTES: usize = 4;

/// The bin of a normalised value: from 0 to 255, and -1 for what is below -1. Values above 1 are in the last bin.
pub(super) fn bin(value: f32) -> i16 {
    EDGES.partition_point(|&edge| edge <= value) as i16 - 1
}

/// Appends the prompt for `task` in a state of these bins.
pub(super) fn write_prompt(task: &str, bins: &[i16], text: &mut String) {
    text.push_str("Task: ");
    push_cleaned(task, text);
    text.push_str(", State:");
    for bin in bins {
        // Writing to a string cannot fail.
        let _ = write!(text, " {bin}");
    }
    text.push_str(";\nAction: ");
}

/// Appends the task without white space around it, its underscores and newlines as spaces.
pub(super) fn push_cleaned(task: &str, text: &mut String) {
    text.extend(task.trim_matches(is_space).chars().map(|c| if matches!(c, '_' | '\n') { ' ' } else { c }));
}

/// Bytes that [`write_prompt`] adds to a task at most.
pub(super) fn overhead(values: usize) -> usize {
    "Task: , State:;\nAction: ".len() + values * MAX_VALUE_BYTES
}

/// Tells the characters that Python's `str.strip` takes away: white space as Rust has it, and four separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_begin_at_exact_edges() {
        for k in 0..256i16 {
            let edge = f32::from(k) / 128.0 - 1.0;
            assert_eq!(bin(edge), k);
            assert_eq!(bin(edge.next_down()), k - 1);
            assert_eq!(bin(edge.next_up()), k);
        }
        for (value, expected) in
            [(-1e30, -1), (-1.0, 0), (-0.0, 128), (0.0, 128), (1.0, 255), (f32::MAX, 255)]
        {
            assert_eq!(bin(value), expected, "{value}");
        }
    }

    #[test]
    fn the_prompt_is_the_references() {
        let prompt = |task, bins: &[i16]| {
            let mut text = String::new();
            write_prompt(task, bins, &mut text);
            assert!(text.len() <= task.len() + overhead(bins.len()));
            text
        };
        assert_eq!(
            prompt(" \tpick_up the\ncube \u{1f}\n", &[-1, 0, 255]),
            "Task: pick up the cube, State: -1 0 255;\nAction: "
        );
        assert_eq!(prompt("_a_", &[128]), "Task:  a , State: 128;\nAction: ");
        assert_eq!(prompt("\u{200b}a\u{3000}", &[255; 3]), "Task: \u{200b}a, State: 255 255 255;\nAction: ");
    }
}
