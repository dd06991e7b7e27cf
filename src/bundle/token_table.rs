//! The table of token rows.

use super::manifest::{Dtype, TokenEmbedding};
use crate::error::Result;

/// Rows of the token embedding, `[rows, width]`, already scaled: what a token contributes to the prefix.
///
/// Works on any owner of the bytes, which for a real bundle is a memory map: only the rows that are gathered are ever
/// read from storage.
#[derive(Debug, Clone)]
pub struct TokenTable<B> {
    bytes: B,
    rows: usize,
    row_bytes: usize,
}

impl<B: AsRef<[u8]>> TokenTable<B> {
    /// Returns the owner of the bytes.
    pub(crate) fn bytes(&self) -> &B {
        &self.bytes
    }

    /// A table over the whole content of `spec.file`: little-endian, row-major.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Integrity`](crate::ErrorKind::Integrity) if the length of `bytes` is not `rows * width` elements,
    /// or the dtype is not a float.
    pub fn new(bytes: B, spec: &TokenEmbedding) -> Result<Self> {
        ensure!(
            spec.dtype != Dtype::I64,
            Integrity,
            "{}: a token table of {} is not supported, only of floats",
            spec.file,
            spec.dtype
        );
        let row_bytes = spec.width.checked_mul(spec.dtype.size()).filter(|&n| n > 0);
        let expected = row_bytes.and_then(|n| n.checked_mul(spec.rows));
        let found = bytes.as_ref().len();
        match (row_bytes, expected) {
            (Some(row_bytes), Some(expected)) if expected == found => {
                Ok(TokenTable { bytes, rows: spec.rows, row_bytes })
            }
            _ => Err(err!(
                Integrity,
                "{} has {found} bytes, which is not [{}, {}] of {}",
                spec.file,
                spec.rows,
                spec.width,
                spec.dtype
            )),
        }
    }

    /// Rows; the vocabulary's size.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Copies the rows of `ids`, in their order, to `dst` (`ids.len() * row_bytes()` bytes). Does not allocate.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if `dst` has another length or an id is not in
    /// the table; `dst` is then unspecified.
    pub fn gather(&self, ids: &[u32], dst: &mut [u8]) -> Result<()> {
        ensure!(
            ids.len().checked_mul(self.row_bytes) == Some(dst.len()),
            InvalidArgument,
            "the rows of {} tokens of {} bytes each do not fit {} bytes exactly",
            ids.len(),
            self.row_bytes,
            dst.len()
        );
        let table = self.bytes.as_ref();
        for (&id, row) in ids.iter().zip(dst.chunks_exact_mut(self.row_bytes)) {
            let index = id as usize;
            ensure!(
                index < self.rows,
                InvalidArgument,
                "token {id} is outside of the vocabulary of {} rows; does tokenizer.json belong to this bundle?",
                self.rows
            );
            row.copy_from_slice(&table[index * self.row_bytes..][..self.row_bytes]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn spec(dtype: Dtype, rows: usize, width: usize) -> TokenEmbedding {
        TokenEmbedding { file: "token_embedding.bin".into(), dtype, rows, width }
    }

    #[test]
    fn gathers_rows_in_order() {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            let bytes: Vec<u8> = (0..3 * 2 * 2).collect();
            let table = TokenTable::new(bytes, &spec(dtype, 3, 2)).unwrap();
            let mut dst = [0; 12];
            table.gather(&[2, 0, 2], &mut dst).unwrap();
            assert_eq!(dst, [8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
            table.gather(&[], &mut []).unwrap();
        }
    }

    #[test]
    fn refuses_ids_and_lengths_that_do_not_fit() {
        let table = TokenTable::new(vec![0u8; 24], &spec(Dtype::F32, 3, 2)).unwrap();
        let error = table.gather(&[1, 3], &mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("token 3 is outside of the vocabulary of 3 rows"), "{error}");
        assert!(table.gather(&[1], &mut [0; 7]).is_err());
        assert!(table.gather(&[u32::MAX], &mut [0; 8]).is_err());
    }

    #[test]
    fn refuses_bytes_that_are_not_the_table() {
        for (len, spec) in [
            (23, spec(Dtype::F32, 3, 2)),
            (0, spec(Dtype::F32, 3, 0)),
            (0, spec(Dtype::F32, usize::MAX, usize::MAX)),
            (12, spec(Dtype::F32, 3, 2)),
            (48, spec(Dtype::I64, 3, 2)),
        ] {
            assert_eq!(TokenTable::new(vec![0u8; len], &spec).unwrap_err().kind(), ErrorKind::Integrity);
        }
    }
}
