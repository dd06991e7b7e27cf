//! Animated GIFs of few colours.

use std::collections::HashMap;

type Colour = [u8; 3];

/// A moving picture of at most 255 colours; further ones become the nearest of those there are.
pub struct Gif {
    width: usize,
    height: usize,
    palette: Vec<Colour>,
    numbers: HashMap<Colour, u8>,
    /// The frame before, by colours' numbers.
    last: Vec<u8>,
    body: Vec<u8>,
}

/// The colour number that leaves a pixel as it was.
const UNCHANGED: u8 = 255;

impl Gif {
    pub fn new(width: usize, height: usize) -> Self {
        let last = vec![UNCHANGED; width * height];
        Gif { width, height, palette: vec![], numbers: HashMap::new(), last, body: vec![] }
    }

    /// Adds a frame of RGB, shown for `hundredths` of a second.
    pub fn frame(&mut self, rgb: &[u8], hundredths: u16) {
        let numbers: Vec<u8> = rgb.as_chunks().0.iter().map(|colour| self.number(*colour)).collect();
        let changed = |i: &usize| numbers[*i] != self.last[*i];
        let rows: Vec<usize> = (0..numbers.len()).filter(changed).map(|i| i / self.width).collect();
        // Whole rows: what has not changed costs next to nothing.
        let (top, bottom) = (rows.first().copied().unwrap_or(0), rows.last().map_or(1, |row| row + 1));
        let pixels: Vec<u8> = (top * self.width..bottom * self.width)
            .map(|i| if changed(&i) { numbers[i] } else { UNCHANGED })
            .collect();
        self.body.extend([0x21, 0xf9, 4, 0b101]);
        self.body.extend(hundredths.to_le_bytes());
        self.body.extend([UNCHANGED, 0, 0x2c]);
        for value in [0, top, self.width, bottom - top] {
            self.body.extend((value as u16).to_le_bytes());
        }
        self.body.extend([0, 8]);
        for block in compress(&pixels).chunks(255) {
            self.body.push(block.len() as u8);
            self.body.extend(block);
        }
        self.body.push(0);
        self.last = numbers;
    }

    fn number(&mut self, colour: Colour) -> u8 {
        if let Some(number) = self.numbers.get(&colour) {
            return *number;
        }
        let number = if self.palette.len() < usize::from(UNCHANGED) {
            self.palette.push(colour);
            self.palette.len() - 1
        } else {
            let distance =
                |other: &Colour| -> u32 { (0..3).map(|i| u32::from(other[i].abs_diff(colour[i]))).sum() };
            (0..self.palette.len()).min_by_key(|i| distance(&self.palette[*i])).unwrap_or(0)
        };
        self.numbers.insert(colour, number as u8);
        number as u8
    }

    /// Returns the file.
    pub fn finish(self) -> Vec<u8> {
        let mut file = b"GIF89a".to_vec();
        for side in [self.width, self.height] {
            file.extend((side as u16).to_le_bytes());
        }
        // 256 colours, 8 bits each.
        file.extend([0xf7, 0, 0]);
        file.extend(self.palette.as_flattened());
        file.resize(13 + 3 * 256, 0);
        // Again and again.
        file.extend(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00");
        file.extend(self.body);
        file.push(0x3b);
        file
    }
}

/// Compresses by the GIF's LZW, with codes of 9 to 12 bits.
pub fn compress(pixels: &[u8]) -> Vec<u8> {
    const CLEAR: u16 = 256;
    const END: u16 = 257;
    let (mut out, mut pending, mut held) = (Vec::new(), 0u32, 0);
    let mut write = |code: u16, bits: u32| {
        pending |= u32::from(code) << held;
        held += bits;
        while held >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            held -= 8;
        }
    };
    let mut longer: HashMap<(u16, u8), u16> = HashMap::new();
    let (mut next, mut bits) = (END + 1, 9);
    write(CLEAR, bits);
    let mut pixels = pixels.iter().copied();
    let mut code = pixels.next().map_or(END, u16::from);
    for pixel in pixels {
        if let Some(known) = longer.get(&(code, pixel)) {
            code = *known;
            continue;
        }
        write(code, bits);
        longer.insert((code, pixel), next);
        // The reader is one entry behind.
        if next == 1 << bits {
            bits += 1;
        }
        next += 1;
        if next == 4096 {
            write(CLEAR, bits);
            longer.clear();
            (next, bits) = (END + 1, 9);
        }
        code = u16::from(pixel);
    }
    write(code, bits);
    if next == 1 << bits && bits < 12 {
        bits += 1;
    }
    write(END, bits);
    // The bits that are left over.
    write(0, 7);
    out
}
