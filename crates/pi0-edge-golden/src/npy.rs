//! f32 arrays in `.npy` files: the one form in which numpy writes them.

use std::io::{self, Read, Write};
use std::path::Path;

use ndarray::{ArrayD, ArrayView, Dimension};
use pi0_edge::{Error, ErrorKind, Result};

/// The file's beginning: a mark and the version 1.0. Two bytes with the header's length follow.
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// The header's beginning, up to the shape, and its end.
const BEFORE_SHAPE: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
const AFTER_SHAPE: &str = "), }";
/// Data begins at a multiple of this.
const ALIGNMENT: usize = 64;
/// Most dimensions of an array.
const MAX_DIMENSIONS: usize = 8;

/// Largest `.npy` file read by its name, in bytes: noise and plans are a thousandth of it.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Reads the `.npy` file at `path`: little-endian f32 in C order, of up to 8 dimensions and 64 MiB.
///
/// # Errors
///
/// [`ErrorKind::Io`] if the file cannot be read, [`ErrorKind::InvalidArgument`] if it is not such an array.
pub fn read_npy(path: &Path) -> Result<ArrayD<f32>> {
    let name = path.display().to_string();
    let cannot = |e| Error::with_source(ErrorKind::Io, format!("cannot read {name}"), e);
    let unfit = |what| Err(Error::new(ErrorKind::InvalidArgument, format!("{name} {what}")));
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        // A pipe would be waited for.
        return unfit("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return unfit(format!("has more than {MAX_FILE_BYTES} bytes"));
    }
    parse_npy(&bytes, &name, ErrorKind::InvalidArgument)
}

/// Writes `array` as a `.npy` file's bytes.
///
/// # Errors
///
/// Those of `file`.
pub fn write_npy<D: Dimension>(file: &mut impl Write, array: ArrayView<'_, f32, D>) -> io::Result<()> {
    let mut shape: String = array.shape().iter().map(|n| format!("{n}, ")).collect();
    // As Python writes tuples: a comma at the end only where there is one element.
    shape.truncate(shape.len().saturating_sub(if array.ndim() == 1 { 1 } else { 2 }));
    let header = format!("{BEFORE_SHAPE}{shape}{AFTER_SHAPE}");
    let begin = MAGIC.len() + 2;
    let end = (begin + header.len() + 1).next_multiple_of(ALIGNMENT);
    let length = u16::try_from(end - begin).map_err(|_| io::Error::other("too many dimensions"))?;
    file.write_all(MAGIC)?;
    file.write_all(&length.to_le_bytes())?;
    writeln!(file, "{header:<width$}", width = end - begin - 1)?;
    array.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))
}

/// Returns the array in the bytes of a whole file; `name` is for the error.
///
/// # Errors
///
/// An error of `kind` if it is not such an array.
pub fn parse_npy(bytes: &[u8], name: &str, kind: ErrorKind) -> Result<ArrayD<f32>> {
    read(bytes).map_err(|why| {
        let form = "little-endian f32 in C order, as numpy.save writes it";
        Error::new(kind, format!("{name} is not a .npy file of {form}: {why}"))
    })
}

fn read(bytes: &[u8]) -> Result<ArrayD<f32>, &'static str> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as version 1.0 of the format does")?;
    let (length, rest) = rest.split_first_chunk().ok_or("it ends in the header")?;
    let header = rest.get(..u16::from_le_bytes(*length).into()).ok_or("it ends in the header")?;
    let shape = shape(header).ok_or("its header is not that of such an array")?;
    let (values, left) = rest[header.len()..].as_chunks::<4>();
    // Compared before anything of that size is allocated.
    let wanted = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    if wanted != Some(values.len()) || !left.is_empty() {
        return Err("it does not have as many bytes as its shape says");
    }
    let values = values.iter().map(|&value| f32::from_le_bytes(value)).collect();
    ArrayD::from_shape_vec(shape, values).map_err(|_| "its shape is too large")
}

/// Returns the shape that the header says, if it is one as numpy writes it.
fn shape(header: &[u8]) -> Option<Vec<usize>> {
    let header = std::str::from_utf8(header).ok()?.strip_suffix('\n')?.trim_end_matches(' ');
    let shape = header.strip_prefix(BEFORE_SHAPE)?.strip_suffix(AFTER_SHAPE)?;
    let single = shape.strip_suffix(',').filter(|one| !one.contains(','));
    let numbers = match single {
        Some(one) => vec![one],
        None if shape.is_empty() => vec![],
        None => shape.splitn(MAX_DIMENSIONS + 1, ", ").collect(),
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let several = single.is_some() || numbers.len() != 1;
    (several && numbers.len() <= MAX_DIMENSIONS).then(|| numbers.into_iter().map(number).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, arr0, arr1, arr2};

    fn npy<D: Dimension>(array: &Array<f32, D>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_npy(&mut bytes, array.view()).unwrap();
        bytes
    }

    fn with_header(header: &str, data: usize) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [MAGIC, &length, header.as_bytes(), &vec![0; data]].concat()
    }

    fn with_shape(shape: &str, data: usize) -> Vec<u8> {
        with_header(&format!("{BEFORE_SHAPE}{shape}{AFTER_SHAPE}   \n"), data)
    }

    fn refused(bytes: &[u8]) -> String {
        let error = parse_npy(bytes, "x.npy", ErrorKind::Integrity).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        let text = error.to_string();
        assert!(text.contains("x.npy is not a .npy file") && text.len() < 200, "{text}");
        text
    }

    #[test]
    fn arrays_read_back_at_any_address() {
        let array = arr2(&[[0.0, 1.5, -2.0], [f32::MIN, f32::INFINITY, 5.0]]);
        let bytes = npy(&array);
        assert!((bytes.len() - 24).is_multiple_of(ALIGNMENT));
        let shifted = [&[0], &bytes[..]].concat();
        for bytes in [&bytes[..], &shifted[1..]] {
            assert_eq!(parse_npy(bytes, "x.npy", ErrorKind::Integrity).unwrap(), array.clone().into_dyn());
        }
        let transposed = array.t();
        let mut bytes = Vec::new();
        write_npy(&mut bytes, transposed).unwrap();
        assert_eq!(parse_npy(&bytes, "x.npy", ErrorKind::Integrity).unwrap(), transposed.into_dyn());
        for array in [arr0(3.0).into_dyn(), arr1(&[1.0, 2.0]).into_dyn(), arr1(&[]).into_dyn()] {
            assert_eq!(parse_npy(&npy(&array), "x.npy", ErrorKind::Integrity).unwrap(), array);
        }
    }

    #[test]
    fn the_bytes_are_those_that_numpy_writes() {
        let begin = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
        let bytes = npy(&arr2(&[[1.0, 2.0]]));
        assert!(bytes.starts_with(begin), "{:?}", String::from_utf8_lossy(&bytes));
        assert!(bytes[begin.len()..127].iter().all(|&b| b == b' '));
        assert_eq!(bytes[127..], *b"\n\x00\x00\x80\x3f\x00\x00\x00\x40");
        assert!(npy(&arr1(&[1.0])).windows(13).any(|w| w == b"'shape': (1,)"));
        assert!(npy(&arr0(1.0)).windows(11).any(|w| w == b"'shape': ()"));
    }

    #[test]
    fn a_header_that_promises_more_than_there_is_costs_nothing() {
        for shape in ["1152921504606,", "4294967296, 4294967296, 4294967296", "2, 3", "18446744073709551616,"]
        {
            refused(&with_shape(shape, 20));
        }
        refused(&with_shape("0, 18446744073709551615", 0));
        refused(&with_shape("5,", 21));
    }

    #[test]
    fn only_a_file_of_moderate_size_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let large = directory.path().join("large.npy");
        std::fs::File::create(&large).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        for (path, words) in [
            (large.as_path(), "has more than 67108864 bytes"),
            (directory.path(), "is not a regular file"),
            (Path::new("/dev/zero"), "is not a regular file"),
        ] {
            let error = read_npy(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn every_other_form_is_refused_in_few_words() {
        let nested = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
        let many = "1, ".repeat(9) + "1";
        for shape in [&nested[..], &many, "+1,", "-1,", "1", "1,,", "1, ", "1,1", " 1,", "0x1,", "1_0,"] {
            refused(&with_shape(shape, 4));
        }
        let header = |descr: &str, order: &str| {
            with_header(&format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': (1,), }}\n"), 4)
        };
        assert!(parse_npy(&header("'<f4'", "False"), "x.npy", ErrorKind::Integrity).is_ok());
        for (descr, order) in
            [("'<f8'", "False"), ("'>f4'", "False"), ("'<f4'", "True"), ("[('a', '<f4')]", "False")]
        {
            refused(&header(descr, order));
        }
        let good = npy(&arr1(&[1.0]));
        for end in 0..good.len() {
            refused(&good[..end]);
        }
        refused(&[&b"\x93NUMPY\x02\x00"[..], &good[8..]].concat());
        refused(&[MAGIC, b"\x04\x00\xff\xff\xff\n"].concat());
    }
}
