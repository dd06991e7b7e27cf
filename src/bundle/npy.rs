//! f32 arrays from `.npy` files.

use std::path::Path;

use ndarray::{ArrayD, ArrayViewD};
use ndarray_npy::{ReadNpyExt, ViewNpyError, ViewNpyExt};

use crate::error::{Error, ErrorKind, Result, ResultExt};

/// Reads the `.npy` file at `path`: little-endian f32 of any shape.
///
/// # Errors
///
/// [`ErrorKind::Io`] if the file cannot be read, [`ErrorKind::InvalidArgument`] if it is not such an array.
pub fn read_npy(path: &Path) -> Result<ArrayD<f32>> {
    let bytes = std::fs::read(path).or_kind(ErrorKind::Io, || format!("cannot read {}", path.display()))?;
    parse(&bytes, &path.display().to_string(), ErrorKind::InvalidArgument)
}

/// The array in the bytes of a whole file; `name` and `kind` are for the error.
pub(super) fn parse(bytes: &[u8], name: &str, kind: ErrorKind) -> Result<ArrayD<f32>> {
    let what = || format!("{name} is not a .npy file of little-endian f32");
    // A view compares the header's shape with the bytes that are there before anything of that size is allocated.
    match ArrayViewD::<f32>::view_npy(bytes) {
        Ok(view) => Ok(view.to_owned()),
        Err(ViewNpyError::MisalignedData) => ArrayD::<f32>::read_npy(bytes).or_kind(kind, what),
        Err(e) => Err(Error::with_source(kind, what(), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray_npy::WriteNpyExt;

    fn npy(array: &ArrayD<f32>) -> Vec<u8> {
        let mut bytes = Vec::new();
        array.write_npy(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn arrays_read_back_at_any_address() {
        let array = ArrayD::from_shape_vec(vec![2, 3], (0..6).map(|i| i as f32).collect()).unwrap();
        let bytes = npy(&array);
        let mut shifted = vec![0];
        shifted.extend(&bytes);
        for bytes in [&bytes[..], &shifted[1..]] {
            assert_eq!(parse(bytes, "x.npy", ErrorKind::Integrity).unwrap(), array);
        }
    }

    #[test]
    fn a_header_that_promises_more_than_there_is_costs_nothing() {
        let huge = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606,), }    \n";
        let error = parse(huge, "x.npy", ErrorKind::Integrity).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(error.to_string().contains("x.npy is not a .npy file"), "{error}");
        let mut doubles = Vec::new();
        ndarray::arr1(&[1f64]).write_npy(&mut doubles).unwrap();
        assert!(parse(&doubles, "x.npy", ErrorKind::Integrity).is_err());
        assert!(parse(b"", "x.npy", ErrorKind::Integrity).is_err());
    }
}
