//! The pre-scan's rules for nodes that ONNX Runtime computes without looking: a division of whole numbers that the
//! processor traps (SIGFPE), and a count that is an index, end the process instead of the run.

use std::collections::HashSet;

use super::manifest::Target;
use super::wire::{once, walk};

/// Most heads of an attention; ONNX Runtime keeps the count in 32 bits, where a larger one may become 0.
const MAX_HEADS: u64 = 1 << 16;

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
}

impl<'a> NodeRules<'a> {
    pub fn new(target: Target) -> Self {
        NodeRules { target, roots: HashSet::new() }
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
            "Attention" => {
                for name in ["q_num_heads", "kv_num_heads"] {
                    match node.whole_number(name)? {
                        Some(1..=MAX_HEADS) => {}
                        Some(_) => return Err(format!("its {name} is not from 1 to {MAX_HEADS}")),
                        // TensorRT takes the heads from the shapes.
                        None if self.target == Target::Tensorrt => {}
                        None => return Err(format!("it has no {name}")),
                    }
                }
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
