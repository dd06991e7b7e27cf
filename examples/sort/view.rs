//! The scene in a terminal, two pixels to a character.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::camera::Camera;
use crate::closed_loop::Moment;

const SIZE: [usize; 2] = [96, 56];

pub struct View {
    camera: Camera,
    rgb: Vec<u8>,
    drawn: bool,
}

impl View {
    pub fn new() -> Self {
        let [width, height] = SIZE;
        View { camera: Camera::base(width, height), rgb: vec![0; width * height * 3], drawn: false }
    }

    /// Draws over what was drawn before.
    pub fn show(&mut self, moment: &Moment<'_>) -> io::Result<()> {
        self.camera.draw(moment.world, &mut self.rgb);
        let lines = SIZE[1] / 2;
        let mut out = if self.drawn { format!("\x1b[{}A", lines + 1) } else { String::new() };
        self.drawn = true;
        let pixels: &[[u8; 3]] = self.rgb.as_chunks().0;
        for pair in pixels.chunks_exact(SIZE[0] * 2) {
            for ([r, g, b], [red, green, blue]) in pair[..SIZE[0]].iter().zip(&pair[SIZE[0]..]) {
                _ = write!(out, "\x1b[38;2;{r};{g};{b};48;2;{red};{green};{blue}m▀");
            }
            out += "\x1b[0m\n";
        }
        let (reading, age) = (moment.reading, moment.reading.age_ns / 1_000_000);
        _ = writeln!(
            out,
            "{}   {} chunk {} row {} age {age} ms\x1b[K",
            moment.prompt, reading.status, reading.chunk, reading.row
        );
        io::stdout().write_all(out.as_bytes())
    }
}
