//! ROS 2's messages as bytes: CDR in little-endian order, every number at a multiple of its size.

/// The mark of CDR in little-endian order, which positions do not count.
const HEADER: [u8; 4] = [0, 1, 0, 0];

/// A message that is being written.
pub(crate) struct Cdr(Vec<u8>);

impl Cdr {
    pub(crate) fn new() -> Self {
        Cdr(HEADER.to_vec())
    }

    fn align(&mut self, size: usize) {
        let length = (self.0.len() - HEADER.len()).next_multiple_of(size) + HEADER.len();
        self.0.resize(length, 0);
    }

    pub(crate) fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }

    pub(crate) fn u32(mut self, n: u32) -> Self {
        self.align(4);
        self.0.extend(n.to_le_bytes());
        self
    }

    pub(crate) fn f64(mut self, x: f64) -> Self {
        self.align(8);
        self.0.extend(x.to_le_bytes());
        self
    }

    /// A time or a duration: whole seconds, and nanoseconds beyond them.
    pub(crate) fn time(self, nanos: u64) -> Self {
        self.u32((nanos / 1_000_000_000) as u32).u32((nanos % 1_000_000_000) as u32)
    }

    pub(crate) fn text(self, text: &str) -> Self {
        let mut cdr = self.u32(text.len() as u32 + 1);
        cdr.0.extend(text.as_bytes());
        cdr.u8(0)
    }

    pub(crate) fn texts(self, texts: &[String]) -> Self {
        texts.iter().fold(self.u32(texts.len() as u32), |cdr, text| cdr.text(text))
    }

    pub(crate) fn numbers(self, numbers: &[f32]) -> Self {
        numbers.iter().fold(self.u32(numbers.len() as u32), |cdr, x| cdr.f64(f64::from(*x)))
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let mut cdr = self.u32(bytes.len() as u32);
        cdr.0.extend(bytes);
        cdr
    }

    /// A `std_msgs/Header` of the robot's base.
    pub(crate) fn header(self, nanos: u64) -> Self {
        self.time(nanos).text("base_link")
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_at_multiples_of_their_size() {
        let bytes = Cdr::new().u8(1).u32(2).text("ab").f64(1.0).numbers(&[]).u8(9).into_bytes();
        let wanted: [&[u8]; 7] = [
            &HEADER,
            &[1, 0, 0, 0],
            &[2, 0, 0, 0],
            &[3, 0, 0, 0, b'a', b'b', 0, 0],
            &1f64.to_le_bytes(),
            &[0, 0, 0, 0],
            &[9],
        ];
        assert_eq!(bytes, wanted.concat());
    }
}
