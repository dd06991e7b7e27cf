//! For fuzzing: nothing here is promised to stay.

use std::fs::File;

use crate::elf::Elf;
use crate::{Kernels, fatbin};

/// Reads a shared library as the doctor does: its linking facts and the GPUs that it has code for.
///
/// # Errors
/// The words say what it is instead.
pub fn read_library(file: File) -> Result<Kernels, String> {
    let again = file.try_clone().map_err(|e| e.to_string())?;
    let elf = Elf::read(file)?;
    fatbin::scan(&again, &elf.fatbin).map_err(|e| e.to_string())
}
