//! Arrays in `.npy` files, of as many dimensions as a test expects.

use std::error::Error;
use std::path::Path;

use ndarray::{Array, Dimension};

pub fn read_npy<D: Dimension>(path: impl AsRef<Path>) -> Result<Array<f32, D>, Box<dyn Error>> {
    Ok(pi0_edge_golden::read_npy(path.as_ref())?.into_dimensionality()?)
}

pub fn write_npy<D: Dimension>(path: impl AsRef<Path>, array: &Array<f32, D>) -> std::io::Result<()> {
    pi0_edge_golden::write_npy(&mut std::fs::File::create(path)?, array.view())
}
