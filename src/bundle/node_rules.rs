//! The pre-scan's rules for nodes that ONNX Runtime computes without looking: a division of whole numbers that the
//! processor traps (SIGFPE), and a count that is an index or a size, end the process instead of the run.

use std::collections::{HashMap, HashSet};

use super::manifest::Target;
use super::wire::{once, walk};

/// Most heads of an attention; ONNX Runtime keeps the count in 32 bits, where a larger one may become 0.
const MAX_HEADS: u64 = 1 << 16;
/// Most rows or columns of weights in blocks.
const MAX_SIDE: u64 = 1 << 20;

/// A node as far as the rules look at it.
#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub op: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    /// Each a message of its own.
    pub attributes: Vec<&'a [u8]>,
}

/// The checks that a graph's nodes go through in file order.
#[derive(Debug)]
pub(super) struct NodeRules<'a> {
    target: Target,
    /// Values of floating point for certain, by name: only those have a square root.
    roots: HashSet<&'a str>,
    /// Elements that an initializer must have, by its name: kernels read as many as a node's attributes say.
    needed: HashMap<&'a str, u64>,
    /// Elements that initializers have.
    found: HashMap<&'a str, u64>,
}

impl<'a> NodeRules<'a> {
    pub fn new(target: Target) -> Self {
        NodeRules { target, roots: HashSet::new(), needed: HashMap::new(), found: HashMap::new() }
    }

    /// Takes note of an initializer and the number of its elements.
    pub fn note(&mut self, initializer: &'a str, elements: u64) {
        self.found.insert(initializer, elements);
    }

    /// Checks what nodes and initializers must agree about, once all of them were seen.
    pub fn finish(&self) -> Result<(), String> {
        self.needed.iter().try_for_each(|(name, needed)| match self.found.get(name) {
            Some(found) if found == needed => Ok(()),
            Some(found) => Err(format!("{name:?} has {found} elements, a MatMulNBits reads {needed}")),
            None => Err(format!("{name:?}, which a MatMulNBits reads, is not an initializer")),
        })
    }

    /// Checks weights in blocks: `N` rows of `K` values of 4 or 8 bits, a scale for every `block_size` of a row.
    fn check_blocks(&mut self, node: &Node<'a>) -> Result<(), String> {
        let number = |name, range: std::ops::RangeInclusive<u64>| match node.whole_number(name)? {
            Some(n) if range.contains(&n) => Ok(n),
            _ => Err(format!("its {name} is not from {} to {}", range.start(), range.end())),
        };
        let (rows, columns) = (number("N", 1..=MAX_SIDE)?, number("K", 1..=MAX_SIDE)?);
        let (bits, size) = (number("bits", 4..=8)?, number("block_size", 16..=256)?);
        if !matches!(bits, 4 | 8) || !size.is_power_of_two() {
            return Err("its bits are neither 4 nor 8, or its block_size is no power of two".into());
        }
        let &[_, weights, scales] = node.inputs.as_slice() else {
            return Err("it has not three inputs".into());
        };
        let blocks = rows * columns.div_ceil(size);
        for (name, needed) in [(weights, blocks * size * bits / 8), (scales, blocks)] {
            if self.needed.insert(name, needed).is_some_and(|before| before != needed) {
                return Err(format!("it reads another number of elements of {name:?} than a node before it"));
            }
        }
        Ok(())
    }

    /// Checks one node; says which rule it breaks.
    pub fn check(&mut self, node: &Node<'a>) -> Result<(), String> {
        match node.op {
            "Sqrt" => self.roots.extend(&node.outputs),
            // Both sides have one type, so one of them tells it.
            "Div" if !node.inputs.iter().any(|input| self.roots.contains(input)) => {
                return Err(
                    "it divides by no square root, so it may divide whole numbers, which can end the \
                            process"
                        .into(),
                );
            }
            "Split" => {
                let parts = node.whole_number("num_outputs")?;
                if parts.is_some_and(|n| n != node.outputs.len() as u64) {
                    return Err("its num_outputs is not how many outputs it has".into());
                }
            }
            "Attention" | "MultiHeadAttention" | "RotaryEmbedding" => {
                // With a part of a head, ONNX Runtime 1.23 divides by what it has not checked.
                if node.whole_number("rotary_embedding_dim")?.is_some() {
                    return Err("it rotates a part of each head".into());
                }
                let own = node.op != "Attention";
                for name in if own { &["num_heads"][..] } else { &["q_num_heads", "kv_num_heads"] } {
                    match node.whole_number(name)? {
                        Some(1..=MAX_HEADS) => {}
                        Some(_) => return Err(format!("its {name} is not from 1 to {MAX_HEADS}")),
                        // TensorRT takes the heads from the shapes.
                        None if self.target == Target::Tensorrt => {}
                        None => return Err(format!("it has no {name}")),
                    }
                }
            }
            "MatMulNBits" => self.check_blocks(node)?,
            // Values, scales and zero points of both sides: ONNX Runtime 1.23 ends the process where the last is absent.
            "MatMulIntegerToFloat"
                if node.inputs.iter().take(6).filter(|input| !input.is_empty()).count() < 6 =>
            {
                return Err("it has not all of its scales and zero points".into());
            }
            _ => {}
        }
        Ok(())
    }
}

impl Node<'_> {
    /// Returns the whole number that the attribute `attribute` holds, if there is one of that name.
    fn whole_number(&self, attribute: &str) -> Result<Option<u64>, String> {
        let mut found = None;
        for bytes in &self.attributes {
            let (mut name, mut number) = (None, None);
            walk(bytes, |field| match field.number {
                1 => once(&mut name, field.text()?, "an attribute's name"),
                3 => once(&mut number, field.varint()?, "an attribute's whole number"),
                _ => Ok(()),
            })?;
            if name == Some(attribute) {
                let number = number.ok_or_else(|| format!("its {attribute} is not a whole number"))?;
                once(&mut found, number, attribute)?;
            }
        }
        Ok(found)
    }
}
